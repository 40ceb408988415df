"""An answer that is put together, for transports whose client gets all of it at once.

Owns: what was sent, kept in its order and bounded. Does not know: what a transport makes of it.

Invariant: what is kept never exceeds `limit` bytes. The send that would, raises where it is made, and so ends the
stream with an error that says why.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Any

import attrs
import trio

from ..errors import ErrorType, TypedError
from ..outbox import MAX_BYTES, End, Outcome
from ..reply import do_nothing
from ..response import Response
from ..streaming import ByteStream, StreamingResponse
from ..wire import json, sse
from ..wire.text import text_decoder, to_base64, utf8_size


@attrs.frozen
class Sent:
    """An event, or a piece of a byte stream.

    Attributes:
        data: text; JSON as bytes, on one line; or a piece of a byte stream.
    """

    data: str | bytes
    event: str | None = None
    id: str | None = None
    size: int = 0

    def __len__(self) -> int:
        return self.size


class Collector:
    """The answer to one call, as a `Reply`.

    Args:
        limit: the most that is kept of a stream, in bytes.

    Attributes:
        returned: what the action returned, where that was no stream.
        stream: the stream that it returned.
        failed: the payload of the error that ended the call.
        answered: set once the answer is whole. The call may go on after it: a stream can be closed early.
    """

    patient = False
    enclosing = None
    attempt = None
    ping = None  # nobody waits for a sign of life
    overhead = 0
    """What keeping an item takes beside its own bytes: without it there is no end of empty ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text, self._body = io.StringIO(), bytearray()
        self._at_line_start, self._after_value = True, False
        self.returned: Any = None
        self.stream: StreamingResponse | None = None
        self.failed: dict[str, Any] | None = None
        self.answered = trio.Event()
        self.begun = False

    @property
    def ending(self) -> bool:
        """Whether the answer is whole."""
        return self.answered.is_set()

    def watch(self, left: Callable[[], None]) -> Callable[[], None] | None:  # noqa: ARG002 - the transport tells the call when its client has left
        """Nothing: the transport tells the call when its client has left."""
        return do_nothing

    async def left(self) -> None:
        """Never awaited, since there is a `watch`."""
        await trio.sleep_forever()  # pragma: no cover

    # How items look

    def announce(self, stream: StreamingResponse) -> int:
        """A stream is about to come."""
        self.stream = stream
        self._decoder = text_decoder(stream.content_type) if isinstance(stream, ByteStream) else None
        return MAX_BYTES

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> Sent:  # noqa: A002
        """An event, if it still fits in."""
        sse.check(event, id, retry)
        return self._sent(data, event or None, id)

    def comment(self, text: str) -> None:
        """Comments are for who watches; nobody does."""

    def chunk(self, data: bytes) -> Sent | None:
        """A piece of a byte stream: of its text, where it is some, as far as that is whole."""
        if self._decoder is None:
            return self._sent(data)
        text = self._decoder.decode(data)
        return self._sent(text) if text else None

    def _sent(self, data: str | bytes, event: str | None = None, id: str | None = None) -> Sent:  # noqa: A002
        size = utf8_size(data) + utf8_size(event or "") + utf8_size(id or "")
        if self._size + size + self.overhead > self._limit:
            raise TypedError(
                f"the stream is larger than {self._limit} bytes, the most that is collected "
                "(KERYX_MAX_COLLECTED); read it over HTTP or WebSocket, or ask for less",
                ErrorType.CONNECTION_PAYLOAD_TOO_LARGE,
            )
        self._size += size + self.overhead
        return Sent(data, event, id, size)

    # The answer

    async def value(self, value: Any) -> None:
        """The action returned it."""
        self.begun = True
        self.returned = value
        self.answered.set()
        await trio.lowlevel.checkpoint()

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:  # noqa: ARG002 - the payload says it all
        """The call failed."""
        self.begun = True
        self.failed = payload
        self.answered.set()
        await trio.lowlevel.checkpoint()

    def declines(self) -> bool:
        """All of a stream is asked for."""
        return False

    async def open(self, stream: StreamingResponse, items: list[Sent]) -> None:  # noqa: ARG002 - announced already
        """A stream begins."""
        self.begun = True
        await self.write(items)

    async def write(self, items: list[Sent]) -> None:
        """Keep items, and show them to who watches."""
        for item in items:
            self.keep(item)
        await self.show(items)

    async def show(self, items: list[Sent]) -> None:  # noqa: ARG002 - nobody watches, unless a transport says so
        """Show items while the call runs; raises trio.BrokenResourceError where the client is known to be gone."""
        await trio.lowlevel.checkpoint()

    async def end(self, end: End, payload: Any, data: Any) -> None:  # noqa: ARG002 - an error is told by its payload
        """The stream has ended."""
        if self._decoder is not None and end.outcome is Outcome.DONE:  # else it may have had what never came here
            rest = self._decoder.decode(b"", final=True)
            await self.write([Sent(rest)] if rest else [])
        self.failed = payload if end.outcome not in (Outcome.DONE, Outcome.CANCELLED) else None
        self.answered.set()

    # What is kept

    def keep(self, item: Sent) -> None:
        """Put an item behind those before it."""
        if isinstance(self.stream, ByteStream) and isinstance(item.data, bytes):
            self._body += item.data
            return
        is_value = isinstance(item.data, bytes)  # JSON, which has a line of its own
        text = item.data.decode() if isinstance(item.data, bytes) else item.data
        if (is_value or self._after_value) and not self._at_line_start:
            self._text.write("\n")
        self._text.write(text)
        self._at_line_start = text.endswith("\n") if text else self._at_line_start or self._after_value
        self._after_value = is_value

    @property
    def is_text(self) -> bool:
        """Whether a stream of bytes is one of text."""
        return self._decoder is not None

    @property
    def text(self) -> str:
        """All of a stream of events or of text: strings joined as they are, any other value on a line of its own."""
        return self._text.getvalue()

    @property
    def body(self) -> bytes:
        """All of a stream of bytes that are no text."""
        return bytes(self._body)


class JsonCollector(Collector):
    """An answer that becomes one JSON value: a stream of events the list of them, a body its text or base64."""

    overhead = len('{"data":"","event":"","id":""},')

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._events = bytearray()

    async def value(self, value: Any) -> None:
        """The action returned it; what has no form in JSON raises."""
        await super().value(json.encode(value.value if isinstance(value, Response) else value))

    def keep(self, item: Sent) -> None:
        """Put an item behind those before it."""
        if isinstance(self.stream, ByteStream):
            super().keep(item)
            return
        self._events += b',{"data":' if self._events else b'{"data":'
        self._events += item.data if isinstance(item.data, bytes) else json.encode(item.data)
        for key, value in ((b',"event":', item.event), (b',"id":', item.id)):
            if value is not None:
                self._events += key + json.encode(value)
        self._events += b"}"

    @property
    def json(self) -> bytes:
        """What came of it, once it is whole."""
        if self.stream is None:
            return bytes(self.returned)
        if isinstance(self.stream, ByteStream):
            return json.encode(self.text if self.is_text else to_base64(self.body))
        return b"[%b]" % bytes(self._events)
