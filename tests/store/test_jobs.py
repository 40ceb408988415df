"""What every store does with jobs, alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio

from keryx_trio.logs import Log
from keryx_trio.store import Store, make_store
from keryx_trio.store.jobs import GIVEN_BACK, Attempt, Order, Status, Verdict
from tests.e2e.serving import ROOT, until

LIMIT = 20.0
_ids = count()


def order(queue: str = "q", **fields: Any) -> Order:
    fields = {"id": f"job-{next(_ids)}", "action": "it", "params": b'{"a":1}', "correlation_id": "c", **fields}
    return Order(queue=queue, **fields)


def done(outcome: bytes = b"7", keep: float = 60) -> Verdict:
    return Verdict(Status.DONE, outcome, keep=keep)


@asynccontextmanager
async def worker(
    store: Store, handler: Callable[[Attempt], Awaitable[Verdict]], queue: str = "q", limit: int = 1, lease: float = 5
) -> Any:
    """A worker beside the test; leaving the block stops it, as a shutdown does."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(store.jobs.serve, queue, limit, handler, lease=lease, stopping=stopping)
        nursery.start_soon(serve)  # noqa: ASYNC113 - a job may come before its worker, or after it
        yield nursery.cancel_scope
        stopping.set()


async def final(store: Store, id: str) -> Any:
    with trio.fail_after(LIMIT):
        while True:
            record = await store.jobs.find(id)
            if record is None or record.status.is_final:
                return record
            await store.jobs.changed(id, 0.02)


async def status(store: Store, id: str) -> Status | None:
    record = await store.jobs.find(id)
    return record and record.status


async def test_a_job_is_attempted_once_and_what_became_of_it_is_kept(store: Store):
    seen: list[Attempt] = []

    async def handler(attempt: Attempt) -> Verdict:
        seen.append(attempt)
        return done(b'{"x":[1]}')

    wanted = order(params='{"é":"😀"}'.encode(), retries=3)
    await store.jobs.put(wanted)
    assert await status(store, wanted.id) is Status.QUEUED
    async with worker(store, handler):
        record = await final(store, wanted.id)
    assert seen == [Attempt(wanted, 1, 0)]
    assert (record.status, record.outcome, record.attempts) == (Status.DONE, b'{"x":[1]}', 1)
    assert record.due >= record.enqueued > 1_700_000_000


async def test_inputs_are_forgotten_when_a_job_is_done_and_kept_where_it_has_failed(store: Store):
    async def handler(attempt: Attempt) -> Verdict:
        return Verdict(Status(attempt.order.action), b"{}", keep=60)

    good, bad = order(action="done"), order(action="failed")
    async with worker(store, handler):
        for each in (good, bad):
            await store.jobs.put(each)
        assert (await final(store, good.id)).order.params == b""
        assert (await final(store, bad.id)).order.params == b'{"a":1}'


async def test_a_delayed_job_waits_for_its_time(store: Store):
    async def handler(_: Attempt) -> Verdict:
        started.append(trio.current_time())
        return done()

    started: list[float] = []
    late, soon = order(), order()
    async with worker(store, handler):
        begin = trio.current_time()
        await store.jobs.put(late, 0.6)
        await store.jobs.put(soon)
        assert await status(store, late.id) is Status.DELAYED
        await final(store, late.id)
        assert len(started) == 2
        assert started[1] - begin >= 0.59


@pytest.mark.parametrize("limit", [1, 3])
async def test_as_many_run_at_once_as_the_worker_may_and_in_their_order(store: Store, limit: int):
    running, most, seen = 0, 0, []

    async def handler(attempt: Attempt) -> Verdict:
        nonlocal running, most
        running += 1
        most = max(most, running)
        seen.append(attempt.order.id)
        await trio.sleep(0.03)
        running -= 1
        return done()

    orders = [order() for _ in range(10)]
    for each in orders:
        await store.jobs.put(each)
    async with worker(store, handler, limit=limit):
        for each in orders:
            await final(store, each.id)
    assert most == limit
    assert limit > 1 or seen == [each.id for each in orders]
    assert set(seen[:limit]) == {each.id for each in orders[:limit]}


async def test_a_queue_has_jobs_of_its_own(store: Store):
    seen = []

    async def handler(attempt: Attempt) -> Verdict:
        seen.append(attempt.order.queue)
        return done()

    mine, other = order("mine"), order("other")
    await store.jobs.put(other)
    await store.jobs.put(mine)
    assert {"mine", "other"} <= await store.jobs.queues()
    async with worker(store, handler, "mine"):
        await final(store, mine.id)
    assert seen == ["mine"]
    assert await status(store, other.id) is Status.QUEUED


async def test_what_failed_for_a_while_is_attempted_again_later(store: Store):
    seen: list[tuple[int, int]] = []

    async def handler(attempt: Attempt) -> Verdict:
        seen.append((attempt.number, attempt.failures))
        return Verdict(Status.DELAYED, b'"bad"', delay=0.1) if len(seen) < 3 else done()

    wanted = order()
    async with worker(store, handler):
        await store.jobs.put(wanted)
        record = await final(store, wanted.id)
    assert seen == [(1, 0), (2, 1), (3, 2)]
    assert (record.status, record.attempts) == (Status.DONE, 3)


async def test_what_is_given_back_is_taken_at_once_and_counts_as_no_failure(store: Store):
    seen = []

    async def handler(attempt: Attempt) -> Verdict:
        seen.append(attempt.failures)
        return GIVEN_BACK if len(seen) == 1 else done()

    wanted = order()
    async with worker(store, handler, lease=60):
        await store.jobs.put(wanted)
        await final(store, wanted.id)
    assert seen == [0, 0]


async def test_a_worker_that_stops_takes_nothing_more_and_finishes_what_runs(store: Store):
    begun, go = trio.Event(), trio.Event()

    async def handler(_: Attempt) -> Verdict:
        begun.set()
        await go.wait()
        return done()

    first, second = order(), order()
    await store.jobs.put(first)
    await store.jobs.put(second)
    stopping = trio.Event()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(store.jobs.serve, "q", 1, handler, lease=5, stopping=stopping))
            await begun.wait()
            stopping.set()
            await trio.sleep(0.05)
            go.set()
    assert await status(store, first.id) is Status.DONE
    assert await status(store, second.id) is Status.QUEUED


async def test_a_worker_that_is_cancelled_gives_back_what_runs(store: Store):
    begun, ended = trio.Event(), []

    async def handler(_: Attempt) -> Verdict:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def quick(attempt: Attempt) -> Verdict:
        return done(str(attempt.failures).encode())

    wanted = order()
    await store.jobs.put(wanted)
    async with worker(store, handler, lease=60) as scope:
        await begun.wait()
        scope.cancel()
    assert ended
    async with worker(store, quick, lease=60):
        assert (await final(store, wanted.id)).outcome == b"0"


async def test_a_failed_job_can_be_put_into_its_queue_again_and_no_other_can(store: Store):
    fail = True

    async def handler(_: Attempt) -> Verdict:
        return Verdict(Status.FAILED, b'{"message":"no"}', keep=60) if fail else done()

    wanted = order()
    assert not await store.jobs.retry(wanted.id)
    await store.jobs.put(wanted)
    assert not await store.jobs.retry(wanted.id)
    async with worker(store, handler):
        assert (await final(store, wanted.id)).status is Status.FAILED
        fail = False
        assert await store.jobs.retry(wanted.id)
        await until_status(store, wanted.id, Status.DONE)
        assert not await store.jobs.retry(wanted.id)
    assert [record.status for record in (await store.jobs.overview(10)).records] == [Status.DONE]


async def until_status(store: Store, id: str, wanted: Status) -> None:
    with trio.fail_after(LIMIT):
        while await status(store, id) is not wanted:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)


async def test_what_is_done_is_forgotten_after_its_time(store: Store):
    async def handler(_: Attempt) -> Verdict:
        return done(keep=0.3)

    wanted = order()
    async with worker(store, handler):
        await store.jobs.put(wanted)
        assert (await final(store, wanted.id)).status is Status.DONE
        await trio.sleep(0.35)
        assert await store.jobs.find(wanted.id) is None


async def test_an_unknown_job_is_none(store: Store):
    assert await store.jobs.find("nothing 😀 '") is None


async def test_the_overview_counts_all_and_shows_some_of_each_kind(store: Store):
    begun = trio.Event()

    async def handler(attempt: Attempt) -> Verdict:
        if attempt.order.action == "hang":
            begun.set()
            await trio.sleep_forever()
        return Verdict(Status(attempt.order.action), b'{"message":"no"}', keep=60)

    async with worker(store, handler, "a", limit=2) as scope:
        for kind in ("done", "failed", "failed", "failed"):
            await store.jobs.put(wanted := order("a", action=kind))
            await final(store, wanted.id)
        await store.jobs.put(running := order("a", action="hang"))
        await begun.wait()
        for _ in range(4):
            await store.jobs.put(order("b"))
        await store.jobs.put(late := order("b"), 1000)
        overview = await store.jobs.overview(2)
        scope.cancel()
    counts = {queue: dict(by_status) for queue, by_status in overview.counts.items()}
    assert counts == {
        "a": {Status.FAILED: 3, Status.RUNNING: 1, Status.DONE: 1},
        "b": {Status.QUEUED: 4, Status.DELAYED: 1},
    }
    by_status: dict[Status, list[str]] = {}
    for record in overview.records:
        by_status.setdefault(record.status, []).append(record.order.id)
    assert {kind: len(ids) for kind, ids in by_status.items()} == {
        Status.FAILED: 2, Status.RUNNING: 1, Status.QUEUED: 2, Status.DELAYED: 1, Status.DONE: 1,
    }  # fmt: skip
    assert by_status[Status.RUNNING] == [running.id]
    [delayed] = [record for record in overview.records if record.order.id == late.id]
    assert 900 < delayed.due - overview.now <= 1001


async def test_a_recurring_job_is_put_once_a_period_however_many_ask(store: Store):
    seen: list[str] = []

    async def handler(attempt: Attempt) -> Verdict:
        seen.append(attempt.order.id)
        return done()

    every = 0.5
    async with worker(store, handler, limit=4):
        pause = await store.jobs.put_recurring(order(), every)
        assert 0 < pause <= every
        await trio.sleep(pause + 0.02)
        for _ in range(3):
            periods_before = len(seen)
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(store.jobs.put_recurring, order(), every)
            await until(lambda before=periods_before: len(seen) == before + 1)
            pause = await store.jobs.put_recurring(order(), every)
            assert len(seen) == periods_before + 1
            await trio.sleep(pause + 0.02)


async def test_a_recurring_job_is_not_put_while_the_last_one_is_not_settled(store: Store):
    every = 0.2
    await store.jobs.put_recurring(order(), every)
    for _ in range(3):
        await trio.sleep(await store.jobs.put_recurring(order(), every) + 0.01)
    assert (await store.jobs.overview(10)).counts["q"][Status.QUEUED] == 1


async def test_two_applications_may_have_recurring_jobs_of_other_names_and_periods(store: Store):
    await store.jobs.put_recurring(order(action="one"), 1000.0)
    await store.jobs.put_recurring(order(action="two"), 1000.0)
    await store.jobs.put_recurring(order(action="one"), 2000.0)
    await store.jobs.put_recurring(order(action="one"), 1000.0)
    assert (await store.jobs.overview(10)).counts["q"][Status.QUEUED] == 3


# Workers that are lost

VICTIM = """
    import sys, trio
    from keryx_trio.config import LogConfig
    from keryx_trio.logs import Log
    from keryx_trio.store import make_store

    async def handler(attempt):
        print("begun", attempt.order.id, flush=True)
        await trio.sleep_forever()

    async def main(url, lease):
        store = make_store(url, Log(LogConfig()))
        async with store.open():
            await store.jobs.serve("q", 2, handler, lease=lease, stopping=trio.Event())

    trio.run(main, sys.argv[1], float(sys.argv[2]))
"""


async def test_the_job_of_a_killed_worker_is_taken_by_another_one_when_its_lease_has_ended(
    shared_url: str, log: Log, measured: Callable[[str], None]
):
    lease = 1.5

    async def handler(attempt: Attempt) -> Verdict:
        taken.append((trio.current_time() - killed, attempt.failures))
        return done()

    taken: list[tuple[float, int]] = []
    store = make_store(shared_url, log)
    victim = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(VICTIM), shared_url, str(lease)], cwd=ROOT, stdout=subprocess.PIPE
    )
    with trio.fail_after(LIMIT):
        async with store.open():
            orders = [order(), order()]
            for each in orders:
                await store.jobs.put(each)
            said = b""
            while said.count(b"begun") < 2:
                said += await victim.stdout.receive_some()
            os.kill(victim.pid, signal.SIGKILL)
            await victim.wait()
            killed = trio.current_time()
            async with worker(store, handler, limit=2, lease=lease):
                for each in orders:
                    assert (await final(store, each.id)).attempts == 2
        await victim.stdout.aclose()
    assert [failures for _, failures in taken] == [0, 0]
    assert all(after < lease + 0.5 for after, _ in taken)
    measured(f"taken {max(taken)[0]:.2f} s after the kill, with a lease of {lease} s")


async def test_a_lease_is_kept_for_as_long_as_a_job_takes(shared_url: str, log: Log):
    begun = []

    async def handler(attempt: Attempt) -> Verdict:
        begun.append(attempt.number)
        await trio.sleep(1.6)
        return done()

    store, other = make_store(shared_url, log), make_store(shared_url, log)
    async with store.open(), other.open():
        wanted = order()
        async with worker(store, handler, lease=0.6), worker(other, handler, lease=0.6):
            await store.jobs.put(wanted)
            await final(other, wanted.id)
    assert begun == [1]


async def test_a_job_that_another_worker_has_by_now_is_cancelled_and_not_settled(
    shared_url: str, log: Log, caplog: pytest.LogCaptureFixture
):
    begun, cancelled = trio.Event(), trio.Event()

    async def slow(_: Attempt) -> Verdict:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    store: Any = make_store(shared_url, log)
    other: Any = make_store(shared_url, log)
    async with store.open(), other.open():
        wanted = order()
        await store.jobs.put(wanted)
        async with worker(store, slow, lease=0.3):
            await begun.wait()
            # As if nothing had been heard of the worker for too long.
            await expire(other, wanted)
            [attempt], _ = await other.jobs.claim("q", 1, 60)
            assert attempt.number == 2
            await cancelled.wait()
        assert await other.jobs.settle(attempt, done(b"2"))
        assert not await store.jobs.settle(Attempt(wanted, 1, 0), done(b"1"))
        assert (await final(store, wanted.id)).outcome == b"2"
    assert "a job's lease was lost" in caplog.text


async def test_a_worker_that_stalls_for_longer_than_its_lease_neither_fails_nor_loses_what_it_has_done(
    shared_url: str, log: Log
):
    begun: dict[str, int] = {}

    async def handler(attempt: Attempt) -> Verdict:
        begun[attempt.order.action] = begun.get(attempt.order.action, 0) + 1
        if attempt.order.action == "blocks" and begun["blocks"] == 1:
            await trio.sleep(0.1)
            time.sleep(2.5)  # noqa: ASYNC251 - that is the fault
        elif attempt.order.action == "waits":
            await trio.sleep(3)
        return done()

    store = make_store(shared_url, log)
    async with store.open(), worker(store, handler, limit=3, lease=1.5):
        orders = [order(action="waits"), order(action="blocks"), order(action="waits")]
        for each in orders:
            await store.jobs.put(each)
        for each in orders:
            assert (await final(store, each.id)).status is Status.DONE
    assert begun["blocks"] <= 2


async def test_what_a_stalled_worker_has_done_meanwhile_need_not_be_done_once_more(shared_url: str, log: Log):
    store: Any = make_store(shared_url, log)
    async with store.open():
        await store.jobs.put(wanted := order())
        [first], _ = await store.jobs.claim("q", 1, 60)
        await expire(store, wanted)
        [second], _ = await store.jobs.claim("q", 1, 60)
        assert (first.losses, second.losses) == (0, 1)
        assert not await store.jobs.settle(first, Verdict(Status.FAILED, b"{}", keep=60))
        assert not await store.jobs.settle(first, Verdict(Status.DELAYED, b"{}", delay=1))
        assert await store.jobs.settle(first, done(b"1"))
        assert await store.jobs.renew([second], 60) == [second]
        assert not await store.jobs.settle(second, done(b"2"))
        assert (await final(store, wanted.id)).outcome == b"1"


async def expire(store: Any, wanted: Order) -> None:
    """As if nothing had been heard of a job's worker for too long."""
    if hasattr(store, "writing"):
        await store.run(lambda: _expire(store, wanted.id))
    else:
        await store._run(b"redis.call('ZADD', KEYS[1], 1, ARGV[1])", [b"keryx:running:q"], wanted.id.encode())


def _expire(store: Any, id: str) -> None:
    with store.writing() as (db, now):
        db.execute("UPDATE job SET due = ? WHERE id = ?", (now - 1, id))


async def test_a_killed_workers_job_is_taken_though_others_run_for_long(shared_url: str, log: Log):
    begun: list[str] = []

    async def long(attempt: Attempt) -> Verdict:
        begun.append(attempt.order.action)
        await trio.sleep_forever()
        raise AssertionError

    async def quick(attempt: Attempt) -> Verdict:
        begun.append(attempt.order.action)
        return done()

    store: Any = make_store(shared_url, log)
    async with store.open(), worker(store, long, limit=30, lease=1) as scope:
        for _ in range(30):
            await store.jobs.put(order(action="long"))
        await until(lambda: len(begun) == 30)
        await store.jobs.put(wanted := order(action="lost"))
        assert (await store.jobs.claim("q", 1, 0.2))[0]  # by a worker of which nothing more is heard
        async with worker(store, quick, lease=1):
            assert (await final(store, wanted.id)).attempts == 2
            scope.cancel()
    assert begun.count("lost") == 1


async def test_an_order_that_cannot_be_carried_out_ends_alone(store: Store):
    async def handler(attempt: Attempt) -> Verdict:
        return Verdict(Status.FAILED, b"{}", keep=60)

    await store.jobs.put(order(params=b"[" * 100, action="a\0b\r\n"))
    await store.jobs.put(wanted := order())
    async with worker(store, handler):
        assert (await final(store, wanted.id)).status is Status.FAILED
