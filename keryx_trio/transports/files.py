"""Files of a folder, served below a prefix: pages, their styles and scripts.

Owns: which file a path means, and the cut between what is served and what is not. Does not know: header fields beyond a
file's own, or actions. Starlette reads the files: types, entity tags, ranges.

Invariant: nothing outside the folder is served, whatever a path says and wherever a link leads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from ..wire import headers as header_fields
from ..wire.headers import Headers
from .exchange import Exchange

if TYPE_CHECKING:
    from starlette.responses import Response as FileAnswer
    from starlette.staticfiles import StaticFiles

INDEX: Final = "index.html"
MAX_PATH: Final = 2000
"""The longest path that is looked up, in characters: following links takes long where there are many parts."""

REVALIDATED: Final[Headers] = [(b"cache-control", b"no-cache")]
"""A browser may keep a file, and asks each time whether it is still the one: mostly a 304 without a body."""


class Folder:
    """A folder that is served.

    Args:
        prefix: the path below which its files are; `/` for all that no action answers.
        directory: where they are.
        only: the names of those that are served; by default all.

    Raises:
        ValueError: the prefix is no path.
        NotADirectoryError: there is no such folder.
    """

    def __init__(self, prefix: str, directory: str | os.PathLike[str], *, only: Collection[str] | None = None) -> None:
        if not prefix.startswith("/") or "?" in prefix or "#" in prefix or "{" in prefix:
            raise ValueError(f"static prefix {prefix!r} must be a path that starts with a slash, without parameters")
        if not Path(directory).is_dir():
            raise NotADirectoryError(f"there is no folder {os.fspath(directory)!r} to serve at {prefix}")
        self.prefix = prefix.rstrip("/") + "/"
        self._root = Path(directory).resolve()
        self._only = only

    @cached_property
    def _files(self) -> StaticFiles:
        # Imported here: most applications serve no files, and those that do are not always served.
        from starlette.staticfiles import StaticFiles  # noqa: PLC0415

        return StaticFiles(directory=self._root)

    def has(self, path: str) -> bool:
        """Whether a path is in it, whether or not there is a file."""
        return f"{path}/".startswith(self.prefix)

    async def find(self, path: str, exchange: Exchange) -> FileAnswer | None:
        """What answers a GET or HEAD of a decoded path; None where there is no such file."""
        inside = path[len(self.prefix) :]
        if len(inside) > MAX_PATH or _is_hidden(inside) or (self._only is not None and inside not in self._only):
            return None
        try:
            full, found, is_index = await trio.to_thread.run_sync(self._look_up, inside)
        except (OSError, ValueError):  # a name that is too long, that has a NUL in it, or a file that may not be read
            return None
        if found is None:
            return None
        if is_index and not path.endswith("/"):
            return _with_a_slash(path, exchange)
        return self._files.file_response(full, found, dict(exchange.scope))

    def _look_up(self, inside: str) -> tuple[str, os.stat_result | None, bool]:
        """The file, or of a folder its index, and which of the two; None where neither is there."""
        full, found = self._files.lookup_path(inside)
        is_folder = found is not None and stat.S_ISDIR(found.st_mode)
        if is_folder:
            full, found = self._files.lookup_path(f"{inside.rstrip('/')}/{INDEX}".lstrip("/"))
        elif inside.endswith("/"):
            found = None
        if found is not None and not (stat.S_ISREG(found.st_mode) and os.access(full, os.R_OK)):
            found = None
        if found is not None and _is_hidden(os.path.relpath(full, self._root)):  # where a link leads
            found = None
        return full, found, is_folder


def added(folders: Iterable[Folder], folder: Folder) -> tuple[Folder, ...]:
    """The folders and one more, the longest prefix first.

    Raises:
        ValueError: another folder has its prefix.
    """
    if any(folder.prefix == other.prefix for other in folders):
        raise ValueError(f"a folder is served at {folder.prefix} already")
    return tuple(sorted((*folders, folder), key=lambda each: -len(each.prefix)))


def _is_hidden(inside: str) -> bool:
    """Whether a file or one of its folders is hidden: those are seldom put there to be seen."""
    return any(part.startswith(".") and part not in (".", ".well-known") for part in inside.split("/"))


def _with_a_slash(path: str, exchange: Exchange) -> FileAnswer:
    """To the folder's own address, so that links in its page lead into it; relative, as proxies may change the rest."""
    from starlette.responses import Response  # noqa: PLC0415 - as above

    query = exchange.scope.get("query_string", b"").decode("latin-1")
    location = f"./{quote(path.rpartition('/')[2], safe='')}/" + (f"?{query}" if query else "")
    return Response(status_code=307, headers={"location": location})


async def send_file(answer: FileAnswer, exchange: Exchange, base: Headers) -> None:
    """Send it, in pieces that each have `write_timeout` seconds, until its reader leaves.

    Args:
        base: the fields that stand on every answer.
    """
    left = 0  # of what was announced, in bytes: the file may be another one by now

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            left = int(dict(message["headers"]).get(b"content-length", 0))
            await exchange.start(message["status"], header_fields.merged(base + REVALIDATED, message["headers"]))
            return
        data = message["body"][:left]
        left -= len(data)
        if message.get("more_body") and left:
            await exchange.write(data)
        elif exchange.ending:
            return  # it has grown: what was announced is out
        elif left > 0 and exchange.method != "HEAD":
            await exchange.write(data)  # it has shrunk
            exchange.cut()
        else:
            await exchange.finish(data)

    # Its own watch for the reader's leaving would have no bound; ours is below.
    scope = {**exchange.scope, "asgi": {"version": "3.0", "spec_version": "2.4"}, "extensions": {}}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, exchange, nursery.cancel_scope)
        with suppress(trio.BrokenResourceError):  # it left, or takes nothing: nobody is left to tell
            await answer(scope, trio.sleep_forever, send)
        nursery.cancel_scope.cancel()


async def _watch(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.wait_until_left()
    if not exchange.ending:  # else it is the normal end, which the server may be writing still
        scope.cancel()
