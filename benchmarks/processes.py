"""What a tree of processes has used, as Linux tells it in /proc.

A process that has gone counts nothing: trees are read while they live.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """A process and all that come of it."""
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        for task in _tasks(found[-1]):
            left += map(int, _read(task / "children").split())
    return found


def resident_kib(pid: int) -> int:
    """The memory that a tree has resident; shared pages count once for each process."""
    fields = [_read(PROC / str(process) / "statm").split() for process in tree(pid)]
    return sum(int(field[1]) * PAGE_KIB for field in fields if field)


def cpu_seconds(pid: int) -> float:
    """The CPU time of a tree, user and system, in steps of a tick (10 ms)."""
    stats = [_read(PROC / str(process) / "stat").rpartition(")")[2].split() for process in tree(pid)]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats if stat) / TICKS


def cpu_seconds_fine(pid: int) -> float:
    """The same in nanoseconds, of the threads that live: for differences over little work."""
    times = [_read(task / "schedstat").split() for process in tree(pid) for task in _tasks(process)]
    return sum(int(time[0]) for time in times if time) / 1e9


def raise_limit_of_files() -> int:
    """Let this process and its children open as many files as they may; how many that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from (PROC / str(pid) / "task").iterdir()
    except OSError:  # it has gone
        return


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # as above
        return ""
