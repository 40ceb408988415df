"""Who is calling: what the head of an HTTP request tells of its client, whatever becomes of the request.

Owns: the client's address behind proxies, its session by the cookie, and the request id. Does not know: what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..connection import ConnectionType, Peer
from ..session import Session, presented_id
from ..wire import headers as header_fields
from ..wire.ids import new_id
from ..wire.proxies import Origin, Proxies

if TYPE_CHECKING:
    from ..app import Keryx


class Clients:
    """Tells them apart."""

    def __init__(self, app: Keryx) -> None:
        self._app = app
        self._proxies = Proxies(app.config.trusted_proxies)

    def origin(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Origin:
        """Where a request comes from, as far as is known; `headers` are the fields of its head, by name."""
        client = scope.get("client")
        secure = scope.get("scheme") in ("https", "wss")
        return self._proxies.origin(client[0] if client else "local", secure=secure, headers=headers)

    def peer(
        self,
        headers: Mapping[bytes, bytes],
        origin: Origin,
        type: ConnectionType,  # noqa: A002 - the connection's
        *,
        with_cookie: bool = True,
    ) -> Peer:
        """Who sent a request.

        Args:
            headers: the fields of its head, by name.
            origin: where it comes from.
            with_cookie: whether it may be known by its cookie.
        """
        settings = self._app.config.session
        cookies = headers.get(b"cookie") if with_cookie else None
        presented = None if cookies is None else presented_id(cookies, settings.cookie_name)
        last_event_id = headers.get(b"last-event-id")
        return Peer(
            app=self._app,
            type=type,
            identifier=origin.address,
            session=Session(self._app.store, settings, presented),
            last_event_id=last_event_id.decode("utf-8", "replace") if last_event_id else None,
        )


def correlation_id(headers: Mapping[bytes, bytes]) -> str:
    """The id that a request brings along, where it may be passed on, or a new one."""
    brought = headers.get(b"x-request-id")
    return new_id() if brought is None else header_fields.request_id(brought) or new_id()
