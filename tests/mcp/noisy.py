"""An application that prints wherever it can, served over stdio by a test."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from keryx_trio import Connection, EventStream, Keryx, StreamingResponse

print("printed at import")


@asynccontextmanager
async def lifespan(app: Keryx) -> AsyncIterator[None]:
    print("printed at the start")
    yield
    print("printed at the end")
    note("lifespan ended")


app = Keryx(lifespan=lifespan)


def note(line: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(line + "\n")


@app.action("stream", timeout=0)
async def stream(to: int = 3, pause: float = 0.2) -> StreamingResponse:
    print("printed in an action")
    os.write(1, b"written to descriptor 1\n")
    subprocess.run(["echo", "from a child"], check=True)
    assert sys.stdin.read() == ""

    async def produce(sse: EventStream) -> None:
        try:
            for number in range(to):
                await sse.send(f"{number} ")
                await trio.sleep(pause)
        finally:
            note("producer ended")

    return StreamingResponse.sse(produce)


@app.action("visits")
async def visits(connection: Connection) -> list[object]:
    count = connection.session.data.get("visits", 0) + 1
    await connection.session.update(visits=count)
    return [count, connection.identifier, connection.type.value]


@app.action("large")
async def large() -> str:
    return "x" * 3_000_000
