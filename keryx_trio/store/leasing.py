"""A worker on a store that leases jobs: it takes them, keeps their leases, and settles what became of them.

Owns: the loop of `serve`, the heartbeat, and the bells that spare it from looking when nothing can have come. Does not
know: where jobs are kept (`Leases` does), or what an attempt is.

Invariant: every lease that was taken is settled, given back, lost to another worker, or left to end with this process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Final

import attrs
import trio

from ..logs import Log
from . import StoreUnavailable
from .jobs import GIVEN_BACK, Attempt, Handler, Order, Verdict

OUTAGE_PAUSE: Final = 1.0
"""Seconds between two looks at a store that is away."""

LAST_WORD: Final = 1.0
"""How long a cancelled worker may take to give a job back, in seconds; beyond it the lease ends by itself."""

HEARTBEATS: Final = 3
"""How many of them there are in the time of a lease: two may be late."""


class Bell:
    """Rung when it may be worth another look."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake who waits, or will wait next."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Until it is rung, so many seconds at most."""
        with trio.move_on_after(seconds):
            await self._rung.wait()
        self._rung = trio.Event()

    async def ring_at(self, event: trio.Event) -> None:
        """Ring when something has happened."""
        await event.wait()
        self.ring()


@attrs.define(eq=False)
class _Held:
    """A job that this worker holds."""

    attempt: Attempt
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class Leases(ABC):
    """Jobs in a store that leases them.

    Attributes:
        shared: whether other processes may put jobs, and run them.
        look_every: how long at most this waits before it looks for what other processes have put, in seconds.
    """

    shared: bool
    look_every: float

    def __init__(self, log: Log) -> None:
        self._log = log
        self._bells: dict[str, set[Bell]] = {}
        self._awaited: dict[str, trio.Event] = {}

    # What the store does

    @abstractmethod
    async def claim(self, queue: str, limit: int, lease: float) -> tuple[list[Attempt], float]:
        """Take what is due, those whose lease has ended included; and the seconds until the next one is."""

    @abstractmethod
    async def renew(self, attempts: Collection[Attempt], lease: float) -> list[Attempt]:
        """Hold jobs for another `lease` seconds; those that another worker has, or that are settled, come back."""

    @abstractmethod
    async def settle(self, attempt: Attempt, verdict: Verdict) -> bool:
        """Write down what became of an attempt; False where its lease was lost, and nothing is written.

        That it is done is written all the same, unless that is known already: then it need not be attempted once more.
        """

    # What is known in this process

    def _has_come(self, queue: str) -> None:
        """A job was put into a queue, here."""
        for bell in self._bells.get(queue, ()):
            bell.ring()

    async def changed(self, id: str, seconds: float) -> None:  # noqa: A002
        """See `Jobs`."""
        event = self._awaited.setdefault(id, trio.Event())
        try:
            with trio.move_on_after(seconds if self.shared else math.inf):
                await event.wait()
        finally:
            if not event.statistics().tasks_waiting:
                self._awaited.pop(id, None)

    # The worker

    async def serve(self, queue: str, limit: int, handler: Handler, *, lease: float, stopping: trio.Event) -> None:
        """See `Jobs`."""
        held: set[_Held] = set()
        bell = Bell()
        bells = self._bells.setdefault(queue, set())
        bells.add(bell)
        try:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(bell.ring_at, stopping)
                helpers.start_soon(self._keep, held, lease)
                async with trio.open_nursery() as attempts:
                    while not stopping.is_set():
                        pause = math.inf
                        if room := limit - len(held):
                            found, pause = await self._claim(queue, room, lease)
                            for attempt in found:
                                _give_up(held, attempt)  # it was ours, before a stall that was longer than its lease
                                held.add(mine := _Held(attempt))
                                attempts.start_soon(self._attempt, held, mine, handler, lease, bell)
                        await bell.wait(pause)
                helpers.cancel_scope.cancel()
        finally:
            bells.discard(bell)

    async def _claim(self, queue: str, room: int, lease: float) -> tuple[list[Attempt], float]:
        try:
            found, next_due = await self.claim(queue, room, lease)
        except StoreUnavailable:
            return [], OUTAGE_PAUSE
        return found, math.inf if len(found) == room else min(next_due, self.look_every)

    async def _keep(self, held: set[_Held], lease: float) -> None:
        """Keep the leases of what is held, for ever; an attempt whose lease is lost is cancelled."""
        while True:
            await trio.sleep(lease / HEARTBEATS)
            if not held:
                continue
            try:
                lost = await self.renew([each.attempt for each in held], lease)
            except StoreUnavailable:
                continue  # it may be back before the leases end
            for attempt in lost:
                _give_up(held, attempt)

    async def _attempt(self, held: set[_Held], mine: _Held, handler: Handler, lease: float, bell: Bell) -> None:
        attempt, verdict = mine.attempt, GIVEN_BACK
        try:
            with mine.scope:
                verdict = await handler(attempt)
            if mine.scope.cancelled_caught:
                tell_lost(self._log, attempt.order)
            else:
                with trio.move_on_after(lease) as patience:
                    await self._settle(attempt, verdict)
                if patience.cancelled_caught:  # by now it may be another worker's
                    tell_lost(self._log, attempt.order)
        except trio.Cancelled:
            with trio.move_on_after(LAST_WORD, shield=True):
                await self._settle(attempt, verdict)
            raise
        finally:
            held.discard(mine)
            bell.ring()

    async def _settle(self, attempt: Attempt, verdict: Verdict) -> None:
        while True:
            try:
                is_held = await self.settle(attempt, verdict)
            except StoreUnavailable:
                await trio.sleep(OUTAGE_PAUSE)
                continue
            if not is_held:
                tell_lost(self._log, attempt.order)
            elif verdict.status.is_final:
                if (event := self._awaited.get(attempt.order.id)) is not None:
                    event.set()
            else:
                self._has_come(attempt.order.queue)
            return


def tell_lost(log: Log, order: Order) -> None:
    """Say that the lease of a job that was attempted here has ended."""
    log.warning("a job's lease was lost, so it may run twice", job=order.id, action=order.action, queue=order.queue)


def _give_up(held: set[_Held], attempt: Attempt) -> None:
    """End the attempts at a job whose lease is not ours any more."""
    for each in held:
        if each.attempt.order.id == attempt.order.id:
            each.scope.cancel()
