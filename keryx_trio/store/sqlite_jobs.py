"""Jobs in the file of the SQLite store, for the processes of one machine.

Owns: the statements. Does not know: how the file is opened, or whose turn it is (the store does).

A job that runs is due again when its lease ends. So whoever looks for what is due finds those of lost workers too, and
nothing needs to watch over them.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import attrs

from ..logs import Log
from .jobs import Attempt, Order, Overview, Record, Status, Verdict
from .leasing import Leases

if TYPE_CHECKING:
    from .sqlite import SqliteStore

LOOK_EVERY: Final = 0.2
"""Seconds after which a worker with nothing to do looks for what other processes have put: a read of an index, well
below a millisecond."""

_ORDER: Final = "id, action, params, queue, correlation_id, retries"
_RECORD: Final = f"{_ORDER}, status, enqueued, due, attempts, outcome"
_SHOWN: Final = "CASE WHEN status = 'queued' AND due > ? THEN 'delayed' ELSE status END"
_OPEN: Final = "status IN ('queued', 'running')"  # as the index has it, to be found by it
_KEPT: Final = "(expires IS NULL OR expires > ?)"
_SOME: Final = (
    ("status = 'queued' AND due <= :now", "ASC"),
    ("status = 'queued' AND due > :now", "ASC"),
    ("status = 'running'", "ASC"),
    ("status = 'failed'", "DESC"),
    ("status = 'done'", "DESC"),
)
"""What is shown of each status: what is due first, of what is final the last."""


class SqliteJobs(Leases):
    """Jobs in a table."""

    shared = True
    look_every = LOOK_EVERY

    def __init__(self, log: Log, store: SqliteStore) -> None:
        super().__init__(log)
        self._store = store

    async def put(self, order: Order, delay: float = 0) -> None:
        """See `Jobs`."""

        def put() -> None:
            with self._store.writing() as (db, now):
                _insert(db, order, now, now + delay)

        await self._store.run(put)
        self._has_come(order.queue)

    async def put_recurring(self, order: Order, every: float) -> float:
        """See `Jobs`."""

        def put() -> tuple[bool, float]:
            with self._store.writing() as (db, now):
                number = math.floor(now / every)
                is_taken = db.execute(
                    f"SELECT 1 FROM recurring LEFT JOIN job ON id = job AND {_OPEN} "  # noqa: S608 - words of our own
                    "WHERE recurring.action = ? AND every = ? AND (number = ? OR id IS NOT NULL)",
                    (order.action, every, number),
                ).fetchone()
                if not is_taken:
                    _insert(db, order, now, now)
                    db.execute(
                        "INSERT INTO recurring VALUES (?, ?, ?, ?) ON CONFLICT (action, every) DO UPDATE SET "
                        "number = excluded.number, job = excluded.job",
                        (order.action, every, number, order.id),
                    )
                return not is_taken, (number + 1) * every - now

        was_put, until_next = await self._store.run(put)
        if was_put:
            self._has_come(order.queue)
        return until_next

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """See `Jobs`."""

        def find() -> Record | None:
            now = time.time()
            with self._store.reading() as db:
                row = db.execute(
                    f"SELECT {_RECORD} FROM job WHERE id = ? AND {_KEPT}",  # noqa: S608 - as above
                    (id, now),
                ).fetchone()
            return None if row is None else _record(row, now)

        return await self._store.run(find)

    async def retry(self, id: str) -> bool:  # noqa: A002
        """See `Jobs`."""

        def retry() -> str | None:
            with self._store.writing() as (db, now):
                row = db.execute(
                    f"SELECT queue FROM job WHERE id = ? AND status = 'failed' AND {_KEPT}",  # noqa: S608 - as above
                    (id, now),
                ).fetchone()
                db.execute(
                    "UPDATE job SET status = 'queued', due = ?, expires = NULL, "
                    "failures = 0, losses = 0, outcome = NULL WHERE id = ? AND status = 'failed'",
                    (now, id),
                )
            return row and str(row[0])

        queue = await self._store.run(retry)
        if queue is not None:
            self._has_come(queue)
        return queue is not None

    async def overview(self, limit: int) -> Overview:
        """See `Jobs`."""

        def read() -> Overview:
            counts: defaultdict[str, Counter[Status]] = defaultdict(Counter)
            now, rows = time.time(), []
            with self._store.snapshot() as db:
                for queue, status, number in db.execute(
                    f"SELECT queue, {_SHOWN}, count(*) FROM job WHERE {_KEPT} GROUP BY 1, 2",  # noqa: S608 - as above
                    (now, now),
                ):
                    counts[queue][Status(status)] = number
                for which, first in _SOME:
                    rows += db.execute(
                        f"SELECT {_RECORD} FROM job WHERE {which} AND (expires IS NULL OR expires > :now) "  # noqa: S608 - as above
                        f"ORDER BY due {first}, seq LIMIT :limit",
                        {"now": now, "limit": limit},
                    ).fetchall()
            return Overview(now, counts, [_record(row, now) for row in rows])

        return await self._store.run(read)

    async def queues(self) -> set[str]:
        """See `Jobs`."""

        def read() -> set[str]:
            with self._store.reading() as db:
                return {row[0] for row in db.execute(f"SELECT DISTINCT queue FROM job WHERE {_OPEN}")}  # noqa: S608

        return await self._store.run(read)

    # A worker's part

    async def claim(self, queue: str, limit: int, lease: float) -> tuple[list[Attempt], float]:
        """See `Leases`."""

        def claim() -> tuple[list[Attempt], float]:
            with self._store.reading() as db:  # most looks find nothing, and need not wait for who writes
                [due] = db.execute(f"SELECT min(due) FROM job WHERE queue = ? AND {_OPEN}", (queue,)).fetchone()  # noqa: S608
            pause = math.inf if due is None else due - time.time()
            if pause > 0:
                return [], pause
            with self._store.writing() as (db, now):
                rows = db.execute(
                    f"SELECT {_ORDER}, attempts + 1, failures, losses + (status = 'running') "  # noqa: S608 - as above
                    "FROM job "
                    f"WHERE queue = ? AND {_OPEN} AND due <= ? ORDER BY due, seq LIMIT ?",
                    (queue, now, limit),
                ).fetchall()
                db.executemany(
                    "UPDATE job SET losses = losses + (status = 'running'), status = 'running', due = ?, "
                    "attempts = attempts + 1 WHERE id = ?",
                    [(now + lease, row[0]) for row in rows],
                )
            return [Attempt(Order(*row[:-3]), *row[-3:]) for row in rows], 0

        return await self._store.run(claim)

    async def renew(self, attempts: Collection[Attempt], lease: float) -> list[Attempt]:
        """See `Leases`."""

        def renew() -> list[Attempt]:
            with self._store.writing() as (db, now):
                return [
                    attempt
                    for attempt in attempts
                    if not db.execute(
                        "UPDATE job SET due = ? WHERE id = ? AND status = 'running' AND attempts = ?",
                        (now + lease, attempt.order.id, attempt.number),
                    ).rowcount
                ]

        return await self._store.run(renew)

    async def settle(self, attempt: Attempt, verdict: Verdict) -> bool:
        """See `Leases`."""
        is_final = verdict.status.is_final

        def settle() -> bool:
            with self._store.writing() as (db, now):
                changed = db.execute(
                    "UPDATE job SET status = ?, due = ?, expires = ?, failures = failures + ?, "  # noqa: S608 - as above
                    "outcome = coalesce(?, outcome), params = CASE WHEN ? THEN x'' ELSE params END "
                    f"WHERE id = ? AND {_OPEN} AND (? OR (status = 'running' AND attempts = ?))",
                    (
                        verdict.status if is_final else Status.QUEUED,
                        now + (0 if is_final else verdict.delay),
                        now + verdict.keep if is_final else None,
                        verdict.status is Status.DELAYED,
                        verdict.outcome,
                        verdict.status is Status.DONE,
                        attempt.order.id,
                        verdict.status is Status.DONE,
                        attempt.number,
                    ),
                )
                return bool(changed.rowcount)

        return await self._store.run(settle)


def _insert(db: sqlite3.Connection, order: Order, now: float, due: float) -> None:
    values = (*attrs.astuple(order), now, due)
    marks = "?, ?, ?, ?, ?, ?, 'queued', ?, ?"
    db.execute(f"INSERT INTO job ({_ORDER}, status, enqueued, due) VALUES ({marks})", values)  # noqa: S608 - as above


def _record(row: tuple[Any, ...], now: float) -> Record:
    *order, status, enqueued, due, attempts, outcome = row
    shown = Status.DELAYED if status == Status.QUEUED and due > now else Status(status)
    return Record(Order(*order), shown, enqueued, due, attempts, outcome)
