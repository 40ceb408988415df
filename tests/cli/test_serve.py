"""`keryx-trio serve`: hypercorn's trio worker with our limits, and what stops it before it begins."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from keryx_trio import Config
from keryx_trio.cli.serve import server_config
from tests.cli.conftest import APP, LIMIT, Run
from tests.e2e.serving import ROOT, command, environment

PLAIN = """
import os
import keryx_trio

app = keryx_trio.Keryx()


@app.action("it", web=keryx_trio.Web("/it"))
async def it() -> list[object]:
    return [VALUE, os.getpid()]
"""


@contextmanager
def served(
    folder: Path, *options: str, app: str = "plain:app", wait: int = 1
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address, once so many workers run there."""
    process = subprocess.Popen(
        command("keryx_trio", "serve", app, "--bind", "127.0.0.1:0", *options), cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), NOTES=str(folder / "notes")), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said, url = "", ""
        while said.count("Running on") < wait:
            line = process.stderr.readline()
            assert line, said
            said += line
            if found := re.search(r"Running on (http://\S+)", line):
                url = found[1]
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT)


def ask(url: str) -> list[object]:
    return httpx.get(f"{url}/api/it", trust_env=False, timeout=LIMIT).json()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN.replace("VALUE", "1"))
    return path


def test_an_application_is_served_from_the_current_folder_and_stops_at_a_signal(plain: Path):
    with served(plain.parent) as (url, process):
        assert ask(url)[0] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT) == 0


def test_workers_are_processes_of_their_own(plain: Path):
    with served(plain.parent, "--workers", "2", wait=2) as (url, _):
        end = time.monotonic() + LIMIT
        found = set()
        while len(found) < 2 and time.monotonic() < end:
            found.add(ask(url)[1])
        assert len(found) == 2


def test_reload_starts_again_when_a_file_has_changed(plain: Path):
    with served(plain.parent, "--reload") as (url, _):
        assert ask(url)[0] == 1
        time.sleep(1.1)  # a file's time may be that of its second
        plain.write_text(PLAIN.replace("VALUE", "'another'"))
        end = time.monotonic() + LIMIT
        value = None
        while value != "another" and time.monotonic() < end:
            time.sleep(0.1)
            try:
                value = ask(url)[0]
            except httpx.TransportError:
                value = None  # between two workers
        assert value == "another"


def test_the_server_has_limits_that_fit_ours():
    config = server_config("plain:app", Config(drain_timeout=42.0))
    assert (config.application_path, config.worker_class, config.accesslog) == ("plain:app", "trio", None)
    assert config.graceful_timeout > 42
    assert config.backlog == 2048
    assert config.keep_alive_max_requests > 1_000_000
    assert Config().websocket.max_message_size < config.websocket_max_message_size < 100_000


def test_a_wrong_application_fails_at_once(keryx: Callable[..., Run]):
    run = keryx("serve", "nowhere:app")
    assert (run.status, run.out) == (2, b"")
    assert f"there is no module 'nowhere' in {ROOT}" in " ".join(run.err.split())


def test_a_bad_setting_is_one_line(keryx: Callable[..., Run]):
    run = keryx("serve", APP, KERYX_PING="often")
    assert run.status == 1
    assert run.err.splitlines()[-1].startswith("Error: KERYX_PING must be a number of seconds")


def test_an_address_that_is_taken_is_one_line(keryx: Callable[..., Run]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        run = keryx("serve", APP, "--bind", bind)
    assert run.status == 1
    assert run.err.splitlines()[-1].startswith(f"Error: cannot serve at {bind}: ")
    assert "Address already in use" in run.err


def test_an_address_that_is_none_is_one_line(keryx: Callable[..., Run]):
    bind = "127.0.0.1:99999"
    run = keryx("serve", APP, "--bind", bind)
    assert run.status == 1
    assert f"cannot serve at {bind}: " in run.err
    assert "Traceback" not in run.err


FAILING = """
import multiprocessing
import os
import sys
from contextlib import asynccontextmanager

import trio

import keryx_trio

HOW = os.environ["HOW"]
if HOW == "import" and multiprocessing.parent_process() is not None:
    raise RuntimeError("told apart")


@asynccontextmanager
async def lifespan(app):
    if HOW == "raise":
        raise RuntimeError("told apart")
    if HOW == "exit":
        sys.exit(0)
    if HOW == "loop":
        trio.lowlevel.spawn_system_task(fail)
    yield


async def fail():
    raise RuntimeError("told apart")


app = keryx_trio.Keryx(lifespan=lifespan)
"""


@pytest.mark.parametrize("server", ["keryx", "hypercorn"])
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", ["import", "raise", "exit", "loop"])
def test_a_worker_that_cannot_start_or_fails_ends_it_with_1_and_a_line(
    tmp_path: Path, how: str, workers: str, server: str
):
    (tmp_path / "failing.py").write_text(FAILING)
    run = subprocess.run(
        command("keryx_trio", "serve", "failing:app", "--bind", "127.0.0.1:0", "--workers", workers), cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT), HOW=how, KERYX_SERVER=server), stderr=subprocess.PIPE, text=True,
        check=False, timeout=LIMIT,
    )  # fmt: skip
    assert run.returncode == 1
    assert ("SystemExit: 0" if how == "exit" else "told apart") in run.stderr
    assert re.fullmatch(
        r"Error: a worker could not start, or has failed: process \d+ ended with 1; what it said is above",
        run.stderr.splitlines()[-1],
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_ends_it_with_1_and_the_others(plain: Path, workers: int):
    with served(plain.parent, "--workers", str(workers), wait=workers) as (url, process):
        pid = int(str(ask(url)[1]))
        os.kill(pid, signal.SIGKILL)
        process.wait(timeout=LIMIT)
        said = process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            ask(url)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(f"Error: a worker was killed: process {pid}, by SIGKILL")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_is_no_failure(plain: Path, workers: int, number: int):
    with served(plain.parent, "--workers", str(workers), wait=workers) as (_, process):
        process.send_signal(number)
        process.wait(timeout=LIMIT)
        said = process.stderr.read()
        assert process.returncode == 0
        assert "Error" not in said


def test_several_workers_do_not_share_the_port_of_another_server(plain: Path):
    with served(plain.parent, "--workers", "2", wait=2) as (url, _):
        bind = url.removeprefix("http://")
        run = subprocess.run(
            command("keryx_trio", "serve", "plain:app", "--bind", bind, "--workers", "2"), cwd=plain.parent,
            env=environment(PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT,
        )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"Error: cannot serve at {bind}: ")
