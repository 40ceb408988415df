"""The SQLite store: its file, other processes, and what can go wrong with both."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from keryx_trio.config import ConfigError
from keryx_trio.store import StoreUnavailable, make_store
from keryx_trio.store.availability import SETTLED
from keryx_trio.store.sqlite import SWEEP_ROWS, SqliteStore
from keryx_trio.store.sqlite_file import VERSIONS

TTL = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path, log) -> SqliteStore:
    return SqliteStore(f"sqlite:///{path}", log)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keryx_trio.store.sqlite.PATIENCE", 0.3)


def other(path: Path) -> sqlite3.Connection:
    """Another process, as the file sees it."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


async def cannot_open(store: SqliteStore) -> str:
    with pytest.raises(ConfigError) as caught:
        async with store.open():
            pass
    text = str(caught.value)
    assert text.startswith("KERYX_STORE")
    assert "\n" not in text
    return text


async def test_a_relative_url_is_a_file_in_the_current_folder_of_the_start(tmp_path: Path, log, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = make_store("sqlite:///my%20app.db", log)
    monkeypatch.chdir("/")
    async with store.open():
        assert (tmp_path / "my app.db").exists()


async def test_what_is_kept_survives_a_restart(store: SqliteStore, log):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        await store.hit("k", 1, 3600.0)
    async with make_store(store.url, log).open():
        pass
    again = make_store(store.url, log)
    async with again.open():
        assert await again.load_session("a", TTL) == {"x": b"1"}


async def test_only_its_owner_may_read_the_file(store: SqliteStore, path: Path):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


async def test_the_file_is_used_as_several_processes_need_it(store: SqliteStore):
    async with store.open():
        db = store._file._connection
        told = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "busy_timeout")]
    assert told == ["wal", 1, 2000]


async def test_a_missing_folder_is_named(log, tmp_path: Path):
    text = await cannot_open(SqliteStore(f"sqlite:///{tmp_path}/no/such/app.db", log))
    assert text == f"KERYX_STORE: there is no folder {tmp_path}/no/such; make it first"


async def test_a_folder_is_no_file(log, tmp_path: Path):
    assert "Is a directory" in await cannot_open(SqliteStore(f"sqlite:///{tmp_path}", log))


async def test_a_file_that_may_not_be_written_is_named(store: SqliteStore, path: Path, monkeypatch):
    # The tests may run as root, whom no permission stops.
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", denied)
    text = await cannot_open(store)
    assert text == f"KERYX_STORE: {path} can't be written: Permission denied"


async def test_a_file_that_is_no_database_is_left_alone(store: SqliteStore, path: Path):
    path.write_text("the shopping list, which is dear to me" * 100)
    assert "is no SQLite database" in await cannot_open(store)
    assert path.read_text().startswith("the shopping list")


async def test_the_database_of_another_program_is_left_alone(store: SqliteStore, path: Path):
    with closing(other(path)) as db:
        db.execute("CREATE TABLE customer (name TEXT)")
    before = path.read_bytes()
    assert "is the database of another program" in await cannot_open(store)
    assert path.read_bytes() == before


async def test_a_file_of_a_newer_version_says_what_to_do(store: SqliteStore, path: Path):
    async with store.open():
        pass
    with closing(other(path)) as db:
        db.execute(f"PRAGMA user_version = {len(VERSIONS) + 1}")
    assert "upgrade keryx_trio, or name another file" in await cannot_open(store)


async def test_a_damaged_file_says_so(store: SqliteStore, path: Path):
    async with store.open():
        await store.update_session("a", {"x": b"1" * 20_000}, TTL)
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    assert "malformed" in await cannot_open(store)


async def test_a_lock_of_another_process_that_ends_in_time_is_waited_for(store: SqliteStore, path: Path, lines):
    async with store.open():
        with closing(other(path)) as db:
            db.execute("BEGIN EXCLUSIVE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.update_session, "a", {"x": b"1"}, TTL)
                await trio.sleep(0.1)
                db.execute("ROLLBACK")
        assert await store.load_session("a", TTL) == {"x": b"1"}
    assert lines() == []


async def test_a_lock_that_is_held_too_long_is_said_once_and_so_is_its_end(
    impatient: None, store: SqliteStore, path: Path, lines
):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        with closing(other(path)) as db:
            db.execute("BEGIN EXCLUSIVE")
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(unavailable, store)
            assert await store.load_session("a", TTL) == {"x": b"1"}  # who reads waits for nobody
        await trio.sleep(SETTLED)
        await store.update_session("a", {"y": b"2"}, TTL)
        assert await store.load_session("a", TTL) == {"x": b"1", "y": b"2"}
    assert lines() == ["The store is away", "The store is back"]


async def unavailable(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable), trio.fail_after(3):
        await store.update_session("a", {"z": b"3"}, TTL)


async def test_a_file_that_is_locked_at_the_start_is_used_when_it_is_free(
    impatient: None, store: SqliteStore, path: Path, lines
):
    with closing(other(path)) as db:
        db.execute("BEGIN EXCLUSIVE")
        async with store.open():
            await unavailable(store)
            db.execute("ROLLBACK")
            await trio.sleep(SETTLED)
            await store.update_session("a", {"x": b"1"}, TTL)
            assert await store.load_session("a", TTL) == {"x": b"1"}
    assert lines() == ["The store is away", "The store is back"]


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN; SELECT * FROM sqlite_master"])
async def test_a_start_waits_for_one_that_makes_the_file_at_the_same_time(store: SqliteStore, path: Path, lock: str):
    with closing(other(path)) as db:
        for statement in lock.split(";"):
            db.execute(statement)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened, store)
            await trio.sleep(0.1)
            db.execute("ROLLBACK")


async def test_a_reader_that_keeps_the_file_from_its_mode_at_the_start_is_waited_for_no_longer_than_other_locks(
    impatient: None, store: SqliteStore, path: Path, lines
):
    with closing(other(path)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM sqlite_master")
        with trio.fail_after(2):
            await opened_without_use(store)
    assert lines() == ["The store is away"]


def test_a_mode_that_is_busy_at_once_is_asked_for_again(store: SqliteStore):
    # Two that change it at the same time: neither waits, since each would wait for the other.
    asked = []

    class Busy:
        def execute(self, statement: str) -> None:
            asked.append(statement)
            if len(asked) < 3:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error

    store._file._use_wal(Busy())
    assert asked == ["PRAGMA journal_mode = WAL"] * 3


async def opened_without_use(store: SqliteStore) -> None:
    async with store.open():
        await trio.lowlevel.checkpoint()


async def opened(store: SqliteStore) -> None:
    async with store.open():
        assert await store.load_session("a", TTL) is None


async def test_a_full_disk_undoes_the_change_it_stopped(store: SqliteStore, lines):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        db = store._file._connection
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreUnavailable) as caught:
            await store.update_session("a", {"x": b"2", "y": bytes(100_000)}, TTL)
        assert "full" in str(caught.value.__cause__)
        assert await store.load_session("a", TTL) == {"x": b"1"}
    assert lines() == ["The store is away"]


async def test_a_file_that_is_deleted_under_us_is_not_written_into_the_void(
    store: SqliteStore, path: Path, log, caplog
):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        path.unlink()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.update_session("a", {"x": b"2"}, TTL)
        assert not path.exists()
        [record] = [record for record in caplog.records if record.name == "keryx_trio"]
        assert "restart every process" in record.getMessage()
    async with store.open():
        assert await store.load_session("a", TTL) is None


async def test_a_file_that_is_put_back_is_used_again(store: SqliteStore, path: Path, tmp_path: Path):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
    async with store.open():
        path.rename(tmp_path / "away.db")
        await unavailable(store)
        (tmp_path / "away.db").rename(path)
        assert await store.load_session("a", TTL) == {"x": b"1"}


async def test_a_file_that_is_replaced_by_something_else_is_not_used(store: SqliteStore, path: Path):
    async with store.open():
        path.unlink()
        with closing(other(path)) as db:
            db.execute("CREATE TABLE customer (name TEXT)")
        await unavailable(store)


async def test_a_call_that_waits_for_its_turn_can_be_cancelled_and_one_that_has_begun_is_finished(
    store: SqliteStore, path: Path
):
    async with store.open():
        with closing(other(path)) as db:
            db.execute("BEGIN EXCLUSIVE")
            async with trio.open_nursery() as nursery:
                begun = trio.CancelScope()
                nursery.start_soon(cancellable, begun, store, "begun")
                await trio.testing.wait_all_tasks_blocked(0.05)
                with trio.fail_after(1), trio.move_on_after(0.05) as waiting:
                    await store.update_session("waiting", {"x": b"1"}, TTL)
                assert waiting.cancelled_caught
                begun.cancel()
                await trio.testing.wait_all_tasks_blocked(0.05)
                db.execute("ROLLBACK")
        assert not begun.cancelled_caught
        assert await store.load_session("begun", TTL) == {"x": b"1"}
        assert await store.load_session("waiting", TTL) is None


async def cancellable(scope: trio.CancelScope, store: SqliteStore, name: str) -> None:
    with scope:
        await store.update_session(name, {"x": b"1"}, TTL)


async def test_calls_that_queue_for_too_long_are_turned_away(impatient: None, store: SqliteStore, lines):
    async with store.open():
        async with store._turn:
            with trio.fail_after(2):
                await unavailable(store)
        assert lines() == ["The store is away"]


async def test_what_waits_while_the_store_closes_is_turned_away(store: SqliteStore):
    async with trio.open_nursery() as nursery, store.open():
        await store._turn.acquire_on_behalf_of("test")
        nursery.start_soon(unavailable, store)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(release_soon, store)


async def release_soon(store: SqliteStore) -> None:
    await trio.testing.wait_all_tasks_blocked()
    store._turn.release_on_behalf_of("test")


async def test_what_has_expired_is_deleted_a_part_at_a_time(store: SqliteStore):
    async with store.open():
        for number in range(int(2.5 * SWEEP_ROWS)):
            await store.update_session(str(number), {"x": b"1"}, 0.001)
            await store.hit(str(number), 1, 0.0001)
        await trio.sleep(0.01)
        assert rows(store) == [250, 250, 250]
        store._sweep_at = 0.0
        left = []
        for _ in range(4):
            await store.touch_session("nobody", TTL)
            left.append(rows(store))
        assert left == [[150] * 3, [50] * 3, [0] * 3, [0] * 3]
        await store.update_session("a", {"x": b"1"}, 0.001)
        await trio.sleep(0.01)
        await store.touch_session("nobody", TTL)
        assert rows(store) == [1, 1, 0]  # not in every call


def rows(store: SqliteStore) -> list[int]:
    with closing(other(store._file.path)) as db:
        return [
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("session", "session_value", "counter")
        ]


async def test_most_reads_write_nothing(store: SqliteStore, path: Path):
    async with store.open():
        await store.update_session("a", {"x": b"1"}, TTL)
        with closing(other(path)) as db:
            db.execute("BEGIN EXCLUSIVE")
            with trio.fail_after(1):
                for _ in range(10):
                    assert await store.load_session("a", TTL) == {"x": b"1"}


async def test_a_bug_in_a_statement_leaves_no_transaction_open(store: SqliteStore):
    async with store.open():
        with pytest.raises(UnicodeEncodeError):
            await store.update_session("a", {"x": b"1", "\ud800": b"1"}, TTL)
        assert await store.load_session("a", TTL) is None
        await store.update_session("a", {"x": b"1"}, TTL)
