"""From a method and a path to an action."""

from __future__ import annotations

import pytest
import trio

from keryx_trio import Config, EventStream, Keryx, Response, StreamingResponse, Web
from tests.e2e.raw import open_raw
from tests.e2e.serving import serve

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


def make_app(started: list[str] | None = None) -> Keryx:
    app = Keryx(config=Config())

    @app.action("list", web=Web("/items"))
    async def items() -> list[str]:
        return ["é"] * 1000

    @app.action("add", web=Web("/items", method=("POST", "PUT")))
    async def add() -> str:
        return "added"

    @app.action("one", web=Web("/items/{item}"))
    async def one(item: str) -> str:
        return f"one {item}"

    @app.action("special", web=Web("/items/special"))
    async def special() -> str:
        return "the special one"

    @app.action("parts", web=Web("/items/{item}/parts/{part}"))
    async def parts(item: int, part: str) -> list[object]:
        return [item, part]

    @app.action("own", web=Web("/own"))
    async def own() -> Response:
        return Response("made", 201)

    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            assert started is not None
            started.append("source")
            await trio.sleep_forever()

        assert started is not None
        started.append("action")
        return StreamingResponse.sse(produce)

    return app


@VERSIONS
@pytest.mark.parametrize("path", ["/api/items", "/api/own", "/api/items/7"])
async def test_head_answers_the_head_of_get(http2: bool, path: str) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        get = await client.get(path, headers={"X-Request-Id": "same"})
        head = await client.head(path, headers={"X-Request-Id": "same"})
        again = await client.get(path, headers={"X-Request-Id": "same"})
    assert head.content == b""
    assert head.status_code == get.status_code
    assert lasting(head.headers) == lasting(get.headers)
    assert again.content == get.content


def lasting(headers: object) -> dict[str, str]:
    """What is no other for each answer."""
    return {name: value for name, value in dict(headers).items() if name not in ("date", "set-cookie")}  # type: ignore[call-overload]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_head_of_a_stream_ends_at_once_and_starts_no_source(version: str) -> None:
    started: list[str] = []
    async with serve(make_app(started)) as server, open_raw(server.port) as raw:
        raw.expect("HEAD")
        await raw.send(f"HEAD /api/stream HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        head = await raw.head()
        assert head.headers["content-type"] == "text/event-stream"
        assert await raw.body() == b""
        await server.until_idle()
        if version == "1.1":
            await raw.request("GET", "/api/items/next")
            assert (await raw.head()).status == 200
            assert await raw.body() == b'"one next"\n'
        else:
            assert await raw.is_closed()
    assert started == ["action"]


async def test_head_of_a_stream_ends_over_http2_too() -> None:
    started: list[str] = []
    async with serve(make_app(started)) as server, server.client(http2=True) as client:
        assert (await client.head("/api/stream")).headers["content-type"] == "text/event-stream"
    assert started == ["action"]


@VERSIONS
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/items", {"GET", "HEAD", "POST", "PUT", "OPTIONS"}),
        ("/api/items/special", {"GET", "HEAD", "OPTIONS"}),
        ("/api/items/other", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_options_and_405_tell_which_methods_a_path_answers(http2: bool, path: str, allowed: set[str]) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        options = await client.options(path)
        wrong = await client.delete(path)
        unheard_of = await client.request("BREW", path)
    assert (options.status_code, options.content) == (204, b"")
    assert wrong.status_code == unheard_of.status_code == 405
    assert wrong.json()["error"]["type"] == "CONNECTION_METHOD_NOT_ALLOWED"
    for answer in (options, wrong, unheard_of):
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "path", ["/", "/items", "/api", "/api/", "/api/item", "/api/items/", "/api/items/1/2", "//api/items", "/API/items"]
)
async def test_an_unknown_path_is_404(method: str, path: str) -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.request(method, f"{server.url}{path}")
    assert answer.status_code == 404
    if method != "HEAD":
        assert answer.json()["error"]["type"] == "CONNECTION_ACTION_NOT_FOUND"


@VERSIONS
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/api/items/special", "the special one"),
        ("/api/items/speci%61l", "the special one"),
        ("/api/items/plain", "one plain"),
        ("/api/items/a%2Fb", "one a/b"),
        ("/api/items/%C3%A9%20%E2%82%AC", "one é €"),
        ("/api/items/a+b", "one a+b"),
        ("/api/items/%252F", "one %2F"),
        ("/api/items/special?item=other", "the special one"),
        ("/api/items/path?item=query", "one path"),
        ("/api/items/7/parts/a%2Fparts%2Fb", [7, "a/parts/b"]),
    ],
)
async def test_a_path_is_decoded_segment_by_segment(http2: bool, path: str, answer: object) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        assert (await client.get(path)).json() == answer


async def test_a_target_may_name_its_host() -> None:
    async with serve(make_app()) as server, open_raw(server.port) as raw:
        await raw.request("GET", f"{server.url}/api/items/absolute")
        assert (await raw.head()).status == 200
        assert await raw.body() == b'"one absolute"\n'


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serve(make_app()) as server, open_raw(server.port) as raw:
        await raw.send(b"".join(b"GET /api/items/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3)))
        for number in range(3):
            raw.expect("GET")
            assert (await raw.head()).status == 200
            assert await raw.body() == b'"one %d"\n' % number
