"""A process that is told to stop, by the command line that people use."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import h2.events
import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

from tests.e2e.raw import Raw, open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import ROOT, Process, environment, serve_process, until

DRAIN = 1.0
BOUND = DRAIN + 2
"""When a process must be gone, in seconds: one after the drain, and one that a busy machine takes to end two of them."""
APP = "tests.server.leaving:app"


@asynccontextmanager
async def leaving(*options: str, **variables: str) -> AsyncIterator[Process]:
    environ = environment(KERYX_DRAIN_TIMEOUT=str(DRAIN), **variables)
    async with serve_process(APP, *options, environ=environ) as process:
        yield process


def port_of(process: Process) -> int:
    return int(process.url.rpartition(":")[2])


async def stop(process: Process, within: float, number: int = SIGTERM) -> float:
    """Send a signal; how long the process took to end, which it did with 0."""
    began = trio.current_time()
    process.process.send_signal(number)
    with trio.fail_after(within):
        assert await process.process.wait() == 0
    return trio.current_time() - began


async def frozen(port: int) -> Raw:
    raw = await Raw.connect(port, receive_buffer=65536)
    await raw.request("GET", "/api/stream?flood=true")
    await raw.head()
    await raw.chunk()
    return raw


async def test_everybody_is_told_and_frozen_readers_hold_nothing_up(measured: Any) -> None:
    told: dict[str, list[Any]] = {"sse": [], "http2": [], "socket": []}

    async def read(client: httpx.AsyncClient) -> None:
        told["sse"].append((await client.get("/api/stream")).text)

    async def read_http2(client: Any, number: int) -> None:
        told["http2"].append(await client.rest(number))

    async def listen(socket: WebSocketConnection) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        told["socket"].append(closed.value.reason.code)

    async with leaving() as process, AsyncExitStack() as stack, trio.open_nursery() as sockets:
        port = port_of(process)
        client = await stack.enter_async_context(process.client(limits=httpx.Limits(max_connections=None)))
        for _ in range(5):
            stack.push_async_callback((await frozen(port)).leave)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(read, client)
            for _ in range(3):
                http2 = await stack.enter_async_context(open_http2(port))
                number = await http2.request("GET", "/api/stream")
                await http2.until(h2.events.DataReceived, number)
                nursery.start_soon(read_http2, http2, number)
            for _ in range(5):
                socket = await connect_websocket_url(sockets, f"ws://127.0.0.1:{port}/")
                stack.push_async_callback(trio.aclose_forcefully, socket._stream)
                nursery.start_soon(listen, socket)
            await until(lambda: process.output.count("[ACTION:WEB:OK]") == 58)
            took = await stop(process, BOUND)
        sockets.cancel_scope.cancel()
    measured(f"the process was gone {took:.2f} s after SIGTERM")
    assert all(re.fullmatch(r"data: here\n\nretry: \d+\n\n", text) for text in told["sse"])
    assert [(data[:6], type(end)) for data, end in told["http2"]] == [(b"retry:", h2.events.StreamEnded)] * 3
    assert told["socket"] == [1001] * 5
    assert process.output.count("cleaned\n") == 58
    assert "lifespan ended" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("workers", ["0", "1", "2"])
@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_plain_call_may_finish_and_a_late_one_is_told_503(workers: str, number: int) -> None:
    answers = []

    async def ask(client: httpx.AsyncClient, seconds: float) -> None:
        answers.append((await client.get("/api/plain", params={"seconds": seconds})).status_code)

    async with leaving("--workers", workers) as process, process.client() as client, open_raw(port_of(process)) as idle:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, DRAIN / 2)
            nursery.start_soon(ask, client, 60)
            await trio.sleep(0.1)
            took = await stop(process, BOUND, number)
        assert sorted(answers) == [200, 503]
        assert took > DRAIN
        assert await idle.is_closed()
        assert "lifespan ended" in process.output


async def test_a_request_on_a_kept_connection_is_answered_while_others_finish() -> None:
    async with leaving() as process, open_raw(port_of(process)) as kept, process.client() as client:
        await kept.request("GET", "/api/plain?seconds=0")
        assert ((await kept.head()).status, await kept.body()) == (200, b'"finished"\n')
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/api/plain?seconds=0.6")
            await trio.sleep(0.1)
            process.process.send_signal(SIGTERM)
            await trio.sleep(0.3)
            await kept.request("GET", "/api/plain?seconds=0")
            head = await kept.head()
            assert (head.status, head.headers["connection"]) == (503, "close")
        assert await process.process.wait() == 0


async def test_connections_that_wait_hold_up_nothing() -> None:
    async with leaving() as process, open_raw(port_of(process)), open_http2(port_of(process)) as http2:
        number = await http2.request("GET", "/api/plain?seconds=0")
        await http2.rest(number)
        assert await stop(process, 1) < 0.7
        await http2.until(h2.events.ConnectionTerminated)


@pytest.mark.parametrize("holds", ["shield", "lifespan", "loop"])
async def test_what_does_not_end_is_left_behind(holds: str) -> None:
    async with leaving(HOLDS=holds) as process, open_raw(port_of(process)) as raw:
        await raw.request("GET", "/api/stream")
        await raw.head()
        await raw.chunk()
        took = await stop(process, BOUND)
        await until(lambda: "left behind" in process.output)
    assert took > DRAIN / 2


async def test_hypercorns_own_patience_cuts_nothing_short() -> None:
    answers = []

    async def ask(client: httpx.AsyncClient) -> None:
        answers.append((await client.get("/api/plain?seconds=0.7")).text)

    async with (
        leaving("--graceful-timeout", "0") as process,
        process.client() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, client)
        await trio.sleep(0.1)
        await stop(process, BOUND)
    assert answers == ['"finished"\n']


async def test_a_reload_ends_the_streams_of_the_process_that_goes(tmp_path: Path) -> None:
    (tmp_path / "changing.py").write_text((ROOT / "tests/server/leaving.py").read_text())
    environ = environment(KERYX_DRAIN_TIMEOUT=str(DRAIN), PYTHONPATH=f"{tmp_path}:{ROOT}")
    async with serve_process(str(tmp_path / "changing") + ":app", "--reload", environ=environ) as process:
        async with open_raw(port_of(process)) as raw:
            await raw.request("GET", "/api/stream")
            await raw.head()
            assert await raw.chunk() == b"data: here\n\n"
            (tmp_path / "changing.py").touch()
            assert re.fullmatch(rb"retry: \d+\n\n", await raw.body())
        await until(lambda: process.output.count("Running on") == 2, 5)
        assert await stop(process, 2) < 2
