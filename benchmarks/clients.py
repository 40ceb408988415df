"""The two programs that ask: loadgen, for streams, which is built here, and wrk, for plain requests.

Owns: how they are called, and what of their answers is kept. Does not know: which workload asks for what.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .servers import HERE, PROBE, Failed, Server

SOURCE = HERE / "loadgen.c"
LOADGEN = HERE / "build" / "loadgen"

MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def compiler() -> list[str] | None:
    """The command that compiles C: `$CC`, or cc, gcc or clang; None where there is none."""
    asked = shlex.split(os.environ.get("CC", ""))
    if asked:
        return asked if shutil.which(asked[0]) else None
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def build_loadgen() -> None:
    """Compile loadgen, unless it is there and no older than its source.

    Raises:
        Failed: it can't be done; says what to do.
    """
    sources = [SOURCE, *(HERE / "loadgen").iterdir()]
    if LOADGEN.exists() and LOADGEN.stat().st_mtime >= max(path.stat().st_mtime for path in sources):
        return
    command = compiler()
    if command is None:
        asked = os.environ.get("CC")
        missing = f"$CC is {asked!r}, which is no program here" if asked else "there is no C compiler"
        raise Failed(f"{missing}: install gcc (apt-get install gcc libc6-dev), or name a compiler in $CC")
    LOADGEN.parent.mkdir(exist_ok=True)
    made = LOADGEN.with_name(f"loadgen.{os.getpid()}")  # others may build it at the same time, or run it
    run = subprocess.run([*command, "-O2", "-o", made, SOURCE], capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failed(f"{shlex.join(command)} can't compile {SOURCE}; it says:\n{run.stderr}")
    made.replace(LOADGEN)


def check_wrk() -> None:
    """Raise Failed where there is no wrk."""
    if shutil.which("wrk") is None:
        raise Failed("there is no wrk, which w3 needs: install it (apt-get install wrk), or leave w3 out of --tests")


def read_streams(
    server: Server,
    path: str,
    streams: int,
    *,
    protocol: str = "sse",
    expect: int | None = None,
    duration: float = 60,
    ramp: float = 0,
    message: str | None = None,
    connections: int = 1,
    on_ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Have loadgen read streams until they end; what it says, and what they cost the server.

    Args:
        expect: how many events each has to bring.
        duration: for how long they are read at most, in seconds.
        ramp: how many are started in a second; 0 for all at once.
        message: over a WebSocket, what starts a stream.
        connections: over HTTP/2, how many carry them.
        on_ready: called when every stream has had its first event.

    Raises:
        Failed: loadgen said nothing.
    """
    words = loadgen_command(server, path, streams, protocol=protocol, duration=duration, ramp=ramp)
    if expect is not None:
        words += ["--expect", str(expect)]
    if message is not None:
        words += ["--message", message]
    if connections > 1:
        words += ["--connections", str(connections)]
    if on_ready:
        words += ["--hold"]
    cpu, start = server.cpu(), time.monotonic()
    result: dict[str, Any] = {}
    with running(words) as process:
        for line in process.stdout or ():
            result = json.loads(line)
            if "ready" in result and on_ready:
                on_ready()
    if "events" not in result:
        raise Failed(f"loadgen ended with {process.returncode} and no result: {shlex.join(words)}")
    cpu = server.cpu() - cpu
    return {
        **result,
        "server_cpu_s": round(cpu, 3),
        "server_cpu_us_per_event": round(cpu * 1e6 / max(1, result["events"]), 2),
        "server_cpu_pct": round(100 * cpu / (time.monotonic() - start), 1),
        "rss_mib_after": round(server.resident_kib() / 1024, 1),
    }


@contextlib.contextmanager
def running(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program with pipes to it and from it; it is ended where the block fails, and waited for in any case."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def loadgen_command(
    server: Server, path: str, streams: int, *, protocol: str = "sse", duration: float = 60, ramp: float = 0
) -> list[str]:
    """The words that have loadgen read streams of a server."""
    url = f"http://127.0.0.1:{server.port}{path}"
    words = [str(LOADGEN), protocol, "--url", url, "--streams", str(streams)]
    return [*words, "--duration", str(duration), "--ramp", str(ramp)]


def ask_often(server: Server, seconds: float, header: str | None = None) -> dict[str, Any]:
    """Have wrk ask /api/hello over 32 connections, each as soon as it has its answer.

    Raises:
        Failed: wrk said nothing that can be read.
    """
    words = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", "--latency", *(["-H", header] if header else [])]
    cpu = server.cpu()
    run = subprocess.run(
        [*words, f"http://127.0.0.1:{server.port}{PROBE}"], capture_output=True, text=True, check=False
    )
    cpu = server.cpu() - cpu
    requests = re.search(r"(\d+) requests in", run.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", run.stdout)
    if not requests or not rate:
        raise Failed(f"wrk ended with {run.returncode}, and said: {(run.stdout + run.stderr).strip()}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    return {
        "rps": float(rate[1]),
        "p50_ms": _wrk_percentile(run.stdout, 50),
        "p99_ms": _wrk_percentile(run.stdout, 99),
        "non2xx": int(refused[1]) if refused else 0,
        "server_cpu_us_per_req": round(cpu * 1e6 / max(1, int(requests[1])), 2),
    }


def _wrk_percentile(said: str, percent: int) -> float | None:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", said, re.MULTILINE)
    return round(float(found[1]) * MS[found[2]], 3) if found else None
