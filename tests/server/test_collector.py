"""The garbage collector in a process that serves, and that it finds nothing to do."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from keryx_trio import Connection, EventStream, Keryx, Middleware, StreamingResponse, Web
from keryx_trio.server.collector import SELDOM, Collector
from tests.e2e.raw import Raw
from tests.e2e.serving import serve, serve_process


@pytest.fixture
def usual() -> Iterator[tuple[int, int, int]]:
    threshold = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    yield 700, 10, 10
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_is_there_at_the_start_is_left_alone_until_the_end(usual: Any) -> None:
    collector = Collector()
    with collector.serving():
        collector.settle()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == (SELDOM, 10, 10)
        collector.settle()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == usual


def test_an_application_that_does_not_start_changes_nothing(usual: Any) -> None:
    with Collector().serving():
        pass
    assert gc.get_threshold() == usual


@pytest.mark.parametrize("how", ["threshold", "disabled", "frozen"])
def test_who_has_set_the_collector_keeps_it_so(usual: Any, how: str) -> None:
    if how == "threshold":
        gc.set_threshold(50, 5, 5)
    elif how == "disabled":
        gc.disable()
    else:
        gc.freeze()
    before = gc.get_threshold(), gc.get_freeze_count()
    try:
        with Collector().serving() as _:
            Collector().settle()
            assert (gc.get_threshold(), gc.get_freeze_count()) == before
    finally:
        gc.enable()


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_a_process_of_hypercorn_s_command_line_settles_when_it_has_started(workers: str) -> None:
    target = "tests.server.target:app"
    async with serve_process(target, "--workers", workers) as server, server.client() as client:
        told = (await client.get("/api/collector")).json()
    assert told["frozen"] > 10_000
    assert told["threshold"] == SELDOM


def add_failing(app: Keryx) -> None:
    @app.action("fails", web=Web("/fails"))
    async def fails() -> None:
        raise ValueError("as it should")

    @app.action("late", web=Web("/late"), timeout=0.05)
    async def late() -> None:
        await trio.sleep_forever()

    @app.action("lent", web=Web("/lent"))
    async def lent(connection: Connection, fails: bool = False) -> None:
        if fails:
            raise ValueError("as it should")

    class Around(Middleware):
        pass

    @app.action("around", web=Web("/around"), middleware=[Around()])
    async def around() -> None:
        raise ValueError("as it should")

    @app.action("breaks", web=Web("/breaks"))
    async def breaks() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("first")
            raise ValueError("as it should")

        return StreamingResponse.sse(produce)


def making() -> Keryx:
    app = Keryx()

    @app.action("plain", web=Web("/plain"))
    async def plain(name: str = "x") -> dict[str, str]:
        return {"name": name}

    add_failing(app)

    async def _tick(sse: EventStream, n: int) -> None:
        for number in range(n):
            await sse.send(number)
            await trio.sleep(0.001)

    @app.action("stream", web=Web("/stream"))
    async def stream(n: int = 3) -> StreamingResponse:
        return StreamingResponse.sse(_tick, n)

    return app


async def leave_in_the_middle(port: int) -> None:
    raw = await Raw.connect(port)
    await raw.request("GET", "/api/stream?n=1000000")
    await raw.head()
    await raw.chunk()
    await raw.abort()


async def read_to_the_end(port: int, path: str) -> None:
    raw = await Raw.connect(port)
    await raw.request("GET", path)
    await raw.head()
    await raw.body()
    await raw.leave()


FAILING = [
    "/api/fails",
    "/api/lent?fails=true",
    "/api/around",
    "/api/stream?n=none",
    "/api/breaks",
    "/api/late",
    "/api/nothing",
]


@pytest.mark.parametrize("what", ["/api/plain", "/api/plain?name=y", "/api/stream", "/api/lent", "left", *FAILING])
async def test_nothing_of_a_call_is_left_to_the_collector(what: str, journal: Any) -> None:
    journal.errors_expected = what in FAILING
    async with serve(making()) as server:

        async def once() -> None:
            await (leave_in_the_middle(server.port) if what == "left" else read_to_the_end(server.port, what))
            await server.until_idle()
            await trio.sleep(0.05)  # for the last of the connection's tasks

        await once()
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await once()
            for record in journal.records:  # which others keep too, and the errors with them
                record.exc_info = record.args = None
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("keryx_trio")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
