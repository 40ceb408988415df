"""The tables of a file of results: `python -m benchmarks.summary [results.json] [--readme]`.

A cell is the median over the rounds; where it matters, its ratio to the base system and [the smallest..the largest]
stand beside it. Runs that failed are named at the end and count nowhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from .markdown import README, number, replace_part
from .markdown import table as markdown
from .tables import BARE, FROZEN, HELLO, PROTOCOLS, START, STREAMS, Column, Table

RESULTS: Final = README.parent / "results.json"
WRONG: Final = ("errors", "bad_streams", "unfinished", "disorder", "non2xx")

Run = dict[str, Any]


class Results:
    """The runs of a file, by system."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.systems = list(dict.fromkeys(run["system"] for run in runs))
        self.good = {
            system: [run["result"] for run in runs if run["system"] == system and "failed" not in run["result"]]
            for system in self.systems
        }

    def values(self, system: str, key: str, name: str | None = None) -> list[float]:
        """A value in each round that has it."""
        found = [result.get(key) for result in self.good.get(system, [])]
        if name is not None:
            found = [result.get(name) for result in found if isinstance(result, dict)]
        return [value for value in found if isinstance(value, (int, float))]

    def keys(self, start: str) -> list[str]:
        """The keys of results that begin so."""
        every = [result for results in self.good.values() for result in results]
        return list(dict.fromkeys(key for result in every for key in result if key.startswith(start)))

    def variants(self, system: str, test: str) -> list[str]:
        """What a system has of a test, as it stands for `@` in keys: itself, and under names of its own."""
        keys = [key.split("_")[1] for result in self.good[system] for key in result if key.startswith(f"{test}_")]
        return ["", *sorted({f"_{name}" for name in keys if not name[0].isdigit()})]


def cell(results: Results, system: str, column: Column, variant: str, base: str) -> str:
    """The median of a value, with what stands beside it; "-" where there is none."""
    values = results.values(system, column.key.replace("@", variant), column.name)
    if not values:
        return "-"
    median = statistics.median(values)
    text = number(median, column.digits)
    if not column.compared:
        return text
    other = results.values(base, column.key.replace("@", ""), column.name)
    if other and statistics.median(other):
        text += f" ({median / statistics.median(other):.2f}x)"
    if len(values) > 1:
        text += f" [{number(min(values), column.digits)}..{number(max(values), column.digits)}]"
    return text


def table(results: Results, of: Table, base: str) -> str:
    """A table with its title; nothing where no system has any of it."""
    test, varies, _ = of.columns[0].key.partition("@")
    rows = []
    for system in results.systems:
        for variant in results.variants(system, test) if varies else [""]:
            cells = [cell(results, system, column, variant, of.base or base) for column in of.columns]
            if set(cells) != {"-"}:
                rows.append([f"{system} {variant[1:]}".strip(), *cells])
    if not rows:
        return ""
    return f"### {of.title}\n\n" + markdown(["system", *[column.title for column in of.columns]], rows)


def left_behind(results: Results) -> str:
    """W4: how long after its readers have left each system produced, in every run."""
    keys = results.keys("w4_")
    if not keys:
        return ""
    rows = [
        [system, *[", ".join(_left(run[key]) for run in results.good[system] if key in run) or "-" for key in keys]]
        for system in results.systems
    ]
    title = "### W4: 50 readers leave: seconds until no producer is left (each run)"
    return f"{title}\n\n" + markdown(["system", *[key.removeprefix("w4_") for key in keys]], rows)


def _left(result: dict[str, Any]) -> str:
    if "server_died" in result:
        return "the server died"
    if "error" in result:
        return str(result["error"])
    seconds = result.get("seconds_to_zero")
    return f"never ({result['live_at_end']} left)" if seconds is None else f"{seconds:.3f}"


def faults(runs: Sequence[Run]) -> Iterator[str]:
    """What was not as it should be: failed runs, broken streams, missing and mixed events, dead servers."""
    for run in runs:
        where, result = f"{run['system']}, round {run['round'] + 1}", run["result"]
        if "failed" in result:
            yield f"{where}: {result['failed']}"
        if result.get("died"):
            yield f"{where}: the server died, {result['died']} times"
        for key, value in result.items():
            wrong = [f"{value[name]} {name}" for name in WRONG if value.get(name)] if isinstance(value, dict) else []
            if wrong:
                first = f" ({value['first_error']})" if value.get("first_error") else ""
                yield f"{where}, {key}: {', '.join(wrong)}{first}"


def measured_on(machine: dict[str, Any], rounds: int, *, quick: bool) -> str:
    """The machine and its software, in one sentence; `machine` may be empty."""
    said = f"in {rounds} round{'s' * (rounds > 1)}"
    if quick:
        said += ", **quick: the workloads were small, and of these tables only the form is true**"
    if not machine:
        return f"Measured {said}."
    packages = [f"{name} {version}" for name, version in machine.get("packages", {}).items() if version]
    commit = f" (commit {machine['commit']})" if machine.get("commit") else ""
    return (
        f"Measured on {machine['date']} {said}, on {machine['cpu']} with {machine['cores']} cores and "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine.get('python', '?')}; "
        f"{', '.join(packages)}{commit}."
    )


def summary(results: dict[str, Any], base: str) -> str:
    """Everything, as markdown."""
    runs = results["runs"]
    if not runs:
        return "There are no results yet.\n"
    read = Results(runs)
    rounds, quick = max(run["round"] for run in runs) + 1, any(run.get("quick") for run in runs)
    parts = [
        measured_on(results.get("machine", {}), rounds, quick=quick),
        f"A cell is a median, (its ratio to {base}; of HTTP/2 to {BARE}), [the smallest..the largest].",
        *(table(read, each, base) for each in (START, *STREAMS, HELLO)),
        left_behind(read),
        *(table(read, each, base) for each in (FROZEN, *PROTOCOLS)),
        "### Integrity",
        "\n".join(f"- {fault}" for fault in faults(runs))
        or "Every stream was whole and in order, and every answer a 200.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description="Show results as tables.")
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="of results (benchmarks/results.json)")
    parser.add_argument("--base", default="fastapi-uvicorn", metavar="SYSTEM", help="which ratios are to")
    parser.add_argument(
        "--readme", action="store_true", help="put the tables into README.md, in place of the last ones"
    )
    options = parser.parse_args(arguments)
    if not options.file.exists():
        parser.error(f"there is no {options.file}; python -m benchmarks.run makes it")
    text = summary(json.loads(options.file.read_text()), options.base)
    if options.readme:
        replace_part(README, "results", text)
        print(f"The tables are in {README}.")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
