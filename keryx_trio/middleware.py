"""What runs around an action: before it, and after its function has returned.

Owns: `Middleware`, `Update`, and the order in which they run around a function. Does not know: transports, streams'
lives, or why a call was cancelled (`verdict` tells).

Invariant: `run_after` runs once for every middleware whose `run_before` was started, however the call went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from .errors import leaves, unwrap
from .streaming import StreamingResponse

if TYPE_CHECKING:
    from .action import Action
    from .connection import Connection
    from .logs import Log

AFTER_SECONDS: Final = 5.0
"""How long a `run_after` may take, whatever has happened to the call."""

_UNSET: Final[Any] = object()


class Update:
    """What a middleware changes.

    Args:
        params: the structured inputs from here on.
        response: the answer. From `run_before` it stands in for the function, which is then not called.
    """

    __slots__ = ("params", "response")

    def __init__(self, *, params: dict[str, Any] | None = None, response: Any = _UNSET) -> None:
        self.params = params
        self.response = response

    @property
    def has_response(self) -> bool:
        """Whether there is a response in it; None is one."""
        return self.response is not _UNSET


class Middleware:
    """Runs around actions; override either method. One object serves all calls, so keep nothing of a call in it."""

    async def run_before(self, params: dict[str, Any], connection: Connection) -> Update | None:
        """Runs before the action, in the order of the list. Raising stops the call.

        Args:
            params: the structured inputs, defaults filled in.
            connection: the connection as this call sees it.
        """

    async def run_after(
        self, params: dict[str, Any], connection: Connection, error: BaseException | None
    ) -> Update | None:
        """Runs right after the function has returned, before a stream is consumed, in reverse order.

        It is shielded from cancellation for at most 5 seconds.

        Args:
            params: the structured inputs.
            connection: the connection as this call sees it.
            error: what was raised, the timeout's `TypedError`, or `trio.Cancelled` where the client left or cancelled.
        """


@attrs.define
class _Progress:
    """How far a call has come on its way through its middleware and back."""

    params: dict[str, Any]
    started: list[Middleware] = attrs.Factory(list)
    value: Any = None
    error: BaseException | None = None


async def run_around(
    action: Action[..., Any],
    middleware: Sequence[Middleware],
    params: dict[str, Any],
    connection: Connection,
    *,
    verdict: Callable[[], BaseException | None],
    log: Log,
) -> Any:
    """Run the function with its middleware around it, and return its value.

    Args:
        verdict: why the call was stopped, where it was for a reason that can be told (a timeout, a shutdown).
    """
    if not middleware:
        return await _invoke(action, params, connection)
    progress = _Progress(params)
    try:
        progress.value = await _forward(action, middleware, connection, progress)
    except BaseException as raised:  # noqa: ASYNC103, BLE001 - each run_after is told; then it is raised again
        progress.error = raised
    told: BaseException | None = None
    for each in reversed(progress.started):
        told = _told(progress.error, verdict)
        try:
            update = _checked(await _run_after(each, progress.params, connection, told, log), each, "run_after")
        except BaseException as raised:  # noqa: ASYNC103 - the outer ones run all the same; then it is raised
            if progress.error is None:
                progress.error = raised
            else:
                secrets, name = connection.scope.secrets, type(each).__name__
                log.exception("run_after failed", raised, secrets=secrets, action=action.name, middleware=name)
        else:
            if update is not None and update.has_response:
                await _replace(progress, update.response, log, action=action.name, middleware=type(each).__name__)
    if progress.error is None:
        return progress.value
    if isinstance(progress.value, StreamingResponse):
        await progress.value.discard()
    error, progress.error = progress.error, None
    try:
        raise error
    finally:
        del error, told  # whose traceback knows this frame


async def _forward(
    action: Action[..., Any], middleware: Sequence[Middleware], connection: Connection, progress: _Progress
) -> Any:
    for each in middleware:
        progress.started.append(each)
        update = _checked(await each.run_before(progress.params, connection), each, "run_before")
        if update is None:
            continue
        if update.params is not None:
            progress.params = update.params
        if update.has_response:
            return update.response
    return await _invoke(action, progress.params, connection)


async def _invoke(action: Action[..., Any], params: dict[str, Any], connection: Connection) -> Any:
    if action.inputs.connection_parameter is not None:
        params = {**params, action.inputs.connection_parameter: connection}
    return await action.function(**params)


async def _run_after(
    middleware: Middleware,
    params: dict[str, Any],
    connection: Connection,
    error: BaseException | None,
    log: Log,
) -> Update | None:
    with trio.move_on_after(AFTER_SECONDS, shield=True):
        return await middleware.run_after(params, connection, error)
    log.warning("run_after was stopped", middleware=type(middleware).__name__, after=AFTER_SECONDS)
    return None


def _checked(update: Any, middleware: Middleware, method: str) -> Update | None:
    if update is None or isinstance(update, Update):
        return update
    raise TypeError(f"{type(middleware).__name__}.{method} returned {type(update).__name__}: return an Update, or None")


async def _replace(progress: _Progress, response: Any, log: Log, **names: str) -> None:
    """Take a response in place of a value or of an error; not of a stream, nor of a call that was cancelled."""
    if progress.error is None and isinstance(progress.value, StreamingResponse):
        log.warning("a middleware cannot replace a stream", **names)
    elif progress.error is None or isinstance(progress.error, Exception):
        response, progress.value, progress.error = progress.value, response, None
    if isinstance(response, StreamingResponse):
        await response.discard()


def _told(error: BaseException | None, verdict: Callable[[], BaseException | None]) -> BaseException | None:
    """`error` in the terms of the contract: one exception, and a cancellation with a reason is that reason."""
    if error is None:
        return None
    cancelled = [leaf for leaf in leaves(error) if isinstance(leaf, trio.Cancelled)]
    if not cancelled:
        return unwrap(error)
    rest = error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else None
    return verdict() or (cancelled[0] if rest is None else unwrap(rest))
