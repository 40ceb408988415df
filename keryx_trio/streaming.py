"""What an action returns to stream: the response, which is also the stream that its producer sends through.

Owns: the public faces (`StreamingResponse`, `EventStream`, `ByteStream`, `Event`) and how a source becomes sends.
Does not know: transports. A `Wire` turns what is sent into its own frames; until one is attached, sends are kept.

Invariant: a stream ends exactly once, by whichever comes first: its producer returning or raising, `close`,
`send_error`, the timeout, the shutdown, or its reader leaving.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol, Self

import attrs
import trio

from . import outbox
from .errors import TypedError, unwrap
from .outbox import DONE, GONE, End, Outbox, Outcome
from .wire import headers as header_fields
from .wire import json, sse

CHUNK: Final = 64 * 1024
"""How much of a file or a receive stream is read at a time, in bytes."""

CLEANUP_SECONDS: Final = 5.0
"""How long closing a source that never started may take."""


@attrs.frozen
class Event:
    """One server-sent event, for sources that yield them.

    Args:
        data: a str goes as it is, anything else as JSON.
        event: its name; None is the reader's `message`.
        id: what a reconnecting reader sends back as `Last-Event-ID`; "" resets it.
        retry: how long the reader waits before it reconnects, in milliseconds.
    """

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None


class Form(Protocol):
    """How what a stream sends is put into frames; None means that there is no place for it."""

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> outbox.Item | None:  # noqa: A002
        """An event; `data` is text, or one line of JSON as bytes."""

    def comment(self, text: str) -> outbox.Item | None:
        """A comment."""

    def chunk(self, data: bytes) -> outbox.Item | None:
        """A piece of a byte stream."""


class Wire(Form, Protocol):
    """The frames of a transport."""

    def announce(self, stream: StreamingResponse) -> int:
        """A stream is about to be put into frames; returns how much of it may be held, in bytes."""


@attrs.frozen(eq=False)
class CallContext:
    """The call that code runs in: its own task, its id in the log, and the streams made in it."""

    task: trio.lowlevel.Task
    correlation_id: str
    check: Callable[[str | bytes, str | None], None] | None = None
    """Raises for an event that the action does not describe, where it describes them and debug mode is on."""
    streams: list[StreamingResponse] = attrs.Factory(list)


call_context: Final[ContextVar[CallContext | None]] = ContextVar("keryx_trio call", default=None)


class _Kept:
    """The wire before there is one: remembers each send as a call to make on the real one."""

    @attrs.frozen
    class Frame:
        method: str
        args: tuple[Any, ...]
        size: int

        def __len__(self) -> int:
            return self.size

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> Frame:  # noqa: A002
        size = len(sse.encode(data, event, id, retry))  # what is malformed raises where it is sent
        return self.Frame("event", (data, event, id, retry), size)

    def comment(self, text: str) -> Frame:
        return self.Frame("comment", (text,), len(sse.comment(text)))

    def chunk(self, data: bytes) -> Frame:
        return self.Frame("chunk", (data,), len(data))


_KEPT: Final = _Kept()


class StreamingResponse:
    """A response that is produced while it is read. Made by `sse` or `stream`, and returned by the action."""

    __slots__ = (
        "_args",
        "_file",
        "_passing",
        "_source",
        "_used",
        "_wire",
        "comments",
        "content_type",
        "headers",
        "outbox",
    )

    def __init__(
        self, source: Any, args: tuple[Any, ...], content_type: str, headers: Mapping[str, str] | None
    ) -> None:
        if isinstance(source, (str, bytes)) and not isinstance(self, ByteStream):
            raise TypeError("an event stream's source is a producer function or an async iterable, not a text")
        self._source = _checked_source(source, args)
        self._args = args
        self._file: Any = None  # what trio.open_file gives
        self._wire: Form = _KEPT
        self._used = False
        self._passing: BaseException | None = None  # what was on its way out when the stream was closed
        made_in = call_context.get()
        if made_in is not None:
            made_in.streams.append(self)
        self.outbox = Outbox(_may_wait)
        self.comments = 0
        self.content_type = content_type
        fields = header_fields.checked(headers)
        self.headers = [header_fields.content_type(content_type)] + [f for f in fields if f[0] != b"content-type"]

    @staticmethod
    def sse(
        source: Callable[..., Awaitable[None]] | AsyncIterable[Any] | None = None,
        *args: Any,
        headers: Mapping[str, str] | None = None,
        ping: float | None = None,
    ) -> EventStream:
        """A stream of server-sent events.

        Args:
            source: a producer, `async (stream, *args) -> None`, or an async iterable of `Event`, str or JSON-able
                values. Without one, start a task in `connection.nursery` that sends through the returned stream.
            args: passed on to the producer.
            headers: more header fields; they win over the standard ones.
            ping: seconds of quiet after which a comment is sent; None = `config.ping`, 0 = never.

        Raises:
            TypeError: the source is none of these.
            ValueError: a malformed header field or a negative `ping`.
        """
        return EventStream(source, args, headers, ping)

    @staticmethod
    def stream(
        source: Callable[..., Awaitable[None]] | AsyncIterable[bytes] | trio.abc.ReceiveStream | str | os.PathLike[str],
        *args: Any,
        content_type: str = "application/octet-stream",
        headers: Mapping[str, str] | None = None,
    ) -> ByteStream:
        """A stream of bytes, sent as they come.

        Args:
            source: a producer, `async (stream, *args) -> None`; an async iterable of bytes; a trio `ReceiveStream`;
                or a path, opened before the head goes out. Whatever can be closed is closed, however the stream ends.
            args: passed on to the producer.
            content_type: the MIME type of the bytes.
            headers: more header fields; they win over the standard ones.

        Raises:
            TypeError: the source is none of these.
            ValueError: a malformed header field.
        """
        return ByteStream(source, args, content_type, headers)

    def close(self) -> None:
        """End the stream: what was sent goes out, then its end. Idempotent, never waits, safe under cancellation.

        In a `finally` that an exception passes through it does not hide the failure: where that exception then leaves
        the producer, the stream failed.
        """
        if self.outbox.finish(DONE):
            self._passing = sys.exc_info()[1]

    def fail(self, error: BaseException, end: End) -> bool:
        """The producer failed: `end` is the stream's, unless it has another, which is not just this failure passing."""
        if self.outbox.finish(end):
            return True
        return self._passing is not None and unwrap(error) is unwrap(self._passing) and self.outbox.amend(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; where an exception passes through, the reader is told that the stream failed.

        What cancels the block is not the stream's to tell: the call knows why, or goes on.
        """
        if error is None:
            self.close()
        elif isinstance(error, Exception):
            self.outbox.finish(End(Outcome.ERROR, error))

    def __repr__(self) -> str:
        state = self.outbox.end.outcome.value if self.outbox.end else "open"
        return f"<{type(self).__name__} {self.content_type} {state}>"

    # What the call does with it

    @property
    def has_source(self) -> bool:
        """Whether the stream has a source of its own; else tasks of the call's nursery send through it."""
        return self._source is not None

    async def prepare(self) -> None:
        """Open what must be there before the head goes out."""
        if isinstance(self._source, (str, os.PathLike)):
            self._file = await trio.open_file(self._source, "rb")

    def attach(self, wire: Wire) -> None:
        """From now on sends become frames of `wire`.

        Raises:
            RuntimeError: the stream has been answered with before.
        """
        if self._wire is not _KEPT:
            raise RuntimeError("this stream has been returned before: make a new StreamingResponse for each call")
        self._wire = wire
        limit = wire.announce(self)
        self.outbox.attach(self._put_into_frame, limit)

    def _put_into_frame(self, kept: _Kept.Frame) -> outbox.Item | None:
        frame: outbox.Item | None = getattr(self._wire, kept.method)(*kept.args)
        if frame is None and kept.method == "comment":
            self.comments -= 1
        return frame

    async def produce(self) -> None:
        """Run the source to its end."""
        self._used = True
        if self._file is not None:
            async with self._file as file:
                while data := await file.read(CHUNK):
                    await self._pass_on(data)
        elif hasattr(self._source, "__aiter__"):
            iterator = aiter(self._source)
            try:
                async for item in iterator:
                    await self._pass_on(item)
            finally:  # as trio's own resources: under cancellation these close at once
                try:
                    await _aclose(iterator)  # noqa: ASYNC102
                finally:
                    if iterator is not self._source:
                        await _aclose(self._source)  # noqa: ASYNC102
        else:
            running = self._source(self, *self._args)
            if not inspect.isawaitable(running):
                raise TypeError(f"the producer {_name(self._source)} is no async function: write it with `async def`")
            await running

    async def discard(self) -> None:
        """Let go of a source that will not be run any more, and of whoever waits to send. Does nothing after a run."""
        self.outbox.finish(GONE)
        if self._used:
            return
        self._used = True
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            await _aclose(self._file or self._source)

    async def _pass_on(self, item: Any) -> None:
        raise NotImplementedError


class EventStream(StreamingResponse):
    """A stream of server-sent events, and what its producer sends them through.

    Any task may send. A send waits while the reader is slower than the producer, and is always a place where the
    reader's leaving or the timeout can be noticed.
    """

    __slots__ = ("_check", "ping")

    def __init__(
        self,
        source: Any = None,
        args: tuple[Any, ...] = (),
        headers: Mapping[str, str] | None = None,
        ping: float | None = None,
    ) -> None:
        if ping is not None and not 0 <= ping < math.inf:
            raise ValueError(f"ping is a number of seconds, 0 for never, not {ping!r}")
        super().__init__(source, args, "text/event-stream", headers)
        made_in = call_context.get()
        self._check = made_in.check if made_in is not None else None
        self.ping = ping

    async def send(
        self,
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field on the wire
        retry: int | None = None,
    ) -> None:
        """Send one event; a str goes as it is, anything else as JSON.

        Args:
            data: any line ends in a str are kept as such.
            event: its name.
            id: what a reconnecting reader sends back as `Last-Event-ID`; "" resets it.
            retry: how long the reader waits before it reconnects, in milliseconds.

        Raises:
            ValueError: a CR, LF or NUL in `event` or `id`, or a bad `retry`.
            TypeError: `data` has no JSON form.
            ValueError, TypeError: in debug mode, an event that the action's `Web(events=...)` does not describe.
            trio.ClosedResourceError: the stream has ended.
            RuntimeError: the buffer is full and the action has not returned the stream yet.
        """
        encoded = data if isinstance(data, str) else json.encode(data)
        if self._check is not None:
            self._check(encoded, event)
        frame = self._wire.event(encoded, event, id, retry)
        await trio.lowlevel.checkpoint_if_cancelled()  # as `Outbox.put`, whose own frame is felt in a flood
        wait = self.outbox.offer(frame)
        if wait is not None:
            await wait(frame)

    async def comment(self, text: str) -> None:
        """Send a comment, which readers skip; each line of `text` becomes one. Raises like `send`."""
        frame = self._wire.comment(text)
        await self.outbox.put(frame)
        self.comments += frame is not None

    async def send_error(self, error: str | Mapping[str, Any] | BaseException) -> None:
        """Tell the reader what went wrong, in an event named `error`, and end the stream. Does nothing after the end.

        A str or a mapping is the event's data as it is; an exception is told by its error payload. What was sent
        before goes out first.
        """
        if isinstance(error, BaseException):
            end = End(Outcome.ERROR, error)
        elif isinstance(error, str):
            end = End(Outcome.ERROR, TypedError(error), error)
        else:
            data = dict(error)
            json.encode(data)  # what has no JSON form raises where it is sent
            end = End(Outcome.ERROR, TypedError(str(data.get("message", "the stream failed"))), data)
        self.outbox.finish(end)
        await trio.lowlevel.checkpoint()

    async def _pass_on(self, item: Any) -> None:
        if isinstance(item, Event):
            await self.send(item.data, event=item.event, id=item.id, retry=item.retry)
        else:
            await self.send(item)


class ByteStream(StreamingResponse):
    """A stream of bytes, and what its producer sends them through."""

    __slots__ = ()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send some bytes; they are taken as they are at this moment.

        Raises:
            TypeError: `data` is not bytes.
            trio.ClosedResourceError: the stream has ended.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a byte stream sends bytes, not {type(data).__name__}; encode it first")
        await self.outbox.put(self._wire.chunk(bytes(data)) if len(data) else None)

    async def _pass_on(self, item: Any) -> None:
        await self.send(item)


def _may_wait() -> bool:
    """The action's own task must not wait for room before it has returned the stream: nobody would make any."""
    context = call_context.get()
    return context is None or context.task is not trio.lowlevel.current_task()


def _checked_source(source: Any, args: tuple[Any, ...]) -> Any:
    """`source`, or a TypeError that says what to pass instead."""
    if inspect.isasyncgenfunction(source):
        raise TypeError(f"{source.__name__} is an async generator function: call it, and pass what it returns")
    if inspect.iscoroutine(source):
        source.close()
        raise TypeError("pass the producer function itself, without calling it; its arguments come after it")
    if hasattr(source, "__aiter__") or isinstance(source, (str, os.PathLike)):
        if args:
            raise TypeError("arguments after the source are for a producer function; this source takes none")
    elif source is not None and (not callable(source) or inspect.isgeneratorfunction(source)):
        raise TypeError(
            f"{type(source).__name__} is no source of a stream: pass an async producer function or an async iterable; "
            "for something that blocks, use trio.to_thread.run_sync inside one"
        )
    return source


async def _aclose(resource: Any) -> None:
    aclose = getattr(resource, "aclose", None)
    if aclose is not None:
        await aclose()


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
