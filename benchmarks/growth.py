"""How cost grows: with the streams that are open, and with the size of events. `python -m benchmarks.growth`.

Owns: two series of measurements, their table and their plot. Costs are those of a steady state: a stream's opening and
end do not count. Events come once a second, with 5,000 streams every two, and the streams' turns are spread evenly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from . import machine
from .clients import loadgen_command, read_streams, running
from .markdown import README, number, replace_part, table
from .plot import Line, Panel, draw
from .processes import cpu_seconds_fine, raise_limit_of_files
from .run import LOGS, prepare, write
from .servers import HERE, Failed, Server, System, load_systems
from .summary import measured_on

OPEN: Final = ((10, 1000), (100, 1000), (1000, 1000), (5000, 2000))
"""How many streams are open, and how many ms lie between the events of each."""

SIZES: Final = ((32, 60000), (1024, 60000), (65536, 4000))
"""Bytes of text in an event, and how many events a firehose sends."""

RAMP: Final = 1000
"""How many streams begin in a second at most."""

STEADY: Final = 10.0
"""How long a steady state is measured, in seconds."""

SETTLE: Final = 5.0
"""How long the streams stand before that: some servers have much to catch up with after so many have begun."""

WARM: Final = 1
"""Streams that a server has answered before its memory is read: what the first one takes is not each one's."""

FOR_EVER: Final = 10**6
SYSTEMS: Final = ["keryx-trio", "fastapi-uvicorn"]

Row = dict[str, Any]


def open_streams(system: System, streams: int, ms: int, settle: float, seconds: float) -> Row:
    """What so many open streams cost, and how late their events are.

    Raises:
        Failed: not all of them came to stand.
    """
    with Server(system, LOGS) as server:
        read_streams(server, "/api/ticks?n=2&ms=100", WARM)
        time.sleep(1)
        idle = server.resident_kib()
        ramp = min(RAMP, streams * 1000 / ms)
        path = f"/api/ticks?n={FOR_EVER}&ms={ms}"
        words = loadgen_command(server, path, streams, duration=streams / ramp + 60, ramp=ramp)
        words += ["--settle", str(settle), "--steady", str(seconds)]
        cpu, said = [], []
        # loadgen keeps the streams until its stdin ends: they are open when memory and CPU are read.
        with running(words) as process:
            for line in process.stdout or ():
                cpu.append(cpu_seconds_fine(server.pid))
                said.append(json.loads(line))
                if "events" in said[-1]:
                    break
            memory = server.resident_kib()
    if len(said) < 2 or not said[-1]["events"]:  # noqa: PLR2004 - that they stand, and what came of it
        raise Failed(f"{system.name}: {streams} streams did not come to stand: {said[-1] if said else 'nothing'}")
    result = said[-1]
    return {
        "system": system.name,
        "streams": streams,
        "ms": ms,
        "events": result["events"],
        "cpu_us_per_event": round((cpu[1] - cpu[0]) * 1e6 / result["events"], 2),
        "lateness_ms_p50": result["due_ms_p50"],
        "lateness_ms_p99": result["due_ms_p99"],
        "kib_per_stream": round((memory - idle) / streams, 1),
        "wrong": result["errors"] + result["disorder"],
    }


def sized_events(server: Server, size: int, events: int) -> Row:
    """What a firehose of events of a size brings and costs."""
    result = read_streams(server, f"/api/firehose?n={events}&size={size}", 1, expect=events)
    return {
        "system": server.system.name,
        "size": size,
        "events_per_s": result["events_per_s"],
        "mb_per_s": round(result["bytes"] / result["seconds"] / 1e6, 1),
        "cpu_us_per_event": result["server_cpu_us_per_event"],
        "wrong": result["errors"] + result["bad_streams"] + result["disorder"],
    }


def measure(system: System, *, quick: bool) -> Iterator[tuple[str, Row]]:
    """Every measurement of a system, with the name of its series."""
    for streams, ms in OPEN:
        yield "open", open_streams(system, streams, ms, *((2, 3) if quick else (SETTLE, STEADY)))
    with Server(system, LOGS) as server:
        read_streams(server, "/api/firehose?n=5000&size=32", 1)  # warm
        for size, events in SIZES:
            yield "sizes", sized_events(server, size, events // 10 if quick else events)


class Growth:
    """What a file of measurements holds: medians over its rounds."""

    def __init__(self, results: dict[str, Any]) -> None:
        self._results = results

    def systems(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(row["system"] for row in self._results["open"]))

    def median(self, series: str, system: str, x: tuple[str, float], y: str) -> float | None:
        """Of a value, where `x` says; None where it was not measured."""
        name, place = x
        rows = self._results[series]
        found = [row[y] for row in rows if row["system"] == system and row[name] == place]
        return statistics.median(found) if found else None

    def line(self, series: str, system: str, x: str, y: str) -> Line:
        """A value over another one; what is not above 0 can't be drawn and is left out."""
        places = sorted({row[x] for row in self._results[series]})
        points = [(place, self.median(series, system, (x, place), y)) for place in places]
        return Line(system, [(place, value) for place, value in points if value is not None and value > 0])

    def table(self, series: str, x: str, head: str, columns: Sequence[tuple[str, str, int]]) -> str:
        """Rows of systems by places of x."""
        rows = []
        for system in self.systems():
            for place in sorted({row[x] for row in self._results[series]}):
                values = [(self.median(series, system, (x, place), name), digits) for _, name, digits in columns]
                cells = ["-" if value is None else number(value, digits) for value, digits in values]
                rows.append([system, number(place, 0), *cells])
        return table(["system", head, *[title for title, _, _ in columns]], rows)


def tables(results: dict[str, Any]) -> str:
    """Everything, as markdown."""
    growth = Growth(results)
    wrong = sum(row["wrong"] for series in ("open", "sizes") for row in results[series])
    open_columns = [
        ("CPU µs/event", "cpu_us_per_event", 0),
        ("lateness p50 ms", "lateness_ms_p50", 2),
        ("lateness p99 ms", "lateness_ms_p99", 1),
        ("KiB a stream", "kib_per_stream", 1),
    ]
    size_columns = [
        ("events/s", "events_per_s", 0),
        ("MB/s", "mb_per_s", 1),
        ("CPU µs/event", "cpu_us_per_event", 1),
    ]
    parts = [
        measured_on(results["machine"], results["rounds"], quick=results["quick"]),
        "### Open streams, an event a second each (of 5,000: every two seconds)",
        growth.table("open", "streams", "streams", open_columns),
        "### One stream as fast as it is read, by the bytes of text in an event",
        growth.table("sizes", "size", "bytes", size_columns),
        f"{wrong} streams were broken or out of order." if wrong else "Every stream was whole and in order.",
    ]
    return "\n\n".join(parts) + "\n"


def plot(results: dict[str, Any]) -> str:
    """The same, drawn."""
    growth = Growth(results)

    def panel(title: str, series: str, x: tuple[str, str], y: tuple[str, str]) -> Panel:
        lines = [growth.line(series, system, x[0], y[0]) for system in growth.systems()]
        return Panel(title, x[1], y[1], [line for line in lines if line.points])

    streams, size = ("streams", "open streams"), ("size", "bytes of text in an event")
    return draw(
        [
            panel("What an event costs", "open", streams, ("cpu_us_per_event", "µs of CPU")),
            panel("How late the latest of a hundred is", "open", streams, ("lateness_ms_p99", "ms, p99")),
            panel("What a stream takes", "open", streams, ("kib_per_stream", "KiB of memory")),
            panel("What an event of a burst costs", "sizes", size, ("cpu_us_per_event", "µs of CPU")),
        ],
        "How cost grows with open streams and with the size of events, on logarithmic axes",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; written after each measurement."""
    if raise_limit_of_files() < 2 * OPEN[-1][0]:
        print("ulimit -n is low: with 5,000 streams some may not open", flush=True)
    systems = load_systems(HERE / "systems.json", options.systems.split(","))
    results: dict[str, Any] = {
        "machine": machine.describe(), "rounds": options.rounds, "quick": options.quick, "open": [], "sizes": []
    }  # fmt: skip
    for turn in range(options.rounds):
        for system in systems:
            print(f"round {turn + 1} of {options.rounds}: {system.name}", flush=True)
            for series, row in measure(system, quick=options.quick):
                results[series].append(row)
                write(options.out, results)
                place = f"{row['streams']} streams" if series == "open" else f"{row['size']} bytes"
                print(f"    {place:14s} {row['cpu_us_per_event']:.1f} µs of CPU an event", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="Measure how cost grows.")
    parser.add_argument("--systems", default=",".join(SYSTEMS), metavar="A,B")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--out", type=Path, default=HERE / "growth.json", metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the plot into it")
    parser.add_argument(
        "--readme", action="store_true", help="put the tables into README.md, in place of the last ones"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="see that all is here that a run needs, and measure nothing"
    )
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument(
        "--from", dest="measured", type=Path, metavar="FILE", help="measure nothing, show what is in it"
    )
    options = parser.parse_args(arguments)
    if not options.measured:
        prepare()
    if options.prepare:
        return
    results = json.loads(options.measured.read_text()) if options.measured else run(options)
    if options.svg:
        options.svg.write_text(plot(results), encoding="utf-8")
    if options.readme:
        replace_part(README, "growth", tables(results))
    print(tables(results), end="")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"benchmarks: {error}")
