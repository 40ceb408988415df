"""Readers that take nothing: what they may hold, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.events
import pytest
import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import Server, serve, until

WRITE_TIMEOUT = 0.3
DRAIN = 0.2
VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


class Flood:
    """An application that sends as long as it may."""

    def __init__(self, timeout: float = 0, write_timeout: float = WRITE_TIMEOUT) -> None:
        self.app = Keryx(config=Config(write_timeout=write_timeout, drain_timeout=DRAIN))
        self.sent = 0
        self.cleaned = trio.Event()

        @self.app.action("flood", web=Web("/flood"), timeout=timeout)
        async def flood() -> StreamingResponse:
            return StreamingResponse.sse(self.produce)

    async def produce(self, sse: EventStream) -> None:
        try:
            while True:
                await sse.send("x" * 10_000)
                self.sent += 1
        finally:
            self.cleaned.set()

    async def until_stalled(self) -> None:
        """Wait until nothing more goes out; raises AssertionError where more goes out than sockets can hold."""
        sent = -1
        while sent != self.sent:
            assert self.sent < 2000
            sent = self.sent
            await trio.sleep(0.1)


@asynccontextmanager
async def open_idle_reader(server: Server, http2: bool) -> AsyncIterator[None]:
    """A client that reads the first bytes of a stream, and then nothing."""
    if http2:
        async with open_http2(server.port) as client:
            number = await client.request("GET", "/api/flood")
            await client.until(h2.events.DataReceived, number)
            yield
    else:
        async with open_raw(server.port, receive_buffer=65536) as raw:
            await raw.request("GET", "/api/flood")
            await raw.chunk()
            yield


@VERSIONS
async def test_a_reader_that_takes_nothing_makes_its_producer_wait(http2: bool, request: Any) -> None:
    flood = Flood(write_timeout=30)
    async with serve(flood.app) as server, open_idle_reader(server, http2):
        await flood.until_stalled()
        assert len(flood.app.connections) == 1


@VERSIONS
async def test_a_reader_that_takes_nothing_is_cut_off_after_the_write_timeout(http2: bool) -> None:
    flood = Flood()
    async with serve(flood.app) as server, open_idle_reader(server, http2):
        began = trio.current_time()
        with trio.fail_after(WRITE_TIMEOUT + 1):
            await flood.cleaned.wait()
        assert trio.current_time() - began >= WRITE_TIMEOUT / 2
        await server.until_idle()


@VERSIONS
async def test_a_timeout_reaches_the_producer_whatever_the_reader_does(http2: bool, request: Any) -> None:
    flood = Flood(timeout=0.5, write_timeout=30)
    async with serve(flood.app) as server, open_idle_reader(server, http2):
        await flood.until_stalled()
        await until(flood.cleaned.is_set)


@VERSIONS
async def test_a_reader_that_takes_nothing_does_not_hold_up_the_shutdown(http2: bool, journal: Any) -> None:
    journal.errors_expected = True
    flood = Flood(write_timeout=30)
    async with serve(flood.app) as server, open_idle_reader(server, http2):
        await flood.until_stalled()
        began = trio.current_time()
        flood.app.shut_down()
        await server.until_idle()
        assert trio.current_time() - began < DRAIN + 1


async def test_a_slow_reader_gets_everything_in_the_end() -> None:
    app = Keryx(config=Config(write_timeout=WRITE_TIMEOUT))

    @app.action("flood", web=Web("/flood"))
    async def flood() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for _ in range(1000):
                await sse.send("x" * 10_000)

        return StreamingResponse.sse(produce)

    size = 0
    async with serve(app) as server, open_raw(server.port, receive_buffer=65536) as raw:
        await raw.request("GET", "/api/flood")
        for _ in range(8):
            size += len(await raw.chunk())
            await trio.sleep(WRITE_TIMEOUT / 4)
        size += len(await raw.body())
    assert size == 1000 * len("data: \n\n" + "x" * 10_000)
