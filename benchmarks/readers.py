"""Readers as servers fear them: those who leave, and one who stays and does not read.

Both speak HTTP/1.1 by hand, since a client library would be polite.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import struct
import threading
import time
from typing import Any, Final, Self

from .servers import PROBE, Server

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send a RST in place of a FIN."""

PATIENCE: Final = 10.0
"""How long a server may take to notice, in seconds."""

LEAVERS: Final = 50
EVENTS: Final = 3
"""How many events each reads before it leaves."""

STEP: Final = 0.02
"""How often memory is read and another request made beside the frozen reader, in seconds."""


def leave(server: Server, route: str, *, reset: bool, silent: bool) -> dict[str, Any]:
    """Fifty readers leave at once; after how many seconds the server's gauge says that no producer is left.

    Args:
        reset: they leave by a RST.
        silent: their producers sleep by then.

    Raises:
        OSError, http.client.HTTPException: the server did not answer before they left.
    """
    out: dict[str, Any] = {"before": _live(server)}
    readers = [_ask(server, f"{route}?silent={int(silent)}") for _ in range(LEAVERS)]
    try:
        for reader in readers:
            _read_events(reader, EVENTS)
        out["open"] = _live(server)
        start = time.monotonic()
        for reader in readers:
            if reset:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            reader.close()
    finally:
        for reader in readers:
            reader.close()
    return {**out, **_seconds_to_zero(server, start)}


def freeze(server: Server, route: str, *, seconds: float) -> dict[str, Any]:
    """A reader asks for about 110 MB and takes nothing: the server's memory, and how others fare meanwhile."""
    memory, cpu = server.resident_kib(), server.cpu()
    reader = _ask(server, f"{route}?n=200000&size=512")
    with _Others(server) as others:
        start, peak = time.monotonic(), memory
        while time.monotonic() - start < seconds:
            peak = max(peak, server.resident_kib())
            time.sleep(STEP)
        end, cpu_during = server.resident_kib(), server.cpu() - cpu
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        reader.close()
    time.sleep(0.5)
    cpu = server.cpu()
    time.sleep(2.5)
    return {
        "rss_before_mib": round(memory / 1024, 1),
        "growth_peak_mib": round((peak - memory) / 1024, 1),
        "growth_at_5s_mib": round((end - memory) / 1024, 1),
        "growth_3s_after_close_mib": round((server.resident_kib() - memory) / 1024, 1),
        "cpu_s_during": round(cpu_during, 2),
        "cpu_s_after_close": round(server.cpu() - cpu, 2),
        **others.told(),
        "server_alive": server.alive,
    }


class _Others:
    """Somebody else, who asks for /api/hello all the time, each time on a new connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._times: list[float] = []
        self._failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                self._server.get(PROBE, PATIENCE)
                self._times.append((time.monotonic() - start) * 1e3)
            except (OSError, http.client.HTTPException):
                self._failures += 1
            self._stop.wait(STEP)

    def told(self) -> dict[str, Any]:
        times = sorted(self._times)
        return {
            "probes": len(times),
            "probe_p50_ms": round(statistics.median(times), 2) if times else None,
            "probe_p99_ms": round(times[int(0.99 * (len(times) - 1))], 2) if times else None,
            "probe_max_ms": round(times[-1], 1) if times else None,
            "probe_failures": self._failures,
        }


def _ask(server: Server, path: str) -> socket.socket:
    reader = socket.create_connection(("127.0.0.1", server.port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
    return reader


def _read_events(reader: socket.socket, count: int) -> None:
    reader.settimeout(5)
    came = b""
    while came.count(b"\ndata: {") < count:  # not "data:": a security header may hold it
        data = reader.recv(65536)
        if not data:
            return
        came += data


def _live(server: Server) -> int:
    return int(json.loads(server.get("/api/live")[1])["live"])


def _seconds_to_zero(server: Server, start: float) -> dict[str, Any]:
    out: dict[str, Any] = {"seconds_to_zero": None, "live_at_end": None}
    while time.monotonic() - start < PATIENCE:
        if not server.alive:
            out["server_died"] = server.exit_code
            break
        try:
            out["live_at_end"] = _live(server)
        except (OSError, http.client.HTTPException) as error:
            out["probe_error"] = type(error).__name__
            time.sleep(0.05)
            continue
        if out["live_at_end"] == 0:
            out["seconds_to_zero"] = round(time.monotonic() - start, 4)
            break
        time.sleep(0.004)
    return out
