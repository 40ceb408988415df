"""Jobs as calls: what a worker takes from the store is run like any other call, and its answer is the job's result.

Owns: which queues are served here, the call of a job and what becomes of it, and the periods of recurring tasks. Does
not know: how jobs are kept, leased or delivered (the store does).

Nobody waits for a job while it runs. So in a shutdown it is left alone, streams too, for as long as that lasts. What
has not ended by then goes back to its queue.
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from ..call import LAST_WRITES, Call
from ..connection import Connection, ConnectionType, Peer
from ..errors import FIRST_SERVER_ERROR, STATUSES, ErrorType, TypedError, as_typed, unwrap
from ..outbox import Outcome
from ..session import Session
from ..store import StoreUnavailable
from ..store.jobs import GIVEN_BACK, LONGEST, Attempt, Status, Verdict
from ..store.leasing import OUTAGE_PAUSE, Bell
from ..tasks import DEFAULT_QUEUE, new_order
from ..wire import json
from ..wire.ids import new_id
from .collecting import JsonCollector
from .signals import SIGNALLED, ending_signals, leave_behind

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx

NEW_QUEUES_EVERY: Final = 1.0
"""How often a process looks for queues that it does not serve yet, in seconds."""

LONGEST_DELAY: Final = 3600.0
"""Seconds between two attempts at a job, at most."""

SPREAD: Final = 1.25
"""Up to how many times its delay an attempt may wait, so that jobs which failed together do not return together."""

LONGEST_SLEEP: Final = 60.0
"""Seconds after which a recurring task looks at the clock again, at most: the time of day may be set meanwhile."""

UNKNOWN_TRIES: Final = 10
UNKNOWN_PAUSE: Final = 3.0
"""How often a worker takes a job whose action it does not have before it fails it, and after how many seconds each."""

MOST_LOSSES: Final = 10
"""How often the worker of a job may be lost while it runs: one that was lost so often was lost by the job itself."""

GIVING_BACK: Final = 1.0
"""How long after a shutdown what it has stopped may take to be given back, in seconds."""

MAY_PASS: Final = frozenset({408, 429})
"""The statuses of the caller's faults that are worth another try, beside all that are the server's own."""


class JobReply(JsonCollector):
    """The answer to the call of a job."""

    patient = True
    enclosing = None
    retry_after: float | None = None

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:
        """The call failed."""
        self.retry_after = error.retry_after
        await super().error(error, payload)


async def run_jobs(app: Keryx) -> int:
    """Run jobs, and nothing else, until a signal ends that; the status that the process then has."""
    stop = _Stop(app)
    async with trio.open_nursery() as nursery:
        await nursery.start(stop.listen, nursery.cancel_scope)
        try:
            await _run_until(app, stop)
        finally:
            stop.is_over = True
            stop.last.cancel()
        nursery.cancel_scope.cancel()
    return stop.status


async def _run_until(app: Keryx, stop: _Stop) -> None:
    async with app:
        if not app.store.jobs.shared:
            app.log.warning("no other process can put jobs here: KERYX_STORE names a store that can be shared")
        app.log.info("jobs run here", **({} if app.workers is None else app.workers.describe()))
        stop.has_started = True
        await stop.asked.wait()


class _Stop:
    """What signals do to a process that runs jobs.

    Attributes:
        has_started: whether the application has; before that a signal gives the start up.
        asked: set by the first signal.
        last: the scope of the wait for another signal, in which the application ends by itself, mostly.
        is_over: whether it has.
        status: what the process ends with because of it.
    """

    def __init__(self, app: Keryx) -> None:
        self._app = app
        self.has_started = False
        self.asked = trio.Event()
        self.last = trio.CancelScope(shield=True)
        self.is_over = False
        self.status = 0

    async def listen(self, start: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        """Wait for signals. After another one, or where a job does not end though it was cancelled, the process ends.

        The leases of what is left behind so end by themselves.
        """
        app = self._app
        with ending_signals() as signals:
            task_status.started()
            sign = await anext(signals)
            self.status = 0 if sign == signal.SIGTERM else SIGNALLED + sign
            if not self.has_started:
                start.cancel()
            app.log.info(
                "no more jobs are taken, and those that run may finish", signal=signal.Signals(sign).name,
                running=len(app.connections), seconds=app.config.drain_timeout,
            )  # fmt: skip
            self.last.deadline = app.shut_down() + LAST_WRITES + 2 * GIVING_BACK
            self.asked.set()
            with self.last:
                await anext(signals)
            if not self.is_over:
                leave_behind(self.status)


class Workers:
    """Runs the jobs of an application in this process.

    Args:
        queues: how many jobs at once of each queue that is named.
        others: how many at once of each queue that is not; 0 for none of those.
    """

    def __init__(self, app: Keryx, queues: Mapping[str, int], others: int) -> None:
        self._app = app
        self._queues = dict(queues)
        self._others = others
        self._served: set[str] = set()
        self._bell = Bell()

    @classmethod
    def of(cls, app: Keryx, names: Sequence[str] = (), workers: int | None = None) -> Workers | None:
        """The workers that the settings ask for, unless other `names` and another number is given; None for none."""
        config = app.config.tasks
        each = config.workers if workers is None else workers
        parts = [name.partition(":") for name in names or config.queues]
        queues = {name: int(number or each) for name, _, number in parts}
        others = 0 if parts else each
        return cls(app, queues, others) if others or any(queues.values()) else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run jobs inside the application's life; at its end what a shutdown has left is given back."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve)
            for action in self._app.actions.values() if self._app.serving else ():
                if action.task is not None and action.task.every is not None:
                    nursery.start_soon(self._recur, action, action.task.every)
            try:
                yield
            finally:
                nursery.cancel_scope.deadline = trio.current_time() + GIVING_BACK

    def describe(self) -> dict[str, str]:
        """What the log says of it: the queues, and how many of their jobs run at once."""
        named = [f"{queue}:{limit}" for queue, limit in self._queues.items()]
        others = [f"{'all others' if named else 'all'}:{self._others}"] if self._others else []
        return {"queues": ", ".join(named + others)}

    def notice(self, queue: str) -> None:
        """A job was put into that queue, which may be a new one."""
        if queue not in self._served:
            self._bell.ring()

    async def _serve(self) -> None:
        """Serve every queue that there is, until the application stops and the jobs that run have ended."""
        self._served = set()
        jobs, stopping = self._app.store.jobs, self._app.stopping
        lease = self._app.config.tasks.lease
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bell.ring_at, stopping)
            while not stopping.is_set():
                for queue, limit in sorted((await self._known()).items()):
                    if limit and queue not in self._served:
                        self._served.add(queue)
                        serve = partial(jobs.serve, queue, limit, self._attempt, lease=lease, stopping=stopping)
                        nursery.start_soon(serve)
                await self._bell.wait(NEW_QUEUES_EVERY if jobs.shared else math.inf)

    async def _known(self) -> dict[str, int]:
        """The queues that are served here, or should be."""
        if not self._others:
            return self._queues
        names = {DEFAULT_QUEUE, *(action.task.queue for action in self._app.actions.values() if action.task)}
        try:
            names |= await self._app.store.jobs.queues()
        except StoreUnavailable:
            await trio.lowlevel.checkpoint()  # said in the log, and asked again soon
        return dict.fromkeys(names, self._others) | self._queues

    async def _recur(self, action: Action[..., Any], every: float) -> None:
        """Put a recurring task into its queue, once a period for all workers together."""
        stopping = self._app.stopping
        while not stopping.is_set():
            order = new_order(action, b"{}", new_id())
            try:
                pause = await self._app.store.jobs.put_recurring(order, every)
            except StoreUnavailable:
                pause = OUTAGE_PAUSE
            self.notice(order.queue)
            with trio.move_on_after(min(pause, LONGEST_SLEEP)):
                await stopping.wait()

    async def _attempt(self, attempt: Attempt) -> Verdict:
        """Make the call of a job; whatever goes wrong is its own end, and no other's."""
        try:
            return await self._call(attempt)
        except Exception as error:
            self._app.log.exception("a job cannot be attempted", unwrap(error), job=attempt.order.id)
            return self._verdict(attempt, JobReply(0), as_typed(error))

    async def _call(self, attempt: Attempt) -> Verdict:
        app, order = self._app, attempt.order
        reply = JobReply(app.config.max_collected)
        try:
            action = app.find_action(order.action)
        except TypedError as error:
            if attempt.number < UNKNOWN_TRIES:  # another worker may have it: while a release is under way, say
                return Verdict(Status.QUEUED, delay=UNKNOWN_PAUSE)
            return self._verdict(attempt, reply, error)
        if attempt.losses >= MOST_LOSSES:
            message = f"its worker was lost {attempt.losses} times while it ran: out of memory, killed, or stalled"
            return self._verdict(attempt, reply, TypedError(message))
        session = Session(app.store, app.config.session, None)
        session.sealed = True  # there is no cookie
        peer = Peer(app=app, type=ConnectionType.TASK, identifier=f"job:{order.id}", session=session)
        call = Call(app, action, Connection(peer, order.correlation_id), reply, msgspec.json.decode(order.params))
        with app.running(call), app.connected(call.connection):
            await call.run()
        if call.cause is Outcome.SHUTDOWN:
            app.log.info("a job goes back to its queue", job=order.id, action=order.action, queue=order.queue)
            return GIVEN_BACK
        return self._verdict(attempt, reply)

    def _verdict(self, attempt: Attempt, reply: JobReply, hopeless: TypedError | None = None) -> Verdict:
        config, order = self._app.config.tasks, attempt.order
        if hopeless is not None:
            reply.failed = hopeless.payload()
        if reply.failed is None:
            return Verdict(Status.DONE, reply.json, keep=min(config.result_ttl, LONGEST))
        outcome = json.encode(reply.failed)
        status = STATUSES.get(ErrorType(reply.failed["type"]), FIRST_SERVER_ERROR)
        may_pass = hopeless is None and (status >= FIRST_SERVER_ERROR or status in MAY_PASS)
        if may_pass and attempt.failures < order.retries:
            delay = min(config.retry_delay * 2.0 ** min(attempt.failures, 64), LONGEST_DELAY)
            delay *= random.uniform(1, SPREAD)  # noqa: S311 - to part the crowd
            delay = max(delay, min(reply.retry_after or 0, LONGEST))
            self._app.log.info(
                "a job is tried again", job=order.id, action=order.action, seconds=round(delay, 1),
                retries_left=order.retries - attempt.failures - 1,
            )  # fmt: skip
            return Verdict(Status.DELAYED, outcome, delay=delay)
        self._app.log.warning(
            "a job failed, and is kept", job=order.id, action=order.action, queue=order.queue, attempts=attempt.number,
            error=reply.failed["message"],
        )  # fmt: skip
        return Verdict(Status.FAILED, outcome, keep=min(config.failed_ttl, LONGEST))
