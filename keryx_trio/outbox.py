"""The channel between a stream's producer and its delivery: bounded in items and bytes, with one slot for the end.

Owns: who waits for room, in which order, and how a stream ends. Does not know: what the items are, who reads them.

Invariants:
1. What is held, the batch being written included, is at most 64 items and 256 KiB, or one larger item. A wire that many
   streams share allows each of them less.
2. Senders get their turn in the order in which they came.
3. The first end wins, and it does not queue: what was accepted before it still goes out, nothing after it does.
4. `finish` never waits, so it is at home in a `finally` under cancellation.

A lone item, which comes while the reader waits and has nothing to write, may be written by its sender, where the reader
has said how (`attempt`): waking another task costs more than the write. Where not all of it goes out, the rest is the
reader's, who finds `torn` set; it is no larger than `LONE`, and beside what is held.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final, Protocol

import attrs
import trio
from trio.lowlevel import (
    Abort,
    Task,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from .pulse import STILL

MAX_ITEMS: Final = 64
MAX_BYTES: Final = 256 * 1024
BURST_SECONDS: Final = 0.001
LONE: Final = 4096
"""The largest item that its sender writes, in bytes: with a larger one it is not the tasks that cost."""


class Outcome(enum.Enum):
    """How a call or a stream ended, in the words of the log."""

    DONE = "done"
    ERROR = "error"
    GONE = "client gone"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"


@attrs.frozen
class End:
    """The last word of a stream: its outcome, and for a failure what went wrong."""

    outcome: Outcome
    error: BaseException | None = None
    data: Any = None
    """What an error event carries in place of the error's payload, where the producer chose it."""


DONE: Final = End(Outcome.DONE)
GONE: Final = End(Outcome.GONE)
CANCELLED: Final = End(Outcome.CANCELLED)


class StreamEnded(trio.ClosedResourceError):
    """A send after the end of its stream."""


class ReaderLeft(trio.BrokenResourceError):
    """A send to a client that has left."""


class Item(Protocol):
    """Anything with a size: its `len` is what it costs, in bytes."""

    def __len__(self) -> int: ...


Attempt = Callable[[Any], bool | None]
"""Writes an item without waiting: True where it is out, False where a part of it is, None where it has to be queued."""


class Outbox:
    """A bounded channel with one end slot; any number of senders, one reader.

    Args:
        may_wait: whether the task that sends may wait for room while there is no reader.
    """

    __slots__ = (
        "_attached",
        "_burst",
        "_may_wait",
        "_queue",
        "_reader",
        "_round",
        "_senders",
        "_since",
        "attempt",
        "end",
        "held",
        "limit",
        "pulse",
        "size",
        "taken",
        "told",
        "torn",
        "verdict",
    )

    def __init__(self, may_wait: Callable[[], bool] = lambda: True) -> None:
        self._may_wait = may_wait
        self._queue: list[Item] = []
        self._senders: dict[Task, Item] = {}  # in the order in which they came
        self._reader: Task | None = None
        self._attached = False
        self.told = False
        self.torn = False
        self.attempt: Attempt | None = None
        self.pulse = STILL
        self._round = 0
        self._burst = 0
        self._since = perf_counter()
        self.held = 0
        self.size = 0
        self.taken = 0, 0  # the batch that the reader is writing, in items and bytes; it still counts
        self.limit = MAX_BYTES
        self.end: End | None = None
        self.verdict: Callable[[], End | None] = _no_verdict

    # The sender's side

    async def put(self, item: Item | None) -> None:
        """Queue `item`; wait while there is no room for it. None is nothing to queue.

        Raises:
            trio.ClosedResourceError: the stream had ended before this call.
            trio.BrokenResourceError: its client had left.
            RuntimeError: there is no room, and by `may_wait` there never will be.
        """
        await checkpoint_if_cancelled()
        wait = self.offer(item)
        if wait is not None:
            await wait(item)

    def offer(self, item: Item | None) -> Callable[[Any], Awaitable[None]] | None:
        """Queue `item`, or write it; raises like `put`.

        Returns:
            What has to be awaited, with the item: that there is room for it, or that others have had their turn.
        """
        if self.end is not None:
            raise _ended(self.end)
        if item is None:
            return self._give_way
        held, size = self.held, len(item)
        if self._senders or (held and not (held < MAX_ITEMS and self.size + size <= self.limit)):
            if not (self._attached or self._may_wait()):
                raise RuntimeError(
                    f"the stream's buffer is full ({self.held} items, {self.size} bytes) and nobody reads it before "
                    "the action has returned it: return the stream; send from a task, or pass a producer as its source"
                )
            return self._wait_for_room
        now = perf_counter()
        late = now - self._since >= BURST_SECONDS
        if not (late and self._is_written_at_once(item)):
            self._queue.append(item)
            self.held = held + 1
            self.size += size
            if self._reader is not None:
                self._wake_reader()
        if self.pulse.rounds != self._round:
            self._round, self._burst, self._since = self.pulse.rounds, 1, now
            return None
        self._burst += 1
        return self._give_way if late or self._burst >= MAX_ITEMS else None

    async def _give_way(self, _: object) -> None:
        """Let others have their turn. What was sent is accepted already: this is no place to be cancelled."""
        await cancel_shielded_checkpoint()
        self._burst, self._since = 0, perf_counter()

    def _is_written_at_once(self, item: Item) -> bool:
        """Write an item that is alone; False where it has to be queued."""
        if self._reader is None or self.attempt is None or len(item) > LONE:
            return False
        whole = self.attempt(item)
        if whole is False:
            self.torn = True
            self._wake_reader()
        return whole is not None

    def finish(self, end: End) -> bool:
        """End the stream, unless it has ended. A deadline that has passed decides, whatever `end` says.

        Senders still waiting for room are let go; what they had is dropped.
        """
        if self.end is not None:
            return False
        self.end = self.verdict() or end
        waiting, self._senders = self._senders, {}
        for task in waiting:
            reschedule(task)
        self._wake_reader()
        return True

    # The reader's side

    def attach(self, encode: Callable[[Any], Item | None], limit: int = MAX_BYTES) -> None:
        """A reader comes: what was sent before it did takes its form on the wire, and `limit` bytes may be held."""
        self._queue = [frame for item in self._queue if (frame := encode(item)) is not None]
        self._senders = {task: encode(item) or b"" for task, item in self._senders.items()}
        self.held = len(self._queue)
        self.size = sum(map(len, self._queue))
        self.limit = limit
        self._attached = True

    def release(self) -> bool:
        """The last batch is out: make room for those who wait. True where somebody was let in."""
        self.held -= self.taken[0]
        self.size -= self.taken[1]
        self.taken = 0, 0
        admitted = False
        while self._senders:
            task = next(iter(self._senders))
            if not self._has_room(len(self._senders[task])):
                break
            item = self._senders.pop(task)
            self._queue.append(item)
            self.held += 1
            self.size += len(item)
            reschedule(task)
            admitted = True
        return admitted

    def take(self) -> list[Any]:
        """All that is queued, in the wire's form, perhaps nothing. It counts as held until `release`."""
        items, self._queue = self._queue, []
        self.taken = self.held, self.size  # since all before them has been released
        return items

    async def wait(self, deadline: float = math.inf) -> bool:
        """Wait until there is something to take, or to write, or an end; False where `deadline` came first.

        Args:
            deadline: on trio's clock.
        """
        if self._queue or self.end is not None:
            await trio.lowlevel.checkpoint()
            return True
        self._reader = current_task()

        def abort(_: object) -> Abort:
            self._reader = None
            return Abort.SUCCEEDED

        with trio.CancelScope(deadline=deadline) as scope:
            await wait_task_rescheduled(abort)
        return not scope.cancelled_caught

    def detach(self) -> None:
        """The reader has gone, and its call: what is told of the end from now on is how it was."""
        self.attempt, self.verdict = None, _no_verdict
        if self.end is not None and self.end.error is not None:  # whose traceback knows the sender, and so this
            self.end = End(self.end.outcome)

    def last_word(self) -> End | None:
        """The end, where there is one and all before it has been taken; from now on it stands."""
        if self.end is None or self._queue:
            return None
        self.told = True
        return self.end

    def amend(self, end: End) -> bool:
        """Take `end` in place of the one that is there, where the reader has not had that yet."""
        if self.told:
            return False
        self.end = self.verdict() or end
        self._wake_reader()
        return True

    # Both

    def _has_room(self, size: int) -> bool:
        return self.held == 0 or (self.held < MAX_ITEMS and self.size + size <= self.limit)

    def _wake_reader(self) -> None:
        if self._reader is not None:
            reschedule(self._reader)
            self._reader = None

    async def _wait_for_room(self, item: Item) -> None:
        task = current_task()
        self._senders[task] = item

        def abort(_: object) -> Abort:
            del self._senders[task]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        self._burst, self._since = 0, perf_counter()


def _no_verdict() -> None:
    """Nothing decides but what `finish` is told."""


def _ended(end: End) -> Exception:
    if end.outcome is Outcome.GONE:
        return ReaderLeft("the client has left")
    return StreamEnded(f"the stream has ended ({end.outcome.value})")
