"""What is said of a call: to its client, where it failed, and in the log.

Owns: the payload of an error, the lines of a call and of its stream, what was counted for them, and the call's secrets,
which nothing that leaves here shows. Does not know: why a call ended, or how anything looks on the wire.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .errors import TypedError, as_typed, text_of, unwrap
from .logs import Level
from .outbox import Outcome
from .secrecy import Secrets
from .wire import json

if TYPE_CHECKING:
    from .action import Action
    from .app import Keryx
    from .connection import Connection

OURS: Final = ("type", "timestamp")
"""The parts of an error's payload that nobody else has a say in."""


class Account:
    """The account of one call.

    Args:
        raw: the inputs as they came.
        origin: what the transport knows of the request: `method`, `url`.
    """

    __slots__ = (
        "_action",
        "_app",
        "_bytes",
        "_connection",
        "_first",
        "_items",
        "_opened",
        "_origin",
        "_raw",
        "begun",
        "secrets",
    )

    def __init__(
        self,
        app: Keryx,
        action: Action[..., Any],
        connection: Connection,
        raw: Mapping[str, Any],
        origin: Mapping[str, str],
    ) -> None:
        self._app = app
        self._action = action
        self._connection = connection
        self._raw = raw
        self._origin = origin
        self._opened = time.perf_counter()
        self._first: float | None = None
        self._items = self._bytes = 0
        self.secrets = Secrets()
        self.begun = False
        """Whether the log has the call's line."""

    def told(self, error: BaseException) -> tuple[TypedError, dict[str, Any]]:
        """What the client is told of `error`; what it is not told goes to the log."""
        debug = self._app.config.debug
        typed = as_typed(error, debug=debug)
        if typed is not unwrap(error):
            self.report("the action failed", error)
        payload = typed.payload()
        if debug:
            payload["stack"] = self.secrets.traceback(typed.__cause__ or typed)
        # Not its type and its time: a short secret would mangle them, and so give itself away.
        told = {key: self.sendable(value, keys=key == "value") for key, value in payload.items() if key not in OURS}
        return typed, payload | told

    def sendable(self, value: Any, *, keys: bool = True) -> Any:
        """What an error says, without secrets; an odd value in words, since the error must get through."""
        try:
            json.encode(value)
            return self.secrets.hide_in(value, keys=keys)
        except Exception:  # noqa: BLE001 - odd values raise anything
            return self.secrets.hide(text_of(value, repr))

    def report(self, message: str, error: BaseException) -> None:
        """An error for the log alone, with its traceback."""
        self._app.log.exception(
            message,
            unwrap(error),
            secrets=self.secrets,
            action=self._action.name,
            correlation_id=self._connection.correlation_id,
        )

    def count(self, items: int, size: int) -> None:
        """So many items of the stream are on their way to the client, of `size` bytes."""
        if items and self._first is None:
            self._first = time.perf_counter()
        self._items += items
        self._bytes += size

    def call(self, outcome: Outcome, error: TypedError | None = None) -> None:
        """The line of the call: it was answered, or its stream begins."""
        self.begun = True
        level: Level = "error" if outcome is Outcome.ERROR and error is not None and error.is_ours else "info"
        if self._app.log.enabled(level):
            self._app.log.call(
                level,
                action=self._action.name,
                transport=self._connection.type.value,
                status="ok" if outcome is Outcome.DONE else outcome.value,
                duration=self._milliseconds(time.perf_counter()),
                correlation_id=self._connection.correlation_id,
                identifier=self._connection.identifier,
                method=self._origin.get("method"),
                url=self._origin.get("url"),
                params=self._action.inputs.redact(self._raw),
                error=None if error is None else self.secrets.hide(error.message),
                error_type=None if error is None else error.type.value,
            )

    def stream(self, outcome: Outcome, comments: int) -> None:
        """The line of a stream that has ended; comments are no events."""
        self._app.log.stream(
            action=self._action.name,
            transport=self._connection.type.value,
            outcome=outcome.value,
            events=max(0, self._items - comments),
            bytes=self._bytes,
            duration=self._milliseconds(time.perf_counter()),
            time_to_first_event=self._first and self._milliseconds(self._first),
            correlation_id=self._connection.correlation_id,
        )

    def has_lasted(self, seconds: float) -> bool:
        """Whether the call began at least so long ago."""
        return time.perf_counter() - self._opened >= seconds

    def _milliseconds(self, moment: float) -> float:
        return (moment - self._opened) * 1000
