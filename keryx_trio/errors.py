"""What can go wrong in a call, and how it is told: one exception, its type, its payload.

Owns: `TypedError`, the table of HTTP statuses, and the way an unknown exception becomes an answer.
Does not know: transports, actions, or where the answer goes.

Invariant: what an unknown exception says reaches the log, and the client only in debug mode.
"""

from __future__ import annotations

import enum
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

FIRST_SERVER_ERROR: Final = 500
GENERIC_MESSAGE: Final = "The action failed. The server's log has the details."


class ErrorType(enum.StrEnum):
    """The kind of a `TypedError`, as it stands in the payload's `type`."""

    CONNECTION_SESSION_NOT_FOUND = "CONNECTION_SESSION_NOT_FOUND"
    CONNECTION_SERVER_ERROR = "CONNECTION_SERVER_ERROR"
    CONNECTION_ACTION_NOT_FOUND = "CONNECTION_ACTION_NOT_FOUND"
    CONNECTION_ACTION_PARAM_REQUIRED = "CONNECTION_ACTION_PARAM_REQUIRED"
    CONNECTION_ACTION_PARAM_DEFAULT = "CONNECTION_ACTION_PARAM_DEFAULT"
    CONNECTION_ACTION_PARAM_VALIDATION = "CONNECTION_ACTION_PARAM_VALIDATION"
    CONNECTION_ACTION_PARAM_FORMATTING = "CONNECTION_ACTION_PARAM_FORMATTING"
    CONNECTION_ACTION_RUN = "CONNECTION_ACTION_RUN"
    CONNECTION_ACTION_TIMEOUT = "CONNECTION_ACTION_TIMEOUT"
    CONNECTION_TYPE_NOT_FOUND = "CONNECTION_TYPE_NOT_FOUND"
    CONNECTION_NOT_SUBSCRIBED = "CONNECTION_NOT_SUBSCRIBED"
    CONNECTION_CHANNEL_AUTHORIZATION = "CONNECTION_CHANNEL_AUTHORIZATION"
    CONNECTION_CHANNEL_VALIDATION = "CONNECTION_CHANNEL_VALIDATION"
    CONNECTION_RATE_LIMITED = "CONNECTION_RATE_LIMITED"
    CONNECTION_TASK_DEFINITION = "CONNECTION_TASK_DEFINITION"
    CONNECTION_METHOD_NOT_ALLOWED = "CONNECTION_METHOD_NOT_ALLOWED"
    CONNECTION_PAYLOAD_TOO_LARGE = "CONNECTION_PAYLOAD_TOO_LARGE"
    CONNECTION_UNAVAILABLE = "CONNECTION_UNAVAILABLE"


STATUSES: Final[Mapping[ErrorType, int]] = MappingProxyType(
    {
        ErrorType.CONNECTION_ACTION_PARAM_FORMATTING: 400,
        ErrorType.CONNECTION_SESSION_NOT_FOUND: 401,
        ErrorType.CONNECTION_CHANNEL_AUTHORIZATION: 403,
        ErrorType.CONNECTION_CHANNEL_VALIDATION: 403,
        ErrorType.CONNECTION_ACTION_NOT_FOUND: 404,
        ErrorType.CONNECTION_METHOD_NOT_ALLOWED: 405,
        ErrorType.CONNECTION_ACTION_TIMEOUT: 408,
        ErrorType.CONNECTION_PAYLOAD_TOO_LARGE: 413,
        ErrorType.CONNECTION_ACTION_PARAM_VALIDATION: 422,
        ErrorType.CONNECTION_ACTION_PARAM_REQUIRED: 422,
        ErrorType.CONNECTION_ACTION_PARAM_DEFAULT: 422,
        ErrorType.CONNECTION_RATE_LIMITED: 429,
        ErrorType.CONNECTION_UNAVAILABLE: 503,
    }
)
"""The HTTP status of each type; a type that is not here is a 500."""


class TypedError(Exception):
    """An error that is meant for the caller: its message and type reach the client as they are.

    Args:
        message: what was wrong, with what, and what to do; shown to the client.
        type: decides the HTTP status (see `STATUSES`).
        key: the input at fault, as a path (`address.zip`, `tags[0]`).
        value: what was given for it.
        errors: every fault of the call as `(key, message)`, for invalid inputs.
        retry_after: seconds after which trying again makes sense; becomes `Retry-After` over HTTP.

    Raises:
        ValueError: an unknown type, or a `retry_after` that is no finite number of zero or more.
    """

    def __init__(
        self,
        message: str,
        type: ErrorType = ErrorType.CONNECTION_ACTION_RUN,  # noqa: A002 - the public name of the field
        key: str | None = None,
        value: object = None,
        *,
        errors: Sequence[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if retry_after is not None and not 0 <= retry_after < math.inf:
            raise ValueError(f"retry_after is a number of seconds, not {retry_after!r}")
        self.message = str(message)
        self.type = ErrorType(type)
        self.key = None if key is None else str(key)
        self.value = value
        self.errors = tuple((str(path), str(fault)) for path, fault in errors)
        self.retry_after = retry_after
        self.timestamp = int(time.time() * 1000)

    @property
    def status(self) -> int:
        """The HTTP status that goes with this error's type."""
        return STATUSES.get(self.type, 500)

    @property
    def is_ours(self) -> bool:
        """Whether the fault is the server's and not the caller's."""
        return self.status >= FIRST_SERVER_ERROR

    def payload(self, *, debug: bool = False) -> dict[str, Any]:
        """The error as the client sees it: `{message, type, timestamp, key?, value?, errors?, stack?}`.

        `timestamp` is in milliseconds since 1970. `stack` is there in debug mode only.
        """
        payload: dict[str, Any] = {"message": self.message, "type": self.type.value, "timestamp": self.timestamp}
        if self.key is not None:
            payload["key"] = self.key
        if self.value is not None:
            payload["value"] = self.value
        if self.errors:
            payload["errors"] = [{"key": key, "message": message} for key, message in self.errors]
        if debug:
            payload["stack"] = "".join(traceback.format_exception(self.__cause__ or self))
        return payload


def unwrap(error: BaseException) -> BaseException:
    """The one exception inside nested groups, or the group itself when it has several leaves."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in nested groups, or the one that it is."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def text_of(value: object, how: Callable[[object], str] = str) -> str:
    """The text of an error, or of another value; where making it fails, words that say so."""
    try:
        return how(value)
    except Exception:  # noqa: BLE001 - an odd value must not hide what is to be told of it
        return f"<a {type(value).__name__} that has no text>"


def as_typed(error: BaseException, *, debug: bool = False) -> TypedError:
    """What the client is told of `error`: a `TypedError` as it is, anything else in general words.

    In debug mode an unknown exception is told by its class and text. The caller logs the original.
    """
    error = unwrap(error)
    if isinstance(error, TypedError):
        return error
    typed = TypedError(f"{type(error).__name__}: {text_of(error)}" if debug else GENERIC_MESSAGE)
    typed.__cause__ = error
    return typed
