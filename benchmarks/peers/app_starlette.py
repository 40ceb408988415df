"""Starlette with sse-starlette, on asyncio (uvicorn) and on trio (hypercorn): nothing here but anyio."""

import json
import time

import anyio
from pydantic import BaseModel, Field, ValidationError
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

live = 0


class HelloIn(BaseModel):
    name: str = Field("World", max_length=100)


class FireIn(BaseModel):
    n: int = Field(1000, ge=1, le=10**7)
    size: int = Field(32, ge=0, le=65536)


class TicksIn(BaseModel):
    n: int = Field(10, ge=1, le=10**6)
    ms: float = Field(100, gt=0)


def message(event, i, data):
    return {"event": event, "id": str(i), "data": json.dumps(data)}


async def hello(request):
    asked = HelloIn.model_validate(dict(request.query_params))
    return JSONResponse({"message": f"Hello, {asked.name}!"})


async def firehose(request):
    asked = FireIn.model_validate(dict(request.query_params))
    text = "x" * asked.size

    async def events():
        for i in range(asked.n):
            yield message("token", i, {"i": i, "t": text})

    return EventSourceResponse(events())


async def ticks(request):
    asked = TicksIn.model_validate(dict(request.query_params))

    async def events():
        start = time.time()
        for i in range(asked.n):
            due = start + (i + 1) * asked.ms / 1000
            await anyio.sleep(max(0.0, due - time.time()))
            yield message("tick", i, {"i": i, "ts": time.time() * 1000, "due": due * 1000})

    return EventSourceResponse(events())


async def endless(request):
    silent = request.query_params.get("silent") == "1"

    async def events():
        global live
        live += 1
        try:
            i = 0
            while True:
                yield message("tick", i, {"i": i})
                i += 1
                await anyio.sleep(3600 if silent and i >= 3 else 0.01)
        finally:
            live -= 1

    return EventSourceResponse(events())


async def get_live(request):
    return JSONResponse({"live": live})


async def invalid(request, error):
    return JSONResponse({"error": error.errors()}, status_code=422)


app = Starlette(
    routes=[
        Route("/api/hello", hello),
        Route("/api/firehose", firehose),
        Route("/api/ticks", ticks),
        Route("/api/endless", endless),
        Route("/api/live", get_live),
    ],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    exception_handlers={ValidationError: invalid},
)
