"""The shell: one call in a process of its own, whose answer goes to standard output.

Owns: the form of an answer there, the application's life around the call, and what ends it early: a signal, or a reader
that has left the pipe. Does not know: how the inputs were read, or how anything looks to a person.

A signal is the caller leaving. The call is cancelled inside what it awaits, then the application's lifespan is left, in
order. What does not end within `config.drain_timeout` is named in the log, and left behind with the process; so is
everything at a second signal.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import stat
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from ..call import Call
from ..connection import Connection, ConnectionType, Peer
from ..errors import GENERIC_MESSAGE, TypedError, unwrap
from ..outbox import End, Outcome
from ..session import Session
from ..streaming import ByteStream
from ..wire.ids import new_id
from .collecting import JsonCollector, Sent
from .signals import SIGNALLED, ending_signals, leave_behind

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx

FAILED: Final = 1
"""The status of a call that ended in an error."""

READER_LEFT: Final = SIGNALLED + signal.SIGPIPE
"""The status of a call whose reader left the pipe: that of any program which writes into one that nobody reads."""

MAX_NAMED: Final = 10
"""Of how many actions are named to who asks for one that is not there."""


class Sink(Protocol):
    """Where an answer goes."""

    async def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            trio.BrokenResourceError: nobody reads it any more.
            OSError: it cannot be written, for another reason.
        """

    async def left(self) -> None:
        """Return when nobody reads it any more."""


class Output:
    """What standard output was.

    It is left as it is, blocking, since others may share it: the terminal, the log. So a thread does the writing, and
    is left alone with it where the write is cancelled. There is no bound on how long a reader may take nothing: it is
    a person with a pager, or a program that will not take more of the call by being slow.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        try:
            await trio.to_thread.run_sync(_write, self._descriptor, data, abandon_on_cancel=True)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise trio.BrokenResourceError("nobody reads the output") from error

    async def left(self) -> None:
        """Return when a pipe has lost its reader. Of files nobody tells, and of a terminal the hangup does."""
        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            # There is nothing to read where one writes: this wakes up for the loss alone.
            await trio.lowlevel.wait_readable(self._descriptor)
        else:
            await trio.sleep_forever()


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # whoever started us has made it so
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class ShellReply(JsonCollector):
    """The answer to the call.

    Args:
        sink: where it goes.
        limit: the most that is collected of a stream of events, in bytes.
        show: what is written of an event as it comes; then nothing is collected.
    """

    def __init__(self, sink: Sink, limit: int, show: Callable[[Sent], bytes] | None = None) -> None:
        super().__init__(limit)
        self._sink = sink
        self._show = show

    def watch(self, left: Callable[[], None]) -> None:
        """Nobody but `left` tells."""

    async def left(self) -> None:
        """Return when nobody reads the answer any more."""
        await self._sink.left()

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> Sent:  # noqa: A002
        """An event, if it still fits in, where it has to."""
        if self._show is not None:
            self._size = 0
        return super().event(data, event, id, retry)

    def chunk(self, data: bytes) -> Sent:
        """A piece of a byte stream, which passes as it is."""
        return Sent(data, size=len(data))

    async def write(self, items: list[Sent]) -> None:
        """Keep items, or pass them on."""
        if isinstance(self.stream, ByteStream):
            await self._put(b"".join(item.data for item in items if isinstance(item.data, bytes)))
        elif self._show is not None:
            await self._put(b"".join(map(self._show, items)))
        else:
            await super().write(items)

    async def value(self, value: Any) -> None:
        """The action returned it. Once it is on its way, a reader that leaves has what it wanted."""
        await super().value(value)
        await self._put(b'{"response":%b}\n' % self.json)

    async def end(self, end: End, payload: Any, data: Any) -> None:
        """The stream has ended; one of events that was collected is told, if it is whole."""
        if end.outcome is Outcome.GONE:  # who left has no end, nor an answer
            return
        await super().end(end, payload, data)
        if self.failed is None and self._show is None and not isinstance(self.stream, ByteStream):
            await self._put(b'{"response":%b}\n' % self.json)

    async def _put(self, data: bytes) -> None:
        if not data:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._sink.write(data)
        except OSError as error:
            self.failed = TypedError(f"the output cannot be written: {error.strerror or error}").payload()
            raise trio.BrokenResourceError("the output cannot be written") from error


# The call, and the application's life around it


def find_action(app: Keryx, name: str) -> Action[..., Any]:
    """The action of that name.

    Raises:
        TypedError: there is none; it names those that look like it.
    """
    try:
        return app.find_action(name)
    except TypedError as error:
        import difflib  # noqa: PLC0415 - only here

        same = [app.tools[name].name] if name in app.tools else []  # as agents call it
        near = same or difflib.get_close_matches(name, app.actions) or list(app.actions)[:MAX_NAMED]
        hint = f"did you mean {' or '.join(near)}?" if near else "the application has no actions"
        raise TypedError(f"{error.message}; {hint}", error.type) from None


def make_call(
    app: Keryx, action: Action[..., Any], reply: ShellReply, raw: Mapping[str, Any], text: Collection[str] = ()
) -> Call:
    """A call of the shell's user, on a connection and in a session of its own."""
    session = Session(app.store, app.config.session, None)
    peer = Peer(app=app, type=ConnectionType.CLI, identifier=f"cli:{_user()}", session=session)
    return Call(app, action, Connection(peer, new_id()), reply, raw, text=frozenset(text))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container that runs under a number
        return str(os.getuid())


@attrs.frozen
class Ended:
    """How the command ends: its status, and the payload of the error that it has to tell."""

    status: int
    error: dict[str, Any] | None = None


async def run(
    app: Keryx,
    action: Action[..., Any],
    sink: Sink,
    raw: Mapping[str, Any],
    *,
    text: Collection[str] = (),
    show: Callable[[Sent], bytes] | None = None,
) -> Ended:
    """Run the application for the sake of one call, in the main thread.

    Args:
        sink: where the answer goes.
        raw: the inputs by name.
        text: the names of those that came as text.
        show: what is written of an event as it comes; by default a stream of events is collected.

    Raises:
        Exception: the application failed to start, or to end.
    """
    app.serving = False
    reply = ShellReply(sink, app.config.max_collected, show)
    call: Call | None = None
    ended, over = trio.Event(), trio.Event()
    stop = Interruption(app, over)
    async with trio.open_nursery() as nursery:
        await nursery.start(stop.wait)
        try:
            with stop.start:
                async with app:
                    stop.has_started = True
                    call = make_call(app, action, reply, raw, text)
                    # Outside of the application's life, which a call that does not end must not hold open.
                    nursery.start_soon(run_call, call, ended, over)
                    try:
                        await over.wait()
                    finally:
                        call.drop()
        except Exception as error:
            if not stop.status:
                raise
            app.log.exception("the application failed while it was stopped", unwrap(error))
        finally:
            if call is not None and not ended.is_set():
                leave_behind(stop.status or FAILED)
        nursery.cancel_scope.cancel()
    gone = call is not None and call.cause is Outcome.GONE
    return _ended(reply, stop.status, gone=gone)


async def run_call(call: Call, *ended: trio.Event) -> None:
    """Run the call, where the application knows of it and of its connection, to its end, and tell of that."""
    try:
        with call.app.running(call), call.app.connected(call.connection):
            await call.run()
    finally:
        for event in ended:
            event.set()


def _ended(reply: ShellReply, stopped: int, *, gone: bool) -> Ended:
    if stopped or reply.failed is not None:
        return Ended(stopped or FAILED, reply.failed)
    if reply.answered.is_set():
        return Ended(0)
    if gone:
        return Ended(READER_LEFT)
    return Ended(FAILED, TypedError(GENERIC_MESSAGE).payload())


class Interruption:
    """The signals that end the command.

    Args:
        came: set by the first.

    Attributes:
        start: the scope of the application's start, which the first one cancels.
        has_started: whether that is over: from then on the lifespan ends as at any stop, and not by a cancellation.
        status: what the command ends with because of it; 0 while there is none.
    """

    def __init__(self, app: Keryx, came: trio.Event) -> None:
        self._app = app
        self._came = came
        self.start = trio.CancelScope()
        self.has_started = False
        self.status = 0

    async def wait(self, task_status: trio.TaskStatus[None]) -> None:
        """Wait for signals."""
        with ending_signals() as signals:
            task_status.started()
            async for sign in signals:
                if self.status:
                    self._app.log.warning("left behind: a second signal came", signal=signal.Signals(sign).name)
                    leave_behind(self.status)
                self.status = SIGNALLED + sign
                self._came.set()
                if not self.has_started:
                    self.start.cancel()
