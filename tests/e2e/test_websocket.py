"""Real sockets: clients of two makes, thousands of events, and every way to leave."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket as sockets
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    connect_websocket_url,
    open_websocket_url,
)
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from wsproto.events import TextMessage
from wsproto.extensions import PerMessageDeflate

from keryx_trio import Config, Connection, EventStream, Keryx, StreamingResponse, Web
from keryx_trio.server.wire import Wire
from keryx_trio.transports.socket_reply import SHARE
from tests.e2e.serving import Server, serve, serve_process, until
from tests.server.test_websocket import open_client

COVERED = "COVERAGE_RUN" in os.environ
"""Whether coverage is measured, which makes everything slow."""


def address(server: Any, path: str = "/") -> str:
    return server.url.replace("http", "ws", 1) + path


def asked(action: str, id: Any, **params: Any) -> str:
    return json.dumps({"messageType": "action", "action": action, "params": params, "messageId": id})


def cancel(id: Any) -> str:
    return json.dumps({"messageType": "cancel", "messageId": id})


async def receive(socket: WebSocketConnection) -> dict[str, Any]:
    return json.loads(await socket.get_message())


@asynccontextmanager
async def open_socket(server: Any, path: str = "/", **options: Any) -> AsyncIterator[WebSocketConnection]:
    """A socket; where the server closes first, its own close would leave the connection to the garbage collector."""
    async with open_websocket_url(address(server, path), **options) as socket:
        try:
            yield socket
        finally:
            await socket._stream.aclose()


class Stage:
    """An application whose streams tell when they have been cleaned up."""

    def __init__(self, **settings: Any) -> None:
        self.app = Keryx(config=Config(**settings))
        self.cleaned: dict[int, float] = {}
        self.sent = 0

        @self.app.action("count", timeout=0)
        async def count(to: int, pause: float = 0) -> StreamingResponse:
            async def produce(sse: EventStream) -> None:
                for number in range(to):
                    await sse.send(number)
                    if pause:
                        await trio.sleep(pause)

            return StreamingResponse.sse(produce)

        @self.app.action("endless", timeout=0)
        async def endless(number: int, sending: bool = False) -> StreamingResponse:
            async def produce(sse: EventStream) -> None:
                try:
                    await sse.send("here")
                    while sending:
                        await sse.send("x" * 10_000)
                        self.sent += 1
                    await trio.sleep_forever()
                finally:
                    self.cleaned[number] = trio.current_time()

            return StreamingResponse.sse(produce)

        @self.app.action("plain", timeout=0)
        async def plain(number: int) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.cleaned[number] = trio.current_time()

        @self.app.action("echo", web=Web("/echo"))
        async def echo(text: str = "") -> str:
            return text


# Many streams, read by a client of another make, in a process of its own

MANY = """
import json, sys, time
from websockets.sync.client import connect

url, streams, events, compression = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with connect(url, compression=compression or None) as socket:
    start = time.perf_counter()
    for id in range(streams):
        params = {"to": events}
        socket.send(json.dumps({"messageType": "action", "action": "count", "params": params, "messageId": id}))
    first, received, ended, switches, last = {}, [0] * streams, 0, 0, None
    while ended < streams:
        message = json.loads(socket.recv(timeout=30))
        id = message["messageId"]
        if message["streaming"]:
            first.setdefault(id, time.perf_counter() - start)
            assert message["chunk"] == received[id], message
            received[id] += 1
            switches += id != last
            last = id
        else:
            assert received[id] == events
            ended += 1
    total = time.perf_counter() - start
print(json.dumps({"first": max(first.values()), "total": total, "switches": switches, "received": received}))
"""


async def read_many(server: Server, streams: int, events: int, compression: str = "") -> dict[str, Any]:
    command = [sys.executable, "-c", MANY, address(server), str(streams), str(events), compression]
    run = await trio.run_process(command, capture_stdout=True, stdin=subprocess.DEVNULL)
    return json.loads(run.stdout)


async def test_twenty_streams_of_ten_thousand_events_share_a_socket(measured: Callable[[str], None]) -> None:
    events = 1000 if COVERED else 10_000
    async with serve(Stage().app) as server:
        found = await read_many(server, 20, events)
    assert found["received"] == [events] * 20
    measured(
        f"{20 * events} events complete and in order in {found['total']:.1f} s, the first of each within "
        f"{found['first'] * 1000:.1f} ms, {found['switches']} turns"
    )
    assert found["first"] < (1 if COVERED else 0.1)
    assert found["switches"] > 20 * events / 200


async def test_a_client_that_compresses_gets_the_same() -> None:
    async with serve(Stage().app) as server:
        found = await read_many(server, 3, 200, "deflate")
    assert found["received"] == [200] * 3


def narrow(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """Have our server's sockets take little at a time; returns what becomes of attempts, of which each fourth is torn."""
    outcomes: list[bool | None] = []
    tears: list[bool] = []
    begin, attempt, send = Wire.__init__, Wire.attempt, Wire._send

    def begun(wire: Wire, *args: Any) -> None:
        begin(wire, *args)
        wire.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 32_768)

    def attempted(wire: Wire, data: bytes) -> bool | None:
        tears.append(len(outcomes) % 4 == 3)
        outcomes.append(attempt(wire, data))
        tears.clear()
        return outcomes[-1]

    monkeypatch.setattr(Wire, "__init__", begun)
    monkeypatch.setattr(Wire, "attempt", attempted)
    monkeypatch.setattr(Wire, "_send", lambda wire, data: send(wire, data[: len(data) // 2] if any(tears) else data))
    return outcomes


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "hypercorn's"])
@pytest.mark.parametrize("deflated", [False, True])
async def test_lone_events_and_bursts_of_many_calls_come_whole_and_in_order_though_their_reader_stops_now_and_then(
    ours: bool, deflated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = narrow(monkeypatch)
    if not ours:
        monkeypatch.setattr("keryx_trio.server.KEY", "where nobody looks for it")
    app = Keryx()

    @app.action("send", timeout=0)
    async def send(to: int, pause: float = 0) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(to):
                await sse.send(str(number) + secrets.token_hex(500), id=str(number))
                await trio.sleep(pause)

        return StreamingResponse.sse(produce)

    calls = {1: (150, 0.002), 2: (150, 0.003), 3: (1000, 0), 4: (80, 0.005)}
    got: dict[int, list[str]] = {call: [] for call in calls}
    ended, whole, count = set(), "", 0
    async with (
        serve(app) as server,
        open_client(server.port, extensions=[PerMessageDeflate()] if deflated else []) as client,
    ):
        client.stream.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 32_768)
        for call, (to, pause) in calls.items():
            await client.send(TextMessage(data=asked("send", call, to=to, pause=pause)))
        while len(ended) < len(calls):
            event = await client.event()
            whole += event.data
            if event.message_finished:
                message, whole, count = json.loads(whole), "", count + 1
                assert message["messageId"] not in ended
                if message["streaming"]:
                    got[message["messageId"]].append(message["id"])
                else:
                    ended.add(message["messageId"])
                if count in (20, 600, 1250):
                    await trio.sleep(0.1)
    assert got == {call: [str(number) for number in range(to)] for call, (to, _) in calls.items()}
    assert ({True, False} <= set(outcomes)) if ours else not outcomes


def tasks() -> int:
    """How many tasks there are."""
    left, count = [trio.lowlevel.current_root_task()], 0
    while left:
        task = left.pop()
        count += 1
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


async def test_a_quiet_socket_is_two_tasks_also_after_something_was_refused_on_it() -> None:
    async with serve(Stage().app) as server, open_client(server.port):  # what a worker has once is there then
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = tasks()
        async with open_client(server.port) as client:
            await until(lambda: tasks() == before + 2)
            await client.send(TextMessage(data=asked("there is none", 1)))
            assert json.loads((await client.event()).data)["error"]["type"] == "CONNECTION_ACTION_NOT_FOUND"
            await until(lambda: tasks() == before + 2)


# Calls


async def test_of_forty_endless_streams_a_cancel_frees_a_slot_for_one_that_waits(
    measured: Callable[[str], None],
) -> None:
    stage = Stage()
    async with serve(stage.app) as server, open_socket(server) as socket:
        for number in range(40):
            await socket.send_message(asked("endless", number, number=number))
        assert {(await receive(socket))["messageId"] for _ in range(32)} == set(range(32))
        start = trio.current_time()
        await socket.send_message(cancel(7))
        assert await receive(socket) == {"messageId": 7, "streaming": False}
        assert await receive(socket) == {"messageId": 32, "streaming": True, "chunk": "here"}
        measured(f"the next stream began {(trio.current_time() - start) * 1000:.1f} ms after the cancel")
        assert stage.cleaned.keys() == {7}


async def test_a_cancel_is_read_while_every_call_sends_as_fast_as_it_can() -> None:
    stage = Stage()
    async with serve(stage.app) as server, open_socket(server) as socket:
        for number in range(32):
            await socket.send_message(asked("endless", number, number=number, sending=True))
        for number in range(32):
            await socket.send_message(cancel(number))
        ended = set()
        while len(ended) < 32:
            message = await receive(socket)
            if not message["streaming"]:
                ended.add(message["messageId"])
        assert len(stage.cleaned) == 32


# Leaving


async def leave(socket: WebSocketConnection, how: str) -> None:
    stream = socket._stream
    if how == "reset":
        stream.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "close":
        await socket.aclose()
    else:
        await stream.aclose()


@pytest.mark.parametrize("how", ["close", "fin", "reset"])
@pytest.mark.parametrize("sending", [False, True], ids=["asleep", "sending"])
async def test_leaving_cancels_every_call_of_the_socket(
    how: str, sending: bool, journal: Any, measured: Callable[[str], None]
) -> None:
    stage = Stage()
    async with serve(stage.app) as server, trio.open_nursery() as nursery:
        socket = await connect_websocket_url(nursery, address(server))
        for number in range(10):
            await socket.send_message(asked("endless", number, number=number, sending=sending))
        for number in range(10, 20):
            await socket.send_message(asked("plain", number, number=number))
        for _ in range(10):
            await receive(socket)
        await trio.sleep(0.05)
        assert len(stage.app.connections) == 1
        start = trio.current_time()
        await leave(socket, how)
        await until(lambda: len(stage.cleaned) == 20)
        await server.until_idle()
        longest = max(stage.cleaned.values()) - start
        measured(f"20 calls cleaned up within {longest * 1000:.1f} ms of the client's leaving")
        nursery.cancel_scope.cancel()
    assert longest < 1
    assert journal.fields("outcome") == ["client gone"] * 10
    assert journal.fields("status").count("client gone") == 10


async def test_a_reader_that_takes_nothing_holds_little(measured: Callable[[str], None]) -> None:
    stage = Stage()
    async with serve(stage.app) as server, trio.open_nursery() as nursery:
        socket = await connect_websocket_url(nursery, address(server), message_queue_size=0)
        for number in range(32):
            await socket.send_message(asked("endless", number, number=number, sending=True))
        sent = -1
        while sent != stage.sent:  # until nothing moves any more
            sent = stage.sent
            await trio.sleep(0.2)
        held = stage.sent * 10_000
        measured(f"{held / 2**20:.1f} MiB were sent by 32 producers, the buffers of both sockets included")
        await leave(socket, "reset")
        nursery.cancel_scope.cancel()
    assert held < 32 * SHARE + 8 * 2**20


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    stage = Stage(write_timeout=0.3)
    async with serve(stage.app) as server, trio.open_nursery() as nursery:
        socket = await connect_websocket_url(nursery, address(server), message_queue_size=0)
        await socket.send_message(asked("endless", 1, number=1, sending=True))
        try:
            await until(lambda: stage.cleaned)
            await server.until_idle()
        finally:
            await leave(socket, "reset")
            nursery.cancel_scope.cancel()


# The handshake and the close


async def test_a_foreign_page_is_refused_and_its_own_is_not() -> None:
    async with serve(Stage().app) as server:
        with pytest.raises(InvalidStatus) as refused:
            await trio.to_thread.run_sync(partial(connect, address(server), origin="https://evil.example"))
        answer = refused.value.response
        assert answer.status_code == 403
        assert json.loads(answer.body)["error"]["type"] == "CONNECTION_CHANNEL_AUTHORIZATION"
        own = [("Origin", f"http://127.0.0.1:{server.port}")]
        async with open_socket(server, "/x/y?z", extra_headers=own) as socket:
            await socket.send_message(asked("echo", 1, text="é"))
            assert await receive(socket) == {"messageId": 1, "response": "é"}


async def test_a_message_that_is_too_large_closes_with_1009_and_the_server_lives_on() -> None:
    async with serve(Stage().app) as server:
        async with open_socket(server) as socket:
            await socket.send_message(asked("plain", 1, number=1))
            await socket.send_message("x" * 65_537)
            with pytest.raises(ConnectionClosed) as closed:
                await receive(socket)
            assert closed.value.reason.code == 1009
        async with open_socket(server) as socket:
            await socket.send_message(asked("echo", 1))
            assert (await receive(socket))["response"] == ""


async def test_a_stop_of_the_application_closes_every_socket_with_1001(journal: Any) -> None:
    stage = Stage(drain_timeout=1)
    codes, errors = [], []

    async def talk(number: int) -> None:
        async with open_socket(server) as socket:
            if number % 2:
                await socket.send_message(asked("endless", 1, number=number))
                await receive(socket)
            ready.append(number)
            try:
                errors.append((await receive(socket))["error"]["type"])
                await receive(socket)
            except ConnectionClosed as closed:
                codes.append(closed.reason.code)

    ready: list[int] = []
    async with serve(stage.app) as server, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(talk, number)
        await until(lambda: len(ready) == 20)
        stage.app.shut_down()
        with trio.fail_after(1):
            await until(lambda: len(codes) == 20)
    assert codes == [1001] * 20
    assert errors == ["CONNECTION_UNAVAILABLE"] * 10
    assert len(stage.cleaned) == 10
    assert journal.fields("outcome") == ["shutdown"] * 10


async def test_a_signal_to_the_server_closes_a_socket_with_1001() -> None:
    async with serve_process("examples.chat:app", "--graceful-timeout", "1") as server:
        async with open_socket(server) as socket:
            await socket.send_message(asked("chat:stream", 1, prompt="what is a lambda", pace=1))
            assert "chunk" in await receive(socket)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    last = await receive(socket)
        assert closed.value.reason.code == 1001
        assert last["error"]["type"] == "CONNECTION_UNAVAILABLE"


async def test_the_session_of_a_page_is_there_on_its_socket() -> None:
    stage = Stage()

    @stage.app.action("put", web=Web("/put"))
    async def put(connection: Connection) -> None:
        await connection.session.update(name="Ada")

    @stage.app.action("get")
    async def get(connection: Connection) -> Any:
        return [connection.session.data.get("name"), connection.identifier]

    async with serve(stage.app) as server, server.client() as client:
        await client.get("/api/put")
        cookie = f"__session={client.cookies['__session']}"
        async with open_socket(server, extra_headers=[("Cookie", cookie)]) as socket:
            await socket.send_message(asked("get", 1))
            assert await receive(socket) == {"messageId": 1, "response": ["Ada", "127.0.0.1"]}


@pytest.mark.parametrize(
    "data", [b"\x81\x05hello", b"\x83\x00", b"\xc1\x00", b"\xff" * 50, b"\x88\x01\x00"],
    ids=["unmasked", "unknown opcode", "reserved bit", "noise", "short close"],
)  # fmt: skip
async def test_bytes_that_are_no_websocket_end_only_their_own_socket(data: bytes, journal: Any) -> None:
    journal.errors_expected = True  # the server's own words on it
    async with serve(Stage().app) as server, trio.open_nursery() as nursery:
        socket = await connect_websocket_url(nursery, address(server))
        await socket._stream.send_all(data)
        await server.until_idle(5)
        await leave(socket, "fin")
        nursery.cancel_scope.cancel()
