"""HTTP: a request becomes a call, and what the call answers becomes JSON, server-sent events or a body of bytes.

Owns: the way of a request to its action, the header fields of every answer, and the form of each kind of answer.
Does not know: how a call lives, or what a stream's items are made of beyond their bytes.
"""

from __future__ import annotations

import math
import random
import secrets
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from ..call import Call
from ..connection import Connection, ConnectionType, Peer
from ..errors import ErrorType, TypedError
from ..outbox import End, Outcome
from ..response import BODILESS, Response
from ..streaming import ByteStream, StreamingResponse
from ..wire import headers as header_fields
from ..wire import json, sse
from ..wire.headers import Headers
from . import http_inputs
from .exchange import PIECE, Exchange

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx

JSON: Final = (b"content-type", b"application/json")
EVENT_STREAM: Final[Headers] = [(b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no")]
COMPRESSIBLE: Final = ("text/", "application/json", "application/javascript", "application/xml", "image/svg+xml")
OWN_THREAD: Final = 64 * 1024
"""From this many bytes on compressing would hold up everybody else, so a thread does it."""
RECONNECT_MS: Final = (1000, 5000)
"""Between these a client is told to wait before it comes back to a server that restarts: so not all come at once."""


class HttpTransport:
    """Answers requests."""

    def __init__(self, app: Keryx) -> None:
        self.app = app
        self.cors = header_fields.Cors(app.config.cors)
        self._security = header_fields.security(app.config.security)

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send, self.app.config.write_timeout)
        reply = HttpReply(self, exchange)
        try:
            await self._answer(exchange, reply)
        except trio.BrokenResourceError:
            self.app.log.debug("the client left before its call began", url=exchange.raw_path)

    def base_headers(self, exchange: Exchange, correlation_id: str) -> Headers:
        """The fields that stand on every answer."""
        return [
            *self._security,
            *self.cors.answer(exchange.headers.get(b"origin")),
            (b"x-request-id", correlation_id.encode()),
        ]

    async def _answer(self, exchange: Exchange, reply: HttpReply) -> None:
        if exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            fields = header_fields.merged(reply.base, self.cors.preflight(exchange.headers.get(b"origin")))
            await exchange.refuse(204, fields, b"")
            return
        found = self._find(exchange)
        if isinstance(found, TypedError):
            await self._refuse(exchange, reply, found)
            return
        if found is None:
            await exchange.refuse(204, [*reply.base, self._allow(exchange)], b"")
            return
        action, path = found
        try:
            raw = await http_inputs.read(exchange, path, self.app.config.max_body_size, wanted=bool(action.inputs.keys))
        except TypedError as error:
            await self._refuse(exchange, reply, error)
            return
        try:
            await self._call(action, exchange, reply, raw)
        finally:
            raw.close()

    def _find(self, exchange: Exchange) -> tuple[Action[..., Any], dict[str, str]] | TypedError | None:
        """The action and its path parameters; or why there is none; or None for a plain OPTIONS."""
        if self.app.drain_deadline is not None:
            return TypedError("the server is shutting down; try again", ErrorType.CONNECTION_UNAVAILABLE, retry_after=1)
        path = exchange.raw_path
        found = self.app.router.find("GET" if exchange.method == "HEAD" else exchange.method, path)
        if found is not None:
            return found
        if not self.app.router.methods(path):
            return TypedError(f"no action answers {path}", ErrorType.CONNECTION_ACTION_NOT_FOUND)
        if exchange.method == "OPTIONS":
            return None
        return TypedError(
            f"{path} does not answer {exchange.method}; it answers {self._allow(exchange)[1].decode()}",
            ErrorType.CONNECTION_METHOD_NOT_ALLOWED,
        )

    def _allow(self, exchange: Exchange) -> tuple[bytes, bytes]:
        methods = self.app.router.methods(exchange.raw_path)
        return b"allow", ", ".join(methods if "OPTIONS" in methods else [*methods, "OPTIONS"]).encode()

    async def _refuse(self, exchange: Exchange, reply: HttpReply, error: TypedError) -> None:
        """Answer what never became a call."""
        self.app.log.info(
            "refused",
            status=error.status,
            method=exchange.method,
            url=exchange.raw_path,
            error=error.message,
            correlation_id=reply.correlation_id,
        )
        extra = [self._allow(exchange)] if error.type is ErrorType.CONNECTION_METHOD_NOT_ALLOWED else []
        status, fields, body = reply.error_parts(error, error.payload(debug=self.app.config.debug))
        await exchange.refuse(status, fields + extra, body)

    async def _call(
        self, action: Action[..., Any], exchange: Exchange, reply: HttpReply, raw: http_inputs.RawInputs
    ) -> None:
        client = exchange.scope.get("client")
        last_event_id = exchange.headers.get(b"last-event-id")
        peer = Peer(
            app=self.app,
            type=ConnectionType.WEB,
            identifier=client[0] if client else "local",
            last_event_id=last_event_id.decode("utf-8", "replace") if last_event_id else None,
        )
        connection = Connection(peer, reply.correlation_id)
        origin = {"method": exchange.method, "url": exchange.raw_path}
        call = Call(self.app, action, connection, reply, raw.values, text=frozenset(raw.text), origin=origin)
        with self.app.connected(connection):
            await call.run()


class HttpReply:
    """The answer to one request."""

    __slots__ = ("_app", "_bytes", "_exchange", "base", "correlation_id", "ending")

    watches = True

    def __init__(self, transport: HttpTransport, exchange: Exchange) -> None:
        self._app = transport.app
        self._exchange = exchange
        self._bytes = False
        self.ending = False
        self.correlation_id = header_fields.request_id(exchange.headers.get(b"x-request-id")) or secrets.token_hex(16)
        self.base = transport.base_headers(exchange, self.correlation_id)

    # How items look on the wire

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> bytes:  # noqa: A002
        """An event block."""
        return sse.encode(data, event, id, retry)

    def comment(self, text: str) -> bytes:
        """A comment block."""
        return sse.comment(text)

    def chunk(self, data: bytes) -> bytes:
        """Bytes as they are."""
        return data

    # A plain answer

    async def left(self) -> None:
        """Return when the client has left."""
        await self._exchange.wait_until_left()

    async def value(self, value: Any) -> None:
        """Answer with JSON, or with a `Response` of its own."""
        if isinstance(value, Response):
            await self._plain(value.status, value.headers, value.body)
        else:
            await self._plain(200, [JSON], json.encode(value) + b"\n")

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:
        """Answer with the error's status and payload."""
        status, fields, body = self.error_parts(error, payload)
        await self._send(status, fields, body)

    def error_parts(self, error: TypedError, payload: dict[str, Any]) -> tuple[int, Headers, bytes]:
        """Status, header fields and body of an error's answer."""
        body = json.encode({"error": payload}) + b"\n"
        fields = [*self.base, JSON, (b"content-length", str(len(body)).encode())]
        if error.retry_after is not None:
            fields.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
        if error.type is ErrorType.CONNECTION_UNAVAILABLE and self._exchange.scope["http_version"] < "2":
            fields.append((b"connection", b"close"))
        return error.status, fields, body

    async def _plain(self, status: int, own: Headers, body: bytes) -> None:
        fields = header_fields.merged(self.base, own)
        if self._can_be_compressed(fields, len(body)):
            fields = [*fields, (b"vary", b"Accept-Encoding")]
            if header_fields.accepts_gzip(self._exchange.headers.get(b"accept-encoding")):
                body = _gzip(body) if len(body) < OWN_THREAD else await trio.to_thread.run_sync(_gzip, body)
                fields = [*fields, (b"content-encoding", b"gzip")]
        if status not in BODILESS:
            fields = [*fields, (b"content-length", str(len(body)).encode())]
        await self._send(status, fields, body)

    def _can_be_compressed(self, fields: Headers, size: int) -> bool:
        settings = self._app.config.compression
        if not settings.enabled or size < max(1, settings.threshold):
            return False
        names = dict(fields)
        kind = header_fields.media_type(names.get(b"content-type", b"").decode("latin-1"))
        return b"content-encoding" not in names and (kind.startswith(COMPRESSIBLE) or kind.endswith(("+json", "+xml")))

    async def _send(self, status: int, fields: Headers, body: bytes) -> None:
        exchange = self._exchange
        await exchange.start(status, fields)
        if exchange.method == "HEAD":
            body = b""
        if len(body) > PIECE:
            await exchange.write(body[:-PIECE])
            body = body[-PIECE:]
        self.ending = True
        await exchange.finish(body)

    # A stream

    def declines(self) -> bool:
        """HEAD asks for no body."""
        return self._exchange.method == "HEAD"

    async def open(self, stream: StreamingResponse, items: list[bytes]) -> None:
        """Send the head, at once, and what there is of the body."""
        self._bytes = isinstance(stream, ByteStream)
        fields = self.base if self._bytes else self.base + EVENT_STREAM
        await self._exchange.start(200, header_fields.merged(fields, stream.headers))
        if self.declines():
            self.ending = True
            await self._exchange.finish()
        else:
            await self._exchange.write(b"".join(items))

    async def write(self, items: list[bytes]) -> None:
        """Send items together."""
        await self._exchange.write(items[0] if len(items) == 1 else b"".join(items))

    async def ping(self) -> None:
        """A comment, which readers skip."""
        await self._exchange.write(sse.PING)

    async def end(self, end: End, payload: Any) -> None:
        """The last word, and a clean end; a byte stream that failed has neither, so that its reader can tell."""
        if self._bytes:
            self.ending = True
            if end.outcome is Outcome.DONE:
                await self._exchange.finish()
            return
        last = b""
        if end.outcome is Outcome.SHUTDOWN:
            last = sse.retry(random.randint(*RECONNECT_MS))  # noqa: S311 - it spreads load, it hides nothing
        elif end.outcome is not Outcome.DONE:
            last = sse.encode(payload if isinstance(payload, str) else json.encode(payload), "error")
        self.ending = True
        await self._exchange.finish(last)


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(level=6, wbits=31)
    return compressor.compress(data) + compressor.flush()
