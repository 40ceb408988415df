"""Ten thousand jobs through two workers, one of which is killed every few seconds: none may be lost.

How many have run twice is no failure, and is told at the end.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from keryx_trio import Config, Keryx
from keryx_trio.config import TasksConfig
from keryx_trio.store.jobs import Status
from tests.e2e.serving import ROOT, command, environment

JOBS = int(os.environ.get("SOAK_JOBS", "10000"))
LEASE = 3.0
PAUSES = (1.5, 3.5)
"""Seconds between two kills."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_no_job_is_lost_whatever_is_killed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, measured: Callable[[str], None]
):
    url, effects = request.getfixturevalue(f"{kind}_url"), tmp_path / "effects"
    effects.touch()
    settings = environment(
        KERYX_STORE=url, EFFECTS=str(effects), KERYX_TASKS_WORKERS="6", KERYX_TASKS_LEASE=str(LEASE),
        KERYX_LOG_LEVEL="warning",
    )  # fmt: skip
    app = Keryx(store=url, config=Config(tasks=TasksConfig(workers=0)))

    @app.action("effect")
    async def effect(number: int) -> int:
        raise NotImplementedError

    kills = 0

    async def keep_working(seed: int) -> None:
        nonlocal kills
        dice = random.Random(seed)
        while True:
            start = partial(
                trio.run_process,
                command("keryx_trio", "worker", "tests.soak.effects:app"),
                cwd=ROOT,
                env=settings,
                check=False,
            )
            process = await workers.start(start)
            await trio.sleep(dice.uniform(*PAUSES) * 2)  # of two workers one is killed in each pause
            if process.poll() is not None:
                raise AssertionError(f"a worker ended by itself, with {process.returncode}")
            os.kill(process.pid, signal.SIGKILL)
            kills += 1

    async with app:
        begin = trio.current_time()
        for number in range(JOBS):
            await app.enqueue("effect", {"number": number})
        enqueued = trio.current_time() - begin
        begin = trio.current_time()
        async with trio.open_nursery() as workers:
            for seed in range(2):
                workers.start_soon(keep_working, seed)
            while OPEN & (await app.store.jobs.overview(1)).counts.get("default", {}).keys():  # noqa: ASYNC110
                await trio.sleep(0.5)
            workers.cancel_scope.cancel()
        took = trio.current_time() - begin
        counts = (await app.store.jobs.overview(1)).counts.get("default", {})
    seen = Counter(map(int, effects.read_text().split()))
    lost = set(range(JOBS)) - seen.keys()
    twice = sum(times - 1 for times in seen.values())
    measured(
        f"{JOBS} jobs ({JOBS / enqueued:.0f} enqueued a second) in {took:.0f} s, {kills} kills: "
        f"{len(lost)} lost, {twice} run once more, {counts.get(Status.FAILED, 0)} failed"
    )
    assert not lost
    assert not counts.get(Status.FAILED)
    assert kills >= took / PAUSES[1] / 2 - 1


OPEN = {Status.QUEUED, Status.DELAYED, Status.RUNNING}
