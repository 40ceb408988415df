"""The same call over every transport: what a body of the contract's tests talks to.

A driver opens a door to a served application; through a door calls are made; a call gives its items one by one, and its
outcome, in one form whatever they looked like on the wire. To add a transport is to add a line to `DRIVERS`.
"""

from __future__ import annotations

import base64
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, Protocol

import attrs
import h11
import mcp_types as types
import pytest
import trio
from mcp.client.client import Client
from trio_websocket import open_websocket_url

from keryx_trio import ByteStream, Job, Keryx, TypedError
from keryx_trio.store.jobs import Attempt, Verdict
from keryx_trio.testing import EventReader, open_client
from keryx_trio.transports import worker
from keryx_trio.transports.collecting import JsonCollector, Sent
from keryx_trio.transports.shell import ShellReply, find_action, make_call, run_call
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
        background: whether nobody watches a call while it runs, so that nobody can leave it, and a stop gives it back.
    """

    open: Callable[[Keryx], AbstractAsyncContextManager[Door]]
    names: bool = True
    collects: bool = False
    background: bool = False

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


class _Watching(JsonCollector):
    """A reply, and a look at what it collects."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._send, self._seen = trio.open_memory_channel[Item](math.inf)

    async def write(self, items: list[Sent]) -> None:
        await super().write(items)
        for item in items:
            self.see(item)

    def see(self, item: Sent) -> None:
        is_json = isinstance(item.data, bytes) and not isinstance(self.stream, ByteStream)
        self._send.send_nowait(Item(item.data.decode() if is_json else item.data, item.event, item.id))

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
            return await self._seen.receive()
        except trio.EndOfChannel:
            raise EOFError from None

    async def items(self) -> list[Item]:
        items = []
        with suppress(EOFError):
            while True:
                items.append(await self.item())
        return items


def _agree(items: list[Item], told: list[dict[str, Any]]) -> None:
    """What is told at the end is what was seen, and what was seen before anybody looked."""
    events = [_item(streaming=True, chunk=each.pop("data"), **each) for each in told]
    assert events[len(events) - len(items) :] == items


class _ShellReply(_Watching, ShellReply):
    """A reader of bytes takes them one by one."""

    def __init__(self, limit: int) -> None:
        super().__init__(_Sink(self._print), limit)
        self._taken = trio.Event()
        self.output = b""

    async def _print(self, data: bytes) -> None:
        if not isinstance(self.stream, ByteStream):
            self.output += data
            return
        self._send.send_nowait(Item(data))
        self._taken = trio.Event()
        await self._taken.wait()

    def see(self, item: Sent) -> None:
        if not isinstance(self.stream, ByteStream):
            super().see(item)

    async def item(self) -> Item:
        item = await super().item()
        self._taken.set()
        return item

    async def outcome(self) -> Outcome:
        items = await self.items()
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
        _agree(items, value)
        return Outcome(items=items)


@asynccontextmanager
async def shell(app: Keryx) -> AsyncIterator[Door]:
    """What the command `run` does between its command line and the descriptors of the process."""

    class User:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            reply = _ShellReply(app.config.max_collected)
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
                    call.drop()

    app.serving = False
    async with app:
        yield User()


# Jobs


class _Workers(worker.Workers):
    """Workers whose replies are found by the id of the job."""

    def __init__(self, app: Keryx) -> None:
        super().__init__(app, {}, 4)
        self.app = app
        self.replies: dict[str, _Watching] = {}
        self.begun: dict[str, trio.Event] = defaultdict(trio.Event)

    async def _attempt(self, attempt: Attempt) -> Verdict:
        JOB.set((self, attempt.order.id))
        return await super()._attempt(attempt)


JOB: ContextVar[tuple[_Workers, str]] = ContextVar("JOB")


class _JobReply(_Watching, worker.JobReply):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        workers, job = JOB.get()
        workers.replies[job] = self
        workers.begun[job].set()


class _JobCall:
    """A job, once it is in the store."""

    def __init__(self, workers: _Workers, job: Job) -> None:
        self._workers, self._job = workers, job

    async def reply(self) -> _Watching:
        await self._workers.begun[self._job.id].wait()
        return self._workers.replies[self._job.id]

    async def item(self) -> Item:
        return await (await self.reply()).item()

    async def outcome(self) -> Outcome:
        reply = await self.reply()
        items = await reply.items()
        try:
            value = await self._job.result()
        except TypedError as error:
            record = await self._workers.app.store.jobs.find(self._job.id)
            payload = json.loads(record.outcome)
            assert (payload["message"], payload["type"]) == (error.message, error.type)
            return Outcome(items=items, error=payload)
        if reply.stream is None:
            return Outcome(value)
        if isinstance(reply.stream, ByteStream):
            body = value.encode() if reply.is_text else base64.b64decode(value)
            assert body.endswith(Outcome(items=items).body)
        else:
            _agree(items, value)
        return Outcome(items=items)


class _Refused:
    """A call that did not become a job."""

    def __init__(self, error: TypedError) -> None:
        self._error = error

    async def item(self) -> Item:
        raise EOFError

    async def outcome(self) -> Outcome:
        return Outcome(error=json.loads(encode(self._error.payload())))


@asynccontextmanager
async def tasks(app: Keryx) -> AsyncIterator[Door]:
    """An application that enqueues what it runs."""

    class Orders:
        @asynccontextmanager
        async def call(self, name: str, params: dict[str, Any] | None = None) -> AsyncIterator[Running]:
            try:
                job = await app.enqueue(name, params)
            except TypedError as error:
                yield _Refused(error)
            else:
                yield _JobCall(workers, job)

    app.workers = workers = _Workers(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "JobReply", _JobReply)
        async with app:
            yield Orders()


DRIVERS: Final[dict[str, Driver]] = {
    "http": Driver(http),
    "http-in-memory": Driver(memory),
    "websocket": Driver(websocket),
    "websocket-in-memory": Driver(memory_websocket),
    "shell": Driver(shell),
    "tasks": Driver(tasks, collects=True, background=True),
    "mcp": Driver(mcp("legacy"), names=False, collects=True),
    "mcp-2026": Driver(mcp("2026-07-28"), names=False, collects=True),
}
