"""WebSockets: what their clients say, and what they do not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import wsproto
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.e2e.serving import until
from tests.server.bare import serve_bare
from tests.server.hostile import SOCKET, frame, text


class Client:
    """A client of wsproto's."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.state = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._events: list[Any] = []

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.state.send(event))

    async def event(self) -> Any:
        while not self._events:
            data = await self.stream.receive_some(65536)
            self.state.receive_data(data or None)
            self._events += self.state.events()
        return self._events.pop(0)


@asynccontextmanager
async def open_client(port: int, **options: Any) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        await client.send(Request(**{"host": "x", "target": "/", **options}))
        assert isinstance(await client.event(), AcceptConnection)
        yield client


class Listener:
    """An application that accepts, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.end: Any = None
        self.may_listen = trio.Event()
        self.may_listen.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await self.may_listen.wait()
        while (message := await receive())["type"] != "websocket.disconnect":
            self.heard.append(message["text"] or message["bytes"])
        self.end = message


@pytest.mark.parametrize(("code", "reason"), [(1000, None), (3456, "because"), (None, None)])
async def test_the_code_and_the_reason_of_a_client_s_close_arrive(code: int | None, reason: str | None) -> None:
    app = Listener()
    async with serve_bare(app) as bare, open_client(bare.port) as client:
        if code is None:
            await client.stream.send_all(frame(8, b""))
        else:
            await client.send(CloseConnection(code=code, reason=reason))
        await until(lambda: app.end)
        assert isinstance(await client.event(), CloseConnection) or code is None
    assert app.end == {"type": "websocket.disconnect", "code": code or 1005, "reason": reason or ""}


async def test_a_client_that_is_lost_has_the_code_that_says_so() -> None:
    app = Listener()
    async with serve_bare(app) as bare:
        async with open_client(bare.port):
            pass
        await until(lambda: app.end)
    assert app.end["code"] == 1006


@pytest.mark.parametrize(
    ("sent", "code"),
    [(text(b"x" * 300_000), 1009), (b"\xff\xff", 1002), (text(b"\xff"), 1007), (b"\x81\x02hi", 1002)],
    ids=["too large", "no frame", "no text", "not masked"],
)
async def test_what_ends_a_socket_is_told_to_both_sides(sent: bytes, code: int) -> None:
    app = Listener()
    async with serve_bare(app) as bare, open_client(bare.port) as client:
        await client.stream.send_all(sent)
        with trio.fail_after(2):
            event = await client.event()
            assert (type(event), event.code) == (CloseConnection, code)
            await until(lambda: app.end)
    assert app.end["code"] == code


async def test_a_few_bytes_that_inflate_to_very_many_end_the_socket_early() -> None:
    app = Listener()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (deflater.compress(bytes(100_000_000)) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    sent = b"\xc2\xff" + struct.pack("!Q", len(bomb)) + b"\0\0\0\0" + bomb
    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as stream:
        await stream.send_all(SOCKET + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        assert b"permessage-deflate" in await stream.receive_some(1000)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_anyway, stream, sent)
            assert (await stream.receive_some(4))[2:4] == struct.pack("!H", 1009)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < 0.5
        await until(lambda: app.end)
    assert app.heard == []


async def send_anyway(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return


async def test_what_comes_with_the_handshake_is_heard_once_it_is_accepted() -> None:
    app = Listener()
    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as stream:
        await stream.send_all(SOCKET + b"\r\n" + text(b"early") + text(b"bird")[:3])
        await until(lambda: app.heard)
        await stream.send_all(text(b"bird")[3:])
        await until(lambda: len(app.heard) == 2)
    assert app.heard == ["early", "bird"]


async def test_messages_that_nobody_hears_make_their_client_wait() -> None:
    app, sent = Listener(), 0
    app.may_listen = trio.Event()
    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as stream:
        await stream.send_all(SOCKET + b"\r\n")
        message = text(b"x" * 30_000)
        with trio.move_on_after(1):
            while sent < 100_000_000:
                await stream.send_all(message)
                sent += len(message)
        assert sent < 20_000_000
        app.may_listen.set()
        await until(lambda: len(app.heard) >= sent // len(message))


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_answers_no_pings_is_lost(answers: bool) -> None:
    app = Listener()
    async with serve_bare(app, websocket_ping_interval=0.1) as bare, open_client(bare.port) as client:
        with trio.move_on_after(0.5):
            while isinstance(event := await client.event(), Ping):
                if answers:
                    await client.send(event.response())
        assert (app.end is None) is answers


async def test_pings_are_answered_at_once() -> None:
    async with serve_bare(Listener()) as bare, open_client(bare.port) as client:
        for number in range(100):
            await client.send(Ping(payload=b"%d" % number))
        for number in range(100):
            event = await client.event()
            assert (type(event), bytes(event.payload)) == (Pong, b"%d" % number)


async def test_a_refused_handshake_is_answered_by_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-length", b"2")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as stream:
        client = Client(stream)
        await client.send(Request(host="x", target="/"))
        event = await client.event()
        assert (type(event), event.status_code) == (RejectConnection, 403)
        assert bytes((await client.event()).data) == b"no"


async def test_messages_come_whole_in_both_directions() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", **{key: message[key] for key in ("text", "bytes")}})

    async with serve_bare(app) as bare, open_client(bare.port) as client:
        for size in (0, 1, 125, 126, 65_536):
            await client.send(TextMessage(data="é" * size))
            whole = ""
            while not isinstance(event := await client.event(), Message) or not event.message_finished:
                whole += event.data
            assert whole + event.data == "é" * size
