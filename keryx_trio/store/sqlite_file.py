"""The file of the SQLite store: opening it, its tables, and transactions in it. No async here.

Owns: the connection, the schema and its version, and what is wrong with a file that can't be used. Does not know: what
is kept in the tables, threads, or trio.

Resource handling: used by one thread at a time, whichever. A connection on which anything failed is closed, which
rolls back what was begun; the next use opens another one. So there is never a transaction left open.

Error handling: `ConfigError` for a file that is not ours to use, `sqlite3.Error` and `OSError` for all else.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ..config import ConfigError

APPLICATION: Final = 0x6B727978
"""Marks a file as ours ("kryx"), since many programs count the versions of their tables in `user_version`."""

VERSIONS: Final = (
    """
    CREATE TABLE session (id TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX session_by_expiry ON session (expires);
    CREATE TABLE session_value (
        session TEXT NOT NULL REFERENCES session (id) ON UPDATE CASCADE ON DELETE CASCADE,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (session, key)
    ) WITHOUT ROWID;
    CREATE TABLE counter (
        key TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        current INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        expires REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX counter_by_expiry ON counter (expires);
    """,
    """
    CREATE TABLE job (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        action TEXT NOT NULL,
        params BLOB NOT NULL,
        queue TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        retries INTEGER NOT NULL,
        status TEXT NOT NULL,
        enqueued REAL NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        losses INTEGER NOT NULL DEFAULT 0,
        outcome BLOB,
        expires REAL
    );
    CREATE INDEX job_by_due ON job (queue, due) WHERE status IN ('queued', 'running');
    CREATE INDEX job_by_expiry ON job (expires) WHERE expires IS NOT NULL;
    CREATE INDEX job_by_status ON job (status, due, queue);
    CREATE TABLE recurring (
        action TEXT NOT NULL,
        every REAL NOT NULL,
        number INTEGER NOT NULL,
        job TEXT NOT NULL,
        PRIMARY KEY (action, every)
    ) WITHOUT ROWID;
    """,
)
"""What brings the tables from each version to the next. To change them is to add an entry, never to edit one."""

_FOR_NOW: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)
"""What may pass without anybody changing the URL or the file."""


class SqliteFile:
    """A file, and the connection to it.

    Args:
        path: where it is.
        patience: how long a transaction waits for those of other processes, in seconds.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def open(self) -> None:
        """Make the file where there is none, and see that it can be used.

        Raises:
            ConfigError: it never can, as it is.
            sqlite3.Error: it can't for now: locked by another process, or the disk is full.
        """
        try:
            # Sessions are nobody else's business. SQLite gives the files beside it the same permissions.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except FileNotFoundError:
            raise ConfigError(f"KERYX_STORE: there is no folder {self.path.parent}; make it first") from None
        except OSError as error:
            raise ConfigError(f"KERYX_STORE: {self.path} can't be written: {error.strerror}") from error
        try:
            self._connect()
        except sqlite3.Error as error:
            if _code(error) in _FOR_NOW:
                raise
            if _code(error) == sqlite3.SQLITE_NOTADB:
                raise ConfigError(
                    f"KERYX_STORE: {self.path} is no SQLite database; name another file, or move it away"
                ) from error
            raise ConfigError(
                f"KERYX_STORE: {self.path} can't be used: {error}; see that the file is whole, and that it and its "
                "folder may be written"
            ) from error

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Read and write, all or nothing, with nobody else between."""
        # IMMEDIATE: a transaction that reads first and finds another writer between can only fail.
        return self._between("BEGIN IMMEDIATE")

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """Read, with any number of statements that see the same; it waits for no writer, and none waits for it."""
        return self._between("BEGIN")

    @contextmanager
    def _between(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._used() as connection:
            connection.execute(begin)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read, with one statement; it waits for no writer."""
        with self._used() as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file; what was begun is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # it is closed also where the last bit of housekeeping fails
                connection.close()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is not None and self._identity != _identity(self.path):
                # What we write would be gone with the deleted file, unseen by the other processes. A file that was put
                # in its place is used. One that is missing is made again by a start alone: while another process
                # still has the old one open, its files beside it would be taken for those of the new one.
                self.close()
            yield self._connection or self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            raise FileNotFoundError(
                f"{self.path} was deleted or moved; put it back, or restart every process that uses it"
            )
        connection = self._connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=self._patience,
            isolation_level=None,  # transactions begin where this file says so
            check_same_thread=False,
        )
        self._identity = _identity(self.path)
        try:
            self._prepare(connection)
        except BaseException:
            self.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        self._use_wal(connection)
        # In WAL mode a crash of this process loses nothing and a loss of power the last moments; FULL would wait for
        # the disk in every call.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        if version < len(VERSIONS):
            connection.execute("BEGIN IMMEDIATE")
            for script in VERSIONS[self._version(connection) :]:  # another process may have been first
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {len(VERSIONS)}")
            connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        version, application, tables = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if application != APPLICATION and (tables or version):
            raise ConfigError(
                f"KERYX_STORE: {self.path} is the database of another program; give the store a file of its own"
            )
        if version > len(VERSIONS):
            raise ConfigError(
                f"KERYX_STORE: {self.path} was written by a newer keryx_trio (its tables have version {version}, this "
                f"one knows {len(VERSIONS)}); upgrade keryx_trio, or name another file"
            )
        return int(version)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # Of several processes that start at once one changes the mode. SQLite tells the others at once that the file
        # is busy, whatever its timeout is.
        give_up = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(error: sqlite3.Error) -> int:
    """The primary code of an error; the bits above it say more than is needed here."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
