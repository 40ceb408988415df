"""Standard input and output, for a protocol alone.

Owns: file descriptors 0 and 1 while a protocol speaks on them. Does not know: which one.

Invariant: nothing but the protocol reaches the output. Meanwhile descriptor 1 is the error output, and 0 is empty, for
everything else in the process: prints, libraries, child processes. Reading and writing are trio's own, so both can be
cancelled; no thread waits for a line that may never come.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from .patience import patience

CHUNK: Final = 64 * 1024
MAX_LINE: Final = 64 * 1024 * 1024
"""The longest line that is taken, in bytes."""


class Lines:
    """The lines of the input, as text."""

    def __init__(self, source: trio.abc.ReceiveStream) -> None:
        self._source = source
        self._pending = bytearray()

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        """The next line; raises StopAsyncIteration at the end of the input, ValueError for one without an end."""
        looked_at = 0
        while (end := self._pending.find(b"\n", looked_at)) < 0:
            looked_at = len(self._pending)
            if looked_at > MAX_LINE:
                raise ValueError(f"a line of the input has more than {MAX_LINE} bytes")
            data = await self._source.receive_some(CHUNK)
            if not data and not self._pending:
                raise StopAsyncIteration
            self._pending += data or b"\n"  # the last line may lack its end
        line = bytes(self._pending[: end + 1])
        del self._pending[: end + 1]
        return line.decode("utf-8", "replace")


class Output:
    """The output, as text.

    Args:
        timeout: how long its reader may take nothing, in seconds; 0 for any time.
    """

    def __init__(self, sink: trio.abc.SendStream, timeout: float) -> None:
        self._sink = sink
        self._timeout = timeout

    async def write(self, text: str) -> None:
        """Write all of a text.

        Raises:
            trio.BrokenResourceError: its reader is gone, or takes nothing.
        """
        data = text.encode()
        for start in range(0, len(data), CHUNK):
            with patience(self._timeout, otherwise="the output was not read"):
                await self._sink.send_all(data[start : start + CHUNK])

    async def flush(self) -> None:
        """Nothing is held back."""
        await trio.lowlevel.checkpoint()


class _File(trio.abc.ReceiveStream):
    """A regular file, which is read in a thread: it has no readiness to wait for, and never blocks for long."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._descriptor, max_bytes or CHUNK)

    async def aclose(self) -> None:
        os.close(self._descriptor)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_stdio(descriptors: tuple[int, int], *, write_timeout: float) -> AsyncIterator[tuple[Lines, Output]]:
    """What was taken over, to read and to write; closed at the end. Each write has `write_timeout` seconds."""
    descriptor_in, descriptor_out = descriptors
    is_file = stat.S_ISREG(os.fstat(descriptor_in).st_mode)
    source = _File(descriptor_in) if is_file else trio.lowlevel.FdStream(descriptor_in)
    async with source, trio.lowlevel.FdStream(descriptor_out) as output:
        yield Lines(source), Output(output, write_timeout)


@contextmanager
def taken_over() -> Iterator[tuple[int, int]]:
    """Take both over; begin before anything of an application is imported, which may print.

    Gives duplicates of the two, for `open_stdio` to close. For everything else 0 is empty, and 1 goes where 2 goes; at
    the end they are what they were.
    """
    with output_taken_over() as output:
        kept = os.dup(0)
        try:
            empty = os.open(os.devnull, os.O_RDONLY)
            os.dup2(empty, 0)
            os.close(empty)
            yield os.dup(kept), os.dup(output)
        finally:
            os.dup2(kept, 0)
            os.close(kept)


@contextmanager
def output_taken_over() -> Iterator[int]:
    """Take the output over alone; gives the descriptor by which it is reached meanwhile.

    For everything else 1 goes where 2 goes; at the end it is what it was.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # whoever started us has closed it: what we open must not take its place
            os.open(os.devnull, os.O_RDWR)
    _flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield kept
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    if sys.stdout is not None:  # as it is where it was closed
        sys.stdout.flush()
