"""Calls that are made later: how an application orders one, and learns what became of it.

Owns: `Job`, and what an order must be like. Does not know: where jobs are kept, or who runs them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .config import checked_queue
from .errors import ErrorType, TypedError
from .store.jobs import LONGEST, Order, Record, Status
from .streaming import call_context
from .wire import json
from .wire.ids import new_id
from .wire.text import to_utf8

if TYPE_CHECKING:
    from .action import Action
    from .app import Keryx

DEFAULT_QUEUE: Final = "default"

FIRST_LOOK: Final = 0.02
LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks at a job that is waited for, which another process may have finished."""

ID_BYTES: Final = 12


class Job:
    """A call that was ordered, as it was when last looked at.

    Attributes:
        id: by which any process that shares the store finds it: `await app.job(id)`.
        action: the name of the action that is called.
        queue: the queue that it is in.
        status: "queued", "delayed", "running", "done" or "failed".
        attempts: how often it was begun.
        error: what it failed with, or None.
    """

    __slots__ = ("_app", "_record")

    def __init__(self, app: Keryx, record: Record) -> None:
        self._app = app
        self._record = record

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.action} {self.status.value}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self._record.order.id

    @property
    def action(self) -> str:
        """The name of the action that is called."""
        return self._record.order.action

    @property
    def queue(self) -> str:
        """The queue that it is in."""
        return self._record.order.queue

    @property
    def correlation_id(self) -> str:
        """The request id of the call that ordered it, which its own call has too."""
        return self._record.order.correlation_id

    @property
    def status(self) -> Status:
        """Where it was when last looked at."""
        return self._record.status

    @property
    def attempts(self) -> int:
        """How often it was begun, when last looked at."""
        return self._record.attempts

    @property
    def error(self) -> TypedError | None:
        """What it failed with, when last looked at; None where it has not failed."""
        if self.status is not Status.FAILED:
            return None
        return _error(msgspec.json.decode(self._record.outcome or b"{}"))

    async def refresh(self) -> None:
        """Look at it again.

        Raises:
            TypedError: it is kept no longer, or the store cannot be reached.
        """
        self._record = await _found(self._app, self.id)

    async def result(self) -> Any:
        """Wait until it is done, and return what its action returned, as JSON gives it back.

        A stream is the list of its events, `{"data", "event"?, "id"?}` each; a byte stream is its text, or base64.
        It waits for as long as that takes; bound it with a cancel scope.

        Raises:
            TypedError: the job failed, with the error of its last attempt; or it is kept no longer; or the store cannot
                be reached.
        """
        await self.refresh()
        pause = FIRST_LOOK
        while not self.status.is_final:
            await self._app.store.jobs.changed(self.id, pause)
            await self.refresh()
            pause = min(1.5 * pause, LONGEST_PAUSE)
        if self.error is not None:
            raise self.error
        return msgspec.json.decode(self._record.outcome or b"null")


async def enqueue(
    app: Keryx, name: str, params: Mapping[str, Any] | None, *, queue: str | None, delay: float, retries: int
) -> Job:
    """See `Keryx.enqueue`."""
    if not 0 <= delay <= LONGEST:
        raise ValueError(f"delay is a number of seconds, at most ten years of them, not {delay!r}")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries is how often a job may be tried again, 0 for never, not {retries!r}")
    action = app.find_action(name)
    encoded = json.encode(dict(params or {}))
    action.inputs.structure(msgspec.json.decode(encoded))  # what would fail for certain, fails here
    context = call_context.get()
    correlation_id = context.correlation_id if context is not None else new_id()
    order = new_order(action, encoded, correlation_id, queue=queue, retries=retries)
    await app.store.jobs.put(order, delay)
    now = time.time()
    return Job(app, Record(order, Status.DELAYED if delay else Status.QUEUED, now, now + delay))


async def find(app: Keryx, id: str) -> Job:  # noqa: A002
    """See `Keryx.job`."""
    return Job(app, await _found(app, to_utf8(id).decode()))


def new_order(
    action: Action[..., Any], params: bytes, correlation_id: str, *, queue: str | None = None, retries: int = 0
) -> Order:
    """An order for an action, in its own queue unless another one is named.

    Raises:
        ValueError: what is named is no queue.
    """
    own = DEFAULT_QUEUE if action.task is None else action.task.queue
    queue = own if queue is None else checked_queue(queue)
    return Order(secrets.token_hex(ID_BYTES), action.name, params, queue, correlation_id, retries)


async def _found(app: Keryx, id: str) -> Record:  # noqa: A002
    record = await app.store.jobs.find(id)
    if record is None:
        raise TypedError(f"there is no job {id!r}, or it is kept no longer", ErrorType.CONNECTION_ACTION_NOT_FOUND)
    return record


def _error(payload: Mapping[str, Any]) -> TypedError:
    """The error that a payload tells of."""
    faults = [(fault["key"], fault["message"]) for fault in payload.get("errors", ())]
    error = TypedError(
        payload["message"], ErrorType(payload["type"]), payload.get("key"), payload.get("value"), errors=faults
    )
    error.timestamp = payload["timestamp"]
    return error
