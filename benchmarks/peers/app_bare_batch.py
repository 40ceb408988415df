"""The same application by hand, on trio, whose events go out together where several are ready.

The producer puts framed events into a bounded memory channel; the sender waits for one, takes what else is there, and
sends one body message.
"""

from urllib.parse import parse_qsl

import app_bare
import trio

PLACES = 256
"""How many events wait for a stream at most."""

LARGEST = 65536
"""How large a message grows at most, in bytes, but for its last event."""


async def batched(produce, query, send):
    into, out = trio.open_memory_channel(PLACES)

    async def put(message):
        try:
            into.send_nowait(message["body"])  # no checkpoint while there is room
        except trio.WouldBlock:
            await into.send(message["body"])

    async def producer():
        async with into:
            await produce(query, put, trio.sleep)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer)
        async with out:
            async for first in out:
                await send(app_bare.body(with_what_is_ready(first, out)))


def with_what_is_ready(first, out):
    parts, size = [first], len(first)
    try:
        while size < LARGEST:
            parts.append(out.receive_nowait())
            size += len(parts[-1])
    except (trio.WouldBlock, trio.EndOfChannel):
        return b"".join(parts)
    return b"".join(parts)


async def app(scope, receive, send):
    path = scope.get("path")
    if path not in app_bare.STREAMS:
        return await app_bare.app(scope, receive, send)
    query = dict(parse_qsl(scope["query_string"].decode()))

    async def produce(query, send, sleep):
        await batched(app_bare.STREAMS[path], query, send)

    await send({"type": "http.response.start", "status": 200, "headers": app_bare.SSE})
    return await app_bare.stream_on_trio(produce, query, receive, send)
