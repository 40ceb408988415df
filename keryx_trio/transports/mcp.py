"""The Model Context Protocol over HTTP and stdio: who may ask, and the way to the SDK's server and back.

Owns: the guard in front of the endpoint (hosts, origins, tokens), the fields of its answers, and how its requests end
with the application. Does not know: tools, or what a call answers (`mcp_server` does).

The SDK holds the sessions of older protocols, each in a task of its own, in a nursery inside the application's life.
Newer protocols have none: there a request is all there is, and closing it cancels what it asked for.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken, principal_components
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import AnyHttpUrl
from starlette.requests import HTTPConnection

from ..call import LAST_WRITES, Call, shutting_down
from ..errors import ErrorType, TypedError, as_typed, text_of, unwrap
from ..wire import headers as header_fields
from ..wire import json
from ..wire.headers import Headers
from .clients import Clients, correlation_id
from .exchange import Exchange, Receive, Send, raw_path
from .mcp_server import CALLER, AgentServer, Caller
from .stdio import Lines, Output, open_stdio

if TYPE_CHECKING:
    from ..app import Keryx

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""Where the metadata of a protected resource is (RFC 9728, section 3)."""

MISDIRECTED: Final = 421
"""The status of a request for a host that is not served here (RFC 9110, section 15.5.20)."""

LAST_WORD: Final = 0.1
"""How long the answer may take that a stop leaves to be said, in seconds."""

METHODS: Final = b"GET, POST, DELETE, OPTIONS"
EXPOSED: Final = b"Mcp-Session-Id, X-Request-Id, WWW-Authenticate"


class McpTransport:
    """Serves the endpoint."""

    def __init__(self, app: Keryx) -> None:
        self.app = app
        self.config = app.config.mcp
        self.clients = Clients(app)
        self.standard = header_fields.Standard(app.config.security, app.config.cors)
        self.server = AgentServer(app)
        self.manager: StreamableHTTPSessionManager

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the sessions of clients, while the application runs."""
        self.manager = StreamableHTTPSessionManager(
            self.server.sdk, max_request_body_size=self.app.config.max_body_size
        )
        async with self.server.running(), self.manager.run():
            self.app.log.info("agents are served", route=self.config.route)
            yield

    def serves(self, scope: Mapping[str, Any]) -> bool:
        """Whether a request is for the endpoint, or asks about it."""
        path = raw_path(scope).removesuffix("/")
        return path == self.config.route or (
            path == WELL_KNOWN + self.config.route and self.config.verify_token is not None
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = McpRequest(self, scope, receive, send)
        with self.app.running(request):
            with request.whole:
                await request.answer()
            if request.whole.cancelled_caught:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WORD):
                    await request.end()


async def serve_stdio(app: Keryx, descriptors: tuple[int, int]) -> None:
    """Serve one client over standard input and output, until it closes them or the process is told to stop.

    Calls that still run then have their last words, as at any stop of the application.

    Args:
        descriptors: of what was taken over (`stdio.taken_over`).
    """
    agents = AgentServer(app)
    async with (
        open_stdio(descriptors, write_timeout=app.config.write_timeout) as (lines, output),
        app,
        agents.running(),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, app, nursery.cancel_scope)
            try:
                await _talk(agents.sdk, lines, output)
            except* (trio.BrokenResourceError, ValueError) as group:
                app.log.info("the client is gone, or says what is no message", error=text_of(unwrap(group)))
            nursery.cancel_scope.cancel()
        await app.drain()


async def _talk(server: Server[Any], lines: Lines, output: Output) -> None:
    # They are as much of a file as it uses: it reads lines, writes, and flushes.
    async with stdio_server(cast("Any", lines), cast("Any", output)) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


async def _stop_on_signal(app: Keryx, scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            was_busy = bool(app.connections)
            await app.drain()
            if was_busy:  # the SDK does not tell when it has written what the calls have answered
                await trio.sleep(LAST_WRITES)
            scope.cancel()


class McpRequest:
    """One request to the endpoint.

    Attributes:
        whole: the scope of all of it, which a shutdown bounds.
    """

    def __init__(self, transport: McpTransport, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        config = transport.app.config
        self._transport = transport
        self._app = transport.app
        self._config = transport.config
        self._receive = receive
        self._exchange = Exchange(
            scope, receive, send, read_timeout=config.read_timeout, write_timeout=config.write_timeout
        )
        headers = self._exchange.headers
        self._origin = headers.get(b"origin", b"").decode("latin-1").lower()
        self._host = headers.get(b"host", b"").decode("latin-1").lower()
        self._client = transport.clients.origin(scope, headers)
        self._correlation_id = correlation_id(headers)
        self._body: bytes | None = None
        self._calls: set[Call] = set()
        self.whole = trio.CancelScope()

    def describe(self) -> dict[str, str]:
        """What the log says of a request that is left behind."""
        action = ", ".join(call.action.name for call in self._calls) or "none"
        return {"url": self._exchange.raw_path, "action": action, "correlation_id": self._correlation_id}

    def shut_down(self, deadline: float) -> None:
        """The server stops: its calls know already; a stream on which a client only listens ends now."""
        self.whole.deadline = deadline + LAST_WRITES
        if self._exchange.method == "GET":
            self.whole.cancel()

    async def answer(self) -> None:
        """Answer, whatever happens."""
        try:
            await self._lead()
        except* trio.BrokenResourceError:
            self._app.log.debug("the client of an MCP request has left", correlation_id=self._correlation_id)
        except* TypedError as group:  # of the body
            await self._refuse(as_typed(group))
        except* Exception as group:  # none of these may reach the server, which would answer a bare 500
            self._app.log.exception("an MCP request failed", unwrap(group), correlation_id=self._correlation_id)
            if not self._exchange.begun:
                await self._refuse(as_typed(group))

    async def end(self) -> None:
        """The stop has cut it short: a stream is ended, and what has had no answer gets one."""
        with suppress(trio.BrokenResourceError):  # the client has left, and needs none
            if not self._exchange.begun:
                await self._refuse(shutting_down())
            elif not self._exchange.ending:
                await self._exchange.finish()

    async def _lead(self) -> None:
        """To the SDK's server, or to why not."""
        exchange = self._exchange
        if self._app.drain_deadline is not None:
            await self._refuse(shutting_down())
        elif not self._is_allowed_host(self._host):
            said = f"the host {self._host!r} is not served; KERYX_MCP_ALLOWED_HOSTS names those that are"
            await self._refuse(TypedError(said, ErrorType.CONNECTION_CHANNEL_AUTHORIZATION), status=MISDIRECTED)
        elif not self._is_allowed_origin():
            said = f"pages of {self._origin} may not ask; KERYX_MCP_ALLOWED_ORIGINS names the origins that may"
            await self._refuse(TypedError(said, ErrorType.CONNECTION_CHANNEL_AUTHORIZATION))
        elif exchange.method == "OPTIONS":
            await exchange.refuse(204, [*self._fields(), *self._preflight()], b"")
        elif exchange.raw_path.startswith(WELL_KNOWN):
            await self._tell_metadata()
        else:
            # Read here, where the time that it may take is bounded.
            self._body = await exchange.body(self._app.config.max_body_size)
            await (self._pass_on(self._caller(None)) if self._config.verify_token is None else self._authenticate())

    def _is_allowed_host(self, host: str) -> bool:
        hosts = self._config.allowed_hosts
        return host in hosts or header_fields.host_name(host) in hosts

    def _is_allowed_origin(self) -> bool:
        origins = self._config.allowed_origins
        if not self._origin or self._origin in origins or "*" in origins:
            return True
        scheme, _, host = self._origin.partition("://")
        return scheme in ("http", "https") and self._is_allowed_host(host)

    async def _pass_on(self, caller: Caller, user: AuthenticatedUser | None = None) -> None:
        """Let the SDK answer."""
        self._calls = caller.calls
        scope = {**self._exchange.scope, CALLER: caller, **({} if user is None else {"user": user})}
        await self._transport.manager.handle_request(scope, self._hear, self._say)

    async def _hear(self) -> MutableMapping[str, Any]:
        """For the SDK to read; where the client has left, what runs for this request ends."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = dict(await self._receive())
        if message["type"] == "http.disconnect":
            for call in list(self._calls):
                call.leave()
        return message

    async def _say(self, message: Mapping[str, Any]) -> None:
        """For the SDK to write; raises trio.BrokenResourceError where the client has left, or takes nothing."""
        if message["type"] == "http.response.start":
            theirs = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            fields = [field for field in theirs if field[0].decode("latin-1") not in header_fields.HOP_BY_HOP]
            await self._exchange.start(message["status"], header_fields.merged(self._fields(), fields))
        elif message.get("more_body"):
            await self._exchange.write(bytes(message.get("body", b"")))
        else:
            await self._exchange.finish(bytes(message.get("body", b"")))

    # Tokens

    async def _authenticate(self) -> None:
        """Let in whose token is known; else a 401 that says where to get one, as the SDK makes it."""
        scope = dict(self._exchange.scope)
        known = await BearerAuthBackend(_Verifier(self._config.verify_token)).authenticate(HTTPConnection(scope))
        if known is not None:
            scope["auth"], scope["user"] = known
        metadata = build_resource_metadata_url(AnyHttpUrl(self._own_url()))
        guard = RequireAuthMiddleware(self._let_in, list(self._config.required_scopes), metadata)
        await guard(scope, self._hear, self._say)

    async def _let_in(self, scope: Mapping[str, Any], _receive: Receive, _send: Send) -> None:
        """What the guard leads to: whoever holds the token is the user of the session."""
        user: AuthenticatedUser = scope["user"]
        client, _, subject = principal = principal_components(user.access_token)
        await self._pass_on(self._caller(principal, {"user_id": subject or client}), user)

    async def _tell_metadata(self) -> None:
        """Where tokens for this resource come from (RFC 9728, section 3.2)."""
        body = {
            "resource": self._own_url(),
            "authorization_servers": self._config.authorization_servers,
            "scopes_supported": self._config.required_scopes,
            "bearer_methods_supported": ["header"],
        }
        await self._answer_json(200, {key: value for key, value in body.items() if value})

    def _own_url(self) -> str:
        """The URL of the endpoint, as it was asked or as the settings have it."""
        scheme = "https" if self._client.secure else "http"
        return self._config.resource_url or f"{scheme}://{self._host}{self._config.route}"

    def _caller(self, principal: object, given: Mapping[str, Any] | None = None) -> Caller:
        """Who asks. Only older protocols have sessions: with a newer one an id is the client's own invention."""
        headers = self._exchange.headers
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER.encode())
        is_older = version is None or version.decode("latin-1") in HANDSHAKE_PROTOCOL_VERSIONS
        own = headers.get(MCP_SESSION_ID_HEADER.encode(), b"").decode("latin-1") if is_older else ""
        bound_to = json.encode([principal, own]).decode() if principal or own else None
        return Caller(self._client.address, self._correlation_id, bound_to, given or {})

    # Answers of our own

    def _fields(self) -> Headers:
        """The fields that stand on every answer. Pages are let in by their origin, and so told by it."""
        fields = [*self._transport.standard.fields(None), header_fields.request_id_field(self._correlation_id)]
        fields = [field for field in fields if not field[0].startswith(b"access-control-")]
        if self._origin and self._is_allowed_origin():
            fields += [
                (b"access-control-allow-origin", self._exchange.headers[b"origin"]),
                (b"access-control-expose-headers", EXPOSED),
                (b"vary", b"Origin"),
            ]
        return fields

    def _preflight(self) -> Headers:
        asked = self._exchange.headers.get(b"access-control-request-headers", b"")
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", asked),
            (b"access-control-max-age", str(self._app.config.cors.max_age).encode()),
        ]

    async def _refuse(self, error: TypedError, status: int | None = None) -> None:
        """Say why not, in the protocol's own form."""
        status = status or error.status
        self._app.log.info(
            "refused", status=status, url=self._exchange.raw_path, error=error.message,
            correlation_id=self._correlation_id,
        )  # fmt: skip
        told = {"code": INVALID_REQUEST, "message": error.message, "data": {"error": error.payload()}}
        await self._answer_json(status, {"jsonrpc": "2.0", "id": None, "error": told})

    async def _answer_json(self, status: int, value: Any) -> None:
        body = json.encode(value) + b"\n"
        own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._exchange.refuse(status, [*self._fields(), *own], body)


class _Verifier:
    """The application's word on a token, asked as the SDK asks."""

    def __init__(self, verify: Any) -> None:
        self._verify = getattr(verify, "verify_token", verify)

    async def verify_token(self, token: str) -> AccessToken | None:
        known: AccessToken | None = await self._verify(token)
        return known
