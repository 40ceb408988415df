"""A connection that speaks HTTP/2: from its beginning to its end.

Owns: the upgrade, the reading, the idle bound, and the close. Does not know: what is said on it (a `Protocol` does).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

import h2.config
import h2.connection
import trio
from hypercorn.events import Closed, RawData, Updated

from .http1 import Head
from .protocol import Protocol
from .tasks import Inbox, Tasks
from .wire import Gone, Wire

if TYPE_CHECKING:
    from .worker import Site

SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


def is_asked_for(head: Head) -> bool:
    """Whether a request asks for HTTP/2."""
    return head.upgrade == b"h2c" and head.length == 0


def can_upgrade(site: Site, head: Head) -> bool:
    """Whether what a request asks for can be done; else it is answered as any (RFC 7540, section 3.2)."""
    settings = head.values(b"http2-settings")
    if len(settings) != 1 or not is_spoken(site):
        return False
    try:
        h2.connection.H2Connection(h2.config.H2Configuration(client_side=False)).initiate_upgrade_connection(
            settings[0]
        )
    except Exception:  # noqa: BLE001 - it has many ways to fail, and is the client's own
        return False
    return True


def is_spoken(site: Site) -> bool:
    """Whether HTTP/2 is served at all."""
    return "h2" in site.config.alpn_protocols


class Http2:
    """One connection that speaks HTTP/2."""

    def __init__(self, site: Site, wire: Wire) -> None:
        self._site, self._wire = site, wire
        self._reading = trio.CancelScope()
        self._protocol: Protocol

    def close_if_idle(self) -> None:
        """Close, where no stream is open."""
        self._reading.cancel()

    async def run(self, data: bytes, upgrade: Head | None) -> None:
        """Serve it to its end.

        Args:
            data: what has been read already.
            upgrade: the request that asked for HTTP/2, where one did; it is the first stream.
        """
        wire = self._wire
        async with trio.open_nursery() as helpers:
            async with trio.open_nursery() as calls:
                tasks = Tasks(calls, helpers, self._site, self._inbox)
                self._protocol = protocol = Protocol(self._site, tasks, wire, self._send)
                try:
                    with self._reading:
                        await self._begin(upgrade)
                        while not protocol.closed:
                            if data:
                                await protocol.handle(RawData(data))
                            data = await wire.receive()
                            if not data:
                                wire.broken = True
                                break
                finally:
                    await protocol.handle(Closed())  # noqa: ASYNC102 - it waits for nothing
                if not wire.broken:
                    await protocol.say_goodbye()
                    await wire.close()
            helpers.cancel_scope.cancel()

    def _inbox(self, send: Any) -> Inbox:
        return self._protocol.inbox(send)

    async def _begin(self, upgrade: Head | None) -> None:
        self._set_idle(idle=True)
        if upgrade is None:
            await self._protocol.initiate()
            return
        pseudo = [(b":method", upgrade.method.encode()), (b":path", upgrade.target)]
        pseudo += [(b":authority", host) for host in upgrade.values(b"host")]
        hop = {b"connection", b"upgrade", b"http2-settings", b"host"}
        await self._wire.write(SWITCHING)
        await self._protocol.initiate(
            [*pseudo, *(field for field in upgrade.headers if field[0] not in hop)],
            upgrade.values(b"http2-settings")[0],
        )

    def _set_idle(self, *, idle: bool) -> None:
        self._reading.deadline = trio.current_time() + self._site.config.keep_alive_timeout if idle else inf

    async def _send(self, event: Any) -> None:
        """What hypercorn's class has for the connection."""
        if isinstance(event, RawData):
            try:
                await self._wire.write_whole(event.data)
            except Gone:
                await self._end()
        elif isinstance(event, Closed):
            await self._end()
        elif isinstance(event, Updated):
            self._set_idle(idle=event.idle)

    async def _end(self) -> None:
        self._reading.cancel()
        if not self._protocol.closed:
            await self._protocol.handle(Closed())
