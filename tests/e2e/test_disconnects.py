"""Clients that leave, in every way in which a socket can end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal
from unittest.mock import ANY

import h2.events
import httpx
import pytest
import trio
import trio.testing

from keryx_trio import Connection, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import Raw, open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import Server, serve, until
from tests.told import Told

CLIENTS = 50
Leaving = Literal["close", "reset"]
LEAVING = pytest.mark.parametrize("leaving", ["close", "reset"])
VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


class Cleanups:
    """When the `finally` block of each call has run, on trio's clock."""

    def __init__(self) -> None:
        self.ended: dict[int, float] = {}
        self.left: dict[int, float] = {}
        self.sent = 0

    def has_run(self, number: int) -> None:
        assert number not in self.ended
        self.ended[number] = trio.current_time()

    async def until_all_have_run(self) -> float:
        """The longest time between a client's leaving and the cleanup, in seconds."""
        await until(lambda: self.ended.keys() >= self.left.keys(), told=lambda: f"{len(self.ended)} cleanups")
        return max(self.ended[number] - self.left[number] for number in self.left)


async def until_stalled(cleanups: Cleanups) -> None:
    """Wait until no producer gets anything out any more."""
    sent = -1
    while sent != cleanups.sent:
        sent = cleanups.sent
        await trio.sleep(0.1)


async def leave_all(clients: list[Raw], leaving: Leaving, cleanups: Cleanups) -> None:
    for number, raw in enumerate(clients):
        cleanups.left[number] = trio.current_time()
        await (raw.abort() if leaving == "reset" else raw.leave())


@asynccontextmanager
async def open_clients(server: Server, path: str, count: int = CLIENTS) -> AsyncIterator[list[Raw]]:
    """Clients with a number each, which have sent their requests; closed at the end, however the test ends."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_raw(server.port)) for _ in range(count)]
        for number, raw in enumerate(clients):
            await raw.request("GET", f"{path}?number={number}")
        yield clients


def make_streams(cleanups: Cleanups, *, sending: bool) -> Keryx:
    app = Keryx()

    @app.action("stream", web=Web("/stream"), timeout=0)
    async def stream(number: int) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                while sending:
                    await sse.send("x" * 10_000)
                    cleanups.sent += 1
                await trio.sleep_forever()
            finally:
                cleanups.has_run(number)

        return StreamingResponse.sse(produce)

    return app


@LEAVING
@pytest.mark.parametrize("sending", [False, True], ids=["asleep", "sending"])
async def test_a_client_that_leaves_cancels_its_producer_at_once(
    leaving: Leaving, sending: bool, journal: Any, measured: Callable[[str], None]
) -> None:
    cleanups = Cleanups()
    app = make_streams(cleanups, sending=sending)
    async with serve(app) as server, open_clients(server, "/api/stream") as clients:
        for raw in clients:
            assert (await raw.head()).status == 200
            assert (await raw.chunk()).startswith(b"data: here\n\n")
        assert len(server.app.connections) == CLIENTS
        await until_stalled(cleanups)
        await leave_all(clients, leaving, cleanups)
        longest = await cleanups.until_all_have_run()
        await server.until_idle()
    measured(f"all {CLIENTS} cleanups had run within {longest * 1000:.1f} ms of the client's leaving")
    assert longest < 1
    assert journal.fields("outcome") == ["client gone"] * CLIENTS


@LEAVING
async def test_a_client_that_leaves_cancels_a_plain_action_too(
    leaving: Leaving, journal: Any, measured: Callable[[str], None]
) -> None:
    app, cleanups, begun = Keryx(), Cleanups(), []

    @app.action("wait", web=Web("/wait"), timeout=0)
    async def wait(number: int) -> None:
        begun.append(number)
        try:
            await trio.sleep_forever()
        finally:
            cleanups.has_run(number)

    async with serve(app) as server, open_clients(server, "/api/wait") as clients:
        await until(lambda: len(begun) == CLIENTS)
        await leave_all(clients, leaving, cleanups)
        longest = await cleanups.until_all_have_run()
        await server.until_idle()
    measured(f"all {CLIENTS} actions had ended within {longest * 1000:.1f} ms of the client's leaving")
    assert longest < 1
    assert journal.fields("status") == ["client gone"] * CLIENTS


@LEAVING
async def test_a_client_that_leaves_in_the_middle_of_a_large_answer_has_left(leaving: Leaving, journal: Any) -> None:
    app = Keryx()

    @app.action("large", web=Web("/large"))
    async def large(number: int) -> str:
        return "x" * 8_000_000

    async with serve(app) as server, open_clients(server, "/api/large", count=10) as clients:
        for raw in clients:
            assert (await raw.head()).status == 200
        await leave_all(clients, leaving, Cleanups())
        await server.until_idle()
    assert journal.fields("status") == ["client gone"] * 10


async def test_a_client_that_has_sent_its_next_request_already_may_leave_too() -> None:
    cleanups = Cleanups()
    async with serve(make_streams(cleanups, sending=False)) as server:
        async with open_raw(server.port) as raw:
            await raw.request("GET", "/api/stream?number=0")
            await raw.head()
            await raw.send(b"GET /api/stream?number=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await raw.chunk() == b"data: here\n\n"
            cleanups.left[0] = trio.current_time()
        assert await cleanups.until_all_have_run() < 1


async def test_a_stream_left_over_http2_is_cancelled_and_its_neighbour_goes_on(journal: Any) -> None:
    app, cleaned = Keryx(), trio.Event()

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                cleaned.set()

        return StreamingResponse.sse(produce)

    @app.action("neighbour", web=Web("/neighbour"))
    async def neighbour() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("here")
            await cleaned.wait()
            await sse.send("still here")

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_http2(server.port) as client:
        beside = await client.request("GET", "/api/neighbour")
        await client.until(h2.events.DataReceived, beside)
        left = await client.request("GET", "/api/stream")
        await client.until(h2.events.DataReceived, left)
        assert len(app.connections) == 2
        await client.reset(left)
        assert await client.rest(beside) == (b"data: still here\n\n", ANY)
    assert sorted(journal.fields("outcome")) == ["client gone", "done"]


@pytest.mark.parametrize(
    ("reading", "sending"),
    [(True, False), (True, True), (False, False), (False, True)],
    ids=["reads on-asleep", "reads on-sending", "reads nothing-asleep", "reads nothing-sending"],
)
async def test_a_client_that_closes_only_its_own_half_has_left(reading: bool, sending: bool, journal: Any) -> None:
    cleanups = Cleanups()
    async with (
        serve(make_streams(cleanups, sending=sending)) as server,
        open_raw(server.port) as raw,
    ):
        await raw.request("GET", "/api/stream?number=0")
        assert (await raw.head()).status == 200
        assert (await raw.chunk()).startswith(b"data: here\n\n")
        await until_stalled(cleanups)
        cleanups.left[0] = trio.current_time()
        await raw.stream.send_eof()
        if reading:
            while await raw.stream.receive_some():
                continue
        assert await cleanups.until_all_have_run() < 1
        await server.until_idle()
    assert journal.fields("outcome") == ["client gone"]


async def test_a_cleanup_may_await_a_little_and_its_connection_stays_until_it_is_done() -> None:
    app, cleaning, proceed = Keryx(), trio.Event(), trio.Event()

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    cleaning.set()
                    await proceed.wait()

        return StreamingResponse.sse(produce)

    async with serve(app) as server:
        async with open_raw(server.port) as raw:
            await raw.request("GET", "/api/stream")
            await raw.head()
            await raw.chunk()
        await cleaning.wait()
        assert len(app.connections) == 1
        proceed.set()
        await server.until_idle()


async def test_an_error_in_a_cleanup_is_logged(journal: Any) -> None:
    app = Keryx()

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                raise LookupError("lost in the cleanup")

        return StreamingResponse.sse(produce)

    async with serve(app) as server:
        async with open_raw(server.port) as raw:
            await raw.request("GET", "/api/stream")
            await raw.head()
        await until(journal.errors)
        (error,) = journal.take_errors()
    assert "lost in the cleanup" in error
    assert journal.fields("outcome") == ["client gone"]


def make_watched(watch: Told) -> Keryx:
    app = Keryx(middleware=[watch])

    @app.action("plain", web=Web("/plain", method=("GET", "POST")))
    async def plain(text: str = "") -> int:
        return len(text)

    @app.action("large", web=Web("/large"))
    async def large() -> str:
        return "x" * 1_000_000

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(5):
                await sse.send(number)

        return StreamingResponse.sse(produce)

    return app


@VERSIONS
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "closed"])
@pytest.mark.parametrize("path", ["plain", "large", "stream"])
async def test_calls_that_ended_well_are_not_taken_for_left(http2: bool, keep: bool, path: str, journal: Any) -> None:
    watch = Told()
    async with serve(make_watched(watch)) as server:
        if keep:
            async with server.client(http2=http2) as client:
                for _ in range(CLIENTS):
                    await read(client, path)
        else:
            for _ in range(CLIENTS):
                async with server.client(http2=http2, headers={} if http2 else {"Connection": "close"}) as client:
                    await read(client, path)
    check_all_well(watch, journal, path)


@pytest.mark.parametrize("path", ["plain", "large", "stream"])
async def test_calls_that_ended_well_at_the_same_time_are_not_taken_for_left(path: str, journal: Any) -> None:
    watch = Told()
    async with serve(make_watched(watch)) as server, server.client() as client, trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(read, client, path)
    check_all_well(watch, journal, path)


async def test_a_client_that_resets_right_after_the_last_byte_was_answered_in_full(journal: Any) -> None:
    watch = Told()
    async with serve(make_watched(watch)) as server:
        for _ in range(CLIENTS):
            raw = await Raw.connect(server.port)
            await raw.request("GET", "/api/stream")
            await raw.head()
            await raw.body()
            await raw.abort()
    check_all_well(watch, journal, "stream")


async def read(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/api/{path}")
    assert answer.status_code == 200
    assert answer.content


def check_all_well(watch: Told, journal: Any, path: str) -> None:
    assert watch.errors == [None] * CLIENTS
    assert journal.fields("status") == ["ok"] * CLIENTS
    assert journal.fields("outcome") == (["done"] * CLIENTS if path == "stream" else [])


async def test_run_after_is_told_that_the_client_left(journal: Any) -> None:
    watch, begun = Told(), trio.Event()
    app = Keryx(middleware=[watch])

    @app.action("wait", web=Web("/wait"))
    async def wait() -> None:
        begun.set()
        await trio.sleep_forever()

    async with (
        serve(app) as server,
        open_raw(server.port) as raw,
    ):
        await raw.request("GET", "/api/wait")
        await begun.wait()
    assert [type(error) for error in watch.errors] == [trio.Cancelled]


async def test_an_open_stream_keeps_its_connection_whatever_others_with_its_cookie_do() -> None:
    app = Keryx()
    end = trio.Event()

    @app.action("stream", web=Web("/stream"))
    async def stream(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send(connection.id)
            await end.wait()

        return StreamingResponse.sse(produce)

    @app.action("plain", web=Web("/plain"))
    async def plain(connection: Connection) -> str:
        return connection.id

    cookie = "Cookie: __session=one-and-the-same"
    async with (
        serve(app) as server,
        server.client(headers=dict([cookie.split(": ")])) as client,
        open_raw(server.port) as first,
        open_raw(server.port) as second,
    ):
        ids = set()
        for raw in (first, second):
            await raw.request("GET", "/api/stream", cookie)
            await raw.head()
            ids.add((await raw.chunk()).decode().removeprefix("data: ").strip())
        others = {(await client.get("/api/plain")).json() for _ in range(5)}
        assert len(ids | others) == 7
        assert set(app.connections) >= ids
        await until(lambda: set(app.connections) == ids)
        end.set()
        assert (await first.body(), await second.body()) == (b"", b"")


async def test_a_client_that_leaves_in_the_middle_of_its_request_makes_no_noise(journal: Any) -> None:
    async with serve(make_watched(Told())) as server:
        for request in (
            b"GET /api/pl",
            b"POST /api/plain HTTP/1.1\r\nHost: x\r\n",
            b"POST /api/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            b'POST /api/plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a',
            (
                b"POST /api/plain HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b'Content-Length: 500\r\n\r\n--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nhal'
            ),
        ):
            for leaving in (Raw.leave, Raw.abort):
                raw = await Raw.connect(server.port)
                await raw.send(request)
                await trio.testing.wait_all_tasks_blocked(0.005)
                await leaving(raw)
        async with server.client() as client:
            await read(client, "plain")
    assert [record for record in journal.records if record.levelname in ("WARNING", "ERROR")] == []
