"""One connection to a Redis server, kept up for as long as it is open.

Owns: connecting, again and again while the server is away; whose answer is whose, by way of coredis; and how long a
call waits. Does not know: keys, scripts, or what the answers mean.

Why one connection and not coredis's client with its pool: the store's questions are short and never block, so that all
of them fit into one pipeline. And a call that is cancelled while the pool connects takes one of the pool's places with
it (coredis 6.9): clients that leave while Redis is slow would end in a pool that waits for ever. Here no call connects;
a task of its own does, which no call can cancel.

Invariants: an answer goes to the call that asked or, where that was cancelled, to nobody: coredis keeps the place of a
cancelled question until its answer has come. No call waits longer than `PATIENCE`, and none at all while the server is
known to be away.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.connection import BaseConnection, TCPConnection, TCPLocation
from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    UnknownCommandError,
)

from ..config import ConfigError
from . import StoreUnavailable
from .availability import PATIENCE, Availability
from .redis_address import Address

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between attempts to connect: soon after a restart, and no burden where the server stays away."""

HEARTBEAT: Final = 1.0
"""Seconds between questions of our own. They find a link that died without a word before a call does, and a server that
is back though nobody calls."""


class Connection(TCPConnection):
    """A connection of coredis that leaves nothing open where it could not connect, of which anyio would warn."""

    async def run(self, *args: Any, **options: Any) -> None:
        """Connect, and answer, until the connection is lost."""
        try:
            await super().run(*args, **options)
        finally:
            for part in vars(self).values():
                if isinstance(part, (MemoryObjectReceiveStream, MemoryObjectSendStream)):
                    part.close()


class RedisConnection:
    """Asks a server, or says that it is away."""

    def __init__(self, address: Address, availability: Availability) -> None:
        self._address = address
        self._availability = availability
        self._connection: TCPConnection | None = None
        # Unset from a loss, and from the start, to the end of the first attempt after it: calls wait for that.
        self._known = trio.Event()
        self._known.set()
        self._fault: Exception | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep a connection up. Entered once it is known whether the server is there, after `PATIENCE` at most.

        Raises:
            ConfigError: the server is there, and will never have us.
        """
        raised: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._known = trio.Event()
                nursery.start_soon(self._keep)
                nursery.start_soon(self._beat)
                try:
                    await self._known.wait()
                    self._check()
                    yield
                except Exception as error:  # noqa: BLE001 - raised below, as it is and not in the nursery's group
                    raised = error
                finally:
                    # Before the tasks end, so that no late call meets a connection that is half closed.
                    self._shut()
                    nursery.cancel_scope.cancel()
        finally:
            self._shut()  # an attempt may have succeeded at the very end
        if raised is not None:
            raise raised

    def _shut(self) -> None:
        self._connection = None
        self._known.set()

    def _check(self) -> None:
        """Raise where a server said no for good, so that a person has to change something."""
        fault = self._fault
        if isinstance(fault, (AuthenticationError, AuthorizationError, UnknownCommandError)) or (
            isinstance(fault, ResponseError) and "DB index" in str(fault)
        ):
            raise ConfigError(f"KERYX_STORE: the server at {self._address.shown} refuses: {fault}")

    async def ask(self, command: bytes, *arguments: bytes | int) -> Any:
        """Send a command; its answer.

        Raises:
            StoreUnavailable: the server is away, refused the command, or did not answer in time. Where the command was
                on its way nobody here can know whether it was carried out. It is not sent again: a second one might
                undo what another call did in between, and would make every call of an outage wait twice.
        """
        connection = None
        with trio.move_on_after(PATIENCE):
            connection = await self._usable()
            try:
                answer = await connection.create_request(command, *arguments, decode=False)
            except Exception as error:
                # Not RedisError alone: whatever ended the connection is raised in all that wait for its answers.
                if isinstance(error, ReadOnlyError):
                    # A primary that became a replica: the name may lead to the new primary already.
                    connection.invalidate()
                raise self._availability.failed(_reason(error)) from error
            self._availability.worked()
            return answer
        if connection is not None:
            # What does not answer one question won't answer those behind it. And a link that died without a word would
            # not be known as dead for another quarter of an hour.
            connection.invalidate()
        raise self._availability.failed(_SILENCE)

    async def _usable(self) -> TCPConnection:
        while True:
            while not self._known.is_set():  # it may be another one after each wait
                await self._known.wait()
            if self._connection is None:
                raise StoreUnavailable  # why, stands in the log since the attempt that failed
            if self._connection.usable:
                return self._connection
            self._lose()  # it has just been lost, and `_live` is about to be told

    def _lose(self) -> None:
        self._connection = None
        self._known = trio.Event()

    async def _keep(self) -> None:
        """Connect, and connect again, for ever."""
        pause = FIRST_PAUSE
        while True:
            self._fault = await self._live()
            if self._fault is None:
                pause = FIRST_PAUSE
            else:
                self._availability.failed(_reason(self._fault))
                self._known.set()
            await trio.sleep(pause)
            if self._fault is not None:
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self) -> Exception | None:
        """One connection, from the attempt to its loss; or why the attempt failed."""
        fault: Exception = TimeoutError(_SILENCE)
        connection = Connection(
            TCPLocation(self._address.host, self._address.port),
            db=self._address.database,
            username=self._address.user,
            password=self._address.password,
            ssl_context=self._address.tls,
        )
        connection.register_connect_callback(_probe)
        attempt = trio.CancelScope(deadline=trio.current_time() + PATIENCE)
        was_up = False

        def up() -> None:
            nonlocal was_up
            was_up = True
            attempt.deadline = math.inf
            self._connection = connection
            self._known.set()

        with attempt:
            try:
                await connection.run(task_status=_Status(up))
            except RedisError as error:
                fault = error
        # Cancelled while it connects, coredis raises an error of its own. It says nothing about the server.
        await trio.lowlevel.checkpoint_if_cancelled()
        if not was_up:
            return TimeoutError(_SILENCE) if attempt.cancel_called else fault
        if self._connection is connection:
            self._lose()
        return None

    async def _beat(self) -> None:
        """Ask something now and then, for ever."""
        while True:
            await trio.sleep(HEARTBEAT)
            with suppress(StoreUnavailable):  # said in the log
                await self.ask(b"PING")


_SILENCE: Final = f"no answer in {PATIENCE:g} seconds"


@attrs.frozen
class _Status:
    """The `task_status` by which coredis says that a connection is ready."""

    _up: Callable[[], None]

    def started(self, _value: object = None) -> None:
        self._up()


async def _probe(connection: BaseConnection) -> None:
    """See whether the server serves: one that still loads its data, or lets us run no scripts, is not there yet."""
    await connection.create_request(b"PING")
    await connection.create_request(b"EVAL", b"return 1", 0)


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error; coredis puts its own on top of the system's."""
    while error.__cause__ is not None:
        error = error.__cause__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
