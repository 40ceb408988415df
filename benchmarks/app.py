"""The workload, as plain actions: what every system of this benchmark answers, and how its users would write it here.

`hypercorn --worker-class trio benchmarks.app:app`; routes and events are those of `peers/`.
"""

import time
from typing import Annotated

import msgspec
import trio

from keryx_trio import EventStream, Keryx, StreamingResponse, Web

app = Keryx()
open_streams = 0


@app.action("hello", web=Web("/hello"))
async def hello(name: Annotated[str, msgspec.Meta(max_length=100)] = "World") -> dict[str, str]:
    """Greet."""
    return {"message": f"Hello, {name}!"}


async def _burst(stream: EventStream, n: int, size: int) -> None:
    text = "x" * size
    for i in range(n):
        await stream.send({"i": i, "t": text}, event="token", id=str(i))


@app.action("firehose", web=Web("/firehose", streaming=True))
async def firehose(
    n: Annotated[int, msgspec.Meta(ge=1, le=10**7)] = 1000,
    size: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 32,
) -> StreamingResponse:
    """Send n events as fast as they are read."""
    return StreamingResponse.sse(_burst, n, size)


async def _tick(stream: EventStream, n: int, ms: float) -> None:
    start = time.time()
    for i in range(n):
        due = start + (i + 1) * ms / 1000
        await trio.sleep(max(0.0, due - time.time()))
        await stream.send({"i": i, "ts": time.time() * 1000, "due": due * 1000}, event="tick", id=str(i))


@app.action("ticks", web=Web("/ticks", streaming=True))
async def ticks(
    n: Annotated[int, msgspec.Meta(ge=1, le=10**6)] = 10,
    ms: Annotated[float, msgspec.Meta(gt=0)] = 100,
) -> StreamingResponse:
    """Send an event each `ms` milliseconds, with when it was due and when it was sent."""
    return StreamingResponse.sse(_tick, n, ms)


async def _go_on(stream: EventStream, silent: bool) -> None:  # noqa: FBT001 - a producer's arguments stand in a row
    global open_streams  # noqa: PLW0603 - the gauge
    open_streams += 1
    try:
        i = 0
        while True:
            await stream.send({"i": i}, event="tick", id=str(i))
            i += 1
            await trio.sleep(3600 if silent and i >= 3 else 0.01)  # noqa: PLR2004 - as the others do
    finally:
        open_streams -= 1


@app.action("endless", timeout=0, web=Web("/endless", streaming=True))
async def endless(silent: bool = False) -> StreamingResponse:  # noqa: FBT001, FBT002 - an input
    """Send events for ever, or three and then none."""
    return StreamingResponse.sse(_go_on, silent)


@app.action("live", web=Web("/live"))
async def live() -> dict[str, int]:
    """How many of the endless streams are being produced."""
    return {"live": open_streams}
