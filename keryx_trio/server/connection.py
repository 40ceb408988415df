"""A connection that speaks HTTP/1.1: one request after the other.

Owns: the order of requests, the bounds on how long a client may take to send one, and when the connection ends.
Does not know: how a request is answered (a `Cycle` does), or what another protocol is (it hands the connection over).

The application runs in the connection's own task. Where it goes on after its answer, another task of the connection
reads the next request meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any, Final

import trio

from . import http2, websocket
from .answer import short
from .calling import call
from .cycle import Cycle
from .http1 import Fields, Head, Reader, Refused
from .wire import Gone, Wire

if TYPE_CHECKING:
    from ..deadlines import Deadlines
    from .worker import Site


PREFACE: Final = "preface"
"""HTTP/2 from the first byte, without having asked."""


class Http1:
    """One connection.

    Args:
        calls: where the next request is read while the call of the last one goes on.
        hand_over: serves the rest over HTTP/2, given the request that asked for it, or `PREFACE`, and what was read.

    Attributes:
        left: whether its client has left, or has been cut off.
        scope_base: what all its requests have in common, as ASGI tells of them.
        logs: whether there is an access log.
        scope: around all that the task does that serves it; a call may cancel it, and with it all that would follow.
        lasts: whether the call of its last request was there when it was looked for.
    """

    def __init__(
        self,
        site: Site,
        wire: Wire,
        calls: trio.Nursery,
        hand_over: Callable[[Head | str, bytes], Awaitable[None]],
    ) -> None:
        self.site = site
        self.wire = wire
        self._calls = calls
        self._hand_over = hand_over
        self.limits = site.worker.limits
        self.reader = Reader(site.config.h11_max_incomplete_size)
        self.left = self.lasts = False
        self._kept = site.worker.timers.of(site.config.keep_alive_timeout)
        self._begun = site.worker.timers.of(self.limits.read_timeout)
        self._reads_head = False
        self._expired = False
        self.scope: trio.CancelScope
        self._requests = 0
        self.scope_base: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "scheme": "https" if wire.tls else "http",
            "root_path": site.config.root_path,
            "client": wire.client,
            "server": wire.server,
        }
        self.logs = site.config.log.access_logger is not None
        self._cycle: Cycle | None = None
        self._next: Head | str | None = None
        self._still_sends = False

    # What the worker asks of it

    def close_if_idle(self) -> None:
        """Close, where it waits for a request."""
        if self._reads_head:
            self.scope.cancel()

    def expire(self) -> None:
        """Close, since the request that it waits for has taken too long."""
        self._expired = self._reads_head
        self.close_if_idle()

    def go_on(self) -> None:
        """A call lasts: see whether its client leaves, or else read the next request, where this one is answered."""
        self.lasts = True
        cycle = self._cycle
        if cycle is not None and cycle.answered:  # else a client that reads nothing would have calls without end
            cycle.left_behind = True
            self._calls.start_soon(self._go_on)
        elif cycle is not None:
            cycle.look()

    # What cycles ask of it

    async def read(self) -> None:
        """Take what the client sends; notes where it has left."""
        data = await self.wire.receive()
        if data:
            self.reader.feed(data)
        else:
            self.left = True

    def may_keep(self) -> bool:
        """Whether another request may follow this one."""
        return self._requests <= self.site.config.keep_alive_max_requests and not self.site.worker.stopping

    def own_fields(self) -> Fields:
        """The server's own fields of an answer, such as its date."""
        return own_fields(self.site.config)

    def own_lines(self) -> bytes:
        """The same, as they stand on the wire."""
        own_fields(self.site.config)
        return _own.lines

    def answered(self) -> None:
        """A request whose call lasts has been answered."""
        self.site.worker.expect(self)

    async def refuse(self, refused: Refused) -> None:
        """Say why, and that this is the end."""
        await self.write_last(short(refused.status, str(refused), self.own_fields()))

    async def write_last(self, data: bytes) -> None:
        """Write what ends the connection, if anybody takes it."""
        self._still_sends = True
        try:
            await self.wire.write(data)
        except Gone:
            self.left = True

    # Its life

    async def serve(self) -> None:
        """Serve one request after the other, until the last one, or until another task does it."""
        refused: Refused | None = None
        with trio.CancelScope() as self.scope:
            try:
                while (head := await self._head()) is not None:
                    if await self._is_taken_over(head):
                        break
                    cycle = await self._answer(head)
                    if cycle.left_behind:
                        return
                    self._cycle = None
                    if not self._is_ready_for_another(cycle):
                        break
            except Refused as raised:
                refused = raised
        if self._expired and self.reader.held and not self.site.worker.stopping:
            refused = Refused(408, "the head of the request did not come")
        if refused is not None:
            await self.refuse(refused)
        await self._end()

    async def _is_taken_over(self, head: Head) -> bool:
        """Whether a request begins another protocol; a WebSocket is served here."""
        if not head.upgrade:
            return False
        if websocket.is_asked_for(head):
            await self._serve_websocket(head)
            return True
        if http2.is_asked_for(head) and http2.can_upgrade(self.site, head):
            self._next = head
            return True
        return False

    async def _answer(self, head: Head) -> Cycle:
        site = self.site
        cycle = self._cycle = Cycle(self, head)
        self.lasts = False
        if is_served(site.config, head):
            site.worker.expect(self)
            try:
                returned = await call(site, cycle.scope, cycle.receive, cycle.send)
            finally:
                if not cycle.left_behind:  # what is expected then is of a next request
                    site.worker.is_over(self)
                cycle.scope["extensions"].clear()  # which know the cycle that knows them
            if not cycle.left_behind:
                await cycle.end(failed=not returned)
            if site.context.max_requests is not None:
                await site.context.mark_request()
        else:
            await cycle.end(failed=True, status=404)
        return cycle

    async def _serve_websocket(self, head: Head) -> None:
        self._still_sends = True
        if not is_served(self.site.config, head):
            await self.refuse(Refused(404, ""))
            return
        try:
            await websocket.serve(self, head)
        except Refused as refused:
            await self.refuse(refused)

    async def _go_on(self) -> None:
        cycle, self._cycle = self._cycle, None
        if cycle is not None and self._is_ready_for_another(cycle):
            await self.serve()
        else:
            await self._end()

    def _is_ready_for_another(self, cycle: Cycle) -> bool:
        """Whether a next request can be told from the rest of this one."""
        if cycle.keeps and not self.left and (not self.reader.in_body or self._skip_body()):
            return True
        self._still_sends = self._still_sends or self.reader.in_body
        return False

    def _skip_body(self) -> bool:
        """Pass over what the application had no need of, as far as it is here; whether that was all."""
        try:
            while self.reader.in_body and self.reader.body() is not None:
                continue
        except Refused:
            return False
        return not self.reader.in_body

    async def _end(self) -> None:
        self._cycle = None  # which knows this connection
        if self._next is None:
            await self.wire.close(still_sends=self._still_sends and not self.left)
        else:
            await self._hand_over(self._next, self.reader.rest())

    async def _head(self) -> Head | None:
        """The next request's head; None where there is none, and where another protocol begins.

        Raises:
            Refused: what comes is none.
        """
        reader = self.reader
        may_be_http2 = not self._requests and http2.is_spoken(self.site)
        waits: Deadlines | None = None
        begun = False
        self._reads_head = True
        try:
            while not self.left:
                if reader.held:
                    if may_be_http2 and (is_http2 := reader.begins_http2()) is not False:
                        if is_http2:
                            self._next = PREFACE
                            return None
                    elif (found := reader.head()) is not None:
                        self._requests += 1
                        return found
                    if not begun:  # the two may be one, where both take as long
                        begun = True
                        self._kept.end(self)
                        waits = self._begun
                        waits.begin(self)
                elif waits is None:
                    waits = self._kept
                    waits.begin(self)
                await self.read()
                await trio.lowlevel.checkpoint_if_cancelled()  # it took too long, though it came in that moment
            return None
        finally:
            self._reads_head = False
            if waits is not None:
                waits.end(self)


def is_served(config: Any, head: Head) -> bool:
    """Whether the site is known by the name that was asked for."""
    names = config.server_names
    return not names or any(value.decode("latin-1") in names for value in head.values(b"host"))


class _Own:
    """The server's own fields, as they are in one second."""

    __slots__ = ("config", "fields", "lines", "second")

    def __init__(self) -> None:
        self.second, self.config = 0, None
        self.fields: Fields = []
        self.lines = b""


_own: Final = _Own()


def own_fields(config: Any) -> Fields:
    """The server's own fields of an answer, such as its date: made anew once a second."""
    now = int(time())
    if _own.second != now or _own.config is not config:
        _own.second, _own.config, _own.fields = now, config, config.response_headers("h11")
        _own.lines = b"".join(b"%b: %b\r\n" % field for field in _own.fields)
    return _own.fields
