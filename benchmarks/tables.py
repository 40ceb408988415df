"""Which numbers are shown of a run, under which names. Does not know how they are computed (`summary`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BARE: Final = "bare-hypercorn-trio"
"""What ratios of HTTP/2 are to: the systems on uvicorn do not speak it."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of the result; an `@` in it is where a variant's name goes.
        name: of the value in the result, where that has several.
        compared: whether the ratio and the spread stand beside the median.
    """

    title: str
    key: str
    name: str | None = None
    digits: int = 1
    compared: bool = False


@dataclass(frozen=True)
class Table:
    """A table: a row for each system and variant that has a value.

    Attributes:
        base: the system that ratios are to; "" for the one that was asked for.
    """

    title: str
    columns: Sequence[Column]
    base: str = ""


def _events(title: str, key: str, *, base: str = "") -> Table:
    return Table(
        title,
        [
            Column("events/s", key, "events_per_s", 0, compared=True),
            Column("CPU µs/event", key, "server_cpu_us_per_event", 1, compared=True),
            Column("first event p50 ms", key, "ttfe_ms_p50", 1),
            Column("first event p99", key, "ttfe_ms_p99", 1),
            Column("RSS after, MiB", key, "rss_mib_after", 0),
        ],
        base,
    )


def _lone_events(title: str, key: str, *, base: str = "") -> Table:
    return Table(
        title,
        [
            Column("latency p50 ms", key, "lat_ms_p50", 2, compared=True),
            Column("latency p99", key, "lat_ms_p99", 2, compared=True),
            Column("lateness p50 ms", key, "due_ms_p50", 2),
            Column("lateness p99", key, "due_ms_p99", 1, compared=True),
            Column("CPU µs/event", key, "server_cpu_us_per_event", 1, compared=True),
            Column("s in all", key, "seconds", 1),
        ],
        base,
    )


START: Final = Table(
    "Start and memory",
    [
        Column("start s", "startup_s", digits=2),
        Column("idle RSS MiB", "idle_rss_mib"),
        Column("RSS with 1,000 streams, MiB", "rss_1000_mib"),
        Column("KiB a stream", "kib_per_stream", compared=True),
    ],
)
STREAMS: Final = (
    _events("W1: 1 stream of 60,000 events of 32 B", "w1@_1x60000x32"),
    _events("W1: 50 streams of 2,000 events of 32 B", "w1@_50x2000x32"),
    _events("W1: 1 stream of 30,000 events of 512 B", "w1@_1x30000x512"),
    _lone_events("W2: 200 streams, an event each 100 ms (2,000 events/s)", "w2_200x100ms"),
    _lone_events("W2: 1,000 streams, an event a second (1,000 events/s)", "w2_1000x1000ms"),
    _lone_events("W2: 2,000 streams, an event a second (2,000 events/s)", "w2_2000x1000ms"),
    _lone_events("W2: 1,000 streams, an event each 100 ms (10,000 events/s, more than most can)", "w2_1000x100ms"),
)
HELLO: Final = Table(
    "W3: plain requests, 32 connections",
    [
        Column("requests/s", "w3@", "rps", 0, compared=True),
        Column("CPU µs/request", "w3@", "server_cpu_us_per_req", 0, compared=True),
        Column("p50 ms", "w3@", "p50_ms", 2),
        Column("p99 ms", "w3@", "p99_ms", 2),
    ],
)
FROZEN: Final = Table(
    "W5: a reader of 110 MB who reads nothing for 5 s, and others beside it",
    [
        Column("more RSS at most, MiB", "w5@", "growth_peak_mib"),
        Column("after 5 s", "w5@", "growth_at_5s_mib"),
        Column("3 s after it left", "w5@", "growth_3s_after_close_mib"),
        Column("CPU s meanwhile", "w5@", "cpu_s_during", 2),
        Column("CPU s after it left", "w5@", "cpu_s_after_close", 2),
        Column("others p50 ms", "w5@", "probe_p50_ms", 2),
        Column("others p99", "w5@", "probe_p99_ms", 2),
        Column("others max", "w5@", "probe_max_ms"),
        Column("others failed", "w5@", "probe_failures", 0),
    ],
)
PROTOCOLS: Final = (
    _events("WebSocket: 1 stream of 60,000 events of 32 B", "ws_1x60000x32"),
    _events("WebSocket: 50 streams of 2,000 events of 32 B, a socket each", "ws_50x2000x32"),
    _lone_events("WebSocket: 200 streams, an event each 100 ms, a socket each", "ws_200x100ms"),
    _events("HTTP/2: 1 stream of 60,000 events of 32 B", "h2_1x60000x32", base=BARE),
    _events("HTTP/2: 50 streams of 2,000 events of 32 B on 1 connection", "h2_50x2000x32", base=BARE),
    _lone_events("HTTP/2: 200 streams, an event each 100 ms, on 4 connections", "h2_200x100ms", base=BARE),
)
