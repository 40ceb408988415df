"""HTTP in memory: a request, and its answer while it comes.

Owns: the server's side of ASGI for one request. Does not know: who asks, or what is asked of the application.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
import msgspec
import trio

from .events import EventReader, Received

if TYPE_CHECKING:
    from .client import Client


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; a repeated one is joined with commas."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Any:
        return iter(dict(self.raw))

    def __len__(self) -> int:
        return len(dict(self.raw))

    def __repr__(self) -> str:
        return f"<Headers {self.raw}>"

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.raw if key == name.lower()]


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, read as JSON."""
        return msgspec.json.decode(self.body)

    def events(self) -> list[Received]:
        """The body, read as an event stream."""
        return EventReader().feed(self.body)


class Stream:
    """An answer while it comes.

    Attributes:
        status, headers: of the answer.
        reader: what the event stream has told besides events: comments, `retry`, the last event id.
        over: set once the application has done with the request.
        complete: None while the answer goes on; True after a clean end, False where it was cut.
    """

    def __init__(self, client: Client, scope: dict[str, Any], body: bytes) -> None:
        self.status = 0
        self.headers = Headers([])
        self.reader = EventReader()
        self.complete: bool | None = None
        self._client, self._scope, self._body = client, scope, body
        self._asked = self._told = False
        self._gone = trio.Event()
        self.over = trio.Event()
        self._send, self._receive = trio.open_memory_channel[dict[str, Any]](0)
        self._events: list[Received] = []
        client.nursery.start_soon(self._run, name=f"{scope['method']} {scope['path']}")

    def __repr__(self) -> str:
        return f"<Stream {self._scope['method']} {self._scope['path']}>"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self.leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave, and wait until the application has noticed and cleaned up."""
        self.leave()
        await self.over.wait()  # noqa: ASYNC102 - the test's own cancellation may end it

    def leave(self) -> None:
        """Close the connection, as a client that goes away does."""
        self._gone.set()
        self._receive.close()

    async def receive_event(self) -> Received:
        """The next event.

        Raises:
            EOFError: the stream has ended.
        """
        while not self._events:
            self._events = self.reader.feed(await self.receive_bytes())
        return self._events.pop(0)

    async def events(self) -> AsyncIterator[Received]:
        """The events until the end of the stream."""
        while True:
            try:
                yield await self.receive_event()
            except EOFError:
                return

    async def receive_bytes(self) -> bytes:
        """The next piece of the body.

        Raises:
            EOFError: the body has ended; `complete` tells whether cleanly.
        """
        while self.complete is None:
            try:
                message = await self._receive.receive()
            except trio.EndOfChannel:
                self.complete = False
                break
            if not message.get("more_body", False):
                self.complete = True
                self._gone.set()
            if message.get("body"):
                return bytes(message["body"])
        raise EOFError("the answer has ended" if self.complete else "the answer was cut")

    async def read(self) -> bytes:
        """The rest of the body, until its end, clean or not."""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(await self.receive_bytes())
        except EOFError:
            return b"".join(parts)

    async def _start(self) -> None:
        try:
            message = await self._receive.receive()
        except trio.EndOfChannel:
            message = None
        if message is None:
            await trio.lowlevel.checkpoint()  # where the application crashed, that is what the test gets to see
            raise EOFError("the application ended without an answer")
        self.status = message["status"]
        self.headers = Headers(message["headers"])
        self._client.keep_cookies(self.headers)

    async def _run(self) -> None:
        try:
            with self._send:
                await self._client.app(self._scope, self._next_message, self._take_message)
        finally:
            self.over.set()

    async def _next_message(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        self._told = True
        return {"type": "http.disconnect"}

    async def _take_message(self, message: dict[str, Any]) -> None:
        if self._told:
            raise AssertionError(f"the application sent {message['type']} after it was told of the disconnect")
        try:
            await self._send.send(message)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()  # the client is gone, which is still to be told: servers say nothing here
