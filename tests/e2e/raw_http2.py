"""HTTP/2 frame by frame, where a client library would hide what came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.events
import trio

E = TypeVar("E", bound=h2.events.Event)


class RawHttp2:
    """A connection that speaks HTTP/2 from its first byte."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._events: list[h2.events.Event] = []

    async def request(self, method: str, path: str, fields: Sequence[tuple[str, str]] = (), *, end: bool = True) -> int:
        """Send the head of a request, which is all of it, unless `end` is False; its stream's number."""
        number = self.state.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "testserver")]
        self.state.send_headers(number, [*pseudo, *fields], end_stream=end)
        await self.flush()
        return number

    async def reset(self, number: int) -> None:
        """Leave a stream, and nothing else."""
        self.state.reset_stream(number)
        await self.flush()

    async def until(self, kind: type[E], number: int | None = None) -> E:
        """The next event of that kind, of that stream; others before it are dropped. What is read is acknowledged.

        Raises:
            EOFError: the connection ended before.
        """
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, h2.events.DataReceived):
                    self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    await self.flush()
                if isinstance(event, kind) and number in (None, getattr(event, "stream_id", None)):
                    return event
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError("the server closed the connection")
            self._events += self.state.receive_data(data)
            await self.flush()

    async def rest(self, number: int) -> tuple[bytes, Any]:
        """The data of a stream until it ends or is reset, and the event that ended it; of a lost connection, None."""
        data = b""
        while True:
            try:
                event: Any = await self.until(h2.events.Event, number)
            except EOFError:
                return data, None
            if isinstance(event, h2.events.DataReceived):
                data += event.data
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                return data, event

    async def flush(self) -> None:
        if data := self.state.data_to_send():
            await self.stream.send_all(data)


@asynccontextmanager
async def open_http2(port: int) -> AsyncIterator[RawHttp2]:
    """A connection, closed at the end of the block."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        connection = RawHttp2(stream)
        connection.state.initiate_connection()
        await connection.flush()
        yield connection
