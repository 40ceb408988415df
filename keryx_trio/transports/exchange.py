"""One HTTP request and its answer, as ASGI carries them.

Owns: the reading of the body, the bound on every write, and the rule of ASGI that costs most when broken: one reader at
a time, and nothing sent after a disconnect. Does not know: actions, routes, or what an answer means.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from ..errors import ErrorType, TypedError
from ..wire import headers as header_fields
from ..wire.extension import EXTENSION
from ..wire.headers import Headers
from .patience import patience

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

PIECE: Final = 64 * 1024
"""The most that is handed to the server at once, in bytes: each piece must make it within the write timeout."""

GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
"""What servers raise for a send after a disconnect: what ASGI says, and what trio's streams do."""

LENGTH_DIGITS: Final = 18
"""A longer Content-Length is larger than any limit, and would take long to read."""

LINGER: Final = 2.0
"""How long a refused body is read on, in seconds, so that its sender gets to read why it was refused."""


class Exchange:
    """A request, and the way back."""

    __slots__ = (
        "_extension",
        "_read_timeout",
        "_receive",
        "_send",
        "_write_timeout",
        "begun",
        "body_read",
        "ending",
        "headers",
        "left",
        "method",
        "raw_path",
        "scope",
    )

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
        *,
        read_timeout: float,
        write_timeout: float,
    ) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.raw_path = raw_path(scope)
        """The path as it was sent, percent-encoded, below where the application is mounted."""
        self.headers = header_fields.joined(scope["headers"])
        self.left = False
        self.begun = False
        self.ending = False
        """Set before the last write: from then on a disconnect is the normal end."""
        self._receive = receive
        self._send = send
        self._read_timeout = read_timeout or math.inf
        self._write_timeout = write_bound(scope, write_timeout)
        self._extension = extension_of(scope)
        self.body_read: bool = self._extension.get("bodiless", False)
        """Whether there is nothing of the body to read any more."""

    # Reading

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            TypedError: it is larger than `limit` bytes, or stopped coming; the rest of it has not been read.
            trio.BrokenResourceError: the client left before all of it had come.
        """
        return b"".join([chunk async for chunk in self.chunks(limit)])

    async def chunks(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes; raises like `body`."""
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and (len(announced) > LENGTH_DIGITS or int(announced) > limit):
            raise _too_large(limit)
        size = 0
        while not self.body_read:
            chunk = await self._receive_chunk()
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            if chunk:
                yield chunk

    async def wait_until_left(self) -> None:
        """Return when the client has left; call it when the body has been read, and once."""
        while not self.left:
            message = await self._receive()
            self.left = message["type"] == "http.disconnect"

    def watch(self, left: Callable[[], None]) -> Callable[[], None] | None:
        """Have `left` called once the client has left; call it when the body has been read.

        Returns:
            What ends this; None where the server does not do it, and `wait_until_left` has to be awaited.
        """
        watch = self._extension.get("watch")
        if watch is None:
            return None

        unwatch: Callable[[], None] = watch(left)
        return unwatch

    @property
    def attempt(self) -> Callable[[bytes], bool | None] | None:
        """What writes a part of the body without waiting, as the extension has it; None where the server can't."""
        return self._extension.get("attempt")

    async def _receive_chunk(self) -> bytes:
        message: Mapping[str, Any] | None = None
        with trio.CancelScope(deadline=trio.current_time() + self._read_timeout):
            message = await self._receive()
        if message is None:
            raise TypedError(
                f"the request's body stopped coming: nothing for {self._read_timeout:g} seconds",
                ErrorType.CONNECTION_ACTION_TIMEOUT,
            )
        if message["type"] == "http.disconnect":
            self.left = True
            raise trio.BrokenResourceError("the client left before its request was complete")
        self.body_read = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    # Writing

    async def start(self, status: int, headers: Headers) -> None:
        """Hand over the head."""
        self.begun = True
        await self._bounded({"type": "http.response.start", "status": status, "headers": headers})

    def enclosing(self, app: object) -> trio.CancelScope | None:
        """The connection's scope, where the server has called `app` itself, and this is the task in which it did."""
        extension = self._extension
        if extension.get("app") is not app or extension["task"] is not trio.lowlevel.current_task():
            return None
        scope: trio.CancelScope = extension["scope"]
        return scope

    @property
    def answers_at_once(self) -> bool:
        """Whether `answer` is there."""
        return "answer" in self._extension

    async def answer(self, status: int, lines: bytes, headers: Headers, data: bytes) -> None:
        """Send a whole answer at once, as the extension has it; raises like `write`."""
        self.begun = self.ending = True
        if self.left:
            raise trio.BrokenResourceError("the client has left")
        try:
            await self._extension["answer"](status, lines, headers, data)
        except GONE as error:
            self.left = True
            raise trio.BrokenResourceError("the client has left") from error

    async def write(self, data: bytes) -> None:
        """Send a part of the body, in pieces that each have `write_timeout` seconds; HEAD gets none of it.

        Raises:
            trio.BrokenResourceError: the client has left, or takes nothing.
        """
        if self.method == "HEAD":
            return
        for start in range(0, len(data) or 1, PIECE):
            piece = data if len(data) <= PIECE else data[start : start + PIECE]
            await self._bounded({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part of the body; raises like `write`."""
        if len(data) > PIECE:
            await self.write(data[:-PIECE])
            data = data[-PIECE:]
        self.ending = True
        await self._bounded(
            {"type": "http.response.body", "body": b"" if self.method == "HEAD" else data, "more_body": False}
        )

    def cut(self) -> None:
        """End the answer without its end, so that the reader can tell that some of it is missing."""
        self.ending = True

    async def refuse(self, status: int, headers: Headers, data: bytes) -> None:
        """Answer a request whose body has not been read.

        The answer goes out at once. The body is read and thrown away for a moment, since a connection closed under a
        client that is still sending takes the answer with it.
        """
        if self.body_read:
            await self.start(status, headers)
            await self.finish(data)
            return
        async with trio.open_nursery() as nursery:
            over = trio.Event()
            nursery.start_soon(self._throw_away, over)
            with suppress(trio.BrokenResourceError):  # it left instead of reading why; nobody is left to tell
                await self.start(status, headers)
                await self.write(data)
                with trio.move_on_after(LINGER):
                    await over.wait()
                await self.finish()
            nursery.cancel_scope.cancel()

    async def _throw_away(self, over: trio.Event) -> None:
        try:
            while not self.body_read:
                await self._receive_chunk()
        except (trio.BrokenResourceError, TypedError):
            self.body_read = True  # it left, or sends nothing: there is nothing more to read
        finally:
            over.set()

    async def _bounded(self, message: Mapping[str, Any]) -> None:
        if self.left:
            raise trio.BrokenResourceError("the client has left")
        try:
            await bounded(self._send, message, self._write_timeout)
        except trio.BrokenResourceError:
            self.left = True
            raise


def raw_path(scope: Mapping[str, Any]) -> str:
    """The path as it was sent, percent-encoded, below where the application is mounted."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0]
    if not path.startswith("/"):  # a whole URL, as proxies are sent (RFC 9112, section 3.2.2)
        with suppress(ValueError):  # or what is none, and leads nowhere
            path = urlsplit(path).path or "/"
    root = scope.get("root_path")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


def extension_of(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """What our server offers beside ASGI; nothing, where it is another one."""
    extension: Mapping[str, Any] = (scope.get("extensions") or {}).get(EXTENSION, {})
    return extension


def write_bound(scope: Mapping[str, Any], seconds: float) -> float:
    """How long a write may take, in seconds; 0 where the server bounds it, which knows better what has gone out."""
    return 0 if EXTENSION in (scope.get("extensions") or ()) else seconds


async def bounded(send: Send, message: Mapping[str, Any], seconds: float) -> None:
    """Hand a message to the server, which may take so many seconds to pass it on; 0 for any time.

    Raises:
        trio.BrokenResourceError: the client has left, or takes nothing.
    """
    if seconds:
        with patience(seconds):
            await bounded(send, message, 0)
        return
    try:
        await send(message)
    except GONE as error:
        raise trio.BrokenResourceError("the client has left") from error


def _too_large(limit: int) -> TypedError:
    return TypedError(
        f"the request's body is larger than {limit} bytes, the most that is taken here",
        ErrorType.CONNECTION_PAYLOAD_TOO_LARGE,
    )
