"""Litestar with its own `ServerSentEvent` response, on asyncio."""

import asyncio
import json
import time
from typing import Annotated

from litestar import Litestar, get
from litestar.config.cors import CORSConfig
from litestar.params import Parameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

live = 0


def message(event, i, data):
    return ServerSentEventMessage(event=event, id=str(i), data=json.dumps(data))


@get("/api/hello")
async def hello(name: Annotated[str, Parameter(max_length=100)] = "World") -> dict[str, str]:
    return {"message": f"Hello, {name}!"}


@get("/api/firehose")
async def firehose(
    n: Annotated[int, Parameter(ge=1, le=10**7)] = 1000, size: Annotated[int, Parameter(ge=0, le=65536)] = 32
) -> ServerSentEvent:
    text = "x" * size

    async def events():
        for i in range(n):
            yield message("token", i, {"i": i, "t": text})

    return ServerSentEvent(events())


@get("/api/ticks")
async def ticks(
    n: Annotated[int, Parameter(ge=1)] = 10, ms: Annotated[float, Parameter(gt=0)] = 100
) -> ServerSentEvent:
    async def events():
        start = time.time()
        for i in range(n):
            due = start + (i + 1) * ms / 1000
            await asyncio.sleep(max(0.0, due - time.time()))
            yield message("tick", i, {"i": i, "ts": time.time() * 1000, "due": due * 1000})

    return ServerSentEvent(events())


@get("/api/endless")
async def endless(silent: int = 0) -> ServerSentEvent:
    async def events():
        global live
        live += 1
        try:
            i = 0
            while True:
                yield message("tick", i, {"i": i})
                i += 1
                await asyncio.sleep(3600 if silent and i >= 3 else 0.01)
        finally:
            live -= 1

    return ServerSentEvent(events())


@get("/api/live")
async def get_live() -> dict[str, int]:
    return {"live": live}


app = Litestar(
    [hello, firehose, ticks, endless, get_live], cors_config=CORSConfig(allow_origins=["*"]), openapi_config=None
)
