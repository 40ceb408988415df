"""The tasks of hypercorn's protocol classes, and the way from them to an application.

Owns: what stands in place of hypercorn's `TaskGroup`. Does not know: protocols.

Invariant: that its client has left reaches an application whatever else waits to be received, and as often as it asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from ..wire.extension import EXTENSION
from .calling import call
from .wire import Gone
from .worker import Site

Put = Callable[[Any], Awaitable[None]]


class Inbox:
    """What an application is to receive.

    Args:
        bound: how many messages may wait; 0 for any number, where something else bounds them.
        taken: called once nothing waits any more.
    """

    __slots__ = ("_bound", "_end", "_left", "_messages", "_reader", "_taken", "_writer")

    def __init__(self, bound: int, taken: Callable[[], Awaitable[None]] | None = None) -> None:
        self._messages: deque[Any] = deque()
        self._end: Any = None
        self._left: Callable[[], None] | None = None
        self._bound = bound
        self._taken = taken
        self._reader = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._messages)

    async def put(self, message: Any) -> None:
        """Let the application have it. Waits for room; that the client has left never waits."""
        if message["type"].endswith(".disconnect"):
            self._end = message
            self._writer.unpark_all()
            if self._left is not None:
                self._left()
        else:
            while self._bound and len(self._messages) >= self._bound and self._end is None:
                await self._writer.park()
            self._messages.append(message)
        self._reader.unpark_all()

    def watch(self, left: Callable[[], None]) -> Callable[[], None]:
        """Have `left` called once the client has left, as the extension has it; returns what ends this."""
        self._left = left
        if self._end is not None:
            left()
        return self._unwatch

    def _unwatch(self) -> None:
        self._left = None

    async def receive(self) -> Any:
        """The next message; once the client has left, that."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages and self._end is None:
            await self._reader.park()
        if not self._messages:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self._end
        message = self._messages.popleft()
        self._writer.unpark()
        if not self._messages and self._taken is not None and self._end is None:
            await self._taken()
        return message


class Tasks:
    """Starts the calls of an application, and what else a protocol needs, in nurseries of the connection.

    Args:
        calls: for calls, which end by themselves.
        helpers: for what ends with the connection.
        site: what is served.
        inbox: makes what a call receives from, of what it sends to.

    Attributes:
        running: how many calls run.
    """

    def __init__(self, calls: trio.Nursery, helpers: trio.Nursery, site: Site, inbox: Callable[[Any], Inbox]) -> None:
        self._calls, self._helpers, self._site, self._inbox = calls, helpers, site, inbox
        self.running = 0

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Put:  # noqa: ARG002 - hypercorn's
        """Start a call; returns what puts messages to it."""
        inbox = self._inbox(send)
        extension = scope["extensions"][EXTENSION] = send.__self__.extension
        if scope["type"] == "http":
            extension["watch"] = inbox.watch
        self.running += 1
        self._calls.start_soon(self._run, scope, inbox, send)
        return inbox.put

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start something that ends with the connection."""
        self._helpers.start_soon(function, *args)

    async def _run(self, scope: Any, inbox: Inbox, send: Put) -> None:
        try:
            await call(self._site, scope, inbox.receive, send)
        finally:
            self.running -= 1
            scope["extensions"].clear()  # which know the stream that knows them
        with suppress(Gone):
            await send(None)  # whatever it has not answered is an error, or a cut
