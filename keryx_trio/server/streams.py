"""One stream of an HTTP/2 connection: its request and answer as ASGI has them, and what of it waits to be sent.

Owns: the mends of hypercorn's `HTTPStream` and `StreamBuffer`. Does not know: frames, or other streams.

What is mended (hypercorn 0.18, `protocol/h2.py` and `protocol/http_stream.py`):
- back-pressure: `StreamBuffer.pop` looked at what it took instead of at what it left, so no sender ever waited;
- a stream whose window stays shut was waited for without end;
- the end of a stream was told before it was written, and lost where the connection ended then;
- an answer that its application cut was never ended;
- what was sent after the client had left went nowhere, without a word to the application.
"""

from __future__ import annotations

from time import time
from typing import Any

import trio
from hypercorn.protocol.events import Event
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import suppress_body

from .answer import checked_fields
from .wire import Gone


class Reset(Event):
    """An answer that will not be complete."""


class Buffer:
    """What one stream has still to send. It stands in place of hypercorn's `StreamBuffer`.

    Args:
        patience: how long nothing of it may be taken, in seconds.
    """

    def __init__(self, patience: float) -> None:
        self._data = bytearray()
        self._patience = patience
        self._complete = False
        self._room = self._empty = trio.Event()
        self._out = trio.Event()
        self._taken = 0
        self.lost = False

    @property
    def complete(self) -> bool:
        """Whether what is left is the end."""
        return self._complete and not self._data

    async def push(self, data: bytes) -> None:
        """Send it, and wait while there is much that is not out.

        Raises:
            TimeoutError: nothing was taken for too long.
            Gone: nothing can be sent any more.
        """
        if self._complete:
            raise Gone("the stream has ended")
        self._data += data
        if len(self._data) >= BUFFER_HIGH_WATER:
            self._room = trio.Event()
            await self._wait(self._room)

    def set_complete(self) -> None:
        """Nothing more will be pushed."""
        self._complete = True

    async def drain(self) -> None:
        """Wait until all of it is out, its end too; raises like `push`."""
        await self._wait(self._out)

    async def _wait(self, event: trio.Event) -> None:
        while not event.is_set():
            taken = self._taken
            with trio.CancelScope(deadline=trio.current_time() + self._patience) as scope:
                await event.wait()
            if scope.cancelled_caught and taken == self._taken:
                raise TimeoutError
        if self.lost:
            raise Gone("the client has left this stream")

    async def flush(self) -> None:
        """Wait until all that was pushed is taken; raises like `push`."""
        while self._data:
            self._empty = trio.Event()
            await self._wait(self._empty)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it waits, and more may come."""
        return not (self._data or self._complete)

    @property
    def waiting(self) -> bool:
        """Whether something of it is not taken yet."""
        return bool(self._data)

    def pop(self, max_length: int) -> bytes:
        """Take some of it."""
        data = bytes(self._data[:max_length])
        del self._data[:max_length]
        self._taken += len(data)
        if len(self._data) < BUFFER_LOW_WATER:
            self._room.set()
        if not self._data:
            self._empty.set()
        return data

    def ended(self) -> None:
        """All of it is out."""
        self._out.set()

    async def close(self) -> None:
        """Nothing of it can be sent any more."""
        self._complete = True
        self.lost = not self._out.is_set()
        self._data.clear()
        for event in (self._room, self._empty, self._out):
            event.set()


class Stream(HTTPStream):
    """One request and its answer.

    Attributes:
        extension: what this server offers beside ASGI.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extension: dict[str, Any] = {}

    @property
    def has_body(self) -> bool:
        """Whether it is being answered, with a body."""
        if self.closed or self.state is not ASGIHTTPState.RESPONSE:
            return False
        return not suppress_body(self.scope["method"], int(self.response["status"]))

    async def app_send(self, message: Any) -> None:
        """Take what the application sends.

        Raises:
            Gone: the client has left.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            if message is not None:
                raise Gone("the client has left")
        elif message is None and self.state is not ASGIHTTPState.REQUEST:
            await self.config.log.access(self.scope, self.response, time() - self.start_time)
            await self.send(Reset(stream_id=self.stream_id))
        else:
            if message is not None and message["type"] == "http.response.start":
                checked_fields(message.get("headers", ()))
            await super().app_send(message)
            await trio.lowlevel.checkpoint_if_cancelled()
