"""The same call over every transport: what a body of the contract's tests talks to.

A driver opens a door to a served application; through a door calls are made; a call gives its items one by one, and its
outcome, in one form whatever they looked like on the wire. To add a transport is to add a line to `DRIVERS`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any, Final, Protocol

import attrs
import h11
import mcp_types as types
import trio
from mcp.client.client import Client
from trio_websocket import open_websocket_url

from keryx_trio import ByteStream, Keryx, TypedError
from keryx_trio.testing import EventReader, open_client
from keryx_trio.transports.collecting import Sent
from keryx_trio.transports.shell import ShellReply, find_action, leave, make_call, run_call
from keryx_trio.wire.json import encode
from tests.e2e.raw import open_raw
from tests.e2e.serving import serve


@attrs.frozen
class Item:
    """One event, its data as text; or a piece of a byte stream."""

    data: str | bytes
    event: str | None = None
    id: str | None = None


@attrs.frozen
class Outcome:
    """What became of a call: its value or its items, and the error that ended it."""

    value: Any = None
    items: list[Item] = attrs.Factory(list)
    error: dict[str, Any] | None = None

    @property
    def events(self) -> list[tuple[str | None, str | bytes]]:
        return [(item.event, item.data) for item in self.items]

    @property
    def body(self) -> bytes:
        """The byte stream, put together."""
        return b"".join(item.data if isinstance(item.data, bytes) else item.data.encode() for item in self.items)


class Running(Protocol):
    """A call while it runs."""

    async def item(self) -> Item:
        """The next item; raises EOFError where there is none any more."""

    async def outcome(self) -> Outcome:
        """All that is still to come."""


class Door(Protocol):
    """A client of one application."""

    def call(self, name: str, params: dict[str, Any] | None = None) -> AbstractAsyncContextManager[Running]:
        """Make a call; leaving the block leaves the call."""


@attrs.frozen
class Driver:
    """How tests reach an application over one transport.

    Attributes:
        open: serves an application and opens a door to it; at the end nothing of it may be left.
        names: whether events come with their names and ids.
        collects: whether all of a stream is kept until its end, so that no reader of it can be slow.
    """

    open: Callable[[Keryx], AbstractAsyncContextManager[Door]]
    names: bool = True
    collects: bool = False

    def seen(self, *items: Item) -> list[Item]:
        """What a client sees of events."""
        return list(items) if self.names else [Item(item.data) for item in items]


# HTTP


class _HttpCall:
    """An answer over HTTP. Its body comes in `pieces`, which raise `ConnectionError` where it is cut."""

    def __init__(self, status: int, content_type: str, pieces: AsyncIterator[bytes]) -> None:
        self._status, self._type, self._pieces = status, content_type, pieces
        self._reader = EventReader()
        self._items: list[Item] = []
        self._error: dict[str, Any] | None = None

    async def item(self) -> Item:
        while not self._items:
            data = await anext(self._pieces, None)
            if data is None or self._error is not None:
                raise EOFError
            self._take(data)
        return self._items.pop(0)

    def _take(self, data: bytes) -> None:
        if self._type != "text/event-stream":
            self._items.append(Item(data))
            return
        for event in self._reader.feed(data):
            if event.event == "error":
                self._error = json.loads(event.data) if event.data.startswith("{") else {"message": event.data}
            else:
                name = None if event.event == "message" else event.event
                self._items.append(Item(event.data, name, event.id or None))

    async def outcome(self) -> Outcome:
        if self._type == "application/json":
            answer = json.loads(b"".join([data async for data in self._pieces]))
            return Outcome(error=answer["error"]) if self._status >= 400 else Outcome(answer)
        items = []
        try:
            while True:
                items.append(await self.item())
        except EOFError:
            return Outcome(items=items, error=self._error)
        except ConnectionError:
            return Outcome(items=items, error={"message": CUT})


CUT: Final = "the body was cut"
"""How HTTP tells that a byte stream failed: there is no place for more."""


@asynccontextmanager
async def http(app: Keryx) -> AsyncIterator[Door]:
    """A real server, and a bare socket, which can leave at any time."""

    class Client:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            async with open_raw(server.port) as raw:

                async def pieces() -> AsyncIterator[bytes]:
                    try:
                        while data := await raw.chunk():
                            yield data
                    except h11.RemoteProtocolError as error:
                        raise ConnectionError from error

                body = json.dumps(params or {}).encode()
                await raw.request("POST", f"/api/{name}", "Content-Type: application/json", body=body)
                head = await raw.head()
                async with aclosing(pieces()) as data:
                    yield _HttpCall(head.status, head.headers["content-type"], data)

    async with serve(app) as server:
        yield Client()


@asynccontextmanager
async def memory(app: Keryx) -> AsyncIterator[Door]:
    """The client without a network."""

    class Client:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            async with client.stream("POST", f"/api/{name}", json=params or {}) as stream:

                async def pieces() -> AsyncIterator[bytes]:
                    with suppress(EOFError):
                        while True:
                            yield await stream.receive_bytes()
                    if not stream.complete:
                        raise ConnectionError

                async with aclosing(pieces()) as body:
                    yield _HttpCall(stream.status, stream.headers["content-type"], body)

    async with open_client(app) as client:
        yield Client()


# WebSocket


class _SocketCall:
    """The messages of a socket on which one call was made."""

    def __init__(self, receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._receive = receive
        self._last: dict[str, Any] = {}

    async def item(self) -> Item:
        if not self._last:
            message = await self._receive()
            assert message.pop("messageId") == ID
            if message.get("streaming"):
                return _item(**message)
            self._last = message
        raise EOFError

    async def outcome(self) -> Outcome:
        items = []
        with suppress(EOFError):
            while True:
                items.append(await self.item())
        [(kind, value)] = self._last.items()
        assert kind in ("response", "error") or (kind, value) == ("streaming", False)
        return Outcome(items=items, **{"response": {"value": value}, "error": {"error": value}}.get(kind, {}))


def _item(
    *, streaming: bool, chunk: Any, event: str | None = None, id: str | None = None, encoding: str | None = None
) -> Item:
    assert streaming is True
    assert encoding in (None, "base64")
    if encoding:
        return Item(base64.b64decode(chunk, validate=True))
    text = chunk if isinstance(chunk, str) else json.dumps(chunk, separators=(",", ":"), ensure_ascii=False)
    return Item(text, event, id)


ID: Final = "contract-1"


def _asked(name: str, params: dict[str, Any] | None) -> dict[str, Any]:
    return {"messageType": "action", "action": name, "params": params or {}, "messageId": ID}


@asynccontextmanager
async def websocket(app: Keryx) -> AsyncIterator[Door]:
    """A real server, and trio-websocket."""

    class Client:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            async with open_websocket_url(server.url.replace("http", "ws", 1)) as socket:

                async def receive() -> dict[str, Any]:
                    return json.loads(await socket.get_message())

                await socket.send_message(json.dumps(_asked(name, params)))
                yield _SocketCall(receive)

    async with serve(app) as server:
        yield Client()


@asynccontextmanager
async def memory_websocket(app: Keryx) -> AsyncIterator[Door]:
    """The client without a network, and its socket."""

    class Client:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            async with client.websocket() as socket:
                await socket.send(_asked(name, params))
                yield _SocketCall(socket.receive)

    async with open_client(app) as client:
        yield Client()


# MCP


class _ToolCall:
    """A tool's run: what is logged of it while it runs, and its result."""

    def __init__(self, logged: trio.MemoryReceiveChannel[Any], *, streams: bool) -> None:
        self._logged, self._streams = logged, streams
        self._text = ""  # of all that was logged
        self.result: types.CallToolResult | None = None

    async def item(self) -> Item:
        try:
            data = await self._logged.receive()
        except trio.EndOfChannel:
            raise EOFError from None
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        self._text += text
        return Item(text)

    async def outcome(self) -> Outcome:
        items = []
        with suppress(EOFError):
            while True:
                items.append(await self.item())
        assert self.result is not None
        content = list(self.result.content)
        error = json.loads(content.pop().text)["error"] if self.result.is_error else None
        if not self._streams:
            return Outcome(_value(content[0].text) if content else None, error=error)
        if content and content[0].type == "resource":
            resource = content[0].resource
            whole = resource.text if hasattr(resource, "text") else base64.b64decode(resource.blob)
            return Outcome(items=[Item(whole)], error=error)
        if content:  # what was logged, one after the other, is the result; but for the line ends around JSON
            assert content[0].text.replace("\n", "") == self._text.replace("\n", "")
        return Outcome(items=items, error=error)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class _Agent:
    """A client of the SDK; what is logged goes to the call that it makes."""

    def __init__(self, url: str, mode: str) -> None:
        self.client = Client(f"{url}/mcp", mode=mode, logging_callback=self._log, log_level="debug")
        self.logged: trio.MemorySendChannel[Any]
        self._done = trio.Event()

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        """Its connection, in a task of its own: calls that overlap must not nest."""
        async with self.client:
            await self.client.list_tools()  # by which it checks results, as agents do
            task_status.started()
            await self._done.wait()

    def leave(self) -> None:
        self._done.set()

    async def _log(self, message: types.LoggingMessageNotificationParams) -> None:
        await self.logged.send(message.data)

    async def run(self, name: str, params: dict[str, Any], call: _ToolCall) -> None:
        with self.logged:
            call.result = await self.client.call_tool(name, params)


def mcp(mode: str) -> Callable[[Keryx], AbstractAsyncContextManager[Door]]:
    """A real server, and the SDK's client, which speaks an older protocol or a newer one."""

    @asynccontextmanager
    async def open_door(app: Keryx) -> AsyncIterator[Door]:
        agents: list[_Agent] = []
        idle: list[_Agent] = []

        class Agents:
            @asynccontextmanager
            async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
                if idle:
                    agent = idle.pop()
                else:
                    agent = _Agent(server.url, mode)
                    agents.append(agent)
                    await connections.start(agent.live)
                agent.logged, receive = trio.open_memory_channel[Any](math.inf)
                action = app.actions.get(name)
                streams = action is not None and "Streaming" in str(action.function.__annotations__.get("return"))
                call = _ToolCall(receive, streams=streams)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(agent.run, name, params or {}, call)
                    yield call
                    nursery.cancel_scope.cancel()
                idle.append(agent)

        async with serve(app) as server, trio.open_nursery() as connections:
            yield Agents()
            for agent in agents:
                agent.leave()

    return open_door


# The shell


@attrs.frozen
class _Sink:
    write: Callable[[bytes], Awaitable[None]]

    async def left(self) -> None:
        await trio.sleep_forever()


class _Watched(ShellReply):
    """The reply of the shell's calls, and a look at what it collects; a reader of bytes takes them one by one."""

    def __init__(self, limit: int) -> None:
        super().__init__(_Sink(self._print), limit)
        self._send, self._seen = trio.open_memory_channel[Item](math.inf)
        self._taken = trio.Event()
        self.output = b""

    async def _print(self, data: bytes) -> None:
        if not isinstance(self.stream, ByteStream):
            self.output += data
            return
        self._send.send_nowait(Item(data))
        self._taken = trio.Event()
        await self._taken.wait()

    async def write(self, items: list[Sent]) -> None:
        await super().write(items)
        if not isinstance(self.stream, ByteStream):
            for item in items:
                text = item.data.decode() if isinstance(item.data, bytes) else item.data
                self._send.send_nowait(Item(text, item.event, item.id))

    async def value(self, value: Any) -> None:
        await super().value(value)
        self._send.close()

    async def error(self, error: TypedError, payload: dict[str, Any]) -> None:
        await super().error(error, payload)
        self._send.close()

    async def end(self, end: Any, payload: Any, data: Any) -> None:
        await super().end(end, payload, data)
        self._send.close()

    async def item(self) -> Item:
        try:
            item = await self._seen.receive()
        except trio.EndOfChannel:
            raise EOFError from None
        self._taken.set()
        return item

    async def outcome(self) -> Outcome:
        items = []
        with suppress(EOFError):
            while True:
                items.append(await self.item())
        error = None if self.failed is None else json.loads(encode(self.failed))
        if not self.output:
            return Outcome(items=items, error=error)
        assert error is None
        assert self.output.endswith(b"}\n")
        assert self.output.count(b"\n") == 1
        [(key, value)] = json.loads(self.output).items()
        assert key == "response"
        if self.stream is None:
            return Outcome(value)
        told = [_item(streaming=True, chunk=each.pop("data"), **each) for each in value]
        assert told[len(told) - len(items) :] == items
        return Outcome(items=items)


@asynccontextmanager
async def shell(app: Keryx) -> AsyncIterator[Door]:
    """What the command `run` does between its command line and the descriptors of the process."""

    class User:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            reply = _Watched(app.config.max_collected)
            try:
                action = find_action(app, name)
            except TypedError as error:
                await reply.error(error, error.payload())
                yield reply
                return
            call = make_call(app, action, reply, params or {})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_call, call)
                try:
                    yield reply
                finally:
                    leave(call)

    app.serving = False
    async with app:
        yield User()


DRIVERS: Final[dict[str, Driver]] = {
    "http": Driver(http),
    "http-in-memory": Driver(memory),
    "websocket": Driver(websocket),
    "websocket-in-memory": Driver(memory_websocket),
    "shell": Driver(shell),
    "mcp": Driver(mcp("legacy"), names=False, collects=True),
    "mcp-2026": Driver(mcp("2026-07-28"), names=False, collects=True),
}
