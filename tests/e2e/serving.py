"""Real servers for the tests: hypercorn in a test's own nursery, or as a process of its own."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import hypercorn.config
import hypercorn.trio
import pytest
import trio

from keryx_trio import Keryx

ROOT = Path(__file__).parent.parent.parent
SERVER_LOG = "tests.e2e.hypercorn"
PATIENCE = 2.0
"""How long anything may take that should happen at once, in seconds: the machine may be busy."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@attrs.frozen
class Server:
    """An application that is served.

    Attributes:
        app: the application itself, in this process.
        url: where it answers, as in `http://127.0.0.1:8000`.
        stop: makes the server stop, as a signal does.
    """

    app: Keryx
    url: str
    stop: Callable[[], None]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client of its own; `http2=True` speaks nothing but HTTP/2."""
        if options.get("http2"):
            options["http1"] = False
        return httpx.AsyncClient(
            **{"base_url": self.url, "trust_env": False, "verify": False, "timeout": 10, **options}
        )

    async def until_idle(self, patience: float = PATIENCE) -> None:
        """Wait until no connection is open and no call is running."""
        await until(lambda: not self.app.connections and not self.app._calls, patience, self._left)

    def _left(self) -> str:
        calls = [call.describe() for call in self.app._calls]
        return f"left behind: calls {calls}, connections {list(self.app.connections.values())}"


@asynccontextmanager
async def serve(app: Keryx, **settings: Any) -> AsyncIterator[Server]:
    """Serve `app` by hypercorn's trio worker, and check at the end that nothing of it is left.

    Args:
        settings: of hypercorn.
    """
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger(SERVER_LOG)
    config.graceful_timeout = PATIENCE
    for name, value in settings.items():
        setattr(config, name, value)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        (url,) = await nursery.start(start)
        server = Server(app, url, stop.set)
        yield server
        await server.until_idle()
        stop.set()


async def until(
    condition: Callable[[], object], patience: float = PATIENCE, told: Callable[[], str] = lambda: "it never came true"
) -> None:
    """Wait until something has come true of which nobody tells; raises AssertionError after `patience` seconds."""
    with trio.move_on_after(patience):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)
        return
    raise AssertionError(told())


# Processes


def command(*words: str) -> list[str]:
    """The command line of a program of this environment."""
    return [sys.executable, "-m", *words]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, without what would change an application's settings, and `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KERYX_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}


@attrs.define
class Process:
    """A server in a process of its own.

    Attributes:
        url: where it answers.
        output: what it has said by now.
    """

    process: trio.Process
    url: str = ""
    output: str = ""

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            **{"base_url": self.url, "trust_env": False, "verify": False, "timeout": 10, **options}
        )

    async def _listen(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.output += data.decode(errors="replace")
            found = re.search(r"Running on (http://\S+)", self.output)
            if found and not self.url:
                self.url = found[1]
                task_status.started()
        if not self.url:
            raise AssertionError(f"the server did not start:\n{self.output}")


@asynccontextmanager
async def serve_process(app: str, *options: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """Serve `module:attribute` by a hypercorn process; it is stopped by SIGTERM at the end."""
    words = command("hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0", *options, app)
    async with trio.open_nursery() as nursery:
        running = partial(
            trio.run_process, words, cwd=ROOT, env=environ or environment(), stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, check=False, capture_stderr=False,
        )  # fmt: skip
        server = Process(await nursery.start(running))
        await nursery.start(server._listen)
        yield server
        server.process.terminate()
