"""Random clients, for as long as you like, against one process, which must be as it was when they have left.

    python -m tests.soak.clients 600

They come, read, read slowly, read nothing, send garbage, and leave by FIN, by RST, or without a word.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import h2.exceptions
import httpx
import trio

from tests.e2e.raw import Raw
from tests.e2e.raw_http2 import RawHttp2
from tests.e2e.serving import Process, environment, serve_process
from tests.server.hostile import CASES, SOCKET, text

CLIENTS = 40
SETTINGS = {"KERYX_WRITE_TIMEOUT": "3", "KERYX_READ_TIMEOUT": "3", "KERYX_LOG_LEVEL": "warning"}
LOST = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError)
HOSTILE = [case for cases in CASES.values() for case in cases]


async def plain(raw: Raw) -> None:
    for _ in range(random.randint(1, 5)):
        await raw.send(b"GET /api/quick HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await raw.stream.receive_some(65536)).startswith(b"HTTP/1.1 200")


async def streamed(raw: Raw) -> None:
    path = random.choice(("quiet", "flood", "wait"))
    await raw.send(f"GET /api/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for _ in range(random.randint(1, 30)):
        with trio.move_on_after(0.5):
            await raw.stream.receive_some(random.choice((10, 1000, 65536)))
        await trio.sleep(random.choice((0, 0, 0.01, 0.1)))


async def frozen(raw: Raw) -> None:
    await raw.send(b"GET /api/flood HTTP/1.1\r\nHost: x\r\n\r\n")
    await trio.sleep(random.uniform(0, 5))


async def hostile(raw: Raw) -> None:
    case = random.choice(HOSTILE)
    for sent in (case.data, case.then):
        at = random.randint(0, len(sent))
        await raw.send(sent[:at])
        await trio.sleep(random.choice((0, 0.01)))
        await raw.send(sent[at:])
    with trio.move_on_after(0.2):
        await raw.stream.receive_some(65536)


async def garbage(raw: Raw) -> None:
    start = random.choice((b"", b"GET / HTTP/1.1\r\n", SOCKET + b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    await raw.send(start + random.randbytes(random.randint(1, 3000)))
    with trio.move_on_after(0.2):
        await raw.stream.receive_some(65536)


async def half_a_request(raw: Raw) -> None:
    await raw.send(b"POST /api/length HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"[: random.randint(1, 75)])
    await trio.sleep(random.uniform(0, 4))


async def websocket(raw: Raw) -> None:
    await raw.send(SOCKET + b"\r\n")
    for number in range(random.randint(1, 10)):
        action = random.choice(("quick", "quiet", "flood", "nowhere"))
        await raw.send(text(f'{{"messageType": "action", "messageId": {number}, "action": "{action}"}}'.encode()))
        with trio.move_on_after(0.1):
            await raw.stream.receive_some(65536)


async def http2(raw: Raw) -> None:
    client = RawHttp2(raw.stream)
    client.state.initiate_connection()
    await client.flush()
    for _ in range(random.randint(1, 10)):
        number = await client.request("GET", "/api/" + random.choice(("quick", "quiet", "flood")))
        with trio.move_on_after(0.1):
            await client.rest(number)
        if random.random() < 0.5:
            await client.reset(number)


KINDS = (plain, plain, streamed, streamed, frozen, hostile, garbage, half_a_request, websocket, http2)


async def come_and_go(port: int, until: float, counts: dict[str, int]) -> None:
    while trio.current_time() < until:
        kind = random.choice(KINDS)
        counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
        raw = await Raw.connect(port, random.choice((None, 4096)))
        try:
            with trio.move_on_after(10):
                await kind(raw)
        except LOST:
            counts["cut off"] = counts.get("cut off", 0) + 1
        finally:
            await (raw.abort() if random.random() < 0.5 else raw.leave())


def measure(pid: int) -> dict[str, int]:
    """What a process holds: memory in KiB, and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"memory": memory, "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


async def state(process: Process, client: httpx.AsyncClient) -> dict[str, int]:
    pid = (await client.get("/api/pid")).json()
    return {**(await client.get("/api/state")).json(), **measure(pid)}


async def soak(seconds: float) -> None:
    """Run; raises AssertionError where something is left."""
    counts: dict[str, int] = {}
    async with serve_process("tests.server.target:app", environ=environment(**SETTINGS)) as process:
        port = int(process.url.rpartition(":")[2])
        async with process.client() as client:
            until = trio.current_time() + seconds
            first: dict[str, int] = {}
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(come_and_go, port, until, counts)
                while (left := until - trio.current_time()) > 0:
                    await trio.sleep(min(left, max(seconds / 10, 1)))
                    now = await state(process, client)
                    first = first or now
                    print(f"{seconds - max(left, 0):6.0f} s", now, flush=True)
            await trio.sleep(6)  # what was left without a word is cut off by then
            last = await state(process, client)
        print("clients:", dict(sorted(counts.items())))
        print("at the end:", last)
        print(process.output)
    assert (last["connections"], last["calls"]) == (1, 1)  # the one that asks
    assert last["files"] <= first["files"]
    assert last["memory"] < first["memory"] * 1.5 + 20_000
    assert "Traceback" not in process.output
    assert "rror" not in process.output


if __name__ == "__main__":
    trio.run(soak, float(sys.argv[1]))
