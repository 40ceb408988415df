"""Many waits of one length, ended by one task."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
from trio.testing import MockClock

from keryx_trio.deadlines import Deadlines, Timers


@attrs.define(eq=False)
class Waiting:
    """Who waits, and when it was told that this has lasted too long."""

    expired: list[float] = attrs.field(factory=list)

    def expire(self) -> None:
        self.expired.append(trio.current_time())


@pytest.fixture
async def timers() -> AsyncIterator[Timers]:
    async with trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        yield timers
        nursery.cancel_scope.cancel()


async def test_each_wait_expires_when_its_own_time_is_over(autojump_clock: MockClock, timers: Timers) -> None:
    start = trio.current_time()
    first, second = Waiting(), Waiting()
    timers.of(5).begin(first)
    await trio.sleep(3)
    timers.of(5).begin(second)
    await trio.sleep(10)
    assert first.expired == [pytest.approx(start + 5)]
    assert second.expired == [pytest.approx(start + 8)]


async def test_a_wait_that_is_over_does_not_expire_and_the_next_of_the_same_has_its_whole_time(
    autojump_clock: MockClock, timers: Timers
) -> None:
    start = trio.current_time()
    waiting = Waiting()
    timers.of(5).begin(waiting)
    await trio.sleep(4)
    timers.of(5).end(waiting)
    timers.of(5).end(waiting)
    await trio.sleep(4)
    assert waiting.expired == []
    timers.of(5).begin(waiting)
    await trio.sleep(20)
    assert waiting.expired == [pytest.approx(start + 13)]


async def test_lengths_do_not_wait_for_each_other(autojump_clock: MockClock, timers: Timers) -> None:
    start = trio.current_time()
    short, long, never = Waiting(), Waiting(), Waiting()
    timers.of(60).begin(long)
    timers.of(math.inf).begin(never)
    timers.of(1).begin(short)
    await trio.sleep(100)
    assert short.expired == [pytest.approx(start + 1)]
    assert long.expired == [pytest.approx(start + 60)]
    assert never.expired == []


async def test_what_began_before_anybody_looked_expires_too(autojump_clock: MockClock) -> None:
    timers, waiting = Timers(), Waiting()
    timers.of(2).begin(waiting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert len(waiting.expired) == 1


async def test_who_expires_may_wait_again_at_once(autojump_clock: MockClock) -> None:
    deadlines = Deadlines(1)
    expired: list[float] = []

    class Again:
        def expire(self) -> None:
            expired.append(trio.current_time())
            if len(expired) < 3:
                deadlines.begin(self)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        start = trio.current_time()
        deadlines.begin(Again())
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert expired == [pytest.approx(start + second) for second in (1, 2, 3)]
