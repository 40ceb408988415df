"""State in this process, gone when it ends. For one process, for development and for tests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from ..logs import Log
from . import Hit
from .counting import Buckets, count
from .memory_jobs import MemoryJobs

SWEEP_SECONDS: Final = 10.0
"""How often what has expired is looked for, at most."""


@attrs.define
class _Session:
    values: dict[str, bytes]
    expires: float


@attrs.define
class _Counter:
    buckets: Buckets
    expires: float


class MemoryStore:
    """State in dicts. Trio's clock decides what has expired, so that a test on a mock clock can let time pass."""

    url = "memory://"

    def __init__(self, log: Log) -> None:
        self._log = log
        self._sessions: dict[str, _Session] = {}
        self._counters: dict[str, _Counter] = {}
        self._swept = self._epoch = 0.0
        self.jobs = MemoryJobs(log, lambda: self._epoch)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start empty, and tie trio's clock to the time of day, of which the windows of counters are parts."""
        self._sessions.clear()
        self._counters.clear()
        self.jobs.clear()
        self._epoch = time.time() - trio.current_time()
        yield
        if lost := self.jobs.open_ones():
            self._log.warning("jobs are lost with this process: KERYX_STORE names a store that keeps them", jobs=lost)

    async def load_session(self, id: str, ttl: float) -> dict[str, bytes] | None:  # noqa: A002
        """See `Store`."""
        session = await self._live(id)
        if session is None:
            return None
        session.expires = trio.current_time() + ttl
        return dict(session.values)

    async def update_session(self, id: str, values: dict[str, bytes], ttl: float, *, create: bool = True) -> bool:  # noqa: A002
        """See `Store`."""
        session = await self._live(id)
        if session is None:
            if not create:
                return False
            session = self._sessions[id] = _Session({}, 0)
        session.values.update(values)
        session.expires = trio.current_time() + ttl
        return True

    async def move_session(self, old: str, new: str, ttl: float) -> None:
        """See `Store`."""
        session = await self._live(old)
        if session is not None:
            self._sessions[new] = self._sessions.pop(old)
            session.expires = trio.current_time() + ttl

    async def delete_session(self, id: str) -> None:  # noqa: A002
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        self._sessions.pop(id, None)

    async def touch_session(self, id: str, ttl: float) -> None:  # noqa: A002
        """See `Store`."""
        session = await self._live(id)
        if session is not None:
            session.expires = trio.current_time() + ttl

    async def hit(self, key: str, limit: int, window: float) -> Hit:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        self._sweep()
        clock = trio.current_time()
        kept = self._counters.get(key)
        buckets, hit = count(kept.buckets if kept else None, self._epoch + clock, limit, window)
        self._counters[key] = _Counter(buckets, clock + 2 * window)
        return hit

    async def _live(self, id: str) -> _Session | None:  # noqa: A002
        await trio.lowlevel.checkpoint()
        self._sweep()
        session = self._sessions.get(id)
        if session is not None and session.expires <= trio.current_time():
            del self._sessions[id]
            return None
        return session

    def _sweep(self) -> None:
        """Now and then let go of what has expired, so that what nobody asks for again does not stay."""
        now = trio.current_time()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for kept in (self._sessions, self._counters):
            for key in [key for key, value in kept.items() if value.expires <= now]:
                del kept[key]
        self.jobs.sweep(now)
