"""One request and its answer over HTTP/1.1, as ASGI carries them.

Owns: what an application receives and sends, and in which order. Does not know: what comes before the request on its
connection, or after.

`receive` reads the socket itself: no task is needed for it. While the application awaits the client's leaving, the next
requests of a client that does not wait are read too, up to a bound; beyond it, its leaving is seen when they are read.

Invariants: after the last part of the answer `receive` reads nothing any more, since what comes is of the next request.
Whoever waits in it then is told that the client has left, as ASGI has it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import trio

from ..wire.extension import EXTENSION
from .answer import CONTINUE, Answer, short
from .http1 import Fields, Head, Refused
from .watching import IS_THERE
from .wire import MAX_RECEIVE, Gone

if TYPE_CHECKING:
    from .connection import Http1

DISCONNECT: Final = {"type": "http.disconnect"}
READ_AHEAD: Final = MAX_RECEIVE
"""How much of the next requests is read before their turn, in bytes."""

PATIENCE: Final = 1.0
"""How much longer than an application a server waits for a body, in seconds: the application has a better answer."""


class Cycle:
    """A request, and the way back. `scope` is what ASGI tells of it."""

    __slots__ = (
        "_answer", "_connection", "_head", "_held", "_left", "_read", "_since", "_waiting", "answered", "complete",
        "left_behind", "scope", "status",
    )  # fmt: skip

    def __init__(self, connection: Http1, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._answer = Answer(head.method, head.version, keeps=head.keeps and connection.may_keep())
        self._read = False  # whether the whole body was
        self._waiting: trio.CancelScope | None = None
        self._held = b""  # the answer's head, until its body comes
        self._since = time() if connection.logs else 0.0
        self.status: dict[str, Any] | None = None
        self.complete = False  # whether the last of the answer is there
        self.answered = False  # whether it is out
        self.left_behind = False  # whether the connection has gone on without it
        self._left: Callable[[], None] | None = None
        self.scope = _scope(connection, head, self._extension(head))

    def _extension(self, head: Head) -> dict[str, Any]:
        """What this server offers beside ASGI."""
        extension: dict[str, Any] = {
            "scope": self._connection.scope,
            "task": trio.lowlevel.current_task(),
            "app": self._connection.site.serve,
        }
        if head.length == 0:
            extension["bodiless"] = True
        if not self._connection.logs:  # which would be told of all the fields
            extension["answer"] = self.answer
        if not self._connection.wire.tls:
            extension["attempt"] = self.attempt
            if IS_THERE:
                extension["watch"] = self.watch
        return extension

    @property
    def keeps(self) -> bool:
        """Whether the connection can be used again."""
        return self.complete and self._answer.keeps and not self._connection.wire.broken

    # What the application receives

    async def receive(self) -> dict[str, Any]:
        """The next part of the body, or that the client has left."""
        if self.complete or self._connection.left:
            await trio.lowlevel.checkpoint()
            return DISCONNECT
        return await self._until_left() if self._read else await self._body()

    async def _body(self) -> dict[str, Any]:
        reader, connection = self._connection.reader, self._connection
        deadline = trio.current_time() + connection.limits.read_timeout + PATIENCE
        try:
            while (part := reader.body()) is None:
                if self._head.expects and self.status is None:
                    self._head = self._head.without_expectation()
                    await connection.wire.write(CONTINUE)
                with trio.CancelScope(deadline=deadline) as self._waiting:
                    await connection.read()
                if connection.left or self.complete:
                    return DISCONNECT
                if self._waiting.cancelled_caught:
                    await self._refuse(Refused(408, "the body of the request stopped coming"))
                    return DISCONNECT
        except Gone:
            connection.left = True
            return DISCONNECT
        except Refused as refused:
            await self._refuse(refused)
            return DISCONNECT
        finally:
            self._waiting = None
        data, self._read = part
        return {"type": "http.request", "body": data, "more_body": not self._read}

    async def _until_left(self) -> dict[str, Any]:
        connection = self._connection
        with trio.CancelScope() as self._waiting:
            while not (self.complete or connection.left):
                if connection.reader.held < READ_AHEAD and self._left is None:
                    await connection.read()
                else:
                    await trio.sleep_forever()
        self._waiting = None
        return DISCONNECT

    async def _refuse(self, refused: Refused) -> None:
        """The body is none. Where nothing was answered yet this is; the rest of an answer is cut."""
        connection = self._connection
        connection.left = True
        if self.status is None:
            self.status = {"status": refused.status, "headers": []}
            await connection.refuse(refused)
        else:
            connection.wire.abort()

    def watch(self, left: Callable[[], None]) -> Callable[[], None]:
        """Have `left` called once the client has left. It is looked at only once the call has lasted a moment.

        Returns:
            What ends this; the end of the answer does too.
        """
        self._left = left
        if self._connection.lasts:
            self.look()
        return self._unwatch

    def look(self) -> None:
        """The call lasts: look whether its client leaves, if anybody wants to know."""
        if self._left is None:
            return
        wire = self._connection.wire
        if wire.broken:
            self._lose()
        else:
            wire.on_close = self._lose
            self._connection.site.worker.watch.add(wire.fd, self._look)

    def _look(self, ended: bool) -> bool:  # noqa: FBT001 - as `Watch` says it
        """Take what the client sends; whether more of it is wanted."""
        data = b"" if ended else self._connection.wire.receive_nowait()
        if data:
            self._connection.reader.feed(data)
            return self._connection.reader.held < READ_AHEAD
        if data is not None:
            self._lose()
        return True

    def _lose(self) -> None:
        left = self._left
        self._unwatch()
        self._connection.left = True
        if self._waiting is not None:
            self._waiting.cancel()
        if left is not None:
            left()

    def _unwatch(self) -> None:
        if self._left is not None:
            connection, self._left = self._connection, None
            if connection.lasts:
                connection.wire.on_close = None
                connection.site.worker.watch.discard(connection.wire.fd)

    # What the application sends

    async def send(self, message: Any) -> None:
        """Take a part of the answer.

        Raises:
            Gone: the client has left; an OSError, as ASGI has it.
            ValueError: it can't be sent so.
            RuntimeError: it is not its turn.
        """
        if self._connection.left:
            await trio.lowlevel.checkpoint()
            raise Gone("the client has left")
        kind = message["type"]
        if kind == "http.response.start" and self.status is None:
            await self._start(message)
        elif kind == "http.response.body" and self.status is not None and not self.complete:
            await self._send_body(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is sent where no such message may be")

    async def answer(self, status: int, lines: bytes, headers: Fields, body: bytes) -> None:
        """Send the whole answer; its arguments are the extension's to say. Raises like `send`."""
        connection = self._connection
        if connection.left:
            await trio.lowlevel.checkpoint()
            raise Gone("the client has left")
        if self.status is not None:
            raise RuntimeError("an answer is sent after another one")
        data = self._answer.whole(status, lines, headers, connection.own_lines(), body)
        self.status = {"status": status, "headers": headers}
        await self._write_last(data)

    def attempt(self, data: bytes) -> bool | None:
        """Write a part of the body now or never; what is returned is the extension's to say."""
        if self.status is None or self._held or self.complete or self._connection.left or self._answer.counts:
            return None
        return self._connection.wire.attempt(self._answer.part(data, last=False))

    async def _start(self, message: Any) -> None:
        if self._connection.scope.cancel_called:  # the call is over, and this is its last word
            self._answer.keeps = False
        head = self._answer.head(int(message["status"]), message.get("headers", ()), self._connection.own_fields())
        self.status = message
        if self._answer.comes_with_body:
            self._held = head
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._write(head)

    async def _send_body(self, data: bytes, *, last: bool) -> None:
        data = self._held + self._answer.part(bytes(data), last=last)
        self._held = b""
        if last:
            await self._write_last(data)
        else:
            await self._write(data)

    async def _write_last(self, data: bytes) -> None:
        connection, self.complete = self._connection, True  # first: from here on a disconnect is the normal end
        try:
            await (connection.wire.write(data) if data else self._write(data))
        except BaseException as error:
            self.complete = False
            if isinstance(error, Gone):
                connection.left = True
            raise
        self.answered = True
        self._unwatch()
        if self._waiting is not None:
            self._waiting.cancel()
        if connection.lasts:
            connection.answered()
        if connection.logs:
            await self.log()

    async def _write(self, data: bytes) -> None:
        wire = self._connection.wire
        if not (data or wire.unfinished):
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        try:
            await wire.write(data)
        except Gone:
            self._connection.left = True
            raise

    async def log(self) -> None:
        """Tell hypercorn's access log, where there is one."""
        if self._connection.logs:
            await self._connection.site.config.log.access(self.scope, self.status, time() - self._since)

    # Its end

    async def end(self, *, failed: bool, status: int = 500) -> None:
        """The application has returned, or failed: what it has not answered is an error, or a cut."""
        if self.complete or self._connection.left:
            if not self.complete:
                await self.log()
            return
        if self.status is None:
            self.status = {"status": status, "headers": []}
            await self._connection.write_last(short(status, "", self._connection.own_fields()))
            self.complete, self._answer.keeps = True, False
        elif failed or not self.complete:
            if self._held:
                await self._connection.write_last(self._held)
            if self._answer.until_close:
                self._connection.wire.abort()  # a clean end would look like the body's
            self._connection.left = True
        await self.log()


def _scope(connection: Http1, head: Head, extension: dict[str, Any]) -> dict[str, Any]:
    path, _, query = head.target.partition(b"?")
    text = path.decode("ascii")
    scope = connection.scope_base.copy()
    scope["http_version"] = head.version
    scope["method"] = head.method
    scope["path"] = unquote(text) if "%" in text else text
    scope["raw_path"] = path
    scope["query_string"] = query
    scope["headers"] = head.headers
    scope["state"] = connection.site.state.copy()
    scope["extensions"] = {EXTENSION: extension}
    return scope
