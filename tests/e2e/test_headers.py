"""What every answer carries, whatever it answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from keryx_trio import Config, Connection, EventStream, Keryx, Response, StreamingResponse, TypedError, Web
from keryx_trio.config import CorsConfig
from tests.e2e.serving import serve

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])

ANSWERS = {
    "plain": ("GET", "/api/plain", 200),
    "stream": ("GET", "/api/stream", 200),
    "byte stream": ("GET", "/api/bytes", 200),
    "own response": ("GET", "/api/own", 201),
    "known error": ("GET", "/api/known", 500),
    "unknown error": ("GET", "/api/unknown", 500),
    "missing input": ("GET", "/api/input", 422),
    "unknown path": ("GET", "/api/nowhere", 404),
    "outside": ("GET", "/", 404),
    "wrong method": ("DELETE", "/api/plain", 405),
    "head": ("HEAD", "/api/plain", 200),
    "options": ("OPTIONS", "/api/plain", 204),
}
CASES = pytest.mark.parametrize(("method", "path", "status"), ANSWERS.values(), ids=ANSWERS)

STANDARD = {
    "content-security-policy": "default-src 'self'",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
}


def make_app(config: Config | None = None) -> Keryx:
    app = Keryx(config=config)

    @app.action("plain", web=Web("/plain"))
    async def plain() -> dict[str, bool]:
        return {"ok": True}

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        return StreamingResponse.sse(one)

    @app.action("bytes", web=Web("/bytes"))
    async def some_bytes() -> StreamingResponse:
        return StreamingResponse.stream(trio.Path(__file__))

    @app.action("own", web=Web("/own"))
    async def own() -> Response:
        return Response("made", 201)

    @app.action("known", web=Web("/known"))
    async def known() -> None:
        raise TypedError("no such luck")

    @app.action("unknown", web=Web("/unknown"))
    async def unknown() -> None:
        raise ZeroDivisionError

    @app.action("input", web=Web("/input"))
    async def an_input(number: int) -> int:
        return number

    @app.action("id", web=Web("/id"))
    async def correlation_id(connection: Connection) -> str:
        return connection.correlation_id

    return app


async def one(sse: EventStream) -> None:
    await sse.send("one")


@VERSIONS
@CASES
async def test_every_answer_carries_the_standard_fields(
    http2: bool, method: str, path: str, status: int, journal: Any
) -> None:
    async with serve(make_app(Config())) as server, server.client(http2=http2) as client:
        answer = await client.request(method, path, headers={"X-Request-Id": "abc-1", "Origin": "https://a.example"})
    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in STANDARD} == STANDARD
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"] == "abc-1"
    assert "connection" not in answer.headers
    of_an_action = status not in (204, 404, 405)
    assert ("set-cookie" in answer.headers) is of_an_action
    journal.take_errors()


@CASES
async def test_an_allowed_origin_is_reflected_and_another_is_not(
    method: str, path: str, status: int, journal: Any
) -> None:
    app = make_app(Config(cors=CorsConfig(allowed_origins=("https://a.example",))))
    async with serve(app) as server, server.client() as client:
        ours = await client.request(method, path, headers={"Origin": "https://a.example"})
        theirs = await client.request(method, path, headers={"Origin": "https://b.example"})
    assert ours.headers["access-control-allow-origin"] == "https://a.example"
    assert ours.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in theirs.headers
    assert "Origin" in ours.headers["vary"]
    assert "Origin" in theirs.headers["vary"]
    journal.take_errors()


async def test_a_preflight_is_answered_without_a_cookie() -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.options(
            "/api/plain", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "set-cookie" not in answer.headers


@VERSIONS
async def test_a_stream_says_what_it_is_and_that_nobody_may_hold_it_back(http2: bool) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        fields = (await client.get("/api/stream")).headers
    assert fields["content-type"] == "text/event-stream"
    assert fields["cache-control"] == "no-cache, no-transform"
    assert fields["x-accel-buffering"] == "no"
    assert "content-length" not in fields
    assert "content-encoding" not in fields


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
async def test_a_good_request_id_goes_through_the_call_the_answer_and_the_log(given: str, journal: Any) -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.get("/api/id", headers={"X-Request-Id": given})
    assert answer.json() == answer.headers["x-request-id"] == given
    assert journal.fields("correlation_id") == [given]


@pytest.mark.parametrize("given", [None, "", "two words", "semi;colon", "x" * 129, "é"])
async def test_a_bad_request_id_is_replaced(given: str | None) -> None:
    fields = [] if given is None else [(b"X-Request-Id", given.encode())]
    async with serve(make_app()) as server, server.client() as client:
        first, second = [await client.get("/api/id", headers=fields) for _ in range(2)]
    assert re.fullmatch("[0-9a-f]{32}", first.json())
    assert first.json() == first.headers["x-request-id"] != second.headers["x-request-id"]
