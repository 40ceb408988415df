"""For tests of applications: a client without sockets, on the test's own clock.

Owns: `open_client`, which runs an application and talks to it in memory, and the check that nothing of it is left.
Does not know: how the application answers; it speaks ASGI to it, as a server does.

What is sent waits until the test reads it, so a test reads as slowly as it likes; and nothing sleeps, so a test on
`trio.testing.MockClock` takes no time.

    async def test_tokens(autojump_clock):
        async with open_client(app) as client:
            async with client.stream("POST", "/api/chat/stream", json={"prompt": "hi"}) as stream:
                event = await stream.receive_event()
                assert event.event == "token"
            # left in the middle: the producer's `finally` has run
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import attrs
import msgspec
import trio

from .app import Keryx
from .errors import unwrap

PATIENCE: Final = 30.0
"""How long the check for what is left waits for calls to end, in seconds of the test's clock."""


@attrs.frozen
class Received:
    """An event as a reader of the stream gets it."""

    data: str
    event: str = "message"
    id: str = ""
    """The last event id at this point, which outlives the event that set it."""

    def json(self) -> Any:
        """The data, read as JSON."""
        return msgspec.json.decode(self.data)


class EventReader:
    """Bytes to events, by the rules of the WHATWG HTML standard, section "Server-sent events"."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._data: list[str] = []
        self._event = ""
        self.last_event_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[Received]:
        """The events that `data` completes."""
        self._text += self._decoder.decode(data)
        events: list[Received] = []
        while (line := self._next_line()) is not None:
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(Received("\n".join(self._data), self._event or "message", self.last_event_id))
                self._data, self._event = [], ""
        return events

    def _next_line(self) -> str | None:
        """The text up to the next CR, LF or CRLF; a CR at the very end may be half of a CRLF, so it waits."""
        ends = [at for at in (self._text.find("\r"), self._text.find("\n")) if at >= 0]
        if not ends or (self._text[min(ends)] == "\r" and min(ends) == len(self._text) - 1):
            return None
        end = min(ends)
        line, rest = self._text[:end], end + (2 if self._text.startswith("\r\n", end) else 1)
        self._text = self._text[rest:]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "":
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)


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
        await self._start()
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


class Client:
    """Talks to an application in memory. Made by `open_client`."""

    def __init__(self, app: Keryx, nursery: trio.Nursery, headers: Mapping[str, str] | None) -> None:
        self.app = app
        self.nursery = nursery
        self._headers = dict(headers or {})
        self.cookies: dict[str, str] = {}
        self._streams: list[Stream] = []

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        form: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """A request whose answer is read piece by piece, in `async with`; leaving the block leaves the answer.

        Args:
            method: such as `GET`.
            path: with or without a query.
            params: the query.
            json: a JSON body.
            form: a urlencoded body.
            content: a body as it is.
            headers: of this request.
        """
        path, _, query = path.partition("?")
        fields = {"host": "testserver", **self._headers, **(headers or {})}
        if self.cookies and "cookie" not in fields:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if json is not None:
            content, kind = msgspec.json.encode(json), "application/json"
        elif form is not None:
            content, kind = urlencode(form, doseq=True).encode(), "application/x-www-form-urlencoded"
        else:
            kind = None
        if kind is not None:
            fields = {"content-type": kind, **fields}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path, safe="/%:@!$&'()*+,;=~").encode(),
            "query_string": (urlencode(params, doseq=True) if params else query).encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
            "client": ("127.0.0.1", 0),
            "server": ("testserver", 80),
            "extensions": {},
        }
        stream = Stream(self, scope, content or b"")
        self._streams = [each for each in self._streams if not each.over.is_set()] + [stream]
        return stream

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        """A request and its whole answer; the options are those of `stream`."""
        async with self.stream(method, path, **options) as stream:
            body = await stream.read()
            if not stream.complete:
                raise EOFError(f"the answer was cut after {len(body)} bytes")
            return Answer(stream.status, stream.headers, body)

    async def get(self, path: str, **options: Any) -> Answer:
        """`request("GET", ...)`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        """`request("POST", ...)`."""
        return await self.request("POST", path, **options)

    def keep_cookies(self, headers: Headers) -> None:
        """Keep what an answer sets, as browsers do; `client.cookies` may be changed at will."""
        for field in headers.all("set-cookie"):
            name, _, value = field.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()

    def shut_down(self) -> None:
        """Tell the application that its server stops, as a signal does."""
        self.app.shut_down()

    async def check_nothing_left(self, patience: float = PATIENCE) -> None:
        """Wait until every call has ended.

        Raises:
            AssertionError: after `patience` seconds some have not, or a connection is still registered.
        """
        with trio.move_on_after(patience):
            for stream in self._streams:
                await stream.over.wait()
        calls = [stream for stream in self._streams if not stream.over.is_set()]
        if calls or self.app.connections:
            self.nursery.cancel_scope.cancel()
            raise AssertionError(f"left behind: calls {calls}, connections {list(self.app.connections.values())}")


@asynccontextmanager
async def open_client(app: Keryx, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[Client]:
    """Run an application and talk to it; at the end check that no call and no connection is left.

    Args:
        headers: sent with every request.

    Raises:
        AssertionError: at the end, where something is left.
    """
    failed: Exception | None = None
    async with app:
        try:
            async with trio.open_nursery() as nursery:
                client = Client(app, nursery, headers)
                try:
                    yield client
                    await client.check_nothing_left()
                except Exception as error:
                    failed = error
                    raise
        except ExceptionGroup as group:
            if failed is None or unwrap(group) is not failed:
                raise
            raise failed from failed.__cause__  # the test's own error, and no other: as it was raised
