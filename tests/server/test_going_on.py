"""A connection whose call goes on: the next request waits for its answer, and is looked after as the first one was."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.e2e.raw import Raw, open_raw
from tests.e2e.serving import until
from tests.server.bare import serve_bare

REQUEST = b"GET %b HTTP/1.1\r\nHost: testserver\r\n\r\n"


async def answer(send: Any, body: bytes) -> None:
    fields = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def test_a_client_that_reads_nothing_has_one_call_at_a_time() -> None:
    running = begun = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, begun
        running, begun = running + 1, begun + 1
        assert running == 1
        try:
            await answer(send, b"x" * 20_000_000)
        finally:
            running -= 1

    async with serve_bare(app) as server:
        raw = await Raw.connect(server.port)
        await raw.send(REQUEST % b"/" * 20)
        await trio.sleep(0.3)
        assert (running, begun) == (1, 1)
        await raw.leave()


@pytest.mark.parametrize("lasts", [0.06, 0.08, 0.1])
async def test_the_end_of_a_call_that_went_on_leaves_the_next_one_watched(lasts: float) -> None:
    left: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            await answer(send, b"first")
            await trio.sleep(lasts)
            return
        extension = scope["extensions"]["keryx_trio"]
        gone = trio.Event()
        await receive()
        unwatch = extension["watch"](gone.set)
        with trio.move_on_after(1):
            await gone.wait()
        unwatch()
        left.append(gone.is_set())

    async with serve_bare(app) as server, open_raw(server.port) as raw:
        await raw.request("GET", "/first")
        await raw.head()
        assert await raw.body() == b"first"
        await raw.request("GET", "/second")
        await trio.sleep(0.25)
        await raw.stream.aclose()
        await until(lambda: left)
    assert left == [True]
