"""WebSockets: hypercorn's `WSStream`, with what a client could do to it contained, and its way over HTTP/1.1.

Owns: the mends of that class, and the handshake's and the frames' way to it. Does not know: HTTP/2, which uses the
same class.

What is mended (hypercorn 0.18, `protocol/ws_stream.py`; the numbers are of pgjones/hypercorn):
- a handshake with fields that are no ASCII, or with an offer of compression that is none, raised;
- frames that came with the handshake, before the application had accepted, raised (#225);
- the client's close code and reason were lost: always 1006 (#127);
- after a message too large (1009) the application was not told, and wrote on for nobody;
- a breach of the protocol was not answered by a close;
- a few bytes may inflate to very many: they are inflated little by little;
- pings were sent, and nobody looked whether they were answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason
from wsproto.handshake import server_extensions_handshake
from wsproto.utilities import split_comma_header

from .answer import Answer
from .frames import frames
from .http1 import Fields, Head, Refused
from .tasks import Inbox, Tasks
from .wire import MAX_RECEIVE, Gone, Wire

if TYPE_CHECKING:
    from .connection import Http1

EARLY: Final = MAX_RECEIVE
"""How much a client may send before it has been accepted, in bytes."""

INFLATED: Final = 4096
"""How much is looked at at once, in bytes: inflated it may become a thousand times as much."""

MESSAGES: Final = 10
"""How many messages may wait for the application."""

ONLY: Final = 1
"""The number of the only stream of a connection."""


def is_asked_for(head: Head) -> bool:
    """Whether a request asks for a WebSocket."""
    return head.upgrade == b"websocket" and head.method == "GET" and head.length == 0


def refusal(headers: Fields) -> str | None:
    """Why a handshake is none, where hypercorn would not find out."""
    for name, value in headers:
        if (name == b"connection" or name.startswith(b"sec-websocket-")) and not value.isascii():
            return f"the field {name.decode()} is no ASCII"
    return None


def without_bad_offers(headers: Fields) -> Fields:
    """The fields of a handshake, without an offer of compression that is none: it is declined (RFC 7692, section 5)."""
    offers = [value for name, value in headers if name == b"sec-websocket-extensions"]
    try:
        for offer in offers:
            server_extensions_handshake(split_comma_header(offer), [PerMessageDeflate()])
    except (ValueError, LookupError, TypeError):
        return [(name, value) for name, value in headers if name != b"sec-websocket-extensions"]
    return headers


class Socket(WSStream):
    """A WebSocket, over HTTP/1.1 or HTTP/2.

    Args:
        wire: what carries it alone, where something does.

    Attributes:
        extension: what this server offers beside ASGI.
    """

    def __init__(self, *args: Any, max_message: int, wire: Wire | None = None) -> None:
        super().__init__(*args)
        self._wire = wire
        self._deflates = False
        self.extension: dict[str, Any] = {"say": self.say}
        if wire is not None and not wire.tls:
            self.extension["attempt"] = self.attempt
        # The application has a better answer to what is only a little too large.
        self.buffer.max_length = min(self.buffer.max_length, 2 * max_message)
        self._end: dict[str, Any] = {"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value}
        self._early = bytearray()
        self._heard = True

    async def handle(self, event: Any) -> None:
        """Take what came from the client."""
        if self.closed:
            return
        if isinstance(event, (Body, Data)):
            await self._take(bytes(event.data))
        elif isinstance(event, StreamClosed):
            self.closed = True
            if self.app_put is not None:
                if self.state in {ASGIWebsocketState.HTTPCLOSED, ASGIWebsocketState.CLOSED}:
                    self._end.setdefault("code", CloseReason.NORMAL_CLOSURE.value)
                await self.app_put(self._end)
        elif isinstance(event, EndBody):
            if self.handshake.http_version != "1.1":
                await self.handle(StreamClosed(stream_id=self.stream_id))
        else:
            await super().handle(event)

    async def _take(self, data: bytes) -> None:
        self._heard = True
        if self.state is ASGIWebsocketState.HANDSHAKE:
            self._early += data
            if len(self._early) > EARLY:
                await self._lose("more was sent than may be before the handshake is done")
        elif self.state in {ASGIWebsocketState.CONNECTED, ASGIWebsocketState.CLOSED}:
            for start in range(0, len(data), INFLATED):
                self.connection.receive_data(data[start : start + INFLATED])
                await self._handle_events()
                if self.closed:
                    return

    async def _accept(self, message: Any) -> None:
        offers = self.handshake.extensions
        self._deflates = bool(offers and server_extensions_handshake(offers, [PerMessageDeflate()]))
        await super()._accept(message)
        early, self._early = bytes(self._early), bytearray()
        if early:
            await self._take(early)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._close(CloseReason.MESSAGE_TOO_BIG, "the message is too large")
                    return
                if event.message_finished and self.app_put is not None:
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                self._end = {**self._end, "code": int(event.code), "reason": event.reason or ""}
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                elif self.connection.state is ConnectionState.OPEN:  # a breach of the protocol, found by wsproto
                    await self._send_wsproto_event(CloseConnection(code=event.code, reason=event.reason))
                await self.send(StreamClosed(stream_id=self.stream_id))
                return

    async def _close(self, code: CloseReason, reason: str) -> None:
        """Tell the client why this is the end, and the application that it is."""
        self._end = {**self._end, "code": code.value, "reason": reason}
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _lose(self, reason: str) -> None:
        self._end = {**self._end, "reason": reason}
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def app_send(self, message: Any) -> None:
        """Take what the application sends.

        Raises:
            Gone: the client has left.
        """
        if self.closed and message is not None:
            await trio.lowlevel.checkpoint()
            raise Gone("the client has left")
        await super().app_send(message)

    async def say(self, texts: Sequence[bytes]) -> None:
        """Send messages together, as the extension has it.

        Raises:
            Gone: the client has left, or has been told that this is the end.
            RuntimeError: the socket has not been accepted.
        """
        if self.state is ASGIWebsocketState.HANDSHAKE:
            raise RuntimeError("a socket has to be accepted before anything is said on it")
        if not self._is_open:
            await trio.lowlevel.checkpoint()
            raise Gone("the client has left")
        await self.send(Data(self.stream_id, self._framed(texts)))

    def attempt(self, text: bytes) -> bool | None:
        """Send a message now or never; what is returned is the extension's to say."""
        if self._wire is None or not (self._wire.free and self._is_open):
            return None
        return self._wire.attempt(self._framed((text,)))

    @property
    def _is_open(self) -> bool:
        is_accepted = self.state is ASGIWebsocketState.CONNECTED and not self.closed
        return is_accepted and self.connection.state is ConnectionState.OPEN

    def _framed(self, texts: Sequence[bytes]) -> bytes:
        if not self._deflates:
            return frames(texts)
        return b"".join([self.connection.send(TextMessage(data=text.decode())) for text in texts])

    async def _send_pings(self) -> None:
        interval: Any = self.config.websocket_ping_interval
        while not self.closed:
            self._heard = False
            await self._send_wsproto_event(Ping())
            await trio.sleep(interval)
            if not self._heard and not self.closed:
                await self._lose("the client answers no pings")


class _Way:
    """The way of one WebSocket over HTTP/1.1."""

    def __init__(self, connection: Http1, head: Head) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._head = head
        self._answer = Answer(head.method, head.version, keeps=False)
        self._over = trio.CancelScope()
        self._socket: Socket

    async def run(self) -> None:
        head, site = self._head, self._connection.site
        async with trio.open_nursery() as helpers:
            async with trio.open_nursery() as calls:
                tasks = Tasks(calls, helpers, site, lambda _: Inbox(MESSAGES))
                self._socket = Socket(
                    site.app, site.config, site.context, tasks, self._wire.tls, self._wire.client, self._wire.server,
                    self._send, ONLY, max_message=site.worker.limits.max_message, wire=self._wire,
                )  # fmt: skip
                with self._over, suppress(Gone):
                    await self._socket.handle(
                        Request(
                            ONLY,
                            without_bad_offers(head.headers),
                            "1.1",
                            head.method,
                            head.target,
                            cast("Any", site.state),
                        )
                    )
                    await self._read()
                await self._socket.handle(StreamClosed(ONLY))  # what is not over yet, such as a call, is told so
            helpers.cancel_scope.cancel()
        await site.context.mark_request()

    async def _read(self) -> None:
        data = self._connection.reader.rest()
        while not self._socket.closed:
            if data:
                await self._socket.handle(Data(ONLY, data))
            data = await self._wire.receive()
            if not data:
                self._connection.left = True
                return

    async def _send(self, event: Any) -> None:
        """What hypercorn's class has for the client."""
        try:
            if isinstance(event, Response):
                fields = self._connection.own_fields()
                await self._wire.write(self._answer.head(event.status_code, event.headers, fields))
            elif isinstance(event, Body):
                await self._wire.write(self._answer.part(event.data, last=False))
            elif isinstance(event, EndBody):
                await self._wire.write(self._answer.part(b"", last=True))
            elif isinstance(event, Data):
                await self._wire.write(event.data)
            elif isinstance(event, StreamClosed):
                await self._socket.handle(event)
                self._over.cancel()
        except Gone:
            self._connection.left = True
            self._over.cancel()  # which ends the reading, and then the application is told
            raise


async def serve(connection: Http1, head: Head) -> None:
    """Serve a connection whose request asks for a WebSocket, to its end."""
    reason = refusal(head.headers)
    if reason is not None:
        raise Refused(400, reason)
    await _Way(connection, head).run()
