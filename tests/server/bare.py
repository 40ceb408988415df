"""An application that is nothing but ASGI, served by our server or by hypercorn's own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import hypercorn.config
import hypercorn.trio
import trio

from keryx_trio import server
from tests.e2e.serving import SERVER_LOG

App = Callable[[Any, Any, Any], Awaitable[None]]
assert server.install() is None


@attrs.define
class Bare:
    """What is served: how to reach it, and the worker that knows its connections."""

    worker: server.Worker
    url: str = ""
    binds: list[str] = attrs.field(factory=list)
    stop: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@asynccontextmanager
async def serve_bare(app: App, *, ours: bool = True, limits: Any = None, **settings: Any) -> AsyncIterator[Bare]:
    """Serve `app`; `settings` are hypercorn's."""
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger(SERVER_LOG)
    config.graceful_timeout = 0.5
    for name, value in settings.items():
        setattr(config, name, value)
    stop = trio.Event()
    bare = Bare(server.Worker(server.Limits(**(limits or {"drain_timeout": 0.2})), lambda: None), stop=stop.set)

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        async with trio.open_nursery() as nursery:
            if ours:
                scope["state"][server.KEY] = bare.worker
                nursery.start_soon(bare.worker.run)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            nursery.cancel_scope.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async with trio.open_nursery() as nursery:
        start = partial(hypercorn.trio.serve, served, config, shutdown_trigger=stop.wait)
        bare.binds = await nursery.start(start)
        bare.url = bare.binds[0]
        yield bare
        stop.set()


async def read_body(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            return body
    raise EOFError("the client left")


async def answer(send: Any, body: bytes = b"", status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    headers = [(b"content-length", str(len(body)).encode()), *fields] if status not in (204, 304) else list(fields)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
