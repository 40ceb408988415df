"""State in a SQLite file: for one machine, across restarts and worker processes.

Owns: the statements that are the methods of the store, and whose turn it is. Does not know: how the file is opened, or
what becomes of a transaction that failed.

Invariant: one thread at a time uses the connection, and a call that was cancelled has done all or nothing. A call that
waits for its turn can be cancelled; one whose turn has come is finished, in a few milliseconds or after the timeout of
a lock.

Time is the machine's time of day, which its processes share.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

import trio

from ..config import ConfigError
from ..logs import Log
from . import Hit, StoreUnavailable
from .availability import PATIENCE, Availability
from .counting import Buckets, count
from .sqlite_file import SqliteFile
from .sqlite_jobs import SqliteJobs

SWEEP_SECONDS: Final = 10.0
SWEEP_ROWS: Final = 100
"""How often a call looks for what has expired, and how much of each kind it deletes; where there is more, the next call
that writes goes on."""

RENEWED_AT: Final = 0.01
"""The share of its time to live after which a session that is read is given all of it again. So most reads write
nothing, and wait for no other process."""

T = TypeVar("T")


class SqliteStore:
    """State in a file that the processes of one machine share."""

    def __init__(self, url: str, log: Log) -> None:
        self.url = url
        self._file = SqliteFile(_path(url), PATIENCE)
        self._availability = Availability(log, url)
        self._turn = trio.CapacityLimiter(1)
        self._open = False
        self._sweep_at = -math.inf
        self.jobs = SqliteJobs(log, self)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See `Store`.

        Raises:
            ConfigError: the file can't be made or used, and why.
        """
        try:
            await trio.to_thread.run_sync(self._file.open, limiter=self._turn)
        except sqlite3.Error as error:
            self._availability.failed(str(error))
        self._open = True
        try:
            yield
        finally:
            # Calls that still wait for their turn are turned away, so that this waits for one at most.
            self._open = False
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._file.close, limiter=self._turn)

    async def load_session(self, id: str, ttl: float) -> dict[str, bytes] | None:  # noqa: A002
        """See `Store`."""

        def load() -> dict[str, bytes] | None:
            now = time.time()
            with self.reading() as db:
                rows = db.execute(
                    "SELECT expires, key, value FROM session LEFT JOIN session_value ON session = id "
                    "WHERE id = ? AND expires > ?",
                    (id, now),
                ).fetchall()
            if not rows:
                return None
            if abs(now + ttl - rows[0][0]) > RENEWED_AT * ttl:
                self._touch(id, ttl)
            return {key: value for _, key, value in rows if key is not None}

        return await self.run(load)

    async def update_session(self, id: str, values: dict[str, bytes], ttl: float, *, create: bool = True) -> bool:  # noqa: A002
        """See `Store`."""

        def update() -> bool:
            with self.writing() as (db, now):
                db.execute("DELETE FROM session WHERE id = ? AND expires <= ?", (id, now))
                if not create and db.execute("SELECT 1 FROM session WHERE id = ?", (id,)).fetchone() is None:
                    return False
                db.execute(
                    "INSERT INTO session VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET expires = excluded.expires",
                    (id, now + ttl),
                )
                db.executemany(
                    "INSERT INTO session_value VALUES (?, ?, ?) "
                    "ON CONFLICT (session, key) DO UPDATE SET value = excluded.value",
                    [(id, key, value) for key, value in values.items()],
                )
            return True

        return await self.run(update)

    async def move_session(self, old: str, new: str, ttl: float) -> None:
        """See `Store`."""

        def move() -> None:
            with self.writing() as (db, now):
                if db.execute("SELECT 1 FROM session WHERE id = ? AND expires > ?", (old, now)).fetchone():
                    db.execute("DELETE FROM session WHERE id = ? AND id <> ?", (new, old))
                    db.execute("UPDATE session SET id = ?, expires = ? WHERE id = ?", (new, now + ttl, old))

        await self.run(move)

    async def delete_session(self, id: str) -> None:  # noqa: A002
        """See `Store`."""

        def delete() -> None:
            with self.writing() as (db, _):
                db.execute("DELETE FROM session WHERE id = ?", (id,))

        await self.run(delete)

    async def touch_session(self, id: str, ttl: float) -> None:  # noqa: A002
        """See `Store`."""
        await self.run(lambda: self._touch(id, ttl))

    async def hit(self, key: str, limit: int, window: float) -> Hit:
        """See `Store`."""

        def hit() -> Hit:
            with self.writing() as (db, now):
                row = db.execute("SELECT number, current, previous FROM counter WHERE key = ?", (key,)).fetchone()
                buckets, hit = count(Buckets(*row) if row else None, now, limit, window)
                if hit.allowed:
                    db.execute(
                        "INSERT INTO counter VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                        "number = excluded.number, current = excluded.current, previous = excluded.previous, "
                        "expires = excluded.expires",
                        (key, buckets.number, buckets.current, buckets.previous, now + 2 * window),
                    )
                return hit

        return await self.run(hit)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, when its turn has come."""
        with trio.move_on_after(PATIENCE):
            # Neither the timeout nor a cancellation reaches a thread that has begun.
            try:
                result = await trio.to_thread.run_sync(self._guarded, work, limiter=self._turn)
            except (sqlite3.DatabaseError, OSError, ConfigError) as error:
                raise self._availability.failed(str(error)) from error
            self._availability.worked()
            return result
        raise self._availability.failed(f"calls queue for more than {PATIENCE:g} seconds")

    def _guarded(self, work: Callable[[], T]) -> T:
        if not self._open:
            raise StoreUnavailable
        return work()

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Read, with one statement; for what `run` does."""
        return self._file.reading()

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """Read, with statements that see the same; for what `run` does."""
        return self._file.snapshot()

    @contextmanager
    def writing(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """A transaction, and the time that it begins at: when it has its lock, so that time does not run back.

        For what `run` does.
        """
        with self._file.transaction() as db:
            now = time.time()
            self._sweep(db, now)
            yield db, now

    def _touch(self, id: str, ttl: float) -> None:  # noqa: A002
        with self.writing() as (db, now):
            db.execute("UPDATE session SET expires = ? WHERE id = ? AND expires > ?", (now + ttl, id, now))

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Now and then delete what has expired, a bounded part of it."""
        if time.monotonic() < self._sweep_at:
            return
        swept = [
            db.execute(
                f"DELETE FROM {table} WHERE {key} IN "  # noqa: S608 - names of our own
                f"(SELECT {key} FROM {table} WHERE expires <= ? LIMIT {SWEEP_ROWS})",
                (now,),
            ).rowcount
            for table, key in (("session", "id"), ("counter", "key"), ("job", "id"))
        ]
        if max(swept) < SWEEP_ROWS:
            self._sweep_at = time.monotonic() + SWEEP_SECONDS


def _path(url: str) -> Path:
    """The file that a URL names, from here on whatever the current folder becomes."""
    parts = urlsplit(url)
    name = unquote(parts.path).removeprefix("/")
    if parts.netloc or parts.query or parts.fragment or not name or "\0" in name or name == ":memory:":
        raise ConfigError(
            "KERYX_STORE must be sqlite:///file.db for a file in the current folder, or sqlite:////folder/file.db with "
            "the whole path; memory:// is the store without a file"
        )
    return Path(name).absolute()
