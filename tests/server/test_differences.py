"""Our server and hypercorn's own make the same of the same requests, where both take them."""

from __future__ import annotations

from typing import Any

import h11
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from keryx_trio import server
from tests.server.bare import answer, read_body, serve_bare
from tests.server.test_http1 import requests

Seen = list[dict[str, Any]]
KEYS = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers")
UNLIKE = {b"date", b"server"}


@given(st.lists(requests(), min_size=1, max_size=3), st.sampled_from([1, 2, 7, 100_000]), st.booleans())
@settings(max_examples=60)
def test_scopes_bodies_and_answers_are_the_same(sent: list[tuple[bytes, bytes]], size: int, close: bool) -> None:
    stream = b"".join(data for data, _ in sent)
    if close:
        stream += b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    count = len(sent) + close
    ours, theirs = (trio.run(outcome, stream, size, count, close, whose) for whose in (True, False))
    assert ours == theirs


async def outcome(stream: bytes, size: int, count: int, close: bool, ours: bool) -> tuple[Seen, list[Any]]:
    """What the application saw, and what its client got."""
    seen: Seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (server.EXTENSION in scope["extensions"]) is ours
        body = await read_body(receive)
        seen.append({**{key: scope[key] for key in KEYS}, "body": body})
        kind = len(scope["path"]) % 4
        if kind == 0:
            await answer(send, body, 200, (b"x-kind", b"whole"))
        elif kind == 1:
            await send({"type": "http.response.start", "status": 201, "headers": []})
            for part in (b"one", b"", body, b"two"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        elif kind == 2:
            await answer(send, b"", 204)
        else:
            await answer(send, b"", 304, (b"etag", b'"x"'))

    answers: list[Any] = []
    with trio.fail_after(10):
        async with (
            serve_bare(app, ours=ours) as bare,
            await trio.open_tcp_stream("127.0.0.1", bare.port) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send_slowly, client, stream, size)
            answers = await read_answers(client, seen, count, close)
    return seen, answers


async def send_slowly(client: trio.SocketStream, stream: bytes, size: int) -> None:
    for start in range(0, len(stream), size):
        await client.send_all(stream[start : start + size])


async def read_answers(client: trio.SocketStream, seen: Seen, count: int, close: bool) -> list[Any]:
    """Each answer, parsed by h11 as one to the request that was seen, and whether the end came where it should."""
    answers: list[Any] = []
    data = b""
    for number in range(count):
        while len(seen) <= number:
            data += await client.receive_some(65536)
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=seen[number]["method"], target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        body = b""
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await client.receive_some(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
        data = parser.trailing_data[0]
        fields = sorted((bytes(name), bytes(value)) for name, value in head.headers if name not in UNLIKE)
        answers.append((head.status_code, fields, body))
    if close:
        answers.append(data + await client.receive_some(1))
    return answers
