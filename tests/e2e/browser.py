"""A headless Chromium, led over the plain WebDriver protocol."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import pytest
import trio

DRIVER: Final = shutil.which("chromedriver")
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="there is no chromium with its chromedriver")

OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-proxy-server",
)


@attrs.frozen
class Browser:
    """A window."""

    driver: httpx.AsyncClient
    session: str

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it has loaded."""
        await self._command("url", url=url)

    async def run(self, script: str, *args: Any) -> Any:
        """What a script returns; a function's body, with `arguments`."""
        return await self._command("execute/sync", script=script, args=args)

    async def until(self, script: str, *args: Any) -> Any:
        """What a script returns, once that is true."""
        while not (value := await self.run(script, *args)):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        return value

    async def type(self, selector: str, keys: str) -> None:
        """Press keys in an element, as a person does; WebDriver has characters for those that write nothing."""
        element = await self._find(selector)
        await self._command(f"element/{element}/value", text=keys)

    async def press(self, key: str) -> None:
        """Press a key, and let it go; it reaches whatever has the focus."""
        strokes = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        await self._command("actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    async def click(self, selector: str) -> None:
        """Click on an element, which must be there to be seen."""
        element = await self._find(selector)
        await self._command(f"element/{element}/click")

    async def at_start(self, script: str) -> None:
        """Run a script in each page from now on, before anything of the page itself."""
        await self._devtools("Page.addScriptToEvaluateOnNewDocument", source=script)

    async def resize(self, width: int, height: int) -> None:
        """Make the page's part of the window as large, in CSS pixels."""
        await self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def _find(self, selector: str) -> str:
        found = await self._command("element", using="css selector", value=selector)
        element: str = next(iter(found.values()))
        return element

    async def _devtools(self, method: str, **params: Any) -> Any:
        return await self._command("goog/cdp/execute", cmd=method, params=params)

    async def _command(self, name: str, **body: Any) -> Any:
        return _value(await self.driver.post(f"{self.session}/{name}", json=body))


@asynccontextmanager
async def open_browser(profile: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own, which is a folder that is thrown away."""
    assert DRIVER is not None
    async with trio.open_nursery() as nursery:
        running = partial(
            trio.run_process, [DRIVER, "--port=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, process_group=0,
        )  # fmt: skip
        process: trio.Process = await nursery.start(running)
        nursery.start_soon(_end_with_children, process)
        port = await nursery.start(_listen, process)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as driver:
            chrome = {"binary": CHROMIUM, "args": [*OPTIONS, f"--user-data-dir={profile}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": chrome}
            session = _value(await driver.post("/session", json={"capabilities": {"alwaysMatch": wanted}}))["sessionId"]
            yield Browser(driver, f"/session/{session}")
            _value(await driver.delete(f"/session/{session}"))
        nursery.cancel_scope.cancel()


async def _end_with_children(process: trio.Process) -> None:
    """However the test ends, neither the driver nor its browser outlives it."""
    try:
        await trio.sleep_forever()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _listen(process: trio.Process, task_status: trio.TaskStatus[int]) -> None:
    """Tells the driver's port, and reads on, so that it never waits for a reader."""
    assert process.stdout is not None
    output, told = "", False
    async for data in process.stdout:
        output += data.decode(errors="replace")
        found = re.search(r"successfully on port (\d+)", output)
        if found and not told:
            told = True
            task_status.started(int(found[1]))


def _value(answer: httpx.Response) -> Any:
    value = answer.json()["value"]
    if answer.is_error:
        raise AssertionError(f"{value['error']}: {value['message']}")
    return value
