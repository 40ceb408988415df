"""The chat example as a newcomer meets it: served by the plain command, read by curl and by a browser."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from tests.e2e.browser import needs_browser, open_browser
from tests.e2e.serving import needs_curl, serve_process

QUESTION = "/api/chat/stream?prompt=what+is+a+lambda&pace=0.02"
COLLECT = """
window.seen = []; window.opened = 0;
window.source = new EventSource(arguments[0]);
source.onopen = () => opened++;
source.addEventListener("token", event => seen.push({data: event.data, at: performance.now()}));
source.addEventListener("done", event => window.done = event.data);
"""


@needs_curl
async def test_curl_shows_the_tokens_as_they_come(measured: Callable[[str], None]) -> None:
    async with serve_process("examples.chat:app") as server:
        url = f"{server.url}{QUESTION}"
        curl = ["curl", "--silent", "--no-buffer", "--noproxy", "*", "--max-time", "20", url]
        arrivals: list[float] = []
        text = b""
        async with trio.open_nursery() as nursery:
            process = await nursery.start(partial(trio.run_process, curl, stdout=subprocess.PIPE))
            async for data in process.stdout:
                arrivals.append(trio.current_time())
                text += data
    tokens = re.findall(r"event: token\nid: (\d+)\ndata: (.*)", text.decode())
    assert [int(number) for number, _ in tokens] == list(range(1, len(tokens) + 1))
    assert len(tokens) > 20
    assert text.rstrip().splitlines()[-1].startswith(b'data: {"done":true')
    assert len(arrivals) > len(tokens) / 2, "tokens came in heaps"
    measured(f"{len(tokens)} tokens in {len(arrivals)} pieces over {arrivals[-1] - arrivals[0]:.2f} s")


@needs_browser
async def test_an_event_source_shows_the_tokens_and_stays_away_after_the_end(
    tmp_path: Path, measured: Callable[[str], None]
) -> None:
    async with serve_process("examples.chat:app") as server, open_browser(tmp_path) as browser:
        await browser.open(f"{server.url}/api/chat")  # any page of the same origin will do
        await browser.run(COLLECT, QUESTION)
        await browser.until("return seen.length >= 3")
        assert await browser.run("return window.done === undefined"), "the tokens came only with the end"
        await browser.until("return window.done !== undefined")
        seen = await browser.run("return seen")
        await browser.until("return source.readyState === 2")  # after the 204 that answers its reconnect
        assert await browser.run("return seen.length") == len(seen)
    assert "lambda" in "".join(token["data"] for token in seen)
    steps = [after["at"] - before["at"] for before, after in itertools.pairwise(seen)]
    assert sum(step > 5 for step in steps) > len(steps) / 2, "the tokens came in heaps"
    measured(f"{len(seen)} tokens in the browser over {(seen[-1]['at'] - seen[0]['at']) / 1000:.2f} s")
