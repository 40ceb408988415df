"""An application to be attacked."""

from __future__ import annotations

import gc
import os

import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web

LIMITS = {"drain_timeout": 1.0, "write_timeout": 2.0, "read_timeout": 1.0}


def make_app(**settings: float) -> Keryx:
    app = Keryx(config=Config.from_env() if not settings else Config(**{**LIMITS, **settings}))

    @app.action("quick", web=Web("/quick", method=("GET", "POST")))
    async def quick() -> str:
        return "quick"

    @app.action("pid", web=Web("/pid"))
    async def pid() -> int:
        return os.getpid()

    @app.action("collector", web=Web("/collector"))
    async def collector() -> dict[str, int]:
        return {"frozen": gc.get_freeze_count(), "threshold": gc.get_threshold()[0]}

    @app.action("state", web=Web("/state"))
    async def state() -> dict[str, int]:
        return {
            "connections": len(app.connections),
            "calls": len(app._calls),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }

    @app.action("wait", web=Web("/wait"))
    async def wait() -> None:
        await trio.sleep_forever()

    @app.action("length", web=Web("/length", method="POST"))
    async def length(text: str) -> int:
        return len(text)

    add_streams(app)
    return app


def add_streams(app: Keryx) -> None:
    @app.action("flood", web=Web("/flood"), timeout=0)
    async def flood() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 1000)

        return StreamingResponse.sse(produce)

    @app.action("quiet", web=Web("/quiet"), timeout=0)
    async def quiet() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("here")
            await trio.sleep_forever()

        return StreamingResponse.sse(produce)


app = make_app()
