"""A connection's bytes: to read them, and to write them with a bound.

Owns: the one rule for every write, TLS or not: who takes nothing for `write_timeout` seconds is cut off by force.
Does not know: what the bytes mean.

A write is tried at once, and waits only for what the socket had no room for. What a cancelled write or an attempt has
left is kept, and goes out before the next one: half a frame must not be followed by another.

Invariants: after `abort` every wait on the connection ends. Nothing here waits without a bound, but for reading.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

import trio

MAX_RECEIVE: Final = 64 * 1024
BURST: Final = 64
BURST_SECONDS: Final = 0.001
"""After so many writes, or so long, others get their turn."""

LINGER: Final = 1.0
"""How long a client that still sends is read, in seconds, before a close would take the last answer with it."""

PIECE: Final = 64 * 1024
"""TLS encrypts so much at once, in bytes: it is held in memory until it is out."""

RESET: Final = struct.pack("ii", 1, 0)


class Gone(trio.BrokenResourceError, OSError):  # noqa: N818 - as trio names what is gone
    """The client has left, or was cut off: nothing more can be written."""


class Wire:
    """One connection, plain or in TLS; one task reads, several may write.

    Attributes:
        broken: whether nothing can be written any more.
        client: the client's address, once it is known, as ASGI has it.
        server: our own.
        fd: the number of its socket.
        on_close: called before it is closed.
        socket: what it goes through.
    """

    __slots__ = (
        "_burst", "_closed", "_has_received", "_lock", "_rest", "_since", "_tls", "_turn", "_write_timeout", "broken",
        "client", "fd", "on_close", "server", "socket",
    )  # fmt: skip

    def __init__(self, stream: Any, write_timeout: float) -> None:
        self._tls: trio.SSLStream[Any] | None = stream if isinstance(stream, trio.SSLStream) else None
        transport = stream if self._tls is None else self._tls.transport_stream
        self.socket = transport.socket
        self.fd: int = self.socket.fileno()
        self._write_timeout = write_timeout
        self._lock = trio.Lock()
        self._turn = self._lock if self._tls is None else trio.Lock()  # to encrypt, which is before it is written
        self._rest = b""
        self._burst, self._since = 0, perf_counter()
        self._closed = self._has_received = False
        self.broken = False
        self.client: Any = None
        self.on_close: Callable[[], None] | None = None
        self.server: Any = None
        if self._tls is not None:
            self._tls.transport_stream = _Transport(transport, self)

    @property
    def tls(self) -> bool:
        """Whether it is encrypted."""
        return self._tls is not None

    @property
    def unfinished(self) -> bool:
        """Whether some of what was written waits for the next write."""
        return bool(self._rest)

    # Reading

    async def receive(self) -> bytes:
        """Some bytes; none at the end, whatever ended it."""
        try:
            if self._tls is not None:
                return bytes(await self._tls.receive_some(MAX_RECEIVE))
            while not self._closed:
                if self._has_received:  # what comes next is hardly ever there yet: to look for it would cost a read
                    await trio.lowlevel.wait_readable(self.fd)
                    self._burst, self._since = 0, perf_counter()  # others have had their turn
                    if self._closed:  # by one of them: its number may be another connection's by now
                        break
                self._has_received = True
                if (data := self.receive_nowait()) is not None:
                    return data
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        return b""

    def receive_nowait(self) -> bytes | None:
        """What there is to read of a connection without TLS; none of it at the end, and None where there is nothing."""
        try:
            return os.read(self.fd, MAX_RECEIVE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    # Writing

    def write(self, data: bytes) -> Coroutine[Any, Any, None]:
        """Write all of it, once this is awaited.

        Raises:
            Gone: the client has left, or took nothing for too long.
        """
        return self.write_plain(data) if self._tls is None else self._write_encrypted(self._tls, data)

    async def _write_encrypted(self, tls: trio.SSLStream[trio.SocketStream], data: bytes) -> None:
        try:
            async with self._turn:
                for start in range(0, len(data), PIECE):
                    await tls.send_all(data if len(data) <= PIECE else data[start : start + PIECE])
        except Gone:
            raise
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.broken = True
            raise Gone("the client has left") from error

    async def write_plain(self, data: bytes) -> None:
        """Write bytes as they are, TLS or not; raises like `write`."""
        if self._rest or self._lock.locked():
            async with self._lock:
                await self._flush()
                self._rest = data
                await self._flush()
        elif (sent := self._send(data)) < len(data):
            self._rest = data[sent:]  # before the lock, which is a place to be cancelled
            async with self._lock:
                await self._flush()
        else:
            # What is out is no place to be cancelled at; but others get their turn.
            self._burst += 1
            if self._burst >= BURST or perf_counter() - self._since >= BURST_SECONDS:
                await trio.lowlevel.cancel_shielded_checkpoint()
                self._burst, self._since = 0, perf_counter()

    @property
    def free(self) -> bool:
        """Whether an attempt would begin to write: nothing else is being written, and nothing is encrypted."""
        return not (self._rest or self._tls is not None or self.broken or self._lock.locked())

    def attempt(self, data: bytes) -> bool | None:
        """Write at once what there is room for, where the wire is free; never waits, raises nothing.

        Returns:
            Whether all of it is out, the rest being left for the next write; None where nothing will be.
        """
        if not self.free:
            return None
        try:
            sent = self._send(data)
        except Gone:
            return None  # the next write says so
        self._rest = data[sent:]
        return not self._rest

    async def write_whole(self, data: bytes) -> None:
        """Write all of it, also when cancelled: for what several tasks share, bounded all the same."""
        with trio.CancelScope(shield=True):
            await self.write(data)

    def _send(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise Gone("the client has left")
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.broken = True
            raise Gone("the client has left") from error

    async def _flush(self) -> None:
        """Write what is left, as long as some of it goes out within the timeout; whoever calls has the lock."""
        while self._rest:
            if not await self._is_writable():
                self.abort()
                raise Gone(f"the client took nothing for {self._write_timeout:g} seconds")
            sent = self._send(memoryview(self._rest)[:PIECE])
            self._rest = self._rest[sent:]

    async def _is_writable(self) -> bool:
        """Wait until there is room in the socket; whether there was some in time.

        Room comes in large steps. So where there is none yet, but the client has taken something, it has its time anew.
        """
        while True:
            if self.broken:
                raise Gone("the connection is closed")
            before = _untaken(self.fd)
            with trio.CancelScope(deadline=trio.current_time() + self._write_timeout) as scope:
                try:
                    await trio.lowlevel.wait_writable(self.fd)
                except (OSError, trio.ClosedResourceError) as error:
                    raise Gone("the connection is closed") from error
            if not scope.cancelled_caught:
                return True
            if not _untaken(self.fd) < before:
                return False

    # Its end

    async def close(self, *, still_sends: bool = False) -> None:
        """Write what is left and close; a client that `still_sends` is read for a moment, or it would miss the end."""
        try:
            if self._rest or self._lock.locked():
                async with self._lock:
                    await self._flush()
            if not self.broken:
                self.socket.shutdown(socket.SHUT_WR)  # a close is none where a forked process has the socket too
                if still_sends:
                    with trio.move_on_after(LINGER):
                        while await self.socket.recv(MAX_RECEIVE):
                            continue
        except (OSError, trio.ClosedResourceError):
            self.broken = True  # it is closed already, as it was to be
        finally:
            self.close_now()

    def abort(self) -> None:
        """Cut the connection: what is not out is lost, and the client can tell. Every wait on it ends."""
        if not self._closed:
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close_now()

    def close_now(self) -> None:
        """Close, whatever is left: who waits on it is woken."""
        if not self._closed:
            self._closed = self.broken = True
            if self.on_close is not None:
                self.on_close()
            self.socket.close()


class _Transport(trio.abc.Stream):
    """What TLS writes through: bounded, and not to be cancelled, since half a record is the end of a TLS connection."""

    def __init__(self, stream: trio.SocketStream, wire: Wire) -> None:
        self._stream, self._wire = stream, wire

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.CancelScope(shield=True):
            await self._wire.write_plain(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _untaken(fd: int) -> int:
    """How much of what was written the client's side has not taken, in bytes; 0 where the system does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0
