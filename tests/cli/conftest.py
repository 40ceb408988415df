"""The command in processes of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.e2e.serving import ROOT, command, environment

APP = "tests.cli.tool:app"
LIMIT = 30.0


SOON = 5.0
"""How long anything may take that should happen at once, in seconds: the machine may be busy."""


@contextmanager
def process(notes: Path, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `keryx-trio` with these words, while the block runs."""
    variables = options.pop("variables", {})
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    started = subprocess.Popen(
        command("keryx_trio", *words), cwd=ROOT, env=environment(NOTES=str(notes), **variables), **settings
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def until(notes: Path, line: str) -> None:
    """Wait until the tool has noted something."""
    end = time.monotonic() + LIMIT
    while line not in notes.read_text():
        assert time.monotonic() < end, notes.read_text()
        time.sleep(0.01)


@attrs.frozen
class Run:
    """What a command has done."""

    status: int
    out: bytes
    err: str

    @property
    def response(self) -> Any:
        """The one line of the output."""
        assert self.status == 0, self.err
        assert self.out.endswith(b"\n")
        assert self.out.count(b"\n") == 1
        [(key, value)] = json.loads(self.out).items()
        assert key == "response"
        return value

    @property
    def error(self) -> dict[str, Any]:
        """The last line of stderr."""
        assert self.status == 1, self.err
        assert self.err.endswith("\n")
        [(key, value)] = json.loads(self.err.splitlines()[-1]).items()
        assert key == "error"
        return value


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def keryx(notes: Path) -> Callable[..., Run]:
    """Runs `keryx-trio` with these words, to its end."""

    def run(*words: str, stdin: bytes | None = None, cwd: Path = ROOT, **variables: str) -> Run:
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run(
            command("keryx_trio", *words), cwd=cwd, env=environment(NOTES=str(notes), **variables), capture_output=True,
            check=False, timeout=LIMIT, **given,
        )  # fmt: skip
        assert not any(line.startswith(b"Traceback") for line in done.stderr.splitlines()), done.stderr.decode()
        return Run(done.returncode, done.stdout, done.stderr.decode())

    return run


@pytest.fixture
def call(keryx: Callable[..., Run]) -> Callable[..., Run]:
    """Calls an action of the tool, with the log silent."""
    return lambda *words, **options: keryx("run", "-q", APP, *words, **options)
