"""An application that takes its time to end, for a process of its own; it says on stderr what of it has ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from keryx_trio import EventStream, Keryx, StreamingResponse, Web

HOLDS = os.environ.get("HOLDS", "")
"""What does not end: a cleanup that shields itself, a lifespan, or a loop that blocks everything."""


def say(word: str) -> None:
    print(word, file=sys.stderr, flush=True)


@asynccontextmanager
async def lifespan(app: Keryx) -> AsyncIterator[None]:
    yield
    if HOLDS == "lifespan":
        await trio.sleep_forever()
    say("lifespan ended")


app = Keryx(lifespan=lifespan)


async def clean_up() -> None:
    if HOLDS == "shield":
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    if HOLDS == "loop":
        time.sleep(60)  # noqa: ASYNC251 - what nobody should do
    say("cleaned")


@app.action("stream", web=Web("/stream"), timeout=0)
async def stream(flood: bool = False) -> StreamingResponse:
    async def produce(sse: EventStream) -> None:
        try:
            await sse.send("here")
            while flood:
                await sse.send("x" * 10_000)
            await trio.sleep_forever()
        finally:
            await clean_up()

    return StreamingResponse.sse(produce)


@app.action("plain", web=Web("/plain"))
async def plain(seconds: float) -> str:
    await trio.sleep(seconds)
    return "finished"
