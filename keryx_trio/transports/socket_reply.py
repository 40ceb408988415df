"""The way out of a WebSocket, and how one of its calls is answered through it.

Owns: whose turn it is to write, the bound on every write, and the form of each kind of answer. Does not know: which
calls there are, or how they live.

Nothing is queued here. What a call has to say waits in the call's own outbox, which is bounded, until it is that call's
turn; turns are short, and go round in the order in which they were asked for. So a stream that is never done leaves
every other call its place, and a reader that takes nothing stops them all, each with no more than its share in memory.

A message that comes alone while it is nobody's turn may be written by its sender, where the server can.

Invariants: only who has the turn writes, or nobody has it. Nothing is written after the close.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import trio

from ..errors import TypedError
from ..outbox import Attempt, End, Outcome
from ..reply import do_nothing
from ..response import Response
from ..streaming import ByteStream, StreamingResponse
from ..wire.messages import Frames
from ..wire.text import text_decoder
from .exchange import Send, bounded

SHARE: Final = 64 * 1024
"""How much of one stream may be held, in bytes: a socket has many of them."""

PIECE: Final = 48 * 1024
"""The most bytes of a byte stream in one message: clients refuse large ones."""

TURN: Final = 16 * 1024
"""About how many bytes are written in a turn, which a message more than fills up."""

MESSAGE: Final = 1024
"""What a message counts as at least, where each is a write of its own."""


class WayOut:
    """What all calls of a socket write through.

    Args:
        extension: what our server offers beside ASGI; empty where it is another one.
        timeout: how long the client may take nothing of a message, in seconds.
        lost: called once nothing can be written any more.

    Attributes:
        attempts: whether `attempt` may be more than nothing.
    """

    __slots__ = ("_attempt", "_lost", "_say", "_send", "_timeout", "_turn", "attempts", "closed")

    def __init__(self, send: Send, extension: Mapping[str, Any], timeout: float, lost: Callable[[], None]) -> None:
        self._send, self._timeout, self._lost = send, timeout, lost
        self._say: Callable[[Any], Awaitable[None]] | None = extension.get("say")
        self._attempt: Attempt | None = extension.get("attempt")
        self.attempts = self._attempt is not None
        self._turn = trio.Lock()  # which is fair
        self.closed = False

    async def say(self, messages: Iterable[bytes], begins: Callable[[], None] = do_nothing) -> None:
        """Write messages, in as many turns as it takes.

        Args:
            begins: called in the first of them.

        Raises:
            trio.BrokenResourceError: the client has left, takes nothing, or has been told that this is the end.
        """
        waiting = deque(messages)
        while waiting:
            turn, room = [], TURN
            while waiting and room > 0:
                room -= len(waiting[0]) if self._say else max(MESSAGE, len(waiting[0]))
                turn.append(waiting.popleft())
            await self._write(turn, begins)
            begins = do_nothing

    async def flush(self) -> None:
        """Write what an attempt has left; raises like `say`."""
        await self._write([], do_nothing)

    def attempt(self, message: bytes) -> bool | None:
        """Write a message now or never, as `Attempt` has it; never, where it is somebody's turn."""
        return None if self._attempt is None or self.closed or self._turn.locked() else self._attempt(message)

    async def _write(self, messages: list[bytes], begins: Callable[[], None]) -> None:
        await self._take_turn()
        try:
            begins()
            if self._say is not None:
                await self._hand_over(self._say, messages)
            else:
                for message in messages:
                    await self._hand_over(self._send, {"type": "websocket.send", "text": message.decode()})
        finally:
            self._turn.release()

    async def _take_turn(self) -> None:
        """Wait for it, where it is not there. That others run meanwhile is up to who sends, and to the server.

        Who is cancelled does not begin to write: it would be the socket's end.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()

    async def close(self, code: int, reason: str) -> bool:
        """Write the close, after which nothing is written; False where the client has left, or had it before."""
        if self.closed:
            return False
        async with self._turn:
            try:
                await self._hand_over(self._send, {"type": "websocket.close", "code": code, "reason": reason})
            except trio.BrokenResourceError:
                return False
            finally:
                self.closed = True
            return True

    async def _hand_over(self, send: Callable[[Any], Awaitable[None]], what: Any) -> None:
        if self.closed:
            raise trio.BrokenResourceError("the socket is closed")
        try:
            await bounded(send, what, self._timeout)
        except trio.BrokenResourceError:
            self.closed = True
            self._lost()
            raise
        except trio.Cancelled:
            self.closed = True  # how much of it is out nobody knows, so nothing may follow it
            raise


@attrs.frozen
class Pieces:
    """One item of a stream that takes several messages."""

    messages: list[bytes]
    size: int = attrs.field(init=False)

    @size.default
    def _size(self) -> int:
        return sum(map(len, self.messages))

    def __len__(self) -> int:
        return self.size


class SocketReply:
    """The answer to one call.

    Args:
        id: the raw id of the message that asked for it.
        answered: called when the last message is about to go out: from then on the id is free.
    """

    __slots__ = ("_answered", "_decoder", "_frames", "_out", "begun", "ending")

    patient = False
    enclosing = None
    ping = None  # a socket's pings are below its messages, and so the server's

    def __init__(self, out: WayOut, id: bytes, answered: Callable[[], None]) -> None:  # noqa: A002 - as on the wire
        self._out = out
        self._frames = Frames(id)
        self._answered = answered
        self._decoder: codecs.IncrementalDecoder | None = None
        self.begun = False
        self.ending = False

    def watch(self, left: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 - the socket tells its calls when the client has left
        """Nothing: the socket tells its calls when the client has left."""
        return do_nothing

    async def left(self) -> None:
        """Never awaited, since there is a `watch`."""
        await trio.sleep_forever()  # pragma: no cover

    # How items look on the wire

    def announce(self, stream: StreamingResponse) -> int:
        """A stream has its share of the socket."""
        self._decoder = text_decoder(stream.content_type) if isinstance(stream, ByteStream) else None
        return SHARE

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> bytes:  # noqa: A002
        """A chunk, with its name and id beside it."""
        return self._frames.event(data, event, id, retry)

    def comment(self, text: str) -> None:
        """There are none: a socket needs no sign of life."""

    def chunk(self, data: bytes) -> bytes | Pieces | None:
        """A chunk of text, as far as it is whole; or of base64."""
        if len(data) > PIECE:
            parts = [self._chunk(data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
            return Pieces([part for part in parts if part is not None])
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes | None:
        if self._decoder is None:
            return self._frames.binary(data)
        text = self._decoder.decode(data)
        return self._frames.text(text) if text else None

    # A plain answer

    async def value(self, value: Any) -> None:
        """Answer with a value; of a `Response` that is its body."""
        await self._last(self._frames.response(value.value if isinstance(value, Response) else value))

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:  # noqa: ARG002 - nothing but its payload
        """Answer with an error."""
        await self._last(self._frames.error(payload))

    async def _last(self, message: bytes) -> None:
        await self._out.say([message], self._begin_last)

    def _begin_last(self) -> None:
        self.begun = self.ending = True
        self._answered()

    # A stream

    def declines(self) -> bool:
        """Nobody asks for a head alone: there is none."""
        return False

    async def open(self, stream: StreamingResponse, items: list[bytes | Pieces]) -> None:  # noqa: ARG002 - no head
        """Write what there is already."""
        self.begun = True
        await self._out.say(_messages(items))

    async def write(self, items: list[bytes | Pieces]) -> None:
        """Write items, a message or more each; where there are none, what an attempt has left."""
        if items:
            await self._out.say(_messages(items))
        else:
            await self._out.flush()

    @property
    def attempt(self) -> Attempt | None:
        """What writes an item now or never, where the server can."""
        return self._try if self._out.attempts else None

    def _try(self, item: bytes | Pieces) -> bool | None:
        return None if isinstance(item, Pieces) else self._out.attempt(item)

    async def end(self, end: End, payload: Any, data: Any) -> None:  # noqa: ARG002 - an error is told by its payload
        """The final message, or the error in its place."""
        if self._decoder is not None and end.outcome is Outcome.DONE:  # else it may have had what never went out
            rest = self._decoder.decode(b"", final=True)
            await self._out.say([self._frames.text(rest)] if rest else [])
        clean = end.outcome in (Outcome.DONE, Outcome.CANCELLED)
        await self._last(self._frames.end() if clean else self._frames.error(payload))


def _messages(items: Iterable[bytes | Pieces]) -> Iterator[bytes]:
    for item in items:
        if isinstance(item, Pieces):
            yield from item.messages
        elif item:
            yield item
