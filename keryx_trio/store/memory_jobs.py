"""Jobs in this process, gone when it ends; for `MemoryStore`."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from itertools import count

import attrs
import trio

from ..logs import Log
from .jobs import Attempt, Handler, Order, Overview, Record, Status, Verdict
from .leasing import Leases


@attrs.define(eq=False)
class _Job:
    order: Order
    status: Status
    enqueued: float
    due: float
    """On trio's clock; of a final one, when it is forgotten."""
    since: float
    """When it became what it is, on trio's clock."""
    attempts: int = 0
    failures: int = 0
    outcome: bytes | None = None


class MemoryJobs(Leases):
    """Jobs in a dict, and queues in heaps. Trio's clock decides what is due.

    Args:
        epoch: gives the time of day at which trio's clock was zero.
    """

    shared = False
    look_every = math.inf  # nobody else can put anything

    def __init__(self, log: Log, epoch: Callable[[], float]) -> None:
        super().__init__(log)
        self._epoch = epoch
        self._jobs: dict[str, _Job] = {}
        self._queues: defaultdict[str, list[tuple[float, int, _Job]]] = defaultdict(list)
        self._order = count()
        self._recurring: dict[tuple[str, float], tuple[int, str]] = {}

    def clear(self) -> None:
        """Forget everything."""
        for kept in (self._jobs, self._queues, self._recurring):
            kept.clear()

    def open_ones(self) -> int:
        """How many wait or run."""
        return sum(not job.status.is_final for job in self._jobs.values())

    def sweep(self, now: float) -> None:
        """Forget what is kept no longer."""
        for id, job in list(self._jobs.items()):  # noqa: A001 - a job's
            if job.status.is_final and job.due <= now:
                del self._jobs[id]

    async def put(self, order: Order, delay: float = 0) -> None:
        """See `Jobs`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._queue(_Job(order, Status.QUEUED, now, now, now), delay)

    def _queue(self, job: _Job, delay: float) -> None:
        job.status, job.since = Status.QUEUED, trio.current_time()
        job.due = job.since + delay
        self._jobs[job.order.id] = job
        heapq.heappush(self._queues[job.order.queue], (job.due, next(self._order), job))
        self._has_come(job.order.queue)

    async def put_recurring(self, order: Order, every: float) -> float:
        """See `Jobs`."""
        now = self._epoch() + trio.current_time()
        number = math.floor(now / every)
        key = order.action, every
        last, id = self._recurring.get(key, (-1, ""))  # noqa: A001 - a job's
        previous = self._jobs.get(id)
        if number != last and (previous is None or previous.status.is_final):
            self._recurring[key] = number, order.id
            await self.put(order)
        else:
            await trio.lowlevel.checkpoint()
        return (number + 1) * every - now

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """See `Jobs`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        job = self._jobs.get(id)
        return None if job is None or (job.status.is_final and job.due <= now) else self._record(job, now)

    def _record(self, job: _Job, now: float) -> Record:
        epoch = self._epoch()
        due = job.since if job.status.is_final else job.due
        return Record(job.order, _shown(job, now), epoch + job.enqueued, epoch + due, job.attempts, job.outcome)

    async def retry(self, id: str) -> bool:  # noqa: A002
        """See `Jobs`."""
        await trio.lowlevel.checkpoint()
        job = self._jobs.get(id)
        if job is None or job.status is not Status.FAILED or job.due <= trio.current_time():
            return False
        job.failures, job.outcome = 0, None
        self._queue(job, 0)
        return True

    async def overview(self, limit: int) -> Overview:
        """See `Jobs`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        counts: defaultdict[str, Counter[Status]] = defaultdict(Counter)
        shown: Counter[Status] = Counter()
        records = []
        for job in self._jobs.values():
            status = _shown(job, now)
            counts[job.order.queue][status] += 1
            if shown[status] < limit:
                shown[status] += 1
                records.append(self._record(job, now))
        return Overview(self._epoch() + now, counts, records)

    async def queues(self) -> set[str]:
        """See `Jobs`."""
        await trio.lowlevel.checkpoint()
        return {queue for queue, jobs in self._queues.items() if jobs}

    # A worker's part

    async def serve(self, queue: str, limit: int, handler: Handler, *, lease: float, stopping: trio.Event) -> None:  # noqa: ARG002
        """See `Jobs`. A lease lasts as long as this process does, and so do its jobs."""
        await super().serve(queue, limit, handler, lease=math.inf, stopping=stopping)

    async def claim(self, queue: str, limit: int, lease: float) -> tuple[list[Attempt], float]:
        """See `Leases`."""
        await trio.lowlevel.checkpoint()
        now, waiting = trio.current_time(), self._queues[queue]
        found: list[Attempt] = []
        while waiting and waiting[0][0] <= now and len(found) < limit:
            _, _, job = heapq.heappop(waiting)
            job.status, job.due, job.since = Status.RUNNING, now + lease, now
            job.attempts += 1
            found.append(Attempt(job.order, job.attempts, job.failures))
        return found, waiting[0][0] - now if waiting else math.inf

    async def renew(self, attempts: Collection[Attempt], lease: float) -> list[Attempt]:  # noqa: ARG002
        """See `Leases`."""
        await trio.lowlevel.checkpoint()
        return []  # pragma: no cover - a lease without an end is not renewed

    async def settle(self, attempt: Attempt, verdict: Verdict) -> bool:
        """See `Leases`."""
        await trio.lowlevel.checkpoint()
        job = self._jobs.get(attempt.order.id)
        if job is None or job.status is not Status.RUNNING or job.attempts != attempt.number:
            return False  # pragma: no cover - only where the application was started anew meanwhile
        if verdict.status.is_final:
            job.status, job.outcome, job.since = verdict.status, verdict.outcome, trio.current_time()
            if job.status is Status.DONE:
                job.order = attrs.evolve(job.order, params=b"")  # of no more use, and there may be secrets in it
            job.due = job.since + verdict.keep
        else:
            job.failures += verdict.status is Status.DELAYED
            job.outcome = verdict.outcome or job.outcome
            self._queue(job, verdict.delay)
        return True


def _shown(job: _Job, now: float) -> Status:
    return Status.DELAYED if job.status is Status.QUEUED and job.due > now else job.status
