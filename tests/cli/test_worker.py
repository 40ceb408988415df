"""`keryx-trio worker`, and the jobs that other processes give it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import APP, LIMIT, SOON, Run, process, until


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    return {"KERYX_STORE": f"sqlite:///{tmp_path}/state.db"}


def until_says(worker: subprocess.Popen[bytes], words: bytes) -> bytes:
    said = b""
    for line in worker.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said.decode())


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_an_idle_worker_ends_at_once(sign: signal.Signals, status: int, notes: Path, store: dict[str, str]):
    with process(notes, "worker", APP, variables=store) as worker:
        assert b"queues=all:1" in until_says(worker, b"jobs run here")
        start = time.monotonic()
        worker.send_signal(sign)
        out, err = worker.communicate(timeout=LIMIT)
        assert worker.returncode == status
        assert time.monotonic() - start < SOON
    assert out.splitlines() == [b"printed at import", b"printed at the start", b"printed at the end"]
    assert b"[error]" not in err
    assert notes.read_text() == "lifespan ended\n"


def test_what_one_process_orders_another_one_runs(notes: Path, store: dict[str, str], call: Callable[..., Run]):
    job = call("order", "--action", "count", "--params", '{"to": 2}', "--queue", "numbers", **store).response
    with process(notes, "worker", APP, "--queue", "numbers:2", variables=store) as worker:
        said = until_says(worker, b"[STREAM:TASK:DONE] count")
        assert b"queues=numbers:2" in said
        worker.terminate()
        assert worker.wait(LIMIT) == 0
    assert "producer ended" in notes.read_text()
    assert len(job) == 24


def test_a_job_that_outlasts_the_stop_goes_back_and_is_listed(
    notes: Path, store: dict[str, str], call: Callable[..., Run], keryx: Callable[..., Run]
):
    job = call("order", "--action", "wait", **store).response
    notes.write_text("")
    with process(notes, "worker", APP, variables={"KERYX_DRAIN_TIMEOUT": "0.3", **store}) as worker:
        until(notes, "waiting")
        assert f"{job}  wait    default  1x" in keryx("jobs", APP, **store).out.decode()
        worker.terminate()
        assert b"a job goes back to its queue" in worker.communicate(timeout=LIMIT)[1]
        assert worker.returncode == 0
    assert notes.read_text() == "waiting\ncleaning up\nlifespan ended\n"
    assert "QUEUED" in keryx("jobs", APP, **store).out.decode()


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_worker_that_still_starts_gives_the_start_up(sign: signal.Signals, status: int, notes: Path):
    with process(notes, "worker", APP, variables={"SLOW_START": "1"}) as worker:
        until(notes, "starting")
        worker.send_signal(sign)
        assert worker.wait(SOON) == status
    assert "start given up" in notes.read_text()


@pytest.mark.parametrize("second", [True, False])
def test_a_job_that_shields_its_cleanup_is_left_behind_after_the_stop_or_at_a_second_signal(
    second: bool, notes: Path, store: dict[str, str], call: Callable[..., Run]
):
    call("order", "--action", "wait", "--params", '{"shielded": true}', **store)
    drain = "60" if second else "0.3"
    with process(notes, "worker", APP, variables={"KERYX_DRAIN_TIMEOUT": drain, **store}) as worker:
        until(notes, "waiting")
        worker.terminate()
        if second:
            until_says(worker, b"no more jobs are taken")
            worker.terminate()
        start = time.monotonic()
        err = worker.communicate(timeout=LIMIT)[1]
        assert worker.returncode == 0
        assert time.monotonic() - start < SOON
    assert second or b"left behind: its cleanup takes longer than the shutdown may action=wait" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--queue", "a b"], "--queue: must be queues, such as default or mail:4"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_options_are_refused(words: list[str], said: str, keryx: Callable[..., Run]):
    done = keryx("worker", APP, *words)
    assert done.status == 2
    assert said in done.err


def test_where_nobody_else_can_put_jobs_the_log_says_so(notes: Path):
    with process(notes, "worker", APP) as worker:
        until_says(worker, b"no other process can put jobs here: KERYX_STORE names a store")


def test_an_application_that_does_not_start_is_one_line(keryx: Callable[..., Run], tmp_path: Path):
    done = keryx("worker", APP, KERYX_STORE=f"sqlite:///{tmp_path}/nowhere/state.db")
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("Error: KERYX_STORE: there is no folder")
