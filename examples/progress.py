"""The hash of a folder, and how far it is, while it is made.

The files are read in a worker thread, which tells how far it is five times a second. Whoever leaves stops it at its
next piece of a file. No path leads out of the root (Python's standard library; PROGRESS_ROOT names another folder).
The digest is that of `find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum` in the folder.

    hypercorn --worker-class trio examples.progress:app
    curl -N '127.0.0.1:8000/api/progress?path=json'
"""

import hashlib
import os
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import trio
from msgspec import Meta

from keryx_trio import ErrorType, EventStream, Keryx, StreamingResponse, TypedError, Web

PIECE = 1024 * 1024
INTERVAL = 0.2

at_once = trio.CapacityLimiter(os.cpu_count() or 1)  # who comes later waits, and no other work of the server does
app = Keryx()


@app.action("progress:hash", web=Web("/progress", method=("GET", "POST"), streaming=True), timeout=0)
async def progress(
    path: Annotated[str, Meta(max_length=1000, description="A folder below the root")] = ".",
) -> StreamingResponse:
    """Hash all files of a folder, and tell how far it is."""
    return StreamingResponse.sse(produce, await trio.to_thread.run_sync(find_folder, path))


async def produce(sse: EventStream, folder: Path) -> None:
    def tell(report: dict[str, Any]) -> None:
        """Send from the thread, which waits here where the reader is slow, and ends here when it has left."""
        trio.from_thread.run(partial(sse.send, report, event="progress"))

    try:
        done = await trio.to_thread.run_sync(hash_folder, folder, tell, limiter=at_once)
    except OSError as error:
        raise TypedError(f"a file can't be read: {error.strerror}") from error
    await sse.send({"done": True, **done}, event="done")


# From here on everything may block: it runs in a thread


def find_folder(path: str) -> Path:
    root = Path(os.environ.get("PROGRESS_ROOT") or sysconfig.get_path("stdlib")).resolve()
    with suppress(OSError, ValueError):  # a name that no file can have
        folder = (root / path).resolve()  # without `..` and symlinks
        if folder.is_relative_to(root) and folder.is_dir():
            return folder
    message = "there is no such folder below the root"
    raise TypedError(message, ErrorType.CONNECTION_ACTION_PARAM_VALIDATION, key="path", value=path)


def hash_folder(folder: Path, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The digest of the list of all files' digests; `tell` hears how far it is, every `INTERVAL` seconds."""
    sizes = dict(list_files(folder))
    total, hashed, told = sum(sizes.values()), 0, time.monotonic()
    listing = hashlib.sha256()
    for number, name in enumerate(sorted(sizes, key=os.fsencode)):
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                hashed += len(piece)
                trio.from_thread.check_cancelled()  # raises when the reader has left
                if time.monotonic() - told >= INTERVAL:
                    percent = round(100 * hashed / max(total, hashed), 1)
                    tell({"files": number, "of": len(sizes), "bytes": hashed, "percent": percent, "current": name})
                    told = time.monotonic()
        listing.update(f"{digest.hexdigest()}  ./{name}\n".encode("utf-8", "surrogateescape"))
    return {"files": len(sizes), "bytes": hashed, "percent": 100, "sha256": listing.hexdigest()}


def list_files(folder: Path) -> Iterator[tuple[str, int]]:
    """The files below, by their paths from here, and their sizes; symlinks are not followed."""
    for where, _, names in os.walk(folder):
        trio.from_thread.check_cancelled()
        for name in names:
            file = Path(where, name)
            if file.is_file() and not file.is_symlink():
                yield file.relative_to(folder).as_posix(), file.stat().st_size
