"""Streaq, which delivers jobs: embedded so that it lives and ends with the application.

Owns: everything that is streaq's: its clients, its workers, and which Redis keys are its own. Does not know: what a job
is; it hands over one value a job, which JSON can carry.

Streaq's client connects in whichever task asks, and where that is cancelled one place of its pool is lost. So nobody
asks but a task of our own, which no caller can cancel; where an answer does not come it begins with a new client.
Streaq's worker stops by signals, of which it knows two; here it is told by an event.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import attrs
import msgspec
import trio
from coredis import ConnectionPool
from coredis.connection import TCPLocation
from streaq import StreaqRetry, Worker

from ..errors import unwrap
from .availability import PATIENCE, Availability
from .leasing import LAST_WORD
from .redis_address import Address

NAME: Final = "keryx"
"""Of all queues together, as streaq has it; each of them is a priority to it."""

TASK: Final = "call"
BACKLOG: Final = 1000
"""How many wait to be published; one more waits outside."""

_PER_LEASE: Final = 2.5
"""Streaq looks for what was left behind when it has waited in vain for something new: so it is taken after twice that
time at the latest, and a little more."""

_encoder: Final = msgspec.json.Encoder(enc_hook=str)  # an exception of streaq's own is told by its words

Attempt = Callable[[Any, int], Awaitable[None]]
"""Is given the value, and the number of the delivery."""


class Again(StreaqRetry):
    """Raised by an attempt that is to be delivered once more.

    Args:
        seconds: after which.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("to be delivered again", delay=timedelta(seconds=seconds))


class _Worker(Worker[None]):
    """A worker that stops where it is told to, and lets what runs come to its end."""

    stopping: trio.Event

    async def signal_handler(self, scope: Any) -> None:
        await self.stopping.wait()
        scope.cancel()

    async def run_consumers(self, receive: Any, *args: Any, **options: Any) -> None:
        with receive:  # which streaq leaves open, and anyio would warn of
            await super().run_consumers(receive, *args, **options)


def _make(address: Address, queues: list[str], limit: int = 1, lease: float = 60.0) -> _Worker:
    pool = ConnectionPool(
        location=TCPLocation(address.host, address.port),
        db=address.database,
        username=address.user,
        password=address.password,
        ssl_context=address.tls,
        decode_responses=True,
    )
    worker = _Worker(
        redis_pool=pool,
        queue_name=NAME,
        priorities=queues,
        concurrency=limit,
        serializer=_encoder.encode,
        deserializer=msgspec.json.decode,
        handle_signals=False,
        idle_timeout=lease / _PER_LEASE,
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
    done: trio.Event = attrs.field(factory=trio.Event)
    fault: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Tell who waits, where it still does."""
        if not self.done.is_set():
            self.fault = error
            self.done.set()


class Publisher:
    """Puts jobs into streaq's queues."""

    def __init__(self, address: Address, availability: Availability) -> None:
        self._address = address
        self._availability = availability
        self._send: trio.MemorySendChannel[_Letter] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Publish, inside."""
        send, receive = trio.open_memory_channel[_Letter](BACKLOG)
        async with trio.open_nursery() as nursery:
            with send, receive:
                self._send = send
                nursery.start_soon(self._serve, receive)
                try:
                    yield
                finally:
                    self._send = None
                    nursery.cancel_scope.cancel()

    async def publish(self, id: str, value: Any, queue: str, delay: float) -> None:  # noqa: A002
        """Put one; nothing happens where one of that id is under way.

        Raises:
            StoreUnavailable: it may be there or not.
        """
        letter = _Letter(id, value, queue, delay)
        with trio.move_on_after(PATIENCE):
            if self._send is None:
                raise self._availability.failed("it is closed")
            await self._send.send(letter)
            await letter.done.wait()
            if letter.fault is not None:
                raise self._availability.failed(str(unwrap(letter.fault))) from letter.fault
            return
        raise self._availability.failed(f"no answer in {PATIENCE:g} seconds")

    async def _serve(self, letters: trio.MemoryReceiveChannel[_Letter]) -> None:
        async for letter in letters:
            try:
                with trio.fail_after(PATIENCE) as scope:
                    async with _make(self._address, []) as client:
                        await self._publish(client, letter)
                        scope.deadline = math.inf
                        await self._serve_with(client, letters)
            except Exception as error:  # noqa: BLE001 - whatever it was: who waits is told, and the client is a new one
                letter.fail(error)

    async def _serve_with(self, client: _Worker, letters: trio.MemoryReceiveChannel[_Letter]) -> None:
        """Publish with a client that works, until it does not."""
        async for letter in letters:
            try:
                with trio.fail_after(PATIENCE):
                    await self._publish(client, letter)
            except Exception as error:
                letter.fail(error)
                raise

    @staticmethod
    async def _publish(client: _Worker, letter: _Letter) -> None:
        task = client.enqueue_unsafe(TASK, letter.value)
        task.id = letter.id
        await task.start(delay=timedelta(seconds=letter.delay) if letter.delay else None, priority=letter.queue)
        letter.done.set()


async def run_worker(
    address: Address, queue: str, limit: int, attempt: Attempt, *, lease: float, stopping: trio.Event
) -> Exception | None:
    """Have what is in a queue attempted, until `stopping` is set and what runs has ended; or until Redis is away.

    Where this is cancelled, the attempts are cancelled, and delivered to another worker at once.

    Returns:
        What ended it, where that was not `stopping`.
    """
    worker = _make(address, [queue], limit, lease)
    worker.stopping = trio.Event()
    scopes: set[trio.CancelScope] = set()

    async def call(value: Any) -> None:
        with trio.CancelScope() as scope:
            scopes.add(scope)
            try:
                await attempt(value, registered.context.tries)
            finally:
                scopes.discard(scope)
        if scope.cancelled_caught:
            raise Again(0)

    registered: Any = worker.task(name=TASK, max_tries=None, ttl=0, timeout=None, silent=True)(call)

    async def watch() -> None:
        try:
            await stopping.wait()
        except trio.Cancelled:
            whole.deadline = trio.current_time() + LAST_WORD
            for scope in scopes:
                scope.cancel()
            raise
        finally:
            worker.stopping.set()

    fault: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.CancelScope(shield=True) as whole:
            try:
                await worker.run_async()
            except Exception as error:  # noqa: BLE001 - of coredis, of the system, or a group of these
                fault = error
        nursery.cancel_scope.cancel()
    return fault
