"""A serving process, as its application and its connections know it.

Owns: which connections there are, how many calls run, and the order of a shutdown. Does not know: what is said on a
connection, or what a call is.

The application makes a `Worker` when its lifespan begins, and puts it into the lifespan's state, where the server finds
it (`KEY`). So nothing is global, and an application that makes none is served by hypercorn's own code.

A shutdown, from the signal on:

    at once             the application is told, and ends its streams
    up to the drain     calls finish; a new request on a kept connection is answered all the same
    when none is left   connections that wait for a request are closed, and the process ends
    after the drain     last words have had their time: what still writes is cut, then cancelled

Invariant: when `stop` has returned no connection is left, but for tasks that shield themselves from all this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper

from ..deadlines import Timers
from .watching import Watch

KEY: Final = "keryx_trio.worker"
"""Where a worker is found in the lifespan's state."""

CUT: Final = 0.45
GIVE_UP: Final = 0.65
"""How long after the drain writes are cut, and connections cancelled, in seconds."""

CLOSING: Final = 0.1
"""How long connections without calls may take to close, in seconds."""

SWEEP: Final = 0.02
"""How long a moment is, in seconds."""


@attrs.frozen(kw_only=True)
class Limits:
    """What bounds a connection; in seconds and bytes.

    Attributes:
        read_timeout: how long a head may take, and a body may stop coming.
        write_timeout: how long a client may take nothing.
        drain_timeout: how long a shutdown waits for calls.
        max_message: the largest message of a WebSocket.
    """

    read_timeout: float = 30.0
    write_timeout: float = 30.0
    drain_timeout: float = 10.0
    max_message: int = 64 * 1024


class Connection(Protocol):
    """What a worker asks of a connection."""

    def close_if_idle(self) -> None:
        """Close soon, where no call runs."""

    def cut(self) -> None:
        """Write no more."""

    def cancel(self) -> None:
        """End now."""


class Lasting(Protocol):
    """What is over in a moment, mostly: a call, or its end after its answer."""

    def go_on(self) -> None:
        """It is not over."""


class Worker:
    """One application, served by one process.

    Args:
        limits: what bounds its connections.
        shut_down: tells the application to stop.

    Attributes:
        stopping: whether it has been told to.
        connections: those that are open.
        when_stopping: called when it begins to.
        calls: how many calls of the application run.
        watch: tells of clients that leave.
        timers: end waits that take too long.
    """

    def __init__(self, limits: Limits, shut_down: Callable[[], object]) -> None:
        self.limits = limits
        self.stopping = False
        self.connections: set[Connection] = set()
        self.calls = 0
        self.when_stopping: Callable[[], None] = lambda: None
        self._shut_down = shut_down
        self._quiet = trio.lowlevel.ParkingLot()
        self.watch = Watch()
        self._expected: set[Lasting] = set()
        self._lasting: set[Lasting] = set()  # those that were there a moment ago
        self._sleeping = False  # whether there was nothing to sweep
        self._swept = trio.lowlevel.ParkingLot()
        self.timers = Timers()

    async def run(self) -> None:
        """What the connections need beside themselves; runs in the application's lifespan."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch.run)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self.timers.run)

    def begin_connection(self, connection: Connection) -> None:
        """Keep a connection where a shutdown finds it."""
        self.connections.add(connection)

    def end_connection(self, connection: Connection) -> None:
        """It has ended."""
        self.connections.discard(connection)
        self._quieten()

    def begin_call(self) -> None:
        """A call of the application begins."""
        self.calls += 1

    def end_call(self) -> None:
        """One has ended."""
        self.calls -= 1
        if self.stopping:
            self._quieten()

    def _quieten(self) -> None:
        if self.stopping and not self.calls:
            self._quiet.unpark_all()

    # What lasts longer than most

    def expect(self, what: Lasting) -> None:
        """Something should be over in a moment; where it is not, its `go_on` is called."""
        self._expected.add(what)
        if self._sleeping:
            self._sleeping = False
            self._swept.unpark()

    def is_over(self, what: Lasting) -> None:
        """It is."""
        self._expected.discard(what)
        self._lasting.discard(what)

    async def _sweep(self) -> None:
        """See what lasts; runs as long as the worker."""
        while True:
            if not self._expected:
                self._sleeping = True
                await self._swept.park()
            await trio.sleep(SWEEP)
            self._lasting, self._expected = self._expected, set()
            await trio.sleep(SWEEP / 2)
            lasting, self._lasting = self._lasting, set()
            for what in lasting:
                what.go_on()

    # Its end

    async def stop(self) -> None:
        """Tell the application, and wait until nothing is left, no longer than the drain allows."""
        if self.stopping:
            return
        self.stopping = True
        self.when_stopping()
        over = trio.current_time() + self.limits.drain_timeout
        self._shut_down()
        await self._wait(over + CUT)
        if not self.calls:
            for connection in list(self.connections):
                connection.close_if_idle()
            await self._wait(trio.current_time() + CLOSING, also_connections=True)
        for connection in list(self.connections):
            connection.cut()
        await self._wait(max(over + GIVE_UP, trio.current_time() + CLOSING), also_connections=True)
        for connection in list(self.connections):
            connection.cancel()

    async def _wait(self, deadline: float, *, also_connections: bool = False) -> None:
        with trio.CancelScope(deadline=deadline):
            while self.calls or (also_connections and self.connections):
                await self._quiet.park()


Application = Callable[..., Awaitable[Any]]


@attrs.frozen(eq=False)
class Site:
    """What every connection of a worker is served with: hypercorn's parts, and ours.

    Attributes:
        app: the application, as hypercorn wraps it.
        serve: the same, as ASGI calls it.
        config: hypercorn's settings.
        context: hypercorn's own notion of a worker.
        state: the lifespan's state.
    """

    app: Application
    config: Any
    context: Any
    state: dict[str, Any]
    worker: Worker
    serve: Application = attrs.field(init=False)

    @serve.default
    def _serve(self) -> Application:
        return self.app.app if isinstance(self.app, ASGIWrapper) else partial(_called, self.app)


async def _called(app: Application, scope: Any, receive: Any, send: Any) -> None:
    """Call an application as hypercorn does."""
    await app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
