"""What every store does, asked of all three."""

from __future__ import annotations

import random
import string
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keryx_trio.store import Hit, Store, make_store

ROOT = Path(__file__).parent.parent.parent
TTL = 60.0
WINDOW = 3600.0
"""A window in whose middle the tests most likely run; see `away_from_its_edge`."""


@pytest.fixture
async def away_from_its_edge():
    """No bucket of `WINDOW` ends while the test runs."""
    left = WINDOW - time.time() % WINDOW
    if left < 10:
        await trio.sleep(left + 0.1)


async def test_an_unknown_session_is_none(store: Store):
    assert await store.load_session("nobody", TTL) is None


async def test_what_is_put_in_comes_back(store: Store):
    await store.update_session("a", {"user": b'{"id":1}'}, TTL)
    assert await store.load_session("a", TTL) == {"user": b'{"id":1}'}
    assert await store.load_session("b", TTL) is None


async def test_a_later_value_replaces_the_one_of_its_key_and_leaves_the_others(store: Store):
    await store.update_session("a", {"x": b"1", "y": b"2"}, TTL)
    await store.update_session("a", {"y": b"3", "z": b"4"}, TTL)
    assert await store.load_session("a", TTL) == {"x": b"1", "y": b"3", "z": b"4"}


async def test_a_session_without_values_is_a_session(store: Store):
    await store.update_session("a", {}, TTL)
    assert await store.load_session("a", TTL) == {}


async def test_a_deleted_session_is_forgotten(store: Store):
    await store.update_session("a", {"x": b"1"}, TTL)
    await store.delete_session("a")
    await store.delete_session("a")
    assert await store.load_session("a", TTL) is None
    await store.update_session("a", {"y": b"2"}, TTL)
    assert await store.load_session("a", TTL) == {"y": b"2"}


async def test_a_moved_session_is_known_by_its_new_id_only(store: Store):
    await store.update_session("old", {"x": b"1"}, TTL)
    await store.update_session("other", {"x": b"2"}, TTL)
    await store.move_session("old", "new", TTL)
    assert await store.load_session("old", TTL) is None
    assert await store.load_session("new", TTL) == {"x": b"1"}
    assert await store.load_session("other", TTL) == {"x": b"2"}


async def test_a_session_that_is_moved_onto_another_replaces_it(store: Store):
    await store.update_session("old", {"x": b"1"}, TTL)
    await store.update_session("new", {"y": b"2"}, TTL)
    await store.move_session("old", "new", TTL)
    assert await store.load_session("new", TTL) == {"x": b"1"}


async def test_a_session_that_is_moved_onto_itself_stays(store: Store):
    await store.update_session("a", {"x": b"1"}, TTL)
    await store.move_session("a", "a", TTL)
    assert await store.load_session("a", TTL) == {"x": b"1"}


async def test_moving_and_touching_what_is_unknown_makes_nothing(store: Store):
    await store.update_session("new", {"x": b"1"}, TTL)
    await store.move_session("nobody", "new", TTL)
    await store.touch_session("nobody", TTL)
    assert await store.load_session("new", TTL) == {"x": b"1"}
    assert await store.load_session("nobody", TTL) is None


async def test_a_session_ends_with_its_time(store: Store):
    await store.update_session("a", {"x": b"1"}, 0.1)
    await store.update_session("b", {"x": b"1"}, TTL)
    await trio.sleep(0.15)
    await store.touch_session("a", TTL)
    await store.move_session("a", "c", TTL)
    assert await store.load_session("a", TTL) is None
    assert await store.load_session("c", TTL) is None
    assert await store.load_session("b", TTL) == {"x": b"1"}


async def test_a_session_that_ended_leaves_nothing_to_the_next_of_its_id(store: Store):
    await store.update_session("a", {"x": b"1"}, 0.05)
    await trio.sleep(0.1)
    await store.update_session("a", {"y": b"2"}, TTL)
    assert await store.load_session("a", TTL) == {"y": b"2"}


async def test_a_session_in_use_lives_on(store: Store):
    ids = {"loaded", "touched", "updated", "moved"}
    for name in ids:
        await store.update_session(name, {"x": b"1"}, 0.4)
    moved = "moved"
    for turn in range(3):
        await trio.sleep(0.2)
        assert await store.load_session("loaded", 0.4)
        await store.touch_session("touched", 0.4)
        await store.update_session("updated", {"x": b"1"}, 0.4)
        await store.move_session(moved, moved := f"moved{turn}", 0.4)
    ids = {"loaded", "touched", "updated", moved}
    for name in ids:
        assert await store.load_session(name, 0.4) == {"x": b"1"}
    await trio.sleep(0.45)
    for name in ids:
        assert await store.load_session(name, 0.4) is None


async def test_a_shorter_time_to_live_holds_from_the_next_use_on(store: Store):
    await store.update_session("a", {"x": b"1"}, TTL)
    await store.load_session("a", 0.05)
    await trio.sleep(0.1)
    assert await store.load_session("a", TTL) is None


async def test_updates_at_the_same_time_lose_no_key(store: Store):
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store.update_session, "a", {f"key{number}": b"%d" % number}, TTL)
    assert await store.load_session("a", TTL) == {f"key{number}": b"%d" % number for number in range(50)}


async def test_updates_while_the_session_moves_end_in_one_of_its_ids(store: Store):
    await store.update_session("old", {"x": b"1"}, TTL)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(store.update_session, "old", {f"key{number}": b"1"}, TTL)
            if number == 10:
                nursery.start_soon(store.move_session, "old", "new", TTL)
    old, new = await store.load_session("old", TTL) or {}, await store.load_session("new", TTL) or {}
    assert old.keys() | new.keys() == {"x"} | {f"key{number}" for number in range(20)}
    assert not old.keys() & new.keys()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, values=st.dictionaries(TEXT, st.binary(), max_size=5))
async def test_ids_keys_and_values_come_back_byte_for_byte(url: str, log, name: str, values: dict[str, bytes]):
    store = make_store(url, log)
    async with store.open():
        await store.delete_session(name)
        await store.update_session(name, values, TTL)
        assert await store.load_session(name, TTL) == values


async def test_a_large_session_comes_back(store: Store):
    values = {f"key{number}": random.Random(number).randbytes(2000) for number in range(500)}
    await store.update_session("a", values, TTL)
    assert await store.load_session("a", TTL) == values
    many = {str(number): b"1" for number in range(20_000)}
    await store.update_session("b", many, TTL)
    assert await store.load_session("b", TTL) == many


async def test_a_counter_lets_exactly_its_limit_through(store: Store, away_from_its_edge: None):
    hits: list[Hit] = []

    async def hit() -> None:
        hits.append(await store.hit("k", 100, WINDOW))

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(hit)
    assert Counter(hit.allowed for hit in hits) == {True: 100, False: 100}
    assert sorted(hit.count for hit in hits if hit.allowed) == list(range(1, 101))
    assert {hit.count for hit in hits if not hit.allowed} == {100}
    assert all(0 < hit.resets_in <= WINDOW for hit in hits)


async def test_counters_do_not_know_of_each_other(store: Store, away_from_its_edge: None):
    assert (await store.hit("a:1", 1, WINDOW)).allowed
    assert (await store.hit("a:2", 1, WINDOW)).allowed
    assert not (await store.hit("a:1", 1, WINDOW)).allowed
    await store.update_session("a:2", {"x": b"1"}, TTL)
    assert not (await store.hit("a:2", 1, WINDOW)).allowed


async def test_a_limit_of_zero_lets_nothing_through(store: Store):
    hit = await store.hit("k", 0, WINDOW)
    assert (hit.allowed, hit.count) == (False, 0)


async def test_there_is_room_again_as_the_window_slides(store: Store):
    window = 0.4
    with trio.fail_after(5):
        while (await store.hit("start", 1000, window)).resets_in < 0.8 * window:  # noqa: ASYNC110 - time itself
            await trio.sleep(0.01)
    full = [await store.hit("k", 4, window) for _ in range(6)]
    assert [hit.allowed for hit in full] == [True] * 4 + [False] * 2
    await trio.sleep(full[-1].resets_in + 0.5 * window)  # half of the four still count
    room = [await store.hit("k", 4, window) for _ in range(5)]
    assert 2 <= sum(hit.allowed for hit in room) <= 3
    await trio.sleep(room[-1].resets_in + window)  # nothing still counts
    hit = await store.hit("k", 4, window)
    assert (hit.allowed, hit.count) == (True, 1)


async def test_two_stores_of_one_url_share_what_they_keep(shared_url: str, log, away_from_its_edge: None):
    one, two = make_store(shared_url, log), make_store(shared_url, log)
    async with one.open(), two.open():
        await one.update_session("a", {"x": b"1"}, TTL)
        await two.update_session("a", {"y": b"2"}, TTL)
        assert await one.load_session("a", TTL) == {"x": b"1", "y": b"2"}
        assert [(await store.hit("k", 3, WINDOW)).allowed for store in (one, two, one, two)] == [True] * 3 + [False]
        await two.delete_session("a")
        assert await one.load_session("a", TTL) is None


HITTER = """
import sys, trio
from keryx_trio.config import LogConfig
from keryx_trio.logs import Log
from keryx_trio.store import make_store

async def main():
    store, hits = make_store(sys.argv[1], Log(LogConfig())), []
    async with store.open(), trio.open_nursery() as nursery:
        async def hit(number):
            hits.append((await store.hit("k", 100, 3600.0)).allowed)
            await store.update_session("a", {f"{sys.argv[2]}-{number}": b"1"}, 60)
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        for number in range(100):
            nursery.start_soon(hit, number)
    print(sum(hits), len(hits))

trio.run(main)
"""


async def test_processes_share_their_counters_exactly_and_lose_no_key(shared_url: str, log, away_from_its_edge: None):
    # They open a file that is not there yet, at the same time.
    processes = [
        subprocess.Popen(  # noqa: ASYNC220 - it takes a moment, and nothing else runs
            [sys.executable, "-c", HITTER, shared_url, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert await trio.to_thread.run_sync(process.stdout.readline) == "open\n", process.communicate()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        results = [await trio.to_thread.run_sync(process.communicate, None, 30) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], results
    assert sum(int(out.split()[0]) for out, _ in results) == 100
    assert [out.split()[1] for out, _ in results] == ["100", "100"]
    store = make_store(shared_url, log)
    async with store.open():
        assert len(await store.load_session("a", TTL) or {}) == 200


async def test_calls_that_are_cancelled_at_any_moment_mix_nothing_up(store: Store):
    dice = random.Random(7)
    names = [f"{letter}{number}" for letter in string.ascii_lowercase for number in range(4)]
    for name in names:
        await store.update_session(name, {"id": name.encode()}, TTL)
    wrong: list[object] = []
    finished = 0

    async def call(patience: float) -> None:
        nonlocal finished
        name = dice.choice(names)
        with trio.move_on_after(patience):
            kind = dice.randrange(3)
            if kind == 0:
                if (found := await store.load_session(name, TTL)) is None or found["id"] != name.encode():
                    wrong.append((name, found))
            elif kind == 1:
                await store.update_session(name, {"id": name.encode(), "more": b"1"}, TTL)
            else:
                hit = await store.hit(name, 1000, WINDOW)
                if not isinstance(hit, Hit) or not hit.allowed:
                    wrong.append((name, hit))
            finished += 1

    with trio.fail_after(20):
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(call, dice.choice([0, 0.05, 1]) * dice.random() ** 2)
        assert not wrong
        assert 0 < finished < 500
        for name in names:
            found = await store.load_session(name, TTL)
            assert found is not None
            assert found["id"] == name.encode()


async def test_a_cancelled_change_is_made_wholly_or_not_at_all(store: Store):
    values = {f"key{number}": b"1" for number in range(200)}
    for number in range(40):
        with trio.move_on_after(random.Random(number).random() * 0.004):
            await store.update_session(str(number), values, TTL)
    for number in range(40):
        assert await store.load_session(str(number), TTL) in (None, values)


async def test_a_store_can_be_opened_again(url: str, log):
    store = make_store(url, log)
    for _ in range(2):
        async with store.open():
            await store.update_session("a", {"x": b"1"}, TTL)
            assert await store.load_session("a", TTL) == {"x": b"1"}


async def test_an_error_in_its_block_comes_out_as_it_is(url: str, log):
    with pytest.raises(KeyError, match="mine"):
        async with make_store(url, log).open():
            raise KeyError("mine")


async def test_a_session_that_has_ended_is_made_again_only_where_that_is_asked_for(store: Store):
    assert await store.update_session("a", {"x": b"1"}, TTL, create=False) is False
    assert await store.load_session("a", TTL) is None
    assert await store.update_session("a", {"x": b"1"}, TTL) is True
    assert await store.update_session("a", {"y": b"2"}, TTL, create=False) is True
    assert await store.load_session("a", TTL) == {"x": b"1", "y": b"2"}
