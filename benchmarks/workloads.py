"""What every system is asked, in the order in which it is asked.

Owns: the sizes of the workloads, and the names of what comes out. Does not know: how a server is run, or what a number
means to a reader.

    w1  firehose: events as fast as they are read                 w4  readers who leave (`readers.leave`)
    w2  ticks: lone events, each due at a time of its own         w5  a reader who does not read (`readers.freeze`)
    w3  hello: plain requests                                     ws, h2  w1 and w2 over WebSocket and HTTP/2

Memory comes first, on a server that has answered nothing yet but what showed that it stands.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from . import readers
from .clients import ask_often, read_streams
from .servers import Server

QUICK: Final = 10
"""By how much a quick run's firehoses are smaller."""

IDLE: Final = 0.7
"""How long a server is left alone before its memory is read, in seconds."""

FIREHOSES: Final = (("1x60000x32", 1, 60000, 32), ("50x2000x32", 50, 2000, 32), ("1x30000x512", 1, 30000, 512))
"""Name, streams, events of each, bytes of text in each."""

TICKS: Final = (("200x100ms", 200, 40, 100), ("1000x100ms", 1000, 40, 100), ("2000x1000ms", 2000, 4, 1000))
"""Name, streams, events of each, ms between them."""

RAMP: Final = 1000
"""How many streams of ticks begin in a second."""

SOCKETS: Final = "/api/ws"
CONNECTIONS: Final = {50: 1, 200: 4}
"""Over how many connections of HTTP/2 so many streams go: servers take about 100 on each."""


@dataclass
class Turn:
    """One system's turn in a round.

    Attributes:
        say: called with the name and the values of each result as it comes.
        result: all of them.
    """

    server: Server
    quick: bool
    say: Callable[[str, dict[str, Any]], None]
    result: dict[str, Any] = field(default_factory=dict)

    def keep(self, name: str, values: dict[str, Any]) -> None:
        """Note a result."""
        self.result[name] = values
        self.say(name, values)

    def burst(self, events: int) -> int:
        """How many events of a firehose this run takes."""
        return events // QUICK if self.quick else events

    def go_on(self, *, spoilt: bool = False) -> None:
        """Replace a server that has died, or that has producers left whom nobody reads."""
        if not self.server.alive:
            self.result["died"] = self.result.get("died", 0) + 1
        elif not spoilt:
            return
        self.server.replace()


def variants(name: str, routes: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names of results, each with the route that it is of."""
    return [(f"{name}_{variant}" if variant else name, route) for variant, route in routes.items()]


def measure(turn: Turn, tests: Collection[str]) -> None:
    """Run those of the workloads that are named, all into `turn.result`."""
    time.sleep(IDLE)
    turn.result["startup_s"] = round(turn.server.startup, 3)
    turn.result["idle_rss_mib"] = round(turn.server.resident_kib() / 1024, 1)
    for name, workload in STEPS:
        if name in tests:
            workload(turn)


def many_streams(turn: Turn) -> None:
    """1,000 streams with an event a second: what one takes in memory."""
    idle = turn.server.resident_kib()
    held: list[int] = []

    def ready() -> None:
        time.sleep(0.3)
        held.append(turn.server.resident_kib())

    values = read_streams(turn.server, "/api/ticks?n=4&ms=1000", 1000, expect=4, duration=20, on_ready=ready, ramp=RAMP)
    if held:
        turn.result["rss_1000_mib"] = round(held[0] / 1024, 1)
        turn.result["kib_per_stream"] = round((held[0] - idle) / 1000, 1)
    turn.keep("w2_1000x1000ms", values)


def firehose(turn: Turn) -> None:
    """W1."""
    for name, route in variants("w1", turn.server.system.firehose):
        read_streams(turn.server, f"{route}?n=5000&size=32", 1)  # warm
        for size, streams, events, text in FIREHOSES:
            n = turn.burst(events)
            turn.keep(f"{name}_{size}", read_streams(turn.server, f"{route}?n={n}&size={text}", streams, expect=n))


def ticks(turn: Turn) -> None:
    """W2."""
    for size, streams, n, ms in TICKS:
        values = read_streams(turn.server, f"/api/ticks?n={n}&ms={ms}", streams, expect=n, duration=20, ramp=RAMP)
        turn.keep(f"w2_{size}", values)


def hello(turn: Turn) -> None:
    """W3."""
    seconds = 1 if turn.quick else 3
    ask_often(turn.server, 1)  # warm
    turn.keep("w3", ask_often(turn.server, seconds))
    for label, header in turn.server.system.hello_headers.items():
        turn.keep(f"w3_{label}", ask_often(turn.server, seconds, header))


def websockets(turn: Turn) -> None:
    """W1 and W2 over WebSocket, one stream a socket."""

    def read(streams: int, expect: int, action: str, ramp: float = 0, **params: float) -> dict[str, Any]:
        message = json.dumps({"messageType": "action", "messageId": 1, "action": action, "params": params})
        return read_streams(
            turn.server, SOCKETS, streams, protocol="ws", expect=expect, message=message, ramp=ramp, duration=30
        )

    if "ws" not in turn.server.system.protocols:
        return
    read(1, 5000, "firehose", n=5000, size=32)  # warm
    for name, streams, events, text in FIREHOSES[:2]:
        n = turn.burst(events)
        turn.keep(f"ws_{name}", read(streams, n, "firehose", n=n, size=text))
    for name, streams, n, ms in TICKS[:1]:
        turn.keep(f"ws_{name}", read(streams, n, "ticks", RAMP, n=n, ms=ms))


def multiplexed(turn: Turn) -> None:
    """W1 and W2 over HTTP/2, up to 50 streams a connection."""

    def read(path: str, streams: int, expect: int, ramp: float = 0) -> dict[str, Any]:
        connections = CONNECTIONS.get(streams, 1)
        return read_streams(
            turn.server, path, streams, protocol="h2", expect=expect, connections=connections, ramp=ramp, duration=30
        )

    if "h2" not in turn.server.system.protocols:
        return
    read("/api/firehose?n=5000&size=32", 1, 5000)  # warm
    for name, streams, events, text in FIREHOSES[:2]:
        n = turn.burst(events)
        turn.keep(f"h2_{name}", read(f"/api/firehose?n={n}&size={text}", streams, n))
    for name, streams, n, ms in TICKS[:1]:
        turn.keep(f"h2_{name}", read(f"/api/ticks?n={n}&ms={ms}", streams, n, RAMP))


def leavers(turn: Turn) -> None:
    """W4."""
    for kind, reset, silent in (("fin", False, False), ("rst", True, False), ("silent", False, True)):
        for name, route in variants(f"w4_{kind}", turn.server.system.endless):
            try:
                values = readers.leave(turn.server, route, reset=reset, silent=silent)
            except (OSError, http.client.HTTPException) as error:
                values = {"error": repr(error)}
            turn.keep(name, values)
            time.sleep(0.2)
            turn.go_on(spoilt=values.get("live_at_end") != 0)


def frozen(turn: Turn) -> None:
    """W5."""
    for name, route in variants("w5", turn.server.system.firehose):
        turn.keep(name, readers.freeze(turn.server, route, seconds=2 if turn.quick else 5))
        turn.go_on()


STEPS: Final[tuple[tuple[str, Callable[[Turn], None]], ...]] = (
    ("w2", many_streams),
    ("w1", firehose),
    ("w2", ticks),
    ("w3", hello),
    ("ws", websockets),
    ("h2", multiplexed),
    ("w4", leavers),
    ("w5", frozen),
)
TESTS: Final = ("w1", "w2", "w3", "w4", "w5", "ws", "h2")
