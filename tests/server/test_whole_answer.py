"""The extension's `answer`: a whole answer in one message."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.e2e.raw import Raw, open_raw
from tests.e2e.serving import until
from tests.server.bare import serve_bare

LINES = b"content-type: text/plain\r\nx-fixed: 1\r\n"


def extension_of(scope: Any) -> Any:
    return scope["extensions"]["keryx_trio"]


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await extension_of(scope)["answer"](201, LINES, [(b"x-own", b"2")], b"whole")


async def test_it_has_all_fields_its_length_and_the_server_s_own() -> None:
    async with serve_bare(answering) as bare, open_raw(bare.port) as raw:
        for _ in range(2):
            await raw.request("GET", "/")
            head = await raw.head()
            assert head.status == 201
            assert head.headers["x-fixed"] == "1"
            assert head.headers["x-own"] == "2"
            assert head.headers["content-length"] == "5"
            assert "date" in head.headers
            assert "connection" not in head.headers
            assert await raw.body() == b"whole"


async def test_head_gets_the_length_and_no_body() -> None:
    async with serve_bare(answering) as bare, open_raw(bare.port) as raw:
        await raw.request("HEAD", "/")
        assert (await raw.head()).headers["content-length"] == "5"
        assert await raw.body() == b""
        await raw.request("GET", "/")
        assert (await raw.head()).status == 201


async def test_a_client_that_wants_no_more_is_told_of_the_end() -> None:
    async with serve_bare(answering) as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/", "Connection: close")
        assert (await raw.head()).headers["connection"] == "close"
        assert await raw.body() == b"whole"
        assert await raw.stream.receive_some() == b""


@pytest.mark.parametrize("field", [(b"bad name", b"x"), (b"x", b"a\r\nb: c"), (b"x", b"a\0"), (b"", b"x")])
async def test_a_field_that_is_none_is_refused_and_nothing_is_written(field: tuple[bytes, bytes]) -> None:
    refused: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answer = extension_of(scope)["answer"]
        try:
            await answer(200, LINES, [field], b"x")
        except ValueError as error:
            refused.append(str(error))
        await answer(200, LINES, [], b"fine")

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/")
        assert (await raw.head()).status == 200
        assert await raw.body() == b"fine"
    assert len(refused) == 1


async def test_a_second_answer_is_an_error() -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(scope, receive, send)
        try:
            await answering(scope, receive, send)
        except RuntimeError as error:
            raised.append(error)

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/")
        await raw.head()
        assert await raw.body() == b"whole"
    assert len(raised) == 1


async def test_to_a_client_that_has_left_it_says_so() -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gone = trio.Event()
        extension_of(scope)["watch"](gone.set)
        await gone.wait()
        try:
            await answering(scope, receive, send)
        except OSError as error:
            raised.append(error)

    async with serve_bare(app) as bare:
        raw = await Raw.connect(bare.port)
        await raw.request("GET", "/")
        await trio.sleep(0.05)
        await raw.leave()
        await until(lambda: raised)


async def test_where_there_is_an_access_log_there_is_none_so_that_the_log_has_all_fields() -> None:
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append("answer" in extension_of(scope))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve_bare(app, accesslog="-") as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/")
        await raw.head()
    assert found == [False]


@pytest.mark.parametrize(("fields", "bodiless"), [((), True), (("Content-Length: 0",), True)])
async def test_a_request_without_a_body_is_known_by_its_head(fields: tuple[str, ...], bodiless: bool) -> None:
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((extension_of(scope).get("bodiless", False), await receive()))
        await answering(scope, receive, send)

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("POST", "/", *fields)
        await raw.head()
        await raw.body()
        await raw.request("POST", "/", body=b"abc")
        await raw.head()
    empty = {"type": "http.request", "body": b"", "more_body": False}
    assert found == [(bodiless, empty), (False, {"type": "http.request", "body": b"abc", "more_body": False})]
