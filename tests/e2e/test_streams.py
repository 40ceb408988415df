"""Streams, as the clients of a real server receive them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from httpx_sse import EventSource, aconnect_sse

from keryx_trio import ByteStream, Config, Connection, Event, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import open_raw
from tests.e2e.serving import needs_curl, serve

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@VERSIONS
async def test_each_event_reaches_the_client_while_its_producer_waits(http2: bool) -> None:
    app = Keryx()
    seen = [trio.Event() for _ in range(3)]

    @app.action("count", web=Web("/count"))
    async def count() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("first", event="token", id="1")
            await seen[0].wait()
            await sse.send({"n": 2}, id="2")
            await seen[1].wait()
            await sse.send("two\r\nlines\rand more\n", event="text")
            await seen[2].wait()

        return StreamingResponse.sse(produce)

    received = []
    async with (
        serve(app) as server,
        server.client(http2=http2) as client,
        aconnect_sse(client, "GET", "/api/count") as source,
    ):
        for number, event in enumerate([event async for event in take(source, seen)]):
            received.append((number, event))
    assert received == [
        (0, ("token", "first", "1")),
        (1, ("message", '{"n":2}', "2")),
        (2, ("text", "two\nlines\nand more\n", "2")),
    ]


async def take(source: EventSource, seen: list[trio.Event]) -> AsyncIterator[tuple[str, str, str]]:
    """The events; each is told to its producer once it is here."""
    signals = iter(seen)
    async for event in source.aiter_sse():
        yield event.event, event.data, event.id
        next(signals).set()


@VERSIONS
async def test_the_head_arrives_before_there_is_any_event(http2: bool) -> None:
    app = Keryx()
    arrived = trio.Event()

    @app.action("late", web=Web("/late", method="POST"))
    async def late() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await arrived.wait()
            await sse.send("now")

        return StreamingResponse.sse(produce)

    async with (
        serve(app) as server,
        server.client(http2=http2) as client,
        client.stream("POST", "/api/late") as response,
    ):
        assert response.status_code == 200
        arrived.set()
        assert await response.aread() == b"data: now\n\n"


@VERSIONS
async def test_a_byte_stream_is_delivered_piece_by_piece_as_it_is_made(http2: bool) -> None:
    app = Keryx()
    arrived = trio.Event()

    @app.action("csv", web=Web("/csv"))
    async def csv() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b"name,age\n")
            await arrived.wait()
            await stream.send(b"ann,3\n")

        return StreamingResponse.stream(produce, content_type="text/csv")

    async with (
        serve(app) as server,
        server.client(http2=http2) as client,
        client.stream("GET", "/api/csv") as response,
    ):
        assert response.headers["content-type"] == "text/csv"
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"name,age\n"
        arrived.set()
        assert b"".join([chunk async for chunk in chunks]) == b"ann,3\n"


async def test_every_kind_of_source_is_streamed(tmp_path: Path) -> None:
    app = Keryx()
    data = bytes(range(256)) * 4096
    (tmp_path / "data").write_bytes(data)

    async def numbers() -> AsyncIterator[object]:
        yield "text"
        yield {"json": True}
        yield Event([1], event="list", id="é")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b""
        yield b"two"

    @app.action("iterable", web=Web("/iterable"))
    async def iterable() -> StreamingResponse:
        return StreamingResponse.sse(numbers())

    @app.action("guide", web=Web("/guide"))
    async def guide(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            with sse:
                for word in ("a", "b"):
                    await sse.send(word)

        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse)
        return sse

    @app.action("bytes", web=Web("/bytes"))
    async def some_bytes() -> StreamingResponse:
        return StreamingResponse.stream(pieces())

    @app.action("file", web=Web("/file"))
    async def file() -> StreamingResponse:
        return StreamingResponse.stream(tmp_path / "data", content_type="image/png")

    async with serve(app) as server, server.client() as client:
        answers = {name: (await client.get(f"/api/{name}")).content for name in ("iterable", "guide", "bytes", "file")}
    assert answers == {
        "iterable": 'data: text\n\ndata: {"json":true}\n\nevent: list\nid: é\ndata: [1]\n\n'.encode(),
        "guide": b"data: a\n\ndata: b\n\n",
        "bytes": b"one two",
        "file": data,
    }


@VERSIONS
async def test_many_events_and_large_ones_arrive_complete_and_in_order(http2: bool) -> None:
    app = Keryx()

    @app.action("many", web=Web("/many"))
    async def many() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(5_000):
                await sse.send(number)
            await sse.send("x" * 3_000_000)

        return StreamingResponse.sse(produce)

    async with serve(app) as server, server.client(http2=http2) as client:
        body = (await client.get("/api/many")).content
    assert body == b"".join(b"data: %d\n\n" % number for number in range(5_000)) + b"data: %b\n\n" % (b"x" * 3_000_000)


@pytest.mark.parametrize("every", [0.1, 0], ids=["every 0.1 s", "never"])
async def test_a_quiet_stream_carries_comments_as_often_as_it_is_told(every: float) -> None:
    app = Keryx(config=Config(ping=0.1 if not every else 60))

    @app.action("quiet", web=Web("/quiet"))
    async def quiet() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(0.35)
            await sse.send("end")

        return StreamingResponse.sse(produce, ping=every)

    async with serve(app) as server, server.client() as client:
        lines = (await client.get("/api/quiet")).text.splitlines()
    comments = [line for line in lines if line.startswith(":")]
    assert (len(comments) in (2, 3)) if every else comments == []
    assert [line for line in lines if line and line not in comments] == ["data: end"]


async def test_a_client_of_http_1_0_gets_the_stream_until_the_connection_closes() -> None:
    app = Keryx()

    @app.action("old", web=Web("/old"))
    async def old() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("hi")

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_raw(server.port) as raw:
        await raw.send(b"GET /api/old HTTP/1.0\r\n\r\n")
        answer = b"".join([data async for data in raw.stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"data: hi\n\n"


@needs_curl
async def test_curl_prints_events_as_they_come() -> None:
    app = Keryx()
    printed = trio.Event()

    @app.action("curl", web=Web("/curl"))
    async def curl() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await printed.wait()
            await sse.send("two")

        return StreamingResponse.sse(produce)

    async with serve(app) as server:
        process = await trio.lowlevel.open_process(
            ["curl", "--silent", "--no-buffer", "--noproxy", "*", f"{server.url}/api/curl"], stdout=-1
        )
        assert process.stdout is not None
        async with process.stdout as output:
            assert await output.receive_some() == b"data: one\n\n"
            printed.set()
            assert b"".join([data async for data in output]) == b"data: two\n\n"
        assert await process.wait() == 0
