"""Many clients that leave at once, without a word: what the process had before is what it has afterwards."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from tests.e2e.raw import Raw
from tests.e2e.serving import Process, environment, serve_process

STREAMS = 500
SLACK = 12 * 1024 * 1024
"""By how much memory may have grown over two storms, in bytes: half of what their streams would hold, were they kept. The
allocator takes some storms until it has enough."""

FEW = 2
"""How many tasks more or less it may have: the request that asks for them has one now, and now two."""

RESET = b"\1\0\0\0\0\0\0\0"

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc to count in")


@attrs.frozen
class Had:
    """What a process has."""

    files: int
    connections: int
    calls: int
    tasks: int = attrs.field(eq=False)
    memory: int = attrs.field(eq=False)


async def look(client: httpx.AsyncClient, pid: int) -> Had:
    state = (await client.get("/api/state")).json()
    proc = Path(f"/proc/{pid}")
    (memory,) = [line.split()[1] for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")]
    return Had(files=len(list((proc / "fd").iterdir())), memory=int(memory) * 1024, **state)


async def storm(process: Process, client: httpx.AsyncClient) -> int:
    """Open the streams, and reset all of them at once; how many calls ran meanwhile."""
    readers: list[Raw] = []

    async def come() -> None:
        raw = await Raw.connect(int(process.url.rpartition(":")[2]))
        readers.append(raw)
        await raw.request("GET", "/api/quiet")
        assert (await raw.head()).status == 200
        assert await raw.chunk() == b"data: here\n\n"

    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(come)
    calls: int = (await client.get("/api/state")).json()["calls"]
    for raw in readers:
        raw.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        raw.stream.socket.close()
    return calls


async def settled(client: httpx.AsyncClient, pid: int) -> Had:
    """What the process has once that does not change any more."""
    before = None
    with trio.fail_after(10):
        while (now := await look(client, pid)) != before:
            before = now
            await trio.sleep(0.3)
    return now


async def test_a_storm_of_resets_leaves_nothing(measured: Any) -> None:
    environ = environment(KERYX_LOG_LEVEL="error")
    async with (
        serve_process("tests.server.target:app", "--backlog", "1000", environ=environ) as process,
        process.client() as client,
    ):
        pid = (await client.get("/api/pid")).json()
        for _ in range(2):  # after which it has the memory that so many streams need
            assert await storm(process, client) == STREAMS + 1
        first = await settled(client, pid)
        for _ in range(2):
            assert await storm(process, client) == STREAMS + 1
            now = await settled(client, pid)
            assert now == first
            assert abs(now.tasks - first.tasks) <= FEW
        measured(
            f"{(now.memory - first.memory) / 1024:+.0f} KiB from the second storm of {STREAMS} resets to the fourth"
        )
        assert now.memory - first.memory < SLACK
