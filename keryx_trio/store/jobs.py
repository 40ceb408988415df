"""Jobs: calls that are made later, by whichever worker takes them.

Owns: what is kept of a job, and what every store can do with jobs. Does not know: actions, or how a call is made.

Invariants, in every store alike: a job that was put is there until it has been settled. A worker holds it by a lease,
which ends by itself where the worker does: so each job is attempted at least once, and now and then twice. The first
attempt that is done makes it so; any other end counts only while the lease is held.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import attrs
import trio

LONGEST: Final = 10 * 366 * 86_400.0
"""The longest delay, and the longest time for which anything is kept, in seconds."""


class Status(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will become of it by itself."""
        return self in (Status.DONE, Status.FAILED)


@attrs.frozen
class Order:
    """What is to be done.

    Attributes:
        params: the inputs, as one JSON object; nothing once it is done, since there may be secrets in them.
        correlation_id: of the call that ordered it.
        retries: how often it is tried again where it failed for a reason that may pass.
    """

    id: str
    action: str
    params: bytes
    queue: str
    correlation_id: str
    retries: int = 0


@attrs.frozen
class Attempt:
    """An order that a worker holds.

    Attributes:
        number: of the attempts at this job, from 1, those of workers that were lost included; it names the lease.
        failures: how many of those before it failed.
        losses: how many of those before it ended with their worker.
    """

    order: Order
    number: int
    failures: int
    losses: int = 0


@attrs.frozen
class Verdict:
    """What became of an attempt.

    Attributes:
        status: DONE or FAILED; DELAYED where it failed and is to be tried again; QUEUED where it is given back.
        outcome: the result, or the payload of the error, as JSON.
        delay: until it is tried again, in seconds.
        keep: how long what is final is kept, in seconds.
    """

    status: Status
    outcome: bytes | None = None
    delay: float = 0
    keep: float = 0


GIVEN_BACK: Final = Verdict(Status.QUEUED)
"""Another worker may have it."""


@attrs.frozen
class Record:
    """A job, as its store knows it.

    Attributes:
        enqueued: when it was put, in seconds since 1970.
        due: when it may be taken, or when its lease ends; for a final one, when it became so.
        outcome: the result or the error as JSON; the last error of one that is tried again.
    """

    order: Order
    status: Status
    enqueued: float
    due: float
    attempts: int = 0
    outcome: bytes | None = None


@attrs.frozen
class Overview:
    """The jobs of a store.

    Attributes:
        now: the store's time, in seconds since 1970.
        counts: how many there are, by queue and status.
        records: some of each status.
    """

    now: float
    counts: Mapping[str, Mapping[Status, int]]
    records: list[Record]


Handler = Callable[[Attempt], Awaitable[Verdict]]
"""Makes an attempt. Where its lease is lost, it is cancelled."""


class Jobs(Protocol):
    """What every store can do with jobs. Any method but `serve` raises `StoreUnavailable` while the store is away."""

    shared: bool
    """Whether other processes may put jobs, and run them."""

    async def put(self, order: Order, delay: float = 0) -> None:
        """Keep a job, to be taken in `delay` seconds."""

    async def put_recurring(self, order: Order, every: float) -> float:
        """Keep a job unless one was put for the present period, or the last one is not settled yet.

        Periods of `every` seconds are counted from 1970, so that all workers agree on them. Returns the seconds until
        the next one.
        """

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """The job of that id; None where there is none, or where it is kept no longer."""

    async def changed(self, id: str, seconds: float) -> None:  # noqa: A002
        """Return when a job may have become final, after so many seconds at the latest."""

    async def retry(self, id: str) -> bool:  # noqa: A002
        """Put a failed job into its queue again; False where there is no such job, or it has not failed."""

    async def overview(self, limit: int) -> Overview:
        """All jobs in numbers, and `limit` of each status; of what is final the last ones."""

    async def queues(self) -> set[str]:
        """The queues that have jobs."""

    async def serve(self, queue: str, limit: int, handler: Handler, *, lease: float, stopping: trio.Event) -> None:
        """Take jobs of a queue and have them attempted, `limit` at a time, until `stopping` is set and they are done.

        Outages of the store are waited out. Where this is cancelled, the attempts are cancelled and given back.

        Args:
            lease: how long a job is held by a worker that says nothing, in seconds.
        """
