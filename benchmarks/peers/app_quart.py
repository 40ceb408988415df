"""quart-trio on hypercorn's trio worker.

A stream is an async generator as the response, its timeout off, as in Quart's own how-to.
"""

import json
import time

import trio
from pydantic import BaseModel, Field, ValidationError
from quart import request
from quart_trio import QuartTrio

app = QuartTrio(__name__)
live = 0
SSE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class HelloIn(BaseModel):
    name: str = Field("World", max_length=100)


class FireIn(BaseModel):
    n: int = Field(1000, ge=1, le=10**7)
    size: int = Field(32, ge=0, le=65536)


class TicksIn(BaseModel):
    n: int = Field(10, ge=1, le=10**6)
    ms: float = Field(100, gt=0)


def frame(event, i, data):
    return f"id: {i}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


async def stream(events):
    response = await app.make_response((events, 200, SSE))
    response.timeout = None
    return response


@app.errorhandler(ValidationError)
async def invalid(error):
    return {"error": error.errors()}, 422


@app.get("/api/hello")
async def hello():
    asked = HelloIn.model_validate(request.args.to_dict())
    return {"message": f"Hello, {asked.name}!"}


@app.get("/api/firehose")
async def firehose():
    asked = FireIn.model_validate(request.args.to_dict())
    text = "x" * asked.size

    async def events():
        for i in range(asked.n):
            yield frame("token", i, {"i": i, "t": text})

    return await stream(events())


@app.get("/api/ticks")
async def ticks():
    asked = TicksIn.model_validate(request.args.to_dict())

    async def events():
        start = time.time()
        for i in range(asked.n):
            due = start + (i + 1) * asked.ms / 1000
            await trio.sleep(max(0.0, due - time.time()))
            yield frame("tick", i, {"i": i, "ts": time.time() * 1000, "due": due * 1000})

    return await stream(events())


@app.get("/api/endless")
async def endless():
    silent = request.args.get("silent") == "1"

    async def events():
        global live
        live += 1
        try:
            i = 0
            while True:
                yield frame("tick", i, {"i": i})
                i += 1
                await trio.sleep(3600 if silent and i >= 3 else 0.01)
        finally:
            live -= 1

    return await stream(events())


@app.get("/api/live")
async def get_live():
    return {"live": live}
