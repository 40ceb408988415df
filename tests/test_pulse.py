"""The rounds of the loop, and who need not give way since others have had theirs."""

from __future__ import annotations

import time

import trio

from keryx_trio.outbox import BURST_SECONDS, MAX_ITEMS, Outbox
from keryx_trio.pulse import Pulse


async def test_each_round_of_the_loop_counts_as_long_as_it_beats() -> None:
    pulse = Pulse()
    with pulse.beating():
        before = pulse.rounds
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert pulse.rounds >= before + 3
    after = pulse.rounds
    await trio.lowlevel.checkpoint()
    assert pulse.rounds == after


async def rounds_of(pulse: Pulse, outbox: Outbox) -> int:
    """How many rounds of the loop one send takes."""
    before = pulse.rounds
    await outbox.put(b"x")
    return pulse.rounds - before


async def test_a_send_after_others_had_their_turn_does_not_give_way_again() -> None:
    pulse, outbox = Pulse(), Outbox()
    outbox.pulse = pulse
    with pulse.beating():
        await outbox.put(b"x")
        await trio.sleep(2 * BURST_SECONDS)
        assert await rounds_of(pulse, outbox) == 0


async def test_a_send_after_a_while_in_which_nobody_had_a_turn_gives_way() -> None:
    pulse, outbox = Pulse(), Outbox()
    outbox.pulse = pulse
    with pulse.beating():
        await outbox.put(b"x")
        time.sleep(2 * BURST_SECONDS)  # noqa: ASYNC251 - it is what holds up the others
        assert await rounds_of(pulse, outbox) >= 1


async def test_a_flood_gives_way_after_so_many_even_where_nothing_counts_rounds() -> None:
    outbox, others = Outbox(), 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(MAX_ITEMS):
            await outbox.put(b"x")
        nursery.cancel_scope.cancel()
    assert others >= 1
