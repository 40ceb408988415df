"""HTTP/1.1 over a bare socket: as slow, as rude and as broken as a test wants it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import h11
import trio


@attrs.frozen
class Head:
    """The head of an answer."""

    status: int
    headers: Mapping[str, str]


class Raw:
    """A connection. What it receives is parsed by h11; what it sends is what the test says."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.informational: list[int] = []
        self._parser = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> Self:
        """Connect; a small `receive_buffer` (bytes) makes a reader that is soon behind."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", port))
        return cls(trio.SocketStream(sock))

    async def request(self, method: str, path: str, *fields: str, body: bytes = b"") -> None:
        """Send a request; `fields` are whole header lines. The body goes after the head as it is."""
        if body and not any(field.lower().startswith("transfer-encoding") for field in fields):
            fields = (*fields, f"Content-Length: {len(body)}")
        self.expect(method)
        await self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: testserver", *fields, "", ""]).encode() + body)

    def expect(self, method: str) -> None:
        """What is received from here on answers a request of `method`."""
        if self._parser.their_state is h11.DONE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "testserver")]))
        self._parser.send(h11.EndOfMessage())

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def event(self) -> Any:
        """The next event of the answer, as h11 names them."""
        while True:
            event = self._parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._parser.receive_data(await self.stream.receive_some(65536))

    async def head(self) -> Head:
        """The head of the answer; informational ones go to `informational`."""
        while isinstance(event := await self.event(), h11.InformationalResponse):
            self.informational.append(event.status_code)
        assert isinstance(event, h11.Response), event
        return Head(event.status_code, {name.decode(): value.decode("latin-1") for name, value in event.headers})

    async def chunk(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            h11.RemoteProtocolError: the body was cut.
        """
        event = await self.event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def body(self) -> bytes:
        """The rest of the body; raises like `chunk`."""
        parts: list[bytes] = []
        while data := await self.chunk():
            parts.append(data)
        return b"".join(parts)

    async def is_closed(self) -> bool:
        """Whether the server closes the connection, with nothing more to say."""
        try:
            return await self.stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True

    async def leave(self) -> None:
        """Close, as a process that ends does."""
        await self.stream.aclose()

    async def abort(self) -> None:
        """Reset the connection (RST)."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


@asynccontextmanager
async def open_raw(port: int, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    """A connection, closed at the end of the block."""
    raw = await Raw.connect(port, receive_buffer)
    async with raw.stream:
        yield raw
