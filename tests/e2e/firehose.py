"""An application for tests that need a process of its own: more events than anybody wants to hold."""

from __future__ import annotations

import os

import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web

EVENTS = 11_000
EVENT = "x" * 10_240

app = Keryx(config=Config())
sent = 0


@app.action("firehose", web=Web("/firehose"), timeout=0)
async def firehose() -> StreamingResponse:
    async def produce(sse: EventStream) -> None:
        global sent  # noqa: PLW0603 - of this process, for its only test
        for _ in range(EVENTS):
            await sse.send(EVENT)
            sent += 1

    return StreamingResponse.sse(produce)


@app.action("quiet", web=Web("/quiet"), timeout=0)
async def quiet() -> StreamingResponse:
    async def produce(sse: EventStream) -> None:
        await sse.send("here")
        await trio.sleep_forever()

    return StreamingResponse.sse(produce)


@app.action("stats", web=Web("/stats"))
async def stats() -> dict[str, int]:
    return {"pid": os.getpid(), "sent": sent}
