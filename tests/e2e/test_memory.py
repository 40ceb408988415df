"""What a reader that does not read costs the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.firehose import EVENT, EVENTS
from tests.e2e.raw import open_raw
from tests.e2e.serving import serve_process

MIB = 1024 * 1024


def memory(pid: int, field: str = "VmRSS") -> int:
    """What a process takes, in bytes: `VmRSS` now, `VmHWM` at most since it began."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


async def until_stalled(client: httpx.AsyncClient) -> int:
    """How many events have been sent, once that does not grow any more; each question is an answered request."""
    sent, quiet = -1, 0
    while quiet < 50:
        now = (await client.get("/api/stats")).json()["sent"]
        quiet = quiet + 1 if now == sent else 0
        sent = now
        await trio.sleep(0.005)
    return sent


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read what a process takes")
async def test_a_reader_that_stops_reading_costs_little_and_holds_up_nobody(measured: Callable[[str], None]) -> None:
    async with serve_process("tests.e2e.firehose:app") as server, server.client() as client:
        port = int(server.url.rpartition(":")[2])
        pid = (await client.get("/api/stats")).json()["pid"]
        async with open_raw(port) as warm:
            await warm.request("GET", "/api/firehose")
            await warm.head()
            for _ in range(100):
                await warm.chunk()
        before = memory(pid)
        async with open_raw(port, receive_buffer=65536) as raw:
            await raw.request("GET", "/api/firehose")
            await raw.head()
            sent = await until_stalled(client)
            stalled = memory(pid) - before
            assert sent < EVENTS / 2
            size = 0
            while data := await raw.chunk():
                size += len(data)
        most = memory(pid, "VmHWM") - before
    assert size == EVENTS * len(f"data: {EVENT}\n\n")
    measured(
        f"{stalled / MIB:.2f} MiB while stalled, {most / MIB:.2f} MiB at most for {size / 1e6:.0f} MB read in the end"
    )
    assert most < 5 * MIB
