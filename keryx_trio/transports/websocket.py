"""WebSocket: the handshake, and who may open a socket at all.

Owns: the acceptance of a socket, or its refusal. Does not know: what is said on it (`conversation` does).

Browsers send cookies along with any handshake, and let any page read what comes back: CORS does not hold here. So a
page of another origin is refused, unless the settings name its origin; allowed as any, it comes without a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from ..call import shutting_down
from ..connection import Connection, ConnectionType
from ..errors import ErrorType, TypedError, unwrap
from ..wire import headers as header_fields
from ..wire import json
from ..wire.headers import Headers
from .clients import Clients, correlation_id
from .conversation import POLICY_VIOLATION, Conversation
from .exchange import Receive, Send, bounded, extension_of, write_bound

if TYPE_CHECKING:
    from ..app import Keryx


class WebSocketTransport:
    """Answers sockets, on any path."""

    def __init__(self, app: Keryx) -> None:
        self.app = app
        self.clients = Clients(app)
        self.standard = header_fields.Standard(app.config.security, app.config.cors)
        also = app.config.websocket.allowed_origins
        self.friends = {origin.encode("latin-1") for origin in (*app.config.cors.allowed_origins, *also)} - {b"*"}
        self.any_origin = "*" in also

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        handshake = Handshake(self, scope, send)
        conversation = Conversation(
            handshake.peer,
            handshake.correlation_id,
            scope["path"],
            receive,
            send,
            extension=extension_of(scope),
            write_bound=handshake.write_bound,
        )
        with self.app.running(conversation), conversation.whole:
            try:
                await receive()  # what every socket begins with: `websocket.connect`
                refusal = handshake.refusal()
                if refusal is not None:
                    await handshake.deny(refusal)
                else:
                    with self.app.connected(Connection(handshake.peer, handshake.correlation_id)):
                        await handshake.accept()
                        await conversation.run()
            except* trio.BrokenResourceError:
                self.app.log.debug("the client left during the handshake", url=scope["path"])
            except* Exception as group:  # as none of ours may reach the server
                self.app.log.exception("a socket failed", unwrap(group), correlation_id=handshake.correlation_id)


class Handshake:
    """The request that asks for a socket."""

    def __init__(self, transport: WebSocketTransport, scope: Mapping[str, Any], send: Send) -> None:
        self._transport = transport
        self._config = transport.app.config
        self._scope = scope
        self._send = send
        self._headers = header_fields.joined(scope["headers"])
        self.write_bound = write_bound(scope, self._config.write_timeout)
        self._origin = transport.clients.origin(scope, self._headers)
        self._stranger = self._is_stranger()
        self.peer = transport.clients.peer(
            self._headers, self._origin, ConnectionType.WEBSOCKET, with_cookie=not self._stranger
        )
        self.correlation_id = correlation_id(self._headers)

    def _is_stranger(self) -> bool:
        """Whether a page of another origin asks, which no setting names. Who is no browser names no origin."""
        origin = self._headers.get(b"origin")
        if origin is None or origin.lower() in self._transport.friends:
            return False
        host = self._headers.get(b"host", b"")
        return not header_fields.is_same_origin(origin, host, secure=self._origin.secure)

    def refusal(self) -> TypedError | None:
        """Why there will be no socket."""
        if not self._config.websocket.enabled:
            return TypedError("no WebSocket is served here", ErrorType.CONNECTION_ACTION_NOT_FOUND)
        if self._transport.app.drain_deadline is not None:
            return shutting_down()
        if self._stranger and not self._transport.any_origin:
            origin, host = (self._headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
            page = f"a page of {origin}" if "://" in origin else "a page without an origin, as a file is,"
            return TypedError(
                f"{page} may not open a WebSocket here: it is not this server's ({host}), and "
                "KERYX_WEBSOCKET_ALLOWED_ORIGINS does not name its origin",
                ErrorType.CONNECTION_CHANNEL_AUTHORIZATION,
            )
        return None

    async def accept(self) -> None:
        """Open the socket. Its session's cookie goes out now or never."""
        session = self.peer.session
        await session.load()
        session.sealed = True
        fields: Headers = [(b"x-request-id", self.correlation_id.encode())]
        cookie = None if self._stranger else session.cookie(secure=self._origin.secure)
        if cookie is not None:
            fields.append((b"set-cookie", cookie))
        await self._hand_over({"type": "websocket.accept", "headers": fields})

    async def deny(self, error: TypedError) -> None:
        """Answer as to any request."""
        self._transport.app.log.info(
            "refused a WebSocket",
            status=error.status,
            url=self._scope["path"],
            error=error.message,
            correlation_id=self.correlation_id,
        )
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._hand_over({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "refused"})
            return
        body = json.encode({"error": error.payload()}) + b"\n"
        fields = [
            *self._transport.standard.fields(self._headers.get(b"origin")),
            header_fields.request_id_field(self.correlation_id),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._hand_over({"type": "websocket.http.response.start", "status": error.status, "headers": fields})
        await self._hand_over({"type": "websocket.http.response.body", "body": body})

    async def _hand_over(self, message: Mapping[str, Any]) -> None:
        await bounded(self._send, message, self.write_bound)
