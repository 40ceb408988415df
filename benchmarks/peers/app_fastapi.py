"""FastAPI with its own `fastapi.sse`, on asyncio (uvicorn); and a WebSocket that speaks the same messages as ours."""

import asyncio
import json
import time
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect
from fastapi.middleware.cors import CORSMiddleware
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["*"])
live = 0

Count = Annotated[int, Query(ge=1, le=10**7)]
Size = Annotated[int, Query(ge=0, le=65536)]


class HelloOut(BaseModel):
    message: str


@app.get("/api/hello")
async def hello(name: Annotated[str, Query(max_length=100)] = "World") -> HelloOut:
    return HelloOut(message=f"Hello, {name}!")


@app.get("/api/firehose", response_class=EventSourceResponse)
async def firehose(n: Count = 1000, size: Size = 32):
    text = "x" * size
    for i in range(n):
        yield ServerSentEvent(data={"i": i, "t": text}, event="token", id=str(i))


@app.get("/api/firehose_raw", response_class=EventSourceResponse)
async def firehose_raw(n: Count = 1000, size: Size = 32):
    text = "x" * size
    for i in range(n):
        yield ServerSentEvent(raw_data=json.dumps({"i": i, "t": text}), event="token", id=str(i))


@app.get("/api/ticks", response_class=EventSourceResponse)
async def ticks(n: Annotated[int, Query(ge=1, le=10**6)] = 10, ms: Annotated[float, Query(gt=0)] = 100):
    start = time.time()
    for i in range(n):
        due = start + (i + 1) * ms / 1000
        await asyncio.sleep(max(0.0, due - time.time()))
        yield ServerSentEvent(data={"i": i, "ts": time.time() * 1000, "due": due * 1000}, event="tick", id=str(i))


@app.get("/api/endless", response_class=EventSourceResponse)
async def endless(silent: int = 0):
    global live
    live += 1
    try:
        i = 0
        while True:
            yield ServerSentEvent(data={"i": i}, event="tick", id=str(i))
            i += 1
            await asyncio.sleep(3600 if silent and i >= 3 else 0.01)
    finally:
        live -= 1


@app.get("/api/live")
async def get_live():
    return {"live": live}


async def send_firehose(send, n, size):
    text = "x" * size
    for i in range(n):
        await send(chunk={"i": i, "t": text}, event="token", id=str(i))


async def send_ticks(send, n, ms):
    start = time.time()
    for i in range(n):
        due = start + (i + 1) * ms / 1000
        await asyncio.sleep(max(0.0, due - time.time()))
        await send(chunk={"i": i, "ts": time.time() * 1000, "due": due * 1000}, event="tick", id=str(i))


ACTIONS = {"firehose": send_firehose, "ticks": send_ticks}


@app.websocket("/api/ws")
async def talk(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            asked = await socket.receive_json()

            async def send(*, asked=asked, **fields):
                await socket.send_json({"messageId": asked["messageId"], "streaming": True, **fields})

            await ACTIONS[asked["action"]](send, **asked["params"])
            await socket.send_json({"messageId": asked["messageId"], "streaming": False})
    except WebSocketDisconnect:
        return
