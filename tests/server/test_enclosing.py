"""The scope that a connection shares with the calls of one task: it ends with them, after their last word."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import Raw, open_raw
from tests.e2e.serving import serve, until
from tests.server.bare import serve_bare

ENDED: list[str] = []


def making(**settings: float) -> Keryx:
    app = Keryx(config=Config(**{"action_timeout": 0.1, "drain_timeout": 0.3, **settings}))  # type: ignore[arg-type]

    @app.action("quick", web=Web("/quick"))
    async def quick() -> str:
        return "quick"

    @app.action("sleeps", web=Web("/sleeps"))
    async def sleeps() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ENDED.append("sleeps")

    @app.action("swallows", web=Web("/swallows"))
    async def swallows() -> str:
        with trio.CancelScope() as scope:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:  # noqa: TRY203 - it passes, and the scope does not take it
                raise
        return f"never {scope}"

    add_failing(app)
    add_streams(app)
    return app


def add_failing(app: Keryx) -> None:
    @app.action("breaks", web=Web("/breaks"))
    async def breaks() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the cleanup broke")

    @app.action("group", web=Web("/group"))
    async def group() -> None:
        async def failing() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("a task's cleanup broke")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            nursery.start_soon(trio.sleep_forever)


def add_streams(app: Keryx) -> None:
    @app.action("late_stream", web=Web("/late_stream"))
    async def late_stream() -> StreamingResponse:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)
        return StreamingResponse.sse(_tick)

    async def _tick(sse: EventStream) -> None:
        try:
            while True:
                await sse.send("tick")
                await trio.sleep(0.01)
        finally:
            ENDED.append("tick")

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        return StreamingResponse.sse(_tick)


@pytest.fixture(autouse=True)
def ended() -> list[str]:
    ENDED.clear()
    return ENDED


@pytest.mark.parametrize("action", ["sleeps", "swallows", "breaks", "group", "late_stream"])
async def test_who_takes_too_long_is_told_and_the_connection_ends(action: str, journal: Any) -> None:
    async with serve(making()) as server, open_raw(server.port) as raw:
        await raw.request("GET", f"/api/{action}")
        head = await raw.head()
        assert head.status == 408
        assert head.headers["connection"] == "close"
        assert json.loads(await raw.body())["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"
        assert await raw.stream.receive_some() == b""
    logged = journal.take_errors()  # what a cleanup raises, and that once
    assert len(logged) == (action in ("breaks", "group"))
    assert all("cleanup broke" in line for line in logged)


async def test_calls_before_the_one_that_takes_too_long_keep_the_connection() -> None:
    async with serve(making()) as server, open_raw(server.port) as raw:
        for _ in range(3):
            await raw.request("GET", "/api/quick")
            assert (await raw.head()).status == 200
            assert json.loads(await raw.body()) == "quick"
        await raw.request("GET", "/api/sleeps")
        assert (await raw.head()).status == 408


async def test_a_timeout_that_did_not_pass_ends_nothing_later() -> None:
    async with serve(making(action_timeout=0.05)) as server, open_raw(server.port) as raw:
        for _ in range(4):
            await raw.request("GET", "/api/quick")
            assert (await raw.head()).status == 200
            await raw.body()
            await trio.sleep(0.03)


async def test_a_stream_outlives_no_timeout_and_gets_its_last_word() -> None:
    async with serve(making()) as server, server.client() as client:
        text = (await client.get("/api/stream")).text
    assert text.startswith("data: tick\n\n")
    assert "event: error\n" in text
    assert ENDED == ["tick"]


async def test_a_client_that_leaves_ends_the_action_at_once(ended: list[str]) -> None:
    async with serve(making(action_timeout=0)) as server:
        raw = await Raw.connect(server.port)
        await raw.request("GET", "/api/sleeps")
        await until(lambda: server.app._calls)
        await trio.sleep(0.05)
        await raw.leave()
        await until(lambda: ended == ["sleeps"])


async def test_a_stop_waits_for_a_plain_call_and_then_tells_it() -> None:
    async with serve(making(action_timeout=0)) as server, open_raw(server.port) as raw:
        await raw.request("GET", "/api/sleeps")
        await until(lambda: server.app._calls)
        server.stop()
        head = await raw.head()
        assert head.status == 503
        assert head.headers["connection"] == "close"
        assert json.loads(await raw.body())["error"]["type"] == "CONNECTION_UNAVAILABLE"


async def test_an_application_that_runs_in_another_task_has_a_scope_of_its_own() -> None:
    inner = making()

    async def in_a_task(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner, scope, receive, send)

    async with inner, serve_bare(in_a_task) as bare, open_raw(bare.port) as raw:
        for _ in range(2):
            await raw.request("GET", "/api/sleeps")
            head = await raw.head()
            assert head.status == 408
            assert "connection" not in head.headers
            await raw.body()


async def test_an_answer_on_its_way_out_is_not_cut_by_a_timeout_that_a_stop_looks_at() -> None:
    app = making(action_timeout=0.2, drain_timeout=5)
    size = 20_000_000

    @app.action("large", web=Web("/large"))
    async def large() -> str:
        return "x" * size

    async with serve(app) as server, open_raw(server.port) as raw:
        await raw.request("GET", "/api/large")
        await trio.sleep(0.3)  # nothing is read, and its timeout passes while it waits for room
        server.stop()
        await trio.sleep(0.05)
        assert (await raw.head()).status == 200
        assert len(json.loads(await raw.body())) == size


class Source:
    """Of a stream: it takes a while to close, or fails to."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> str:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self.fails:
            raise ValueError("it does not close")
        await trio.sleep(0.5)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stream_that_came_too_late_is_let_go_and_its_client_told_however_it_closes(
    fails: bool, journal: Any
) -> None:
    app = making()

    @app.action("late", web=Web("/late"))
    async def late() -> StreamingResponse:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.15)
        return StreamingResponse.sse(Source(fails))

    async with serve(app) as server, server.client() as client:
        answer = await client.get("/api/late")
    assert answer.status_code == 408
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert ["it does not close" in line for line in journal.take_errors()] == [True] * fails


async def behind_a_shield(app: Keryx, scope: Any, receive: Any, send: Any) -> None:
    with trio.CancelScope(shield=True):
        await app(scope, receive, send)


async def through_a_channel(app: Keryx, scope: Any, receive: Any, send: Any) -> None:
    messages, sent = trio.open_memory_channel[Any](0)

    async def pass_on() -> None:
        async for message in sent:
            await send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on)
        async with messages:
            await app(scope, receive, messages.send)


async def with_an_end(app: Keryx, scope: Any, receive: Any, send: Any) -> None:
    await app(scope, receive, send)
    await trio.sleep(0.01)
    ENDED.append("the middleware")


@pytest.mark.parametrize("middleware", [behind_a_shield, through_a_channel, with_an_end])
async def test_what_stands_between_the_server_and_the_application_is_not_cancelled_with_a_call(
    middleware: Any, ended: list[str]
) -> None:
    inner = making()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await middleware(inner, scope, receive, send)

    async with inner, serve_bare(app) as bare, open_raw(bare.port) as raw:
        for _ in range(2):
            await raw.request("GET", "/api/sleeps")
            with trio.fail_after(1):
                assert (await raw.head()).status == 408
            await raw.body()
        await until(lambda: ended.count("sleeps") == 2)
        if middleware is with_an_end:
            await until(lambda: ended.count("the middleware") == 2)


async def test_an_action_that_holds_up_everybody_beyond_its_timeout_has_timed_out() -> None:
    app = making()

    @app.action("blocks", web=Web("/blocks"))
    async def blocks() -> str:
        time.sleep(0.15)  # noqa: ASYNC251 - what nobody should do
        return "too late"

    async with serve(app) as server, server.client() as client:
        assert (await client.get("/api/blocks")).status_code == 408
