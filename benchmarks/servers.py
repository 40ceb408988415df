"""The servers under test: `systems.json`, and a system as a process.

Owns: where a system runs, when it is ready, and that nothing of it is left. Does not know: what it is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from .processes import cpu_seconds, resident_kib

HERE = Path(__file__).parent
PROJECT = Path(os.environ.get("PROJECT", HERE.parent)).resolve()
"""The checkout under test."""

VENV = Path(os.environ.get("BENCH_VENV", HERE / ".venv")).resolve()
"""Where the peers of `requirements.txt` are installed, and the project."""

START = 60.0
STOP = 5.0
"""How long a server may take for it, in seconds."""

PROBE = "/api/hello?name=x"


class Failed(Exception):  # noqa: N818 - as trio names things: for a state
    """A system, a tool or this machine is not as it has to be."""


@dataclass(frozen=True)
class System:
    """An entry of `systems.json`.

    Attributes:
        cmd: the command that serves; in it, `cwd` and `env`, `{port}`, `{here}` (this folder), `{venv}` and `{project}`
            stand for what they say. The port is one that is free when the server starts.
        before: commands for a shell, before each start.
        firehose: the routes of the firehose, by the names of their variants; "" is the main one.
        endless: those of the endless stream.
        hello_headers: fields of a request that make /api/hello do more, by names for that.
        protocols: "ws" and "h2", where it speaks them.
        skip: whether it runs only if it is asked for by name.
    """

    name: str
    cmd: str
    cwd: str = "{here}/peers"
    env: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    firehose: Mapping[str, str] = field(default_factory=lambda: {"": "/api/firehose"})
    endless: Mapping[str, str] = field(default_factory=lambda: {"": "/api/endless"})
    hello_headers: Mapping[str, str] = field(default_factory=dict)
    protocols: Sequence[str] = ()
    skip: bool = False

    def filled(self, text: str, port: int) -> str:
        """A text of the entry with its places filled in."""
        return text.format(port=port, here=HERE, venv=VENV, project=PROJECT)


def load_systems(path: Path, names: Sequence[str] = ()) -> list[System]:
    """The systems of a file, or those of them that are named, in the order of the names.

    Raises:
        Failed: there is none of a name, or an entry is none.
    """
    try:
        systems = {entry["name"]: System(**entry) for entry in json.loads(path.read_text())}
    except (TypeError, KeyError, ValueError) as error:
        raise Failed(f"{path} is a list of objects, each with name and cmd: {error}") from error
    unknown = [name for name in names if name not in systems]
    if unknown:
        raise Failed(f"{path.name} has no system {', '.join(unknown)}; it has {', '.join(systems)}")
    return [systems[name] for name in names] or [system for system in systems.values() if not system.skip]


class Server:
    """A system that serves; a context manager, at whose end nothing of it is left.

    Attributes:
        port: where it answers.
        startup: how long it took until it answered, in seconds.
    """

    def __init__(self, system: System, logs: Path) -> None:
        self.system = system
        self._log = logs / f"{system.name}.log"
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What the process ended with; None while it runs."""
        return self._process.returncode

    @property
    def pid(self) -> int:
        """The root of the tree of processes."""
        return self._process.pid

    def cpu(self) -> float:
        """The CPU time of all its processes, in seconds."""
        return cpu_seconds(self.pid)

    def resident_kib(self) -> int:
        """The memory of all its processes."""
        return resident_kib(self.pid)

    def get(self, path: str, timeout: float = 5) -> tuple[int, bytes]:
        """Status and body of an answer; each time on a connection of its own.

        Raises:
            OSError, http.client.HTTPException: there is none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def replace(self) -> None:
        """Stop it, and start another one."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """End it, by force where it does not end by itself."""
        if self.alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _start(self) -> None:
        system = self.system
        for command in system.before:
            subprocess.run(command, shell=True, check=False, capture_output=True)  # noqa: S602 - it says so
        self.port = _free_port()
        words = [system.filled(word, self.port) for word in shlex.split(system.cmd)]
        env = {**os.environ, **{name: system.filled(value, self.port) for name, value in system.env.items()}}
        start = time.monotonic()
        with self._log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    words,
                    cwd=system.filled(system.cwd, self.port),
                    env=env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(
                    f"{system.name} does not start: {error}; install benchmarks/requirements.txt and the project into "
                    f"{VENV}, or name another environment in BENCH_VENV"
                ) from error
        try:
            self._wait_until_it_answers(start + START)
        except BaseException:
            self.stop()
            raise
        self.startup = time.monotonic() - start

    def _wait_until_it_answers(self, until: float) -> None:
        while time.monotonic() < until:
            if not self.alive:
                raise Failed(f"{self.system.name} ended with {self.exit_code} instead of starting; see {self._log}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(PROBE, 2)[0] == http.HTTPStatus.OK:
                    return
            time.sleep(0.005)
        raise Failed(f"{self.system.name} did not answer {PROBE} within {START:g} s; see {self._log}")


def _free_port() -> int:
    """A port that nobody listens on: whoever else measures on this machine would be measured instead."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
