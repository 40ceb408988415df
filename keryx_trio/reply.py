"""What a transport must be able to say, so that a call can be answered through it.

Owns: the one protocol between calls and transports. Does not know: either of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from .errors import TypedError
from .outbox import Attempt, End
from .streaming import StreamingResponse, Wire


def do_nothing() -> None:
    """What ends a watch that is none."""


class Reply(Wire, Protocol):
    """How a transport answers one call. Each write is bounded by the transport.

    Any method that writes raises trio.BrokenResourceError once the client is known to have left or to be stuck.
    """

    patient: bool
    """Whether nobody watches its streams, so that in a shutdown they may go on as long as a plain call may."""

    @property
    def enclosing(self) -> trio.CancelScope | None:
        """A scope around the call, in its own task, that it may cancel, and the connection with it; None for none."""

    @property
    def ending(self) -> bool:
        """Whether the last of the answer is being written: from then on a disconnect is the normal end."""

    @property
    def begun(self) -> bool:
        """Whether any of the answer has been written."""

    def watch(self, left: Callable[[], None]) -> Callable[[], None] | None:
        """Have `left` called once the client has left; returns what ends that. None where `left` must be awaited."""

    async def left(self) -> None:
        """Return when the client has left."""

    async def value(self, value: Any) -> None:
        """Answer with a value. What has no form on the wire raises before anything is written."""

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:
        """Answer with an error."""

    def declines(self) -> bool:
        """Whether only the head of a stream is asked for (HEAD)."""

    async def open(self, stream: StreamingResponse, items: list[Any]) -> None:
        """Start a stream, with what it has sent by now."""

    async def write(self, items: list[Any]) -> None:
        """Write items of the stream, together."""

    @property
    def attempt(self) -> Attempt | None:
        """Writes an item of a stream that is open without waiting, where the transport can."""

    @property
    def ping(self) -> Callable[[], Awaitable[None]] | None:
        """Shows that a quiet stream is alive, where that is for a reply to do."""

    async def end(self, end: End, payload: Any, data: Any) -> None:
        """End the stream.

        Args:
            end: how it ended.
            payload: of the error of one that failed, else None.
            data: what an event that tells of the error carries: the payload, or what the producer chose instead.
        """
