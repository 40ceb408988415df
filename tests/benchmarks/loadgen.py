"""The generator of load, built once for all tests, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import trio

from benchmarks.clients import LOADGEN, build_loadgen, compiler

needs_loadgen = pytest.mark.skipif(
    not sys.platform.startswith("linux") or compiler() is None, reason="loadgen needs Linux and a C compiler"
)


async def read(protocol: str, url: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Let loadgen read streams; its exit code and its last line."""
    build_loadgen()
    with trio.fail_after(20):
        run = await trio.run_process(
            [LOADGEN, protocol, "--url", url, "--duration", "10", *options],
            capture_stdout=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    return run.returncode, json.loads(run.stdout.splitlines()[-1])
