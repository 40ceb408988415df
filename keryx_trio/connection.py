"""A connection, as the action that runs on it sees it.

Owns: `Connection`, the nursery it lends to a call, and calls from one action to another. Does not know: transports,
or how a call is answered.

One `Connection` object is one call's view. What belongs to the connection is shared between its views (`Peer`); the
nursery, the metadata and the correlation id are the call's own.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVarTuple

import attrs
import trio

from .errors import ErrorType, TypedError, unwrap
from .middleware import run_around
from .secrecy import Secrets
from .session import Session
from .streaming import StreamingResponse
from .wire.ids import new_id

if TYPE_CHECKING:
    from .app import Keryx

Ts = TypeVarTuple("Ts")


class ConnectionType(enum.StrEnum):
    """What a connection came through."""

    WEB = "web"
    WEBSOCKET = "websocket"
    MCP = "mcp"
    CLI = "cli"
    TASK = "task"


@attrs.define(eq=False)
class Peer:
    """What all calls of one connection share."""

    app: Keryx
    type: ConnectionType
    identifier: str
    session: Session
    last_event_id: str | None = None
    rate_limit: Any = None
    id: str = attrs.field(factory=new_id)


class CallNursery:
    """The nursery of a call. What runs in it dies when the call has been answered or its source has ended."""

    __slots__ = ("_failed", "_nursery", "_over")

    def __init__(self, nursery: trio.Nursery, failed: Callable[[Exception], None]) -> None:
        self._nursery = nursery
        self._failed = failed
        self._over = False

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around everything that runs in it."""
        return self._nursery.cancel_scope

    @property
    def child_tasks(self) -> frozenset[trio.lowlevel.Task]:
        """What runs in it."""
        return self._nursery.child_tasks

    @property
    def parent_task(self) -> trio.lowlevel.Task:
        """The task that the call runs in."""
        return self._nursery.parent_task

    def start_soon(self, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: object = None) -> None:
        """Start a task; see `trio.Nursery.start_soon`. One that fails ends the call with its error.

        Raises:
            RuntimeError: the call is over.
        """
        self.check_open()
        self._nursery.start_soon(self._run, async_fn, args, name=name or async_fn)

    async def start(self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None) -> Any:
        """Start a task and wait until it has called `task_status.started`; see `trio.Nursery.start`.

        Raises:
            RuntimeError: the call is over.
        """
        self.check_open()
        return await self._nursery.start(async_fn, *args, name=name)

    async def _run(self, async_fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task, and tell the call of its failure at once: its siblings may take their time to clean up."""
        try:
            await async_fn(*args)
        except Exception as error:
            self._failed(error)
            raise

    def close(self) -> None:
        """The call is over, and so are its tasks."""
        self._over = True
        self._failed = _nobody_is_told  # so that nothing here knows the call any more

    def check_open(self) -> None:
        """See that the call is not over.

        Raises:
            RuntimeError: it is.
        """
        if self._over:
            raise RuntimeError(
                "the call that owned this nursery is over; what should outlive a call belongs in app.nursery"
            )


def _none() -> None:
    """The verdict on what is over."""


def _nobody_is_told(_: Exception) -> None:
    """What becomes of a failure after the end of its call."""


@attrs.define(eq=False, repr=False)
class CallScope:
    """What a call lends to the views of its connection."""

    nursery: CallNursery
    verdict: Callable[[], BaseException | None]
    """Why the call was stopped, where that can be told: its timeout, or the shutdown."""
    secrets: Secrets
    """The secret inputs of the call and of those it made, so that nothing which leaves it shows them."""
    nested: bool = False
    """Whether another action made the call, and not the client itself."""

    def close(self) -> None:
        """The call is over: it knows this, so this must not know it."""
        self.nursery.close()
        self.verdict = _none


class Connection:
    """Who is calling, and what the call owns.

    Attributes:
        metadata: the call's own dict, for middleware and the action.
        correlation_id: the request id, as it stands in the log and in the answer's `X-Request-Id`.
    """

    __slots__ = ("_peer", "_scope", "correlation_id", "metadata")

    def __init__(self, peer: Peer, correlation_id: str, scope: CallScope | None = None) -> None:
        self._peer = peer
        self._scope = scope
        self.correlation_id = correlation_id
        self.metadata: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Connection {self.type.value} {self.identifier} id={self.id}>"

    @property
    def nursery(self) -> CallNursery:
        """The nursery of this call: what is started in it dies when the call has been answered or its source has ended.

        Raises:
            RuntimeError: no call is running on this connection.
        """
        return self.scope.nursery

    @property
    def scope(self) -> CallScope:
        """What the running call lends to this view; for the framework's own use."""
        if self._scope is None:
            raise RuntimeError("no call is running on this connection yet")
        return self._scope

    @scope.setter
    def scope(self, scope: CallScope) -> None:
        self._scope = scope

    @property
    def app(self) -> Keryx:
        """The application."""
        return self._peer.app

    @property
    def id(self) -> str:
        """The key of this connection in `app.connections`; never the session's."""
        return self._peer.id

    @property
    def type(self) -> ConnectionType:
        """What it came through."""
        return self._peer.type

    @property
    def identifier(self) -> str:
        """The client's address."""
        return self._peer.identifier

    @property
    def session(self) -> Session:
        """What the client's calls have in common; always there, and stored once something is put in."""
        return self._peer.session

    @property
    def last_event_id(self) -> str | None:
        """What a reconnecting EventSource sent as `Last-Event-ID`, or None."""
        return self._peer.last_event_id

    @property
    def rate_limit(self) -> Any:
        """What the rate limiter found, or None where none ran."""
        return self._peer.rate_limit

    @rate_limit.setter
    def rate_limit(self, value: Any) -> None:
        self._peer.rate_limit = value

    async def act(self, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """Call another action and return its value; its tasks live in this call's nursery.

        It runs with its middleware (rate limits do not count), metadata of its own, and its own timeout until it
        returns. A stream it returns is for the caller to return, and then lives under the caller's timeout.

        Raises:
            TypedError: no such action, invalid params, a timeout, or what the action raised.
            Exception: whatever the action raised.
        """
        app, scope = self.app, self.scope
        scope.nursery.check_open()
        action = app.find_action(name)
        scope.secrets.extend(action.inputs.secrets(params or {}))
        values = action.inputs.structure(params or {})
        scope.secrets.extend(action.inputs.secrets(values))  # a converter may have made others of them
        timeout = app.timeout_of(action)
        clock = trio.CancelScope(relative_deadline=timeout)

        def verdict() -> BaseException | None:
            return timed_out(name, timeout) if clock.cancel_called else scope.verdict()

        view = Connection(
            self._peer, self.correlation_id, CallScope(scope.nursery, verdict, scope.secrets, nested=True)
        )
        try:
            with clock:
                value = await run_around(action, app.middleware_of(action), values, view, verdict=verdict, log=app.log)
                if not clock.cancel_called:
                    return value
                if isinstance(value, StreamingResponse):
                    await value.discard()
        except Exception as error:
            if not clock.cancel_called:
                raise
            app.log.exception(
                "an error in a call that was being stopped", unwrap(error), secrets=scope.secrets, action=name
            )
        raise timed_out(name, timeout)


def timed_out(name: str, timeout: float) -> TypedError:
    """The error of an action that took longer than its timeout, in seconds."""
    return TypedError(f"action {name} timed out after {timeout:g} seconds", ErrorType.CONNECTION_ACTION_TIMEOUT)
