"""Streaq, which delivers jobs: embedded so that it lives and ends with the application.

Owns: everything that is streaq's: its clients, its workers, and which Redis keys are its own. Does not know: what a job
is; it hands over one value a job, which JSON can carry.

Streaq's client connects in whichever task asks, and where that is cancelled one place of its pool is lost. So nobody
asks but a task of our own, which no caller can cancel; where an answer does not come it begins with a new client.
Streaq's worker stops by signals, of which it knows two; here it is told by an event.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Protocol

import attrs
import msgspec
import trio
from coredis import ConnectionPool
from coredis.connection import TCPLocation
from coredis.exceptions import ConnectionError  # noqa: A004 - coredis has one of its own
from coredis.retry import ConstantRetryPolicy
from streaq import StreaqRetry, Worker

from ..errors import text_of, unwrap
from . import StoreUnavailable
from .availability import PATIENCE, Availability
from .leasing import HEARTBEATS, LAST_WORD
from .redis_address import Address
from .redis_connection import Connection

NAME: Final = "keryx"
"""Of all queues together, as streaq has it; each of them is a priority to it."""

TASK: Final = "call"
BACKLOG: Final = 1000
"""How many wait to be published; one more waits outside."""

_PER_LEASE: Final = 2.5
"""Streaq looks for what was left behind when it has waited in vain for something new: so it is taken after twice that
time at the latest, and a little more."""

_encoder: Final = msgspec.json.Encoder(enc_hook=str)  # an exception of streaq's own is told by its words


class Again(StreaqRetry):
    """Raised by an attempt that is to be delivered once more.

    Args:
        seconds: after which.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("to be delivered again", delay=timedelta(seconds=seconds))


class _Worker(Worker[None]):
    """A worker that stops where it is told to, and lets what runs come to its end.

    Attributes:
        messages: which delivery each task is of.
        lost: the deliveries that are another worker's by now: how they end here, is not streaq's business.
    """

    stopping: trio.Event

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.messages: dict[str, str] = {}
        self.lost: set[str] = set()

    async def run_task(self, msg: Any) -> None:
        self.messages[msg.task_id] = msg.message_id
        try:
            await super().run_task(msg)
        finally:
            self.lost.discard(msg.message_id)

    async def finish_task(self, msg: Any, *args: Any, **options: Any) -> None:
        if msg.message_id not in self.lost:
            await super().finish_task(msg, *args, **options)

    async def signal_handler(self, scope: Any) -> None:
        await self.stopping.wait()
        scope.cancel()

    async def run_consumers(self, receive: Any, *args: Any, **options: Any) -> None:
        with receive:  # which streaq leaves open, and anyio would warn of
            await super().run_consumers(receive, *args, **options)


def _make(address: Address, queues: list[str], limit: int = 1, lease: float = 60.0) -> _Worker:
    idle = lease / _PER_LEASE
    pool = ConnectionPool(
        connection_class=Connection,
        location=TCPLocation(address.host, address.port),
        db=address.database,
        username=address.user,
        password=address.password,
        ssl_context=address.tls,
        decode_responses=True,
        stream_timeout=idle + PATIENCE,  # it asks for news with as much patience; a link that died would give none
    )
    worker = _Worker(
        redis_pool=pool,
        redis_kwargs={"retry_policy": ConstantRetryPolicy((ConnectionError,), retries=2, delay=0)},
        queue_name=NAME,
        priorities=queues,
        concurrency=limit,
        serializer=_encoder.encode,
        deserializer=msgspec.json.decode,
        handle_signals=False,
        idle_timeout=idle,
        anyio_backend="trio",
    )
    worker.prefetch = limit  # what waits here would be late for another worker
    return worker


@attrs.frozen
class Keys:
    """The beginnings of streaq's keys, which are followed by an id or a queue."""

    data: bytes
    tries: bytes
    delayed: bytes
    stream: bytes
    running: bytes

    @classmethod
    def of(cls, address: Address) -> Keys:
        """Those of the version that is installed."""
        worker = _make(address, [])
        names = (worker.task_key, worker._retry_key, worker.queue_key, worker.stream_key, worker._running_set)  # noqa: SLF001
        return cls(*(name.encode() for name in names))


@attrs.define(eq=False)
class _Letter:
    id: str
    value: Any
    queue: str
    delay: float
    wanted: bool = True
    fault: Exception | None = None
    done: trio.Event = attrs.field(factory=trio.Event)


class Publisher:
    """Puts jobs into streaq's queues."""

    def __init__(self, address: Address, availability: Availability) -> None:
        self._address = address
        self._availability = availability
        self._letters: trio.MemorySendChannel[_Letter] | None = None

    async def run(self) -> None:
        """Publish, for ever."""
        self._letters, letters = trio.open_memory_channel[_Letter](BACKLOG)
        try:
            with self._letters, letters:
                await self._serve(letters)
        finally:
            self._letters = None

    async def publish(self, id: str, value: Any, queue: str, delay: float) -> None:  # noqa: A002
        """Put one; nothing happens where one of that id is under way.

        Raises:
            StoreUnavailable: it may be there or not.
        """
        letter = _Letter(id, value, queue, delay)
        with trio.move_on_after(PATIENCE):
            if self._letters is None:
                raise StoreUnavailable
            try:
                await self._letters.send(letter)
                await letter.done.wait()
            finally:
                letter.wanted = False
            if letter.fault is not None:
                raise self._availability.failed(text_of(unwrap(letter.fault))) from letter.fault
            return
        raise self._availability.failed(f"no answer in {PATIENCE:g} seconds")

    async def _serve(self, letters: trio.MemoryReceiveChannel[_Letter]) -> None:
        """Publish all that is there at once, with one client for as long as it works."""
        async for letter in letters:
            waiting = [letter]
            try:
                with trio.fail_after(PATIENCE) as patience:
                    async with _make(self._address, []) as client:
                        while True:
                            await self._publish(client, waiting)
                            patience.deadline = math.inf
                            waiting = [await letters.receive()]
                            patience.deadline = trio.current_time() + PATIENCE
                            with suppress(trio.WouldBlock):
                                while True:
                                    waiting.append(letters.receive_nowait())
            except Exception as error:  # noqa: BLE001 - whatever it was: who waits is told, and the client is a new one
                for each in waiting:
                    each.fault = error
                    each.done.set()

    @staticmethod
    async def _publish(client: _Worker, letters: list[_Letter]) -> None:
        tasks = []
        for letter in letters:
            if letter.wanted:  # else whoever sent it has left
                task = client.enqueue_unsafe(TASK, letter.value)
                task.id = letter.id
                delay = timedelta(seconds=letter.delay) if letter.delay else None
                tasks.append(task.start(delay=delay, priority=letter.queue))
        await client.enqueue_many(tasks)
        for letter in letters:
            letter.done.set()


class Taker(Protocol):
    """What deliveries are for."""

    async def attempt(self, value: Any, number: int) -> None:
        """Do what a value asks for; `number` is that of its delivery. Raises `Again` for another one."""

    async def keep(self, stream: str, worker: str, message: str) -> bool:
        """Renew the lease of a delivery; False where it is another worker's by now."""

    def tell_lost(self, value: Any) -> None:
        """It is another worker's by now; the attempt was cancelled."""


class Deliveries:
    """Has what is in a queue attempted, for as long as Redis is there.

    Args:
        limit: how many at once.
        lease: how long one is held without a word, in seconds.
    """

    def __init__(self, address: Address, queue: str, taker: Taker, *, limit: int, lease: float) -> None:
        self._queue = queue
        self._taker = taker
        self._renew_every = lease / _PER_LEASE / HEARTBEATS
        self._worker = _make(address, [queue], limit, lease)
        self._worker.stopping = trio.Event()
        self._attempts: set[trio.CancelScope] = set()
        self._whole = trio.CancelScope(shield=True)
        task: Any = self._worker.task(name=TASK, max_tries=None, ttl=0, timeout=None, silent=True)
        self._registered = task(self._take)

    async def run(self, stopping: trio.Event) -> Exception | None:
        """Go on until `stopping` is set and what runs has ended; or until Redis is away.

        Where this is cancelled, the attempts are cancelled, and delivered to another worker at once.

        Returns:
            What ended it, where that was not `stopping`.
        """
        fault: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stopping)
            with self._whole:
                try:
                    await self._worker.run_async()
                except Exception as error:  # noqa: BLE001 - of coredis, of the system, or a group of these
                    fault = error
            nursery.cancel_scope.cancel()
        return fault

    async def _watch(self, stopping: trio.Event) -> None:
        try:
            await stopping.wait()
        except trio.Cancelled:
            self._whole.deadline = trio.current_time() + LAST_WORD
            for scope in self._attempts:
                scope.cancel()
            raise
        finally:
            self._worker.stopping.set()

    async def _take(self, value: Any) -> None:
        """What streaq calls; its return is the end of the job, unless the delivery was lost."""
        context = self._registered.context
        message = self._worker.messages.pop(context.task_id)
        again: Again | None = None
        with trio.CancelScope() as scope:
            self._attempts.add(scope)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._renew, message, scope)
                    try:
                        await self._taker.attempt(value, context.tries)
                    except Again as asked:  # raised below: in here it would come out in a group
                        again = asked
                    nursery.cancel_scope.cancel()
            finally:
                self._attempts.discard(scope)
        if message in self._worker.lost:
            self._taker.tell_lost(value)
        elif scope.cancelled_caught:
            raise Again(0)
        elif again is not None:
            raise again

    async def _renew(self, message: str, attempt: trio.CancelScope) -> None:
        stream = self._worker.stream_key + self._queue
        while True:
            await trio.sleep(self._renew_every)
            if not await self._taker.keep(stream, self._worker.id, message):
                self._worker.lost.add(message)
                attempt.cancel()
                return
