"""What clients send: too much, broken, in pieces, as a form."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, UploadFile, Web
from tests.e2e.raw import Raw, open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import Server, needs_curl, serve

LIMIT = 100_000
LARGE = b"x" * 20_000_000
PIECE = 65536
VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


def make_app(limit: int = LIMIT) -> Keryx:
    app = Keryx(config=Config(max_body_size=limit))

    @app.action("length", web=Web("/length", method=("POST", "PUT")))
    async def length(text: str = "") -> int:
        return len(text)

    @app.action("nothing", web=Web("/nothing", method="POST"))
    async def nothing() -> str:
        return "took nothing"

    @app.action("stream", web=Web("/stream", method="POST"))
    async def stream(text: str) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send(len(text))

        return StreamingResponse.sse(produce)

    @app.action("upload", web=Web("/upload", method="POST"))
    async def upload(file: UploadFile, name: str, tags: list[str]) -> dict[str, object]:
        data = await file.read()
        return {
            "name": name,
            "tags": tags,
            "filename": file.filename,
            "type": file.content_type,
            "size": file.size,
            "hash": sha256(data).hexdigest(),
        }

    return app


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def check_healthy(server: Server) -> None:
    async with server.client() as client:
        assert (await client.post("/api/length", json={"text": "four"})).json() == 4


@VERSIONS
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize("path", ["/api/length", "/api/nothing"])
async def test_a_body_above_the_limit_is_refused_with_413(http2: bool, chunked: bool, path: str) -> None:
    body = b"x" * (LIMIT + 1)
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        answer = await client.post(path, content=pieces(body) if chunked else body)
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert error["type"] == "CONNECTION_PAYLOAD_TOO_LARGE"
        assert str(LIMIT) in error["message"]
        await check_healthy(server)


@VERSIONS
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/api/length", 413), ("POST", "/api/nowhere", 404), ("DELETE", "/api/length", 405)],
)
async def test_a_refusal_reaches_a_client_that_is_still_sending(
    http2: bool, chunked: bool, method: str, path: str, status: int
) -> None:
    async with serve(make_app()) as server:
        async with server.client(http2=http2) as client:
            # Flow control makes HTTP/2 slow, and the server reads on for a moment only.
            body = LARGE[: len(LARGE) // 10] if http2 else LARGE
            answer = await client.request(method, path, content=pieces(body) if chunked else body)
            assert answer.status_code == status
            assert answer.json()["error"]["message"]
        await check_healthy(server)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "status"), [("/api/length", 413), ("/api/nowhere", 404)])
async def test_a_refusal_is_there_before_the_body_has_been_sent(chunked: bool, path: str, status: int) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(LARGE)}"
    async with serve(make_app()) as server:
        async with open_raw(server.port) as raw, trio.open_nursery() as nursery:
            await raw.request("POST", path, framing)
            nursery.start_soon(send_until_refused, raw, chunked)
            head = await raw.head()
            assert head.status == status
            assert b'"error"' in await raw.chunk()
            nursery.cancel_scope.cancel()
        await check_healthy(server)


async def send_until_refused(raw: Raw, chunked: bool) -> None:
    for start in range(0, len(LARGE), PIECE):
        piece = LARGE[start : start + PIECE]
        try:
            await raw.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        except trio.BrokenResourceError:
            return
    await trio.sleep_forever()  # the last chunk never comes


async def test_a_refused_body_that_never_comes_does_not_hold_the_connection_for_ever() -> None:
    async with serve(make_app()) as server, open_raw(server.port) as raw:
        await raw.request("POST", "/api/nowhere", f"Content-Length: {len(LARGE)}")
        assert (await raw.head()).status == 404
        assert b'"error"' in await raw.body()
        assert await raw.is_closed()


async def test_a_body_that_goes_on_after_its_refusal_has_ended_harms_nobody(journal: Any) -> None:
    journal.errors_expected = True
    async with serve(make_app()) as server, open_http2(server.port) as client:
        number = await client.request("POST", "/api/nowhere", [("content-length", str(len(LARGE)))], end=False)
        data, _ = await client.rest(number)
        assert b'"error"' in data
        client.state.send_data(number, b"x" * 1000)
        await client.flush()
        await check_healthy(server)
        number = await client.request("POST", "/api/nothing")
        assert (await client.rest(number))[0] == b'"took nothing"\n'


async def test_a_connection_is_still_good_after_a_small_refused_body() -> None:
    async with serve(make_app()) as server, open_raw(server.port) as raw:
        for path, status in (("/api/nowhere", 404), ("/api/length", 200), ("/api/nowhere", 404), ("/api/length", 200)):
            await raw.request("POST", path, body=b'{"text": "four"}')
            head = await raw.head()
            assert (head.status, head.headers.get("connection")) == (status, None)
            assert await raw.body()


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b'{"text": "a"} b', b'{"text": "\xff"}', b'"\\ud800', b"[" * 50_000]
)
async def test_malformed_json_is_told_with_400(body: bytes) -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.post("/api/length", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_PARAM_FORMATTING"
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"5", b"null"])
async def test_json_that_is_no_object_is_told_with_400(body: bytes) -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.post("/api/length", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "object" in answer.json()["error"]["message"]


@VERSIONS
@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;Charset=UTF-8"]
)
async def test_json_may_name_its_charset(http2: bool, kind: str) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        answer = await client.post("/api/length", content='{"text": "éèê"}'.encode(), headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (200, 3)


@VERSIONS
async def test_a_body_may_come_byte_by_byte_and_a_stream_may_answer_it(http2: bool) -> None:
    async def one_by_one() -> AsyncIterator[bytes]:
        for byte in b'{"text": "slowly"}':
            yield bytes([byte])

    async with serve(make_app()) as server, server.client(http2=http2) as client:
        answer = await client.post("/api/stream", content=one_by_one(), headers={"Content-Type": "application/json"})
    assert answer.text == "data: 6\n\n"


@VERSIONS
async def test_a_body_just_at_the_limit_is_taken(http2: bool) -> None:
    frame = len(b'{"text":""}')
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        for size, status in ((LIMIT - frame, 200), (LIMIT - frame + 1, 413)):
            answer = await client.post("/api/length", content=b'{"text":"%b"}' % (b"x" * size))
            assert answer.status_code == status


@VERSIONS
async def test_a_file_arrives_bit_for_bit_with_the_fields_around_it(http2: bool) -> None:
    data = os.urandom(5_000_000)
    async with serve(make_app(limit=10_000_000)) as server, server.client(http2=http2) as client:
        answer = await client.post(
            "/api/upload",
            files={"file": ('a "quoted" é.bin', data, "application/x-test")},
            data={"name": "näme", "tags": ["one", "two"]},
        )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "name": "näme",
        "tags": ["one", "two"],
        "filename": answer.json()["filename"],
        "type": "application/x-test",
        "size": len(data),
        "hash": sha256(data).hexdigest(),
    }


async def test_a_multipart_form_above_the_limit_is_refused_with_413() -> None:
    async with serve(make_app()) as server:
        async with server.client() as client:
            answer = await client.post("/api/upload", files={"file": LARGE}, data={"name": "n", "tags": ["t"]})
            assert answer.status_code == 413
        await check_healthy(server)


async def test_a_broken_multipart_form_is_told_with_400() -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    broken = [
        b"nonsense",
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nno end',
        b"--b\r\n\r\nno name\r\n--b--\r\n",
    ]
    async with serve(make_app()) as server, server.client() as client:
        statuses = [(await client.post("/api/upload", content=body, headers=kind)).status_code for body in broken]
        unbounded = await client.post("/api/upload", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (statuses, unbounded.status_code) == ([400, 400, 400], 400)


async def test_a_urlencoded_form_gives_inputs_too() -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.post("/api/length", data={"text": "a&b=é"})
    assert answer.json() == 5


@pytest.mark.parametrize(
    ("path", "size", "status"), [("/api/length", 16, 200), ("/api/length", len(LARGE), 413), ("/api/nowhere", 16, 404)]
)
async def test_a_client_that_asks_first_is_answered_before_it_sends(path: str, size: int, status: int) -> None:
    async with serve(make_app()) as server, open_raw(server.port) as raw:
        await raw.request("POST", path, f"Content-Length: {size}", "Expect: 100-continue")
        if status == 200:
            with trio.move_on_after(1):
                while not raw.informational:
                    raw.informational.append((await raw.event()).status_code)
            assert raw.informational == [100]
            await raw.send(b'{"text": "four"}')
        assert (await raw.head()).status == status
        assert await raw.chunk() == (b"4\n" if status == 200 else ANY_ERROR)


class _AnyError:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and other.startswith(b'{"error":')

    __hash__ = None  # type: ignore[assignment]


ANY_ERROR = _AnyError()


@needs_curl
async def test_curl_uploads_what_it_may_and_is_told_where_it_may_not() -> None:
    async with serve(make_app()) as server:
        for size, status in ((1000, "200"), (5_000_000, "413")):
            run = await trio.run_process(
                ["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json",
                 "--data-binary", "@-", f"{server.url}/api/length"],
                stdin=b'{"text": "%b"}' % (b"x" * size), capture_stdout=True,
            )  # fmt: skip
            assert run.stdout.decode() == status
