"""An ASGI application by hand, without a framework: the same code on trio (hypercorn) and on asyncio (uvicorn).

Each event is a body message of its own. No server cancels an application whose client has left, so a task watches for
`http.disconnect` and cancels: on trio by a nursery, on asyncio by the task.
"""

import asyncio
import json
import time
from urllib.parse import parse_qsl

import sniffio

try:
    import trio
except ImportError:  # asyncio needs none
    trio = None

live = 0
SSE = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
JSON = [(b"content-type", b"application/json")]


def frame(event, i, data):
    return f"id: {i}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


def body(data, *, more=True):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def firehose(query, send, sleep):
    text = "x" * int(query.get("size", 32))
    for i in range(int(query.get("n", 1000))):
        await send(body(frame("token", i, {"i": i, "t": text})))


async def ticks(query, send, sleep):
    start, ms = time.time(), float(query.get("ms", 100))
    for i in range(int(query.get("n", 10))):
        due = start + (i + 1) * ms / 1000
        await sleep(max(0.0, due - time.time()))
        await send(body(frame("tick", i, {"i": i, "ts": time.time() * 1000, "due": due * 1000})))


async def endless(query, send, sleep):
    global live
    live += 1
    try:
        i = 0
        while True:
            await send(body(frame("tick", i, {"i": i})))
            i += 1
            await sleep(3600 if query.get("silent") == "1" and i >= 3 else 0.01)
    finally:
        live -= 1


STREAMS = {"/api/firehose": firehose, "/api/ticks": ticks, "/api/endless": endless}


async def reply(send, status, value):
    await send({"type": "http.response.start", "status": status, "headers": JSON})
    await send(body(json.dumps(value).encode(), more=False))


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def watch(receive, cancel):
    while (await receive())["type"] != "http.disconnect":
        continue
    cancel()


async def stream_on_trio(produce, query, receive, send):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, receive, nursery.cancel_scope.cancel)
        await produce(query, send, trio.sleep)
        await send(body(b"", more=False))
        nursery.cancel_scope.cancel()


async def stream_on_asyncio(produce, query, receive, send):
    producer = asyncio.ensure_future(produce(query, send, asyncio.sleep))
    watcher = asyncio.ensure_future(watch(receive, producer.cancel))
    try:
        await producer
        await send(body(b"", more=False))
    except asyncio.CancelledError:
        if not producer.cancelled():
            raise
    finally:
        watcher.cancel()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    query = dict(parse_qsl(scope["query_string"].decode()))
    path = scope["path"]
    if path == "/api/hello":
        return await reply(send, 200, {"message": f"Hello, {query.get('name', 'World')}!"})
    if path == "/api/live":
        return await reply(send, 200, {"live": live})
    if path not in STREAMS:
        return await reply(send, 404, {"error": "not found"})
    await send({"type": "http.response.start", "status": 200, "headers": SSE})
    stream = stream_on_trio if sniffio.current_async_library() == "trio" else stream_on_asyncio
    return await stream(STREAMS[path], query, receive, send)
