"""Servers that do not run on trio: the start fails, and a line says what to do."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest
import trio

from tests.e2e.serving import ROOT, command, environment

APP = "tests.e2e.firehose:app"
HINT = "hypercorn --worker-class trio"


async def start(*words: str) -> tuple[int, list[str]]:
    """Run a server that should not come up; its exit code and what it said, line by line."""
    run = await trio.run_process(
        command(*words),
        cwd=ROOT,
        env=environment(),
        check=False,
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
    )
    return run.returncode, run.stdout.decode().splitlines()


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_hypercorn_s_default_worker_fails_to_start_with_a_line_that_says_why(workers: int) -> None:
    code, lines = await start("hypercorn", "--bind", "127.0.0.1:0", "--workers", str(workers), APP)
    # Each worker is a process that tells it, unless the first one's end has stopped it before.
    assert 1 <= [HINT in line for line in lines].count(True) <= max(workers, 1)
    assert not [line for line in lines if "Running on" in line]
    assert code == (0 if workers else 1)  # with processes of its own, hypercorn says 0 whatever becomes of them


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed")
async def test_uvicorn_fails_to_start_with_a_line_that_says_why() -> None:
    code, lines = await start("uvicorn", "--port", "0", APP)
    assert [HINT in line for line in lines].count(True) == 1
    assert not [line for line in lines if "Traceback" in line or "running on" in line]
    assert code != 0
