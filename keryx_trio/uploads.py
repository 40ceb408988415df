"""One file of a multipart form, as an action receives it.

Owns: `UploadFile`, and the decision where its reading happens. Does not know: multipart, HTTP, who closes it.

Invariant: work that may touch the disk happens in a worker thread; what is in memory is read at once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import BinaryIO, Final, TypeVar

import attrs
import trio

CHUNK_SIZE: Final = 64 * 1024
"""Bytes in a piece when an upload is iterated over or saved."""

T = TypeVar("T")


@attrs.define(eq=False)
class UploadFile:
    """A file sent with a multipart form, held in memory or, when it is large, in a temporary file.

    Resource handling: who made it closes it; an action may close it earlier. Iteration and `save` read on from the
    current position; `seek(0)` starts again.

    Error handling: every use after `close` raises `trio.ClosedResourceError`.

    Args:
        file: where the bytes are; a `tempfile.SpooledTemporaryFile`, or any binary file.
        filename: what the client calls it. Never trust it as a path.
        content_type: what the client says it is.
        size: in bytes.
        headers: of its part of the form.
    """

    file: BinaryIO = attrs.field(repr=False)
    filename: str = ""
    content_type: str = "application/octet-stream"
    size: int = 0
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from the current position, or all that is left; empty at the end."""
        return await self._run(lambda: self.file.read(size))

    async def seek(self, offset: int) -> None:
        """Go to `offset` bytes from the start."""
        await self._run(lambda: self.file.seek(offset))

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write what is left to a file at `path`, which is replaced if it is there."""
        async with await trio.open_file(path, "wb") as target:
            async for chunk in self:
                await target.write(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read(CHUNK_SIZE):
            yield chunk

    def close(self) -> None:
        """Let go of the file, and of its place on the disk; closing again does nothing."""
        self.file.close()

    async def _run(self, work: Callable[[], T]) -> T:
        if self.file.closed:
            raise trio.ClosedResourceError("this upload is closed")
        # Only a spooled file that has not rolled over is known to be in memory; any other may touch the disk.
        if not getattr(self.file, "_rolled", True):
            await trio.lowlevel.checkpoint()
            return work()
        return await trio.to_thread.run_sync(work)
