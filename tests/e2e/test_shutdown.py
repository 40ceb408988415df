"""A server that stops while its clients are in the middle of something."""

from __future__ import annotations

import re
from signal import SIGINT, SIGTERM, Signals
from typing import Any

import h2.events
import httpx
import pytest
import trio
from httpx_sse import aconnect_sse

from keryx_trio import ByteStream, Config, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import serve, serve_process, until

DRAIN = 0.3
"""How long plain calls may take to finish, in seconds."""

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


class Stage:
    """An application with calls that a test holds open."""

    def __init__(self) -> None:
        self.app = Keryx(config=Config(drain_timeout=DRAIN))
        self.begun = 0
        self.proceed = trio.Event()
        self.cleaned: list[str] = []

        @self.app.action("stream", web=Web("/stream"), timeout=0)
        async def stream() -> StreamingResponse:
            return StreamingResponse.sse(self.produce)

        @self.app.action("bytes", web=Web("/bytes"), timeout=0)
        async def some_bytes() -> StreamingResponse:
            return StreamingResponse.stream(self.produce_bytes)

        @self.app.action("plain", web=Web("/plain"))
        async def plain() -> str:
            self.begun += 1
            try:
                await self.proceed.wait()
                return "finished"
            finally:
                self.cleaned.append("plain")

        @self.app.action("quick", web=Web("/quick"))
        async def quick() -> str:
            return "quick"

    async def produce(self, sse: EventStream) -> None:
        self.begun += 1
        try:
            await sse.send("here")
            await trio.sleep_forever()
        finally:
            self.cleaned.append("stream")

    async def produce_bytes(self, stream: ByteStream) -> None:
        self.begun += 1
        try:
            await stream.send(b"half of")
            await trio.sleep_forever()
        finally:
            self.cleaned.append("bytes")


@VERSIONS
async def test_streams_end_cleanly_and_say_when_to_come_back(http2: bool, journal: Any) -> None:
    stage, bodies = Stage(), []

    async def read(client: httpx.AsyncClient) -> None:
        bodies.append((await client.get("/api/stream")).text)

    async with (
        serve(stage.app) as server,
        server.client(http2=http2) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(read, client)
        await until(lambda: stage.begun == 20)
        stage.app.shut_down()
        with trio.fail_after(DRAIN):
            await until(lambda: len(bodies) == 20)
    delays = [int(re.fullmatch(r"data: here\n\nretry: (\d+)\n\n", body)[1]) for body in bodies]  # type: ignore[index]
    assert all(1000 <= delay <= 5000 for delay in delays)
    assert len(set(delays)) > 5
    assert stage.cleaned == ["stream"] * 20
    assert journal.fields("outcome") == ["shutdown"] * 20


@VERSIONS
async def test_a_producer_that_is_sending_when_the_server_stops_makes_no_error(http2: bool, journal: Any) -> None:
    app = Keryx(config=Config(drain_timeout=DRAIN))

    @app.action("busy", web=Web("/busy"), timeout=0)
    async def busy() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 1000)

        return StreamingResponse.sse(produce)

    body = b""
    async with (
        serve(app) as server,
        server.client(http2=http2) as client,
        client.stream("GET", "/api/busy") as answer,
    ):
        async for chunk in answer.aiter_bytes():
            if len(body) < 1_000_000 <= len(body) + len(chunk):
                app.shut_down()
            body += chunk
    assert re.fullmatch(rb"retry: \d+", body[-30:].strip().rpartition(b"\n\n")[2])
    assert journal.fields("outcome") == ["shutdown"]


async def test_byte_streams_are_cut_so_that_their_reader_can_tell() -> None:
    stage = Stage()

    async def read(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/api/bytes") as answer:
            async for chunk in answer.aiter_bytes():
                assert chunk == b"half of"
                stage.app.shut_down()

    async with serve(stage.app) as server, server.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client)
    assert stage.cleaned == ["bytes"]


async def test_byte_streams_are_reset_over_http2() -> None:
    stage = Stage()
    async with serve(stage.app) as server, open_http2(server.port) as client:
        number = await client.request("GET", "/api/bytes")
        await client.until(h2.events.DataReceived, number)
        stage.app.shut_down()
        with trio.fail_after(1):
            assert type((await client.rest(number))[1]) in (h2.events.StreamReset, type(None))


@VERSIONS
async def test_plain_calls_may_finish_while_the_server_drains(http2: bool) -> None:
    stage, answers = Stage(), []

    async def ask(client: httpx.AsyncClient) -> None:
        answers.append(await client.get("/api/plain"))

    async with serve(stage.app) as server, server.client(http2=http2) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await until(lambda: stage.begun)
        stage.app.shut_down()
        await trio.sleep(DRAIN / 3)
        stage.proceed.set()
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "finished")]


@VERSIONS
async def test_plain_calls_that_take_longer_get_503(http2: bool, journal: Any) -> None:
    stage, answers = Stage(), []

    async def ask(client: httpx.AsyncClient) -> None:
        answers.append(await client.get("/api/plain"))

    async with serve(stage.app) as server, server.client(http2=http2) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await until(lambda: stage.begun)
        began = trio.current_time()
        stage.app.shut_down()
        await until(lambda: answers)
    (answer,) = answers
    assert DRAIN <= trio.current_time() - began < DRAIN + 1
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "CONNECTION_UNAVAILABLE"
    assert stage.cleaned == ["plain"]
    assert journal.fields("status") == ["shutdown"]


@VERSIONS
async def test_a_new_request_on_a_kept_connection_gets_503(http2: bool) -> None:
    stage = Stage()
    async with serve(stage.app) as server, server.client(http2=http2) as client:
        assert (await client.get("/api/quick")).status_code == 200
        stage.app.shut_down()
        answer = await client.get("/api/quick")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers.get("connection") == (None if http2 else "close")
    assert "content-security-policy" in answer.headers


async def test_the_connection_of_a_refused_request_is_closed() -> None:
    stage = Stage()
    async with serve(stage.app) as server, open_raw(server.port) as raw:
        await raw.request("GET", "/api/quick")
        await raw.head()
        await raw.body()
        stage.app.shut_down()
        await raw.request("GET", "/api/quick")
        assert (await raw.head()).status == 503
        await raw.body()
        assert await raw.is_closed()


@VERSIONS
async def test_a_server_that_is_told_to_stop_ends_its_streams(http2: bool) -> None:
    """As a process that gets SIGTERM: the server's own trigger, not the application's method."""
    stage = Stage()
    delays: list[int | None] = []
    async with (
        serve(stage.app) as server,
        server.client(http2=http2) as client,
        aconnect_sse(client, "GET", "/api/stream") as source,
    ):
        stream = source.aiter_sse()
        assert (await anext(stream)).data == "here"
        began = trio.current_time()
        server.stop()
        delays += [event.retry async for event in stream]
        assert trio.current_time() - began < 1
    assert [1000 <= (delay or 0) <= 5000 for delay in delays] == [True]
    assert stage.cleaned == ["stream"]


async def test_a_stream_that_was_begun_while_the_server_stops_ends_too() -> None:
    app = Keryx(config=Config(drain_timeout=DRAIN))
    begun, proceed = trio.Event(), trio.Event()

    @app.action("late", web=Web("/late"))
    async def late() -> StreamingResponse:
        begun.set()
        await proceed.wait()
        return StreamingResponse.sse(produce)

    async def produce(sse: EventStream) -> None:
        await trio.sleep_forever()

    async def ask(client: httpx.AsyncClient) -> None:
        assert re.fullmatch(r"retry: \d+\n\n", (await client.get("/api/late")).text)

    async with serve(app) as server, server.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        await begun.wait()
        app.shut_down()
        proceed.set()


@pytest.mark.parametrize("signal", [SIGTERM, SIGINT])
async def test_a_process_that_gets_a_signal_ends_its_streams(signal: Signals) -> None:
    async with serve_process("tests.e2e.firehose:app", "--graceful-timeout", "3") as server, server.client() as client:
        async with client.stream("GET", "/api/quiet") as answer:
            chunks = answer.aiter_text()
            assert await anext(chunks) == "data: here\n\n"
            server.process.send_signal(signal)
            assert re.fullmatch(r"retry: \d+\n\n", "".join([chunk async for chunk in chunks]))
        assert await server.process.wait() == 0
        assert "[STREAM:WEB:SHUTDOWN] quiet" in server.output
