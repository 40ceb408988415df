"""HTTP: a request becomes a call, and what the call answers becomes JSON, server-sent events or a body of bytes.

Owns: the way of a request to its action, the header fields of every answer, and the form of each kind of answer.
Does not know: how a call lives, or what a stream's items are made of beyond their bytes.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import trio

from ..call import LAST_WRITES, Call, shutting_down
from ..connection import Connection, ConnectionType
from ..errors import ErrorType, TypedError, as_typed, unwrap
from ..outbox import MAX_BYTES, End, Outcome
from ..response import BODILESS, Response
from ..secrecy import SECRET_MARK
from ..streaming import ByteStream, StreamingResponse
from ..wire import headers as header_fields
from ..wire import json, sse
from ..wire.headers import Headers
from . import files, http_inputs
from .clients import Clients, correlation_id
from .exchange import Exchange

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx
    from .docs import Docs

JSON: Final = (b"content-type", b"application/json")
STREAM: Final[Headers] = [(b"x-accel-buffering", b"no")]
"""For proxies that would take all of a stream, and so hide how fast its reader is."""
EVENT_STREAM: Final[Headers] = [(b"cache-control", b"no-cache, no-transform"), *STREAM]
COMPRESSIBLE: Final = ("text/", "application/json", "application/javascript", "application/xml", "image/svg+xml")
OWN_THREAD: Final = 64 * 1024
"""From this many bytes on compressing would hold up everybody else, so a thread does it."""
RECONNECT_MS: Final = (1000, 5000)
"""Between these a client is told to wait before it comes back to a server that restarts: so not all come at once."""


class HttpTransport:
    """Answers requests."""

    def __init__(self, app: Keryx) -> None:
        self.app = app
        self.clients = Clients(app)
        self.standard = header_fields.Standard(app.config.security, app.config.cors)

    @cached_property
    def docs(self) -> Docs | None:
        """The description, made when somebody asks for what no action answers."""
        if not self.app.config.docs.enabled:
            return None
        from .docs import Docs  # noqa: PLC0415 - a server should be there before it can tell of itself

        return Docs(self.app)

    def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """Answer one request, once this is awaited."""
        config = self.app.config
        exchange = Exchange(scope, receive, send, read_timeout=config.read_timeout, write_timeout=config.write_timeout)
        return HttpRequest(self, exchange).answer()


class HttpRequest:
    """One request, on its way to a call or to a refusal."""

    __slots__ = ("_app", "_call", "_exchange", "_reply", "_scope", "_spare", "_transport")

    def __init__(self, transport: HttpTransport, exchange: Exchange) -> None:
        self._transport = transport
        self._app = transport.app
        self._exchange = exchange
        self._reply = HttpReply(transport, exchange)
        self._call: Call | None = None
        self._scope: trio.CancelScope | None = None
        self._spare = 0.0

    def describe(self) -> dict[str, str]:
        """What the log says of a request that is left behind."""
        return {
            "method": self._exchange.method,
            "url": self._shown_path(),
            "action": self._call.action.name if self._call is not None else "none yet",
            "correlation_id": self._reply.correlation_id,
        }

    def shut_down(self, deadline: float) -> None:
        """The server stops: the rest of the body must come by then, and every write go out soon after."""
        if self._scope is not None:
            self._scope.deadline = deadline + self._spare
        if self._call is not None:
            self._call.shut_down(deadline)

    def _in_time(self, spare: float = 0.0) -> trio.CancelScope:
        """A scope for what happens outside of a call: a shutdown ends it, `spare` seconds after its deadline."""
        self._scope, self._spare = trio.CancelScope(), spare
        if self._app.drain_deadline is not None:
            self._scope.deadline = self._app.drain_deadline + spare
        return self._scope

    async def answer(self) -> None:
        """Answer, whatever happens."""
        exchange = self._exchange
        self._app.begin(self)
        try:
            if exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers:
                preflight = self._transport.standard.cors.preflight(exchange.headers.get(b"origin"))
                await self._answer_unread(204, header_fields.merged(self._reply.base, preflight))
            else:
                await self._lead()
        except trio.BrokenResourceError:
            self._app.log.debug("the client left before its call began", url=self._shown_path())
        except TypedError as error:
            await self._refuse(error)
        except Exception as error:  # as none of ours may reach the server, which would answer a bare 500
            self._app.log.exception("a request failed", unwrap(error), url=self._shown_path())
            if not exchange.begun:
                await self._refuse(as_typed(error, debug=self._app.config.debug))
        finally:
            self._app.end(self)

    async def _lead(self) -> None:
        """To the action, or to why there is none."""
        app, exchange = self._app, self._exchange
        path = exchange.raw_path
        found = app.router.find("GET" if exchange.method == "HEAD" else exchange.method, path)
        if app.drain_deadline is not None:
            await self._refuse(shutting_down())
        elif found is not None:
            connection = self._connection()
            app.connections[connection.id] = connection  # as `app.connected`, which costs a request more
            try:
                await self._run(*found, connection)
            finally:
                del app.connections[connection.id]
        elif methods := app.router.methods(path):
            await self._refuse_method(methods)
        else:
            await self._look_for_a_file(path)

    async def _look_for_a_file(self, path: str) -> None:
        """Answer with a file of a folder, or with the description, or say that there is nothing."""
        exchange, decoded, docs = self._exchange, unquote(path), self._transport.docs
        folder = next((folder for folder in self._app.folders if folder.has(decoded)), None)
        file: Any = None if folder is None else await folder.find(decoded, exchange)
        if file is None and docs is not None and docs.has(decoded):
            file = await docs.find(decoded, exchange)
        if file is None:
            message = f"nothing answers {path}{self._hint(path.removesuffix('/'))}"
            await self._refuse(TypedError(message, ErrorType.CONNECTION_ACTION_NOT_FOUND))
        elif exchange.method not in ("GET", "HEAD"):
            await self._refuse_method(["GET", "HEAD"])
        else:
            with self._in_time():
                async for _ in exchange.chunks(self._app.config.max_body_size):
                    pass  # none of these should have a body
            with self._in_time(LAST_WRITES):
                if isinstance(file, Response):
                    await self._reply.value(file)
                else:
                    await files.send_file(file, exchange, self._reply.base)

    def _hint(self, path: str) -> str:
        """What may be meant by a path that nothing answers."""
        config = self._app.config
        if path == config.mcp.route:
            return "; MCP is off: Keryx(mcp=True) or KERYX_MCP_ENABLED=true serves it"
        if path in (f"{config.api_route}/docs", f"{config.api_route}/openapi.json") and not config.docs.enabled:
            return "; the description is off: KERYX_DOCS_ENABLED=true serves it"
        return ""

    async def _refuse_method(self, methods: list[str]) -> None:
        """Say which methods a path answers."""
        exchange = self._exchange
        allowed = ", ".join(methods if "OPTIONS" in methods else [*methods, "OPTIONS"])
        allow = (b"allow", allowed.encode())
        if exchange.method == "OPTIONS":
            await self._answer_unread(204, [*self._reply.base, allow])
        else:
            message = f"{self._shown_path()} does not answer {exchange.method}; it answers {allowed}"
            await self._refuse(TypedError(message, ErrorType.CONNECTION_METHOD_NOT_ALLOWED), allow)

    async def _run(self, action: Action[..., Any], path: dict[str, str], connection: Connection) -> None:
        """Read the request to its end, and make the call of it."""
        raw: http_inputs.RawInputs | None = None
        try:
            if self._exchange.body_read:
                raw = http_inputs.of_head(self._exchange, path)
            else:
                limit = self._app.config.max_body_size
                with self._in_time():
                    raw = await http_inputs.read(self._exchange, path, limit, wanted=bool(action.inputs.keys))
                if raw is None:
                    raise shutting_down()
        except TypedError as error:
            await self._refuse(error)
            return
        shown = self._shown_path() if path else self._exchange.raw_path  # a fixed path has no input to hide
        origin = {"method": self._exchange.method, "url": shown}
        self._call = Call(self._app, action, connection, self._reply, raw.values, text=raw.text, origin=origin)
        try:
            await self._call.run()
        finally:
            raw.close()

    async def _refuse(self, error: TypedError, *more: tuple[bytes, bytes]) -> None:
        """Answer what never became a call; `more` are further header fields."""
        exchange, reply = self._exchange, self._reply
        self._app.log.info(
            "refused",
            status=error.status,
            method=exchange.method,
            url=self._shown_path(),
            error=error.message,
            correlation_id=reply.correlation_id,
        )
        status, fields, body = reply.error_parts(error, error.payload(debug=self._app.config.debug))
        await self._answer_unread(status, [*fields, *more], body)

    async def _answer_unread(self, status: int, fields: Headers, body: bytes = b"") -> None:
        """Answer a request whose body is not wanted."""
        with self._in_time(LAST_WRITES):
            await self._exchange.refuse(status, fields, body)

    def _shown_path(self) -> str:
        """The path as it may be told: without the segments that are secret inputs of what it leads to."""
        path, method, router = self._exchange.raw_path, self._exchange.method, self._app.router
        own = router.find("GET" if method == "HEAD" else method, path)
        for found in [own] if own else [router.find(each, path) for each in router.methods(path)]:
            if found is not None and found[1]:  # it has parameters
                path = _without_secrets(path, found[0])
        return path

    def _connection(self) -> Connection:
        clients, headers = self._transport.clients, self._exchange.headers
        origin = clients.origin(self._exchange.scope, headers)
        connection = Connection(clients.peer(headers, origin, ConnectionType.WEB), self._reply.correlation_id)
        self._reply.connection, self._reply.secure = connection, origin.secure
        return connection


class HttpReply:
    """The answer to one request."""

    __slots__ = ("_app", "_bytes", "_exchange", "_origin", "_standard", "connection", "correlation_id", "secure")

    patient = False

    def __init__(self, transport: HttpTransport, exchange: Exchange) -> None:
        self._app = transport.app
        self._exchange = exchange
        self._bytes = False
        self.correlation_id = correlation_id(exchange.headers)
        self._standard = transport.standard
        self._origin = exchange.headers.get(b"origin")
        self.connection: Connection | None = None
        self.secure = False

    @property
    def base(self) -> Headers:
        """The fields that stand on this answer whatever it is, as they are now that its head goes out."""
        return self._standard.fields(self._origin) + self._own

    @property
    def _own(self) -> Headers:
        """Those of them that are this answer's alone."""
        fields = [header_fields.request_id_field(self.correlation_id)]
        connection = self.connection
        if connection is not None:
            session = connection.session
            session.sealed = True
            cookie = session.cookie(secure=self.secure)
            if cookie is not None:
                fields.append((b"set-cookie", cookie))
            if connection.rate_limit is not None:
                fields += connection.rate_limit.headers()
        return fields

    @property
    def begun(self) -> bool:
        """Whether any of the answer has been written."""
        return self._exchange.begun

    @property
    def ending(self) -> bool:
        """Whether the last of it is being written."""
        return self._exchange.ending

    # How items look on the wire

    def announce(self, stream: StreamingResponse) -> int:
        """A stream has the whole connection."""
        self._bytes = isinstance(stream, ByteStream)
        return MAX_BYTES

    event = staticmethod(sse.encode)
    comment = staticmethod(sse.comment)

    def chunk(self, data: bytes) -> bytes:
        """Bytes as they are."""
        return data

    # A plain answer

    def watch(self, left: Callable[[], None]) -> Callable[[], None] | None:
        """Have the server tell, where it can."""
        return self._exchange.watch(left)

    @property
    def enclosing(self) -> trio.CancelScope | None:
        """The connection's."""
        return self._exchange.enclosing(self._app)

    async def left(self) -> None:
        """Return when the client has left."""
        await self._exchange.wait_until_left()

    async def value(self, value: Any) -> None:
        """Answer with JSON, or with a `Response` of its own."""
        if isinstance(value, Response):
            await self._plain(value.status, value.headers, value.body)
            return
        body = json.encode(value) + b"\n"
        if self._exchange.answers_at_once and not self._is_large(len(body)):
            await self._exchange.answer(200, self._standard.lines(self._origin, JSON), self._own, body)
        else:
            await self._plain(200, [JSON], body)

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

    def _is_large(self, size: int) -> bool:
        settings = self._app.config.compression
        return settings.enabled and size >= max(1, settings.threshold)

    def _can_be_compressed(self, fields: Headers, size: int) -> bool:
        if not self._is_large(size):
            return False
        names = dict(fields)
        kind = header_fields.media_type(names.get(b"content-type", b"").decode("latin-1"))
        return b"content-encoding" not in names and (kind.startswith(COMPRESSIBLE) or kind.endswith(("+json", "+xml")))

    async def _send(self, status: int, fields: Headers, body: bytes) -> None:
        await self._exchange.start(status, fields)
        await self._exchange.finish(body)

    # A stream

    def declines(self) -> bool:
        """HEAD asks for no body."""
        return self._exchange.method == "HEAD"

    async def open(self, stream: StreamingResponse, items: list[bytes]) -> None:
        """Send the head, at once, and what there is of the body."""
        fields = self.base + (STREAM if self._bytes else EVENT_STREAM)
        await self._exchange.start(200, header_fields.merged(fields, stream.headers))
        if self.declines():
            await self._exchange.finish()
        else:
            await self._exchange.write(b"".join(items))

    async def write(self, items: list[bytes]) -> None:
        """Send items together."""
        await self._exchange.write(items[0] if len(items) == 1 else b"".join(items))

    @property
    def attempt(self) -> Callable[[bytes], bool | None] | None:
        """The server's, where it has one."""
        return self._exchange.attempt

    async def ping(self) -> None:
        """A comment, which readers skip."""
        await self._exchange.write(sse.PING)

    async def end(self, end: End, payload: Any, data: Any) -> None:  # noqa: ARG002 - an event has the data
        """The last word, and a clean end; a byte stream that failed has neither, so that its reader can tell."""
        if self._bytes and end.outcome is not Outcome.DONE:
            self._exchange.cut()
            return
        last = b""
        if end.outcome is Outcome.SHUTDOWN:
            last = sse.retry(random.randint(*RECONNECT_MS))  # noqa: S311 - it spreads load, it hides nothing
        elif end.outcome is not Outcome.DONE:
            last = sse.encode(data if isinstance(data, str) else json.encode(data), "error")
        await self._exchange.finish(last)


def _without_secrets(path: str, action: Action[..., Any]) -> str:
    """A path that leads to `action`, whose route is the end of it, with a mark for each segment that is secret."""
    route, segments = action.web.route.split("/") if action.web else [], path.split("/")
    for place in range(1 - len(route), 0):
        part = route[place]
        if part.startswith("{") and action.inputs.is_secret(part[1:-1]):
            segments[place] = SECRET_MARK
    return "/".join(segments)


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(level=6, wbits=31)
    return compressor.compress(data) + compressor.flush()
