"""An application for the shell, which prints wherever it can and notes what becomes of it."""

from __future__ import annotations

import enum
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import trio
from msgspec import Meta

from keryx_trio import (
    SECRET,
    ByteStream,
    Connection,
    EventStream,
    Keryx,
    Mcp,
    Response,
    StreamingResponse,
    Task,
    TypedError,
    UploadFile,
    Web,
)

print("printed at import")


def note(line: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(line + "\n")


@asynccontextmanager
async def lifespan(_: Keryx) -> AsyncIterator[None]:
    print("printed at the start")
    if "SLOW_START" in os.environ:
        note("starting")
        try:
            await trio.sleep_forever()
        finally:
            note("start given up")
    yield
    print("printed at the end")
    note("lifespan ended")
    if "BAD_END" in os.environ:
        raise RuntimeError("the end went wrong")


app = Keryx(lifespan=lifespan)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@attrs.define
class Address:
    """Where somebody lives."""

    zip: Annotated[str, Meta(min_length=3)]
    street: str = ""


@app.action("echo", web=Web("/echo", method=("GET", "POST")))
async def echo(  # noqa: PLR0917 - inputs of all sorts
    text: Annotated[str, Meta(min_length=1, max_length=40, description="What to say")],
    number: Annotated[int, Meta(ge=0, le=9)] = 7,
    ratio: Annotated[float | None, Meta(gt=0)] = None,
    colour: Colour = Colour.RED,
    order: Literal["asc", "desc"] = "asc",
    when: datetime | None = None,
    tags: tuple[str, ...] = (),
    pairs: list[int] = [1, 2],  # noqa: B006 - a default that can be told
    dry_run: bool = True,
    sure: bool | None = None,
    address: Address | None = None,
    counts: dict[str, int] = {},  # noqa: B006 - as above
    id_or_name: int | str = "nobody",
) -> dict[str, Any]:
    """Say it again.

    And say of which type it is.
    """
    return {name: value for name, value in locals().items() if value not in (None, (), {})}


@app.action("none")
async def none() -> None:
    """Nothing."""
    print("printed in an action")
    os.write(1, b"written to descriptor 1\n")
    subprocess.run(["echo", "from a child"], check=True)


@app.action("who", task=Task(every=3600))
async def who(connection: Connection) -> list[str]:
    return [connection.type.value, connection.identifier, *(["known"] if connection.session.data else [])]


@app.action("response")
async def response(binary: bool = False) -> Response:
    return Response(b"\xff\x00") if binary else Response("<p>", 201, "text/html")


@app.action("fail")
async def fail(kind: str = "typed") -> None:
    if kind == "typed":
        raise TypedError("no such thing", key="kind", value=kind)
    raise LookupError("the details are private")


@app.action("count", web=Web("/count", streaming=True), timeout=0)
async def count(to: int = 3, pause: float = 0.0, fails: bool = False) -> StreamingResponse:
    """Count."""

    async def produce(sse: EventStream) -> None:
        try:
            for number in range(to):
                await sse.send({"number": number}, event="tick", id=str(number))
                await trio.sleep(pause)
            if fails:
                raise TypedError("out of numbers")
            await sse.send("é\nlast")
        finally:
            note("producer ended")

    return StreamingResponse.sse(produce)


@app.action("wait", timeout=0)
async def wait(shielded: bool = False) -> None:
    """Wait for ever."""
    note("waiting")
    try:
        await trio.sleep_forever()
    finally:
        note("cleaning up")
        with trio.CancelScope(shield=shielded, deadline=float("inf") if shielded else trio.current_time() + 0.1):
            await trio.sleep_forever()


@app.action("bytes", web=Web("/bytes", produces="application/octet-stream"), timeout=0)
async def bytes_(size: int, piece: int = 65536, fails: bool = False) -> StreamingResponse:
    async def produce(out: ByteStream) -> None:
        try:
            for start in range(0, size, piece):
                await out.send(bytes(min(piece, size - start)))
            if fails:
                raise TypedError("the disk is gone")
        finally:
            note("producer ended")

    return StreamingResponse.stream(produce)


@app.action("two:bytes", timeout=0)
async def two_bytes() -> StreamingResponse:
    """Two bytes, and then silence."""

    async def produce(out: ByteStream) -> None:
        try:
            await out.send(b"ab")
            await trio.sleep_forever()
        finally:
            note("producer ended")

    return StreamingResponse.stream(produce)


@app.action("closed")
async def closed() -> StreamingResponse:
    """A stream that is closed while its producer goes on."""

    async def produce(sse: EventStream) -> None:
        await sse.send("all")
        sse.close()
        try:
            await trio.sleep_forever()
        finally:
            note("producer ended")

    return StreamingResponse.sse(produce)


@app.action("login", mcp=Mcp(tool=False))
async def login(name: str, password: Annotated[str, SECRET, Meta(min_length=3)]) -> str:
    """Log in."""
    return f"{name} has a password of {len(password)} characters"


@app.action("upload", task=Task(queue="files"))
async def upload(file: UploadFile, more: list[UploadFile] = [], size: int = 0) -> list[object]:  # noqa: B006
    """Take files."""
    assert not file.file.closed
    told = [file.filename, file.content_type, file.size, (await file.read()).decode(), size]
    return [*told, *[[each.filename, (await each.read()).decode()] for each in more]]


@app.action("collide")
async def collide(  # noqa: PLR0917 - as above
    follow: int, json: str, help: bool, q: str = "", no_quiet: bool = False, quiet: bool = False
) -> list[object]:
    """Have inputs that are called as options are."""
    return [follow, json, help, q, no_quiet, quiet]


@app.action("visible")
async def visible() -> StreamingResponse:
    """What must not steer a terminal."""

    async def produce(sse: EventStream) -> None:
        await sse.send("\x1b[31mred\x07", event="bell\x1b")
        await sse.send({"long": "x" * 200, "n": 1}, event="json")

    return StreamingResponse.sse(produce)


@app.action("order")
async def order(action: str, params: dict[str, Any] = {}, queue: str | None = None, delay: float = 0) -> str:  # noqa: B006
    """Have an action called in the background."""
    return (await app.enqueue(action, params, queue=queue, delay=delay)).id
