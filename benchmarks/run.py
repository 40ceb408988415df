"""Run the rounds: `python -m benchmarks.run`, from the root of the project.

Every system takes its turn in every round, so that what else the machine does falls on all of them. Results are written
after each turn; `python -m benchmarks.summary` reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import machine
from .clients import build_loadgen, check_wrk
from .processes import raise_limit_of_files
from .servers import HERE, VENV, Failed, Server, System, load_systems
from .workloads import TESTS, Turn, measure

RESULTS = HERE / "results.json"
LOGS = HERE / "build" / "logs"

SHOWN = (
    ("events_per_s", "events/s", ",.0f"),
    ("rps", "requests/s", ",.0f"),
    ("server_cpu_us_per_event", "µs of CPU each", ",.1f"),
    ("server_cpu_us_per_req", "µs of CPU each", ",.1f"),
    ("seconds_to_zero", "s until nobody produces", ".3f"),
    ("growth_peak_mib", "MiB more", ".1f"),
    ("probe_p99_ms", "ms p99 for others", ".1f"),
    ("error", "", ""),
    ("first_error", "", ""),
)


def prepare(tests: Sequence[str] = ()) -> None:
    """Have everything ready that a run needs.

    Raises:
        Failed: something is missing; says what to do.
    """
    if not sys.platform.startswith("linux"):
        raise Failed(
            "the benchmark needs Linux: it reads the CPU and the memory of servers in /proc, and loadgen polls"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped then, too
    raise_limit_of_files()
    if "w3" in tests:
        check_wrk()
    build_loadgen()
    LOGS.mkdir(parents=True, exist_ok=True)


def take_turn(system: System, tests: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Start a system, measure it, stop it; a system that fails says so in its result, beside what it gave before."""
    turn = None
    try:
        with Server(system, LOGS) as server:
            turn = Turn(server, quick, _say)
            measure(turn, tests)
            turn.result["alive_at_end"] = server.alive
    except (Failed, OSError) as error:
        print(f"    failed: {error}", flush=True)
        return {**(turn.result if turn else {}), "failed": str(error)}
    return turn.result


def _say(name: str, values: dict[str, Any]) -> None:
    told = [f"{values[key]:{form}} {unit}".strip() for key, unit, form in SHOWN if values.get(key)]
    if values.get("live_at_end"):
        told.append(f"{values['live_at_end']} still produce for nobody")
    print(f"    {name:20s} {', '.join(told)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _options(arguments)
    tests = options.tests.split(",")
    unknown = set(tests) - set(TESTS)
    if unknown:
        raise Failed(f"there is no test {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}")
    systems = load_systems(options.systems_file, [name for name in options.systems.split(",") if name])
    prepare(tests)
    if options.prepare:
        return
    runs = json.loads(options.out.read_text())["runs"] if options.append and options.out.exists() else []
    described = machine.describe()
    print(f"{len(systems)} systems, {options.rounds} rounds; the servers are of {VENV}", flush=True)
    for number in range(options.rounds):
        now = [test for test in tests if number < options.rare or test not in ("w4", "w5")]
        for place, system in enumerate(systems, 1):
            print(f"round {number + 1} of {options.rounds}, {place} of {len(systems)}: {system.name}", flush=True)
            start, load = time.time(), os.getloadavg()[0]
            result = take_turn(system, now, quick=options.quick)
            run = {"system": system.name, "round": number, "at": start, "load1": load, "quick": options.quick}
            runs.append({**run, "result": result})
            write(options.out, {"machine": described, "runs": runs})
            print(f"    {time.time() - start:.0f} s", flush=True)
    print(f"The results are in {options.out}; python -m benchmarks.summary {options.out}", flush=True)


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace a file of results at once, or not at all."""
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure the systems, round by round."
    )
    parser.add_argument("--systems", default="", metavar="A,B", help="which; without it, all but those to be skipped")
    parser.add_argument("--systems-file", type=Path, default=HERE / "systems.json", metavar="FILE")
    parser.add_argument("--tests", default=",".join(TESTS), metavar="W1,W2", help=f"which of {','.join(TESTS)}")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--rare", type=int, default=2, metavar="K", help="w4 and w5 in the first K rounds only")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--append", action="store_true", help="add to the results that are there")
    parser.add_argument(
        "--prepare", action="store_true", help="see that all is here that a run needs, and measure nothing"
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs; the numbers mean little")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"benchmarks: {error}")
