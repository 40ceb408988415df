"""How the streams of an HTTP/2 connection send: hypercorn's `H2Protocol` in this, with its priorities taken out.

Owns: whose turn it is, how much of it, and what waits for neither. Does not know: requests, or what comes.

What is mended (hypercorn 0.18, `protocol/h2.py`):
- PRIORITY for idle streams filled a tree that raises when it is full, and to choose from it took the longer the more
  streams had nothing to send. Priorities are not taken any more, as RFC 9113 (section 5.3) has it: all streams are
  alike, and each sends a frame when it is its turn.

A part of a body that comes alone, while nothing else is sent, is framed and written by its sender (`attempt`).
"""

from __future__ import annotations

from typing import Any

import h2.exceptions
from hypercorn.events import RawData
from hypercorn.protocol.events import Trailers
from hypercorn.protocol.h2 import H2Protocol

from .streams import Buffer, Stream
from .wire import Gone, Wire


class Sending(H2Protocol):
    """What goes out on one connection.

    Args:
        parts: hypercorn's.
    """

    def __init__(self, wire: Wire, *parts: Any) -> None:
        super().__init__(*parts)
        self._wire = wire
        self._ready: dict[int, None] = {}  # streams that may have something to send, in their turns
        self.stream_buffers: dict[int, Any] = {}

    def _buffer(self, number: int) -> Buffer:
        buffer: Buffer | None = self.stream_buffers.get(number)
        if buffer is None:
            raise Gone("the client has left this stream")
        return buffer

    async def _wake(self, number: int) -> Buffer:
        buffer = self._buffer(number)
        self._ready.setdefault(number)
        await self.has_data.set()
        return buffer

    async def _window_updated(self, stream_id: int | None) -> None:
        for number in [stream_id] if stream_id else self.stream_buffers:
            self._ready.setdefault(number)
        await self.has_data.set()

    async def _send_trailers(self, event: Trailers) -> None:
        buffer = await self._wake(event.stream_id)
        await buffer.flush()
        self.connection.send_headers(event.stream_id, event.headers, end_stream=True)
        await self._flush()
        buffer.ended()
        self._forget(event.stream_id)

    async def send_task(self) -> None:
        """Send what streams have, each in its turn, as long as there is a connection."""
        while not self.closed:
            if self._ready:
                await self._send_data(next(iter(self._ready)))
            else:
                await self.has_data.wait()
                await self.has_data.clear()

    async def _send_data(self, number: int) -> None:
        """Send what the windows allow of a stream whose turn it is."""
        del self._ready[number]
        buffer = self.stream_buffers.get(number)
        if buffer is None:
            return
        try:
            data = buffer.pop(self._room(number))
            last = buffer.complete
            if not (data or last):
                return
            self.connection.send_data(number, data, end_stream=last)
            if buffer.waiting:
                self._ready[number] = None  # behind all others
            await self._flush()
            if last:
                buffer.ended()
                self._forget(number)
        except h2.exceptions.ProtocolError:  # the stream, or all of them, are over
            await self._drop_buffer(number)

    def _room(self, number: int) -> int:
        """How much of a stream may be sent in a frame, in bytes."""
        window = self.connection.local_flow_control_window(number)
        return max(0, min(window, self.connection.max_outbound_frame_size))

    def attempt(self, stream: Stream, data: bytes) -> bool | None:
        """Send a part of a body now or never; what is returned is the extension's to say."""
        number = stream.stream_id
        buffer = self.stream_buffers.get(number)
        if buffer is None or not (buffer.is_idle and stream.has_body and self._wire.free):
            return None
        try:
            if len(data) > self._room(number):
                return None
            self.connection.send_data(number, data)
        except h2.exceptions.ProtocolError:
            return None  # the stream is over; to send says so
        whole = self._wire.attempt(self.connection.data_to_send())
        if whole is False:
            self.task_group.spawn(self.send, RawData(b""))  # before which the rest goes out
            return True
        return whole

    async def _drop_buffer(self, number: int) -> None:
        if (buffer := self.stream_buffers.get(number)) is not None:
            await buffer.close()
            self._forget(number)

    def _forget(self, number: int) -> None:
        self.stream_buffers.pop(number, None)
        self._ready.pop(number, None)
