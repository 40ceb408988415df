"""Many waits of one length, ended by one task.

Owns: when each of them has lasted too long. Does not know: what is waited for.

A scope with a deadline of its own costs a request as much as to read it. Here a wait costs an entry in a queue: since
all are of one length, the one that began first is over first.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio


class Waiting(Protocol):
    """Whoever waits."""

    def expire(self) -> None:
        """It has lasted too long."""


class Deadlines:
    """Ends waits that last too long.

    Args:
        seconds: how long that is; infinite for never.
    """

    __slots__ = ("_begun", "_idle", "_over", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over: dict[Waiting, float] = {}  # when each is over, on trio's clock; the first one first
        self._begun = trio.lowlevel.ParkingLot()
        self._idle = False  # whether there was none

    def begin(self, who: Waiting, over: float | None = None) -> None:
        """A wait begins, of somebody who waits for nothing else here.

        Args:
            over: when it has lasted too long, on trio's clock, where that is known: so many seconds from now.
        """
        if self._seconds < math.inf:
            self._over[who] = trio.current_time() + self._seconds if over is None else over
            if self._idle:
                self._idle = False
                self._begun.unpark()

    def end(self, who: Waiting) -> None:
        """It is over, or never began."""
        self._over.pop(who, None)

    async def run(self) -> None:
        """End what lasts too long, for as long as anybody may wait."""
        while True:
            if not self._over:
                self._idle = True
                await self._begun.park()
            elif (over := next(iter(self._over.values()))) > trio.current_time():
                await trio.sleep_until(over)
            else:
                who = next(iter(self._over))
                del self._over[who]
                who.expire()


class Timers:
    """Deadlines of every length that is needed."""

    __slots__ = ("_deadlines", "_nursery")

    def __init__(self) -> None:
        self._deadlines: dict[float, Deadlines] = {}
        self._nursery: trio.Nursery | None = None

    def of(self, seconds: float) -> Deadlines:
        """What ends waits of so many seconds."""
        found = self._deadlines.get(seconds)
        if found is None:
            found = self._deadlines[seconds] = Deadlines(seconds)
            if self._nursery is not None:
                self._nursery.start_soon(found.run)
        return found

    async def run(self) -> None:
        """End what lasts too long, for as long as anybody may wait."""
        async with trio.open_nursery() as self._nursery:
            for deadlines in self._deadlines.values():
                self._nursery.start_soon(deadlines.run)
            await trio.sleep_forever()
