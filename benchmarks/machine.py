"""What the numbers were measured on: they mean nothing without it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from .servers import PROJECT, VENV

PACKAGES = (
    "keryx-trio", "trio", "hypercorn", "httptools", "fastapi", "starlette", "sse-starlette", "uvicorn", "uvloop",
    "websockets", "quart-trio", "litestar", "granian",
)  # fmt: skip

ASK = """
import importlib.metadata, json, platform, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        versions[name] = None
print(json.dumps({"python": platform.python_version(), "packages": versions}))
"""


def describe() -> dict[str, Any]:
    """The machine, its software, and the checkout under test."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "commit": _said("git", "-C", str(PROJECT), "describe", "--always", "--dirty"),
        **json.loads(_said(str(VENV / "bin" / "python"), "-c", ASK, *PACKAGES) or "{}"),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _said(*words: str) -> str:
    """What a command prints; nothing where it fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
