"""A million rows as CSV, with as little memory as ten.

The table lives in SQLite, made at the first start (about 55 MB, in the temporary folder; EXPORT_DB names another file).
Rows are read and put into CSV in a worker thread, a batch at a time, and only as fast as the reader takes them. Whoever
stops the download stops the reading, and closes the database.

    hypercorn --worker-class trio examples.export:app
    curl -o export.csv '127.0.0.1:8000/api/export?limit=1000000'
    keryx-trio run examples.export:app export:csv > export.csv
"""

import csv
import io
import os
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import trio
from msgspec import Meta

from keryx_trio import ByteStream, Connection, Keryx, StreamingResponse, Web

ROWS = 1_000_000
BATCH, LARGE_BATCH = 5_000, 200_000
COLUMNS = ("id", "day", "customer", "item", "cents")
CREATE = "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT, customer TEXT, item TEXT, cents INTEGER)"
INSERT = "INSERT INTO orders VALUES (?, ?, ?, ?, ?)"
SELECT = "SELECT id, day, customer, item, cents FROM orders ORDER BY id LIMIT ?"
CUSTOMERS = ("Ada Lovelace", "Zuse, Konrad", 'Grace "Amazing" Hopper', "Софья Ковалевская")
ITEMS = ("tea", "coffee, ground", 'nails, 2"', "a card\nof two lines")


@asynccontextmanager
async def lifespan(app: Keryx) -> AsyncIterator[Path]:
    """What it yields is `app.state`: where the table is."""
    path = Path(os.environ.get("EXPORT_DB") or Path(tempfile.gettempdir(), "keryx-trio-export.db"))
    if not await trio.Path(path).exists():
        await build(app, path)
    yield path


app = Keryx(lifespan=lifespan)


@app.action("export:csv", web=Web("/export", produces="text/csv"), timeout=0)
async def export(
    connection: Connection,
    limit: Annotated[int, Meta(ge=0, le=ROWS, description="How many rows")] = ROWS,
) -> StreamingResponse:
    """Download the orders as CSV."""
    return StreamingResponse.stream(
        send_rows,
        connection.app.state,
        limit,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="orders.csv"'},
    )


async def send_rows(out: ByteStream, path: Path, limit: int) -> None:
    """Each `run_sync` is awaited before the next, so that no two threads use the database at once."""
    with closing(await trio.to_thread.run_sync(open_database, path)) as database:
        cursor = await trio.to_thread.run_sync(database.execute, SELECT, (limit,))
        await out.send(as_csv([COLUMNS]))
        while piece := await trio.to_thread.run_sync(lambda: as_csv(cursor.fetchmany(BATCH))):
            await out.send(piece)


def open_database(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False)


def as_csv(rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


# Making the table


async def build(app: Keryx, path: Path) -> None:
    """Make it beside its place, and move it there when it is whole: a start that is stopped leaves nothing behind."""
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        with closing(await trio.to_thread.run_sync(open_database, unfinished)) as database:
            await trio.to_thread.run_sync(database.execute, CREATE)
            rows = make_rows()
            for done in range(LARGE_BATCH, ROWS + 1, LARGE_BATCH):
                await trio.to_thread.run_sync(insert, database, islice(rows, LARGE_BATCH))
                app.log.info("making the table", rows=done, of=ROWS)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def insert(database: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    with database:  # a transaction
        database.executemany(INSERT, rows)


def make_rows() -> Iterator[tuple[object, ...]]:
    dice = random.Random(2025)
    first = date(2020, 1, 1)
    for number in range(1, ROWS + 1):
        day = first + timedelta(days=number * 1800 // ROWS)
        yield number, day.isoformat(), dice.choice(CUSTOMERS), dice.choice(ITEMS), dice.randrange(100, 10_000)
