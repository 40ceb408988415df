"""Which answers are compressed, and which never are."""

from __future__ import annotations

import gzip

import pytest
import trio

from keryx_trio import ByteStream, Config, EventStream, Keryx, Response, StreamingResponse, Web
from keryx_trio.config import CompressionConfig
from tests.e2e.serving import serve

LARGE = {"words": ["compression"] * 1000}


def make_app(config: Config | None = None) -> Keryx:
    app = Keryx(config=config)

    @app.action("large", web=Web("/large"))
    async def large() -> dict[str, list[str]]:
        return LARGE

    @app.action("small", web=Web("/small"))
    async def small() -> str:
        return "small"

    @app.action("huge", web=Web("/huge"))
    async def huge() -> str:
        return "x" * 5_000_000

    @app.action("image", web=Web("/image"))
    async def image() -> Response:
        return Response(b"\0" * 5000, content_type="image/png")

    @app.action("svg", web=Web("/svg"))
    async def svg() -> Response:
        return Response("<svg/>" * 1000, content_type="image/svg+xml")

    @app.action("ready", web=Web("/ready"))
    async def ready() -> Response:
        packed = gzip.compress(b"ready " * 1000, mtime=0)
        return Response(packed, content_type="text/plain", headers={"Content-Encoding": "gzip"})

    return app


@pytest.mark.parametrize(
    ("path", "accepted", "compressed"),
    [
        ("large", "gzip", True),
        ("large", "br, gzip;q=0.5", True),
        ("large", "*", True),
        ("large", "gzip;q=0", False),
        ("large", "*, gzip;q=0", False),
        ("large", "identity", False),
        ("large", "", False),
        ("small", "gzip", False),
        ("huge", "gzip", True),
        ("svg", "gzip", True),
        ("image", "gzip", False),
    ],
)
async def test_a_large_text_is_compressed_for_who_accepts_it(path: str, accepted: str, compressed: bool) -> None:
    async with serve(make_app()) as server, server.client() as client:
        plain = await client.get(f"/api/{path}", headers={"Accept-Encoding": "identity"})
        async with client.stream("GET", f"/api/{path}", headers={"Accept-Encoding": accepted}) as answer:
            sent = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == ("gzip" if compressed else None)
    assert int(answer.headers["content-length"]) == len(sent)
    assert (gzip.decompress(sent) if compressed else sent) == plain.content
    if compressed:
        assert len(sent) < len(plain.content) / 10
        assert "Accept-Encoding" in answer.headers["vary"]


async def test_what_is_compressed_already_is_left_as_it_is() -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.get("/api/ready", headers={"Accept-Encoding": "gzip"})
    assert answer.text == "ready " * 1000


async def test_caches_learn_that_a_compressible_answer_varies_even_where_it_was_not_compressed() -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.get("/api/large", headers={"Accept-Encoding": "identity"})
    assert "Accept-Encoding" in answer.headers.get("vary", "")


async def test_compression_can_be_turned_off() -> None:
    app = make_app(Config(compression=CompressionConfig(enabled=False)))
    async with serve(app) as server, server.client() as client:
        answer = await client.get("/api/large", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json() == LARGE


@pytest.mark.parametrize("kind", ["events", "text", "json"])
async def test_streams_are_neither_compressed_nor_held_back(kind: str) -> None:
    app = Keryx(config=Config(compression=CompressionConfig(threshold=0)))
    arrived = trio.Event()
    first, second = "a" * 2000, "b" * 2000

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def events(sse: EventStream) -> None:
            await sse.send(first)
            await arrived.wait()
            await sse.send(second)

        async def pieces(stream: ByteStream) -> None:
            await stream.send(first.encode())
            await arrived.wait()
            await stream.send(second.encode())

        if kind == "events":
            return StreamingResponse.sse(events)
        return StreamingResponse.stream(pieces, content_type="text/plain" if kind == "text" else "application/json")

    async with (
        serve(app) as server,
        server.client() as client,
        client.stream("GET", "/api/stream", headers={"Accept-Encoding": "gzip"}) as answer,
    ):
        assert "content-encoding" not in answer.headers
        chunks = answer.aiter_raw()
        begin = await anext(chunks)
        assert begin == (f"data: {first}\n\n" if kind == "events" else first).encode()
        arrived.set()
        rest = b"".join([chunk async for chunk in chunks])
        assert rest == (f"data: {second}\n\n" if kind == "events" else second).encode()
