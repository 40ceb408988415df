"""`keryx-trio jobs`: what people see of the queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from keryx_trio import Config, Keryx
from keryx_trio.cli.jobs import lines
from keryx_trio.store.jobs import Order, Overview, Record, Status
from tests.cli.conftest import APP, Run
from tests.cli.tool import app as tool


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    return {"KERYX_STORE": f"sqlite:///{tmp_path}/state.db"}


def fail(url: str) -> None:
    """Let a job fail."""
    app = Keryx(store=url, config=Config())
    app.add(tool.actions["fail"])

    async def main() -> None:
        async with app:
            job = await app.enqueue("fail")
            while not job.status.is_final:
                await trio.sleep(0.02)
                await job.refresh()

    trio.run(main)


def test_jobs_are_shown_by_their_queues_and_then_one_by_one(
    store: dict[str, str], call: Callable[..., Run], keryx: Callable[..., Run]
):
    assert keryx("jobs", APP, **store) == Run(0, b"there are no jobs\n", "printed at import\n")
    fail(store["KERYX_STORE"])
    secret = call(
        "order", "--action", "login", "--params", '{"name": "x", "password": "swordfish"}', "--queue", "a", **store
    ).response
    late = call("order", "--action", "none", "--delay", "7200", **store).response
    done = keryx("jobs", APP, **store)
    assert done.status == 0
    table, delayed, queued, failed = done.out.decode().rstrip("\n").split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["QUEUE", "QUEUED", "DELAYED", "RUNNING", "FAILED", "DONE"],
        ["a", "1", "0", "0", "0", "0"],
        ["default", "0", "1", "0", "1", "0"],
    ]
    assert delayed.splitlines()[1].split() == [late, "none", "default", "0x", "in", "2", "h"]
    words = queued.splitlines()[1].split()
    assert [*words[:4], *words[-2:]] == [secret, "login", "a", "0x", "name=x", "password=[[secret]]"]
    assert failed.splitlines()[1].endswith("no such thing")
    assert "swordfish" not in done.out.decode() + done.err


def test_a_failed_job_is_retried_by_its_id(store: dict[str, str], keryx: Callable[..., Run]):
    fail(store["KERYX_STORE"])
    job = keryx("jobs", APP, **store).out.decode().split("FAILED")[-1].splitlines()[1].split()[0]
    done = keryx("jobs", APP, "--retry", job, **store)
    assert (done.status, done.out.decode()) == (0, f"{job} is in its queue again\n")
    assert f"{job}  fail" in keryx("jobs", APP, **store).out.decode().split("QUEUED")[-1]
    again = keryx("jobs", APP, "--retry", job, **store)
    assert again.status == 1
    assert again.err.splitlines()[-1] == f"Error: there is no job {job!r} that has failed"


def test_what_is_too_much_is_counted(store: dict[str, str], call: Callable[..., Run], keryx: Callable[..., Run]):
    for _ in range(3):
        call("order", "--action", "none", **store)
    assert keryx("jobs", APP, "--limit", "1", **store).out.decode().endswith("... and 2 more\n")


def test_jobs_in_memory_are_those_of_another_process(keryx: Callable[..., Run]):
    done = keryx("jobs", APP)
    assert (done.status, done.out) == (0, b"there are no jobs\n")
    assert "keeps its jobs in memory, where only its own process sees them" in done.err


def test_a_store_that_cannot_be_read_is_one_line(keryx: Callable[..., Run], tmp_path: Path):
    done = keryx("jobs", APP, KERYX_STORE=f"sqlite:///{tmp_path}/nowhere/state.db")
    assert done.status == 1
    assert "there is no folder" in done.err.splitlines()[-1]


def test_the_log_can_be_read_while_inputs_and_errors_try_to_write_lines_of_their_own():
    app = Keryx(config=Config())

    @app.action("it")
    async def it(text: str, key: str = "", secret: str = "") -> None: ...

    order = Order("id", "it", b'{"text":"a\\nb\\u001b[31m"}', "q", "c")
    gone = Order("id2", "gone", b"{}", "q", "c")
    records = [
        Record(order, Status.FAILED, 0, 0, 1, b'{"message":"x\\ny"}'),
        Record(gone, Status.FAILED, 0, 86_400 * 3, 1, b'{"message":"x"}'),
    ]
    shown = "\n".join(lines(app, Overview(86_400.0 * 3, {"q": {Status.FAILED: 2}}, records)))
    assert r"text=a\nb\x1b[31m" in shown
    assert r"x\ny" in shown
    assert "3 d ago" in shown
    assert "(the application has no such action)" in shown
