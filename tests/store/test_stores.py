"""Which URL leads to which store, what is said of one that is away, and what expired."""

from __future__ import annotations

import sys

import pytest
import trio
from trio.testing import MockClock

from keryx_trio.config import ConfigError
from keryx_trio.errors import ErrorType
from keryx_trio.logs import Log
from keryx_trio.store import StoreUnavailable, make_store
from keryx_trio.store.availability import SETTLED, Availability
from keryx_trio.store.memory import SWEEP_SECONDS, MemoryStore
from keryx_trio.store.redis_address import Address


@pytest.mark.parametrize(
    ("url", "name", "shown"),
    [
        ("memory://", "MemoryStore", "memory://"),
        ("sqlite:///app.db", "SqliteStore", "sqlite:///app.db"),
        ("redis://host", "RedisStore", "redis://host:6379/0"),
        ("redis://me:secret@host:7000/3", "RedisStore", "redis://host:7000/3"),
        ("rediss://:secret@[::1]", "RedisStore", "rediss://[::1]:6379/0"),
    ],
)
def test_the_url_decides_which_store_it_is(log, url: str, name: str, shown: str):
    store = make_store(url, log)
    assert type(store).__name__ == name
    assert store.url == shown
    assert "secret" not in repr(store)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.db",
        "redis",
        "postgres://me:secret@host",
        "sqlite://app.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///app.db?mode=ro",
        "sqlite:///a%00b",
        "redis://",
        "redis:///0",
        "redis://me:secret@host:port",
        "redis://me:secret@host:99999",
        "redis://me:secret@host/zero",
        "redis://me:secret@host/-1",
        "redis://me:secret@[::1",
        "redis://me:secret@host?timeout=3",
        "redis://me:secret@host?secret",
        "rediss://me:secret@host?ssl_ca_certs=/nowhere",
    ],
)
def test_a_url_that_names_no_store_is_one_line_that_names_the_variable(log, url: str):
    with pytest.raises(ConfigError) as caught:
        make_store(url, log)
    text = str(caught.value)
    assert text.startswith("KERYX_STORE")
    assert "\n" not in text
    assert "secret" not in text


def test_what_is_special_in_credentials_is_percent_encoded():
    address = Address.parse("redis://m%40e:p%2Fw%20@host")
    assert (address.user, address.password) == ("m@e", "p/w ")
    assert "p/w" not in repr(address)


def test_redis_without_its_extra_is_one_line_that_names_the_extra(log, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("keryx_trio.store.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "coredis.connection", None)
    with pytest.raises(ConfigError, match=r"pip install 'keryx-trio\[redis\]'"):
        make_store("redis://host", log)


def test_a_store_that_is_away_is_a_503_that_says_when_to_try_again():
    error = StoreUnavailable()
    assert (error.status, error.type, error.retry_after) == (503, ErrorType.CONNECTION_UNAVAILABLE, 2)


async def test_a_store_that_fails_now_and_then_is_away_until_it_has_settled(log, lines, mock_clock: MockClock):
    await trio.lowlevel.checkpoint()
    store = Availability(log, "redis://host")
    store.worked()
    for _ in range(10):
        store.failed("out of memory")
        mock_clock.jump(SETTLED / 2)
        store.worked()
    assert lines() == ["The store is away"]
    mock_clock.jump(SETTLED / 2)
    store.worked()
    store.worked()
    assert lines() == ["The store is away", "The store is back"]
    store.failed("again")
    assert lines()[2:] == ["The store is away"]


async def test_a_line_of_the_log_says_which_store_and_why(log, caplog):
    await trio.lowlevel.checkpoint()
    caplog.set_level("INFO", "keryx_trio")
    Availability(log, "redis://host:6379/0").failed("Connection refused")
    [record] = caplog.records
    assert record.keryx_fields == {"store": "redis://host:6379/0", "reason": "Connection refused"}
    assert record.levelname == "ERROR"


async def test_memory_lets_go_of_what_nobody_asks_for_again(autojump_clock: MockClock, log: Log):
    store = MemoryStore(log)
    async with store.open():
        await store.update_session("a", {"x": b"1"}, 1)
        await store.update_session("b", {"x": b"1"}, 1000)
        await store.hit("k", 1, 2.0)
        await trio.sleep(SWEEP_SECONDS + 1)
        await store.load_session("b", 1000)
        assert (set(store._sessions), set(store._counters)) == ({"b"}, set())


async def test_a_store_that_is_not_open_is_away_and_does_not_complain(shared_url: str, log, lines):
    store = make_store(shared_url, log)
    with pytest.raises(StoreUnavailable):
        await store.load_session("a", 60)
    async with store.open():
        assert await store.load_session("a", 60) is None
    with pytest.raises(StoreUnavailable):
        await store.load_session("a", 60)
    assert lines() == []


async def test_nothing_of_a_store_outlives_its_block(url: str, log):
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with make_store(url, log).open():
        pass
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_store_whose_block_is_cancelled_closes(url: str, log):
    store = make_store(url, log)
    with trio.fail_after(5):
        with trio.move_on_after(0.05):
            async with store.open():
                await trio.sleep_forever()
        with trio.CancelScope() as scope:
            scope.cancel()
            async with store.open():
                pass
        async with store.open():
            assert await store.load_session("a", 60) is None
