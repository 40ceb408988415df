"""The channel of a stream: its bounds, its order, its end."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from keryx_trio.outbox import DONE, GONE, LONE, MAX_BYTES, MAX_ITEMS, End, Outbox, Outcome, ReaderLeft, StreamEnded


def attached() -> Outbox:
    outbox = Outbox()
    outbox.attach(lambda item: item)
    return outbox


async def send_all(outbox: Outbox, items: list[bytes]) -> None:
    for item in items:
        await outbox.put(item)
    outbox.finish(DONE)


async def test_a_sender_waits_once_64_items_are_held(nursery):
    outbox = attached()
    nursery.start_soon(send_all, outbox, [b"x"] * 100)
    await wait_all_tasks_blocked()
    assert outbox.held == MAX_ITEMS == 64


async def test_the_batch_that_is_being_written_still_counts(nursery):
    outbox = attached()
    nursery.start_soon(send_all, outbox, [b"x"] * 100)
    await wait_all_tasks_blocked()
    assert len(outbox.take()) == 64
    await wait_all_tasks_blocked()
    assert outbox.held == 64
    assert outbox.take() == []


async def test_release_lets_the_waiting_senders_in_and_says_so(nursery):
    outbox = attached()
    nursery.start_soon(send_all, outbox, [b"x"] * 70)
    await wait_all_tasks_blocked()
    outbox.take()
    assert outbox.release() is True
    await wait_all_tasks_blocked()
    assert len(outbox.take()) == 6
    assert outbox.release() is False
    assert outbox.held == outbox.size == 0


async def test_a_sender_waits_once_256_kib_are_held(nursery):
    outbox = attached()
    nursery.start_soon(send_all, outbox, [bytes(100 * 1024)] * 4)
    await wait_all_tasks_blocked()
    assert outbox.held == 2
    assert outbox.size <= MAX_BYTES


async def test_one_item_may_be_larger_than_the_bound_when_it_is_alone(nursery):
    outbox = attached()
    nursery.start_soon(send_all, outbox, [b"small", bytes(MAX_BYTES * 2)])
    await wait_all_tasks_blocked()
    assert outbox.take() == [b"small"]
    outbox.release()
    assert len(outbox.take()[0]) == MAX_BYTES * 2


async def test_senders_get_their_turn_in_the_order_they_came_and_nobody_jumps_the_queue(nursery):
    outbox = attached()
    for _ in range(MAX_ITEMS):
        await outbox.put(b"fill")
    for name in (b"1", b"2", b"3"):
        nursery.start_soon(outbox.put, name)
        await wait_all_tasks_blocked()
    outbox.take()
    outbox.release()
    await outbox.put(b"4")
    assert outbox.take() == [b"1", b"2", b"3", b"4"]


async def test_a_large_item_that_waits_is_not_overtaken_by_small_ones(nursery):
    outbox = attached()
    await outbox.put(bytes(MAX_BYTES - 1))
    nursery.start_soon(outbox.put, b"large" * 100)
    await wait_all_tasks_blocked()
    nursery.start_soon(outbox.put, b"")
    await wait_all_tasks_blocked()
    assert outbox.held == 1
    outbox.take()
    outbox.release()
    assert [len(item) for item in outbox.take()] == [500, 0]


async def test_a_cancelled_sender_leaves_nothing_behind(nursery):
    outbox = attached()
    for _ in range(MAX_ITEMS):
        await outbox.put(b"x")
    with trio.move_on_after(0):
        await outbox.put(b"never")
    with trio.CancelScope() as scope:
        nursery.start_soon(wait_then_cancel, scope)
        await outbox.put(b"never")
    assert scope.cancelled_caught
    outbox.take()
    assert outbox.release() is False


async def wait_then_cancel(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_cancelled_task_cannot_send_even_where_there_is_room():
    outbox = attached()
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.put(b"x")
    assert scope.cancelled_caught
    assert outbox.held == 0


async def test_after_the_end_a_send_raises_and_what_was_queued_still_comes():
    outbox = attached()
    await outbox.put(b"last")
    assert outbox.finish(DONE) is True
    with pytest.raises(trio.ClosedResourceError, match="done"):
        await outbox.put(b"late")
    with pytest.raises(StreamEnded):
        await outbox.put(None)
    assert outbox.take() == [b"last"]
    assert await outbox.wait() is True


async def test_after_the_reader_left_a_send_says_so():
    outbox = attached()
    outbox.finish(GONE)
    with pytest.raises(trio.BrokenResourceError, match="left") as raised:
        await outbox.put(b"x")
    assert raised.type is ReaderLeft


async def test_the_first_end_wins():
    outbox = attached()
    failed = End(Outcome.ERROR, ValueError())
    assert outbox.finish(failed) is True
    assert outbox.finish(DONE) is False
    assert outbox.end is failed


async def test_a_verdict_decides_before_whoever_ends_the_stream():
    outbox = attached()
    late = End(Outcome.TIMEOUT, ValueError())
    outbox.verdict = lambda: late
    outbox.finish(DONE)
    assert outbox.end is late


async def test_the_end_lets_blocked_senders_go_silently(nursery):
    outbox = attached()
    for _ in range(MAX_ITEMS):
        await outbox.put(b"x")
    returned = []

    async def blocked(name: str) -> None:
        await outbox.put(b"dropped")
        returned.append(name)

    nursery.start_soon(blocked, "a")
    nursery.start_soon(blocked, "b")
    await wait_all_tasks_blocked()
    outbox.finish(DONE)
    await wait_all_tasks_blocked()
    assert sorted(returned) == ["a", "b"]
    assert b"dropped" not in outbox.take()


async def test_finish_works_in_a_finally_under_cancellation(nursery):
    outbox = attached()

    async def producer() -> None:
        try:
            await trio.sleep_forever()
        finally:
            outbox.finish(DONE)

    with trio.CancelScope() as scope:
        nursery.start_soon(wait_then_cancel, scope)
        await producer()
    assert outbox.end is DONE


async def test_a_full_box_that_nobody_will_read_raises_instead_of_waiting_for_ever():
    outbox = Outbox(may_wait=lambda: False)
    for _ in range(MAX_ITEMS):
        await outbox.put(b"x")
    with pytest.raises(RuntimeError, match="return the stream; send from a task"):
        await outbox.put(b"x")


async def test_what_was_sent_before_a_reader_came_takes_its_form_on_the_wire(nursery):
    outbox = Outbox()
    for number in range(MAX_ITEMS):
        await outbox.put(b"%d" % number)
    nursery.start_soon(outbox.put, b"waiting")
    await wait_all_tasks_blocked()
    outbox.attach(lambda item: None if item == b"3" else b"<" + item + b">")
    assert outbox.held == 63
    items = outbox.take()
    assert items[0] == b"<0>"
    assert b"<3>" not in items
    assert outbox.size == sum(map(len, items))
    outbox.release()
    assert outbox.take() == [b"<waiting>"]


async def test_waiting_for_something_to_read_ends_at_the_deadline(autojump_clock):
    outbox = attached()
    began = trio.current_time()
    assert await outbox.wait(began + 5) is False
    assert trio.current_time() == began + 5


async def test_a_reader_wakes_at_once_for_an_item_and_for_the_end(nursery, autojump_clock):
    outbox = attached()

    async def later() -> None:
        await trio.sleep(1)
        await outbox.put(b"x")
        await trio.sleep(1)
        outbox.finish(DONE)

    nursery.start_soon(later)
    assert await outbox.wait() is True
    assert (trio.current_time(), outbox.take()) == (1, [b"x"])
    assert await outbox.wait() is True
    assert trio.current_time() == 2


async def test_a_sender_that_never_blocks_lets_others_run_at_least_every_64_items(nursery):
    outbox = attached()
    turns = 0
    finished = False

    async def other() -> None:
        nonlocal turns
        while not finished:
            turns += 1
            outbox.take()
            outbox.release()
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(640):
        await outbox.put(b"")
    finished = True
    assert turns >= 9


async def test_a_sender_that_computes_long_lets_others_run_after_each_item(nursery, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("keryx_trio.outbox.perf_counter", lambda: float(next(clock)))
    outbox = attached()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while turns < 1000:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(20):
        await outbox.put(b"")
    assert turns >= 19
    turns = 1000


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, MAX_BYTES + 10), min_size=1, max_size=150),
    senders=st.integers(1, 4),
    pauses=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_everything_accepted_arrives_once_in_order_and_the_bounds_hold(sizes, senders, pauses):
    async def main() -> None:
        outbox = attached()
        blank = bytes(MAX_BYTES + 10)
        views = memoryview(blank)
        received: list[int] = []

        async def sender(which: int) -> None:
            for number in range(which, len(sizes), senders):
                await outbox.put(Numbered(number, views[: sizes[number]]))

        async with trio.open_nursery() as nursery:
            for which in range(senders):
                nursery.start_soon(sender, which)
            for pause in itertools.cycle(pauses):
                if len(received) == len(sizes):
                    break
                outbox.release()
                await outbox.wait()
                if pause:
                    await trio.lowlevel.checkpoint()
                batch = outbox.take()
                assert len(batch) <= MAX_ITEMS
                assert sum(map(len, batch)) <= MAX_BYTES or len(batch) == 1
                received.extend(item.number for item in batch)
        assert sorted(received) == list(range(len(sizes)))
        for which in range(senders):
            own = [number for number in received if number % senders == which]
            assert own == sorted(own)

    trio.run(main)


class Numbered:
    def __init__(self, number: int, data: memoryview) -> None:
        self.number, self.data = number, data

    def __len__(self) -> int:
        return len(self.data)


# A lone item, written by its sender


class Socket:
    """What items are written to: it does with each attempt as it is told, and keeps what was written."""

    def __init__(self, *outcomes: bool | None) -> None:
        self._outcomes = iter(outcomes)
        self._rest = b""
        self.out = b""
        self.attempts = 0

    def attempt(self, item: bytes) -> bool | None:
        assert not self._rest, "something is left to be written first"
        self.attempts += 1
        whole = next(self._outcomes, True)
        if whole is not None:
            half = len(item) if whole else len(item) // 2
            self.out, self._rest = self.out + item[:half], item[half:]
        return whole

    def write(self, items: list[bytes]) -> None:
        self.out += self._rest + b"".join(items)
        self._rest = b""


async def read_into(outbox: Outbox, socket: Socket, pause: float = 0) -> None:
    outbox.attempt = socket.attempt
    while True:
        outbox.release()
        if (items := outbox.take()) or outbox.torn:
            outbox.torn = False
            await trio.sleep(pause)
            socket.write(items)
        elif outbox.last_word() is not None:
            return
        else:
            await outbox.wait()


@pytest.fixture
def all_lone(monkeypatch):
    """However fast they come, items are none of a burst."""
    monkeypatch.setattr("keryx_trio.outbox.BURST_SECONDS", 0.0)


async def test_a_lone_item_is_written_by_its_sender_and_is_not_held(nursery, all_lone):
    outbox, socket = attached(), Socket()
    nursery.start_soon(read_into, outbox, socket)
    await wait_all_tasks_blocked()
    await outbox.put(b"alone")
    assert (socket.out, outbox.held, socket.attempts) == (b"alone", 0, 1)
    outbox.finish(DONE)


async def test_of_a_burst_no_item_is_written_alone(nursery, monkeypatch):
    monkeypatch.setattr("keryx_trio.outbox.BURST_SECONDS", 1000.0)
    outbox, socket = attached(), Socket()
    nursery.start_soon(read_into, outbox, socket)
    await wait_all_tasks_blocked()
    await send_all(outbox, [b"x"] * 10)
    await wait_all_tasks_blocked()
    assert (socket.out, socket.attempts) == (b"x" * 10, 0)


async def test_an_item_that_is_large_or_not_alone_is_queued(nursery, all_lone, autojump_clock):
    outbox, socket = attached(), Socket()
    nursery.start_soon(read_into, outbox, socket, 1)
    await wait_all_tasks_blocked()
    await outbox.put(b"x" * (LONE + 1))
    await wait_all_tasks_blocked()  # its reader writes
    await outbox.put(b"y")
    assert socket.attempts == 0
    await trio.sleep(3)
    assert socket.out == b"x" * (LONE + 1) + b"y"
    outbox.finish(DONE)


async def test_the_rest_of_a_torn_item_goes_out_before_the_next_and_before_the_end(nursery, all_lone, autojump_clock):
    outbox, socket = attached(), Socket(False, False)
    nursery.start_soon(read_into, outbox, socket, 1)
    await wait_all_tasks_blocked()
    await outbox.put(b"abcd")
    assert socket.out == b"ab"
    await outbox.put(b"efgh")
    await trio.sleep(3)
    assert socket.out == b"abcdefgh"
    await outbox.put(b"ijkl")
    outbox.finish(DONE)
    await trio.sleep(3)
    assert socket.out == b"abcdefghijkl"


async def test_nothing_is_written_after_the_end(nursery, all_lone):
    outbox, socket = attached(), Socket()
    nursery.start_soon(read_into, outbox, socket)
    await wait_all_tasks_blocked()
    outbox.finish(DONE)
    with pytest.raises(StreamEnded):
        await outbox.put(b"late")
    assert socket.out == b""


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0, 0, 1, 3]), st.sampled_from([True, False, None]))),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_socket_takes_all_of_it_goes_out_in_order(sends, senders):
    total = [0] * senders

    async def send(outbox: Outbox, name: int) -> None:
        for number, (size, pause, _) in enumerate(sends):
            await outbox.put(b"%d:%d:%s;" % (name, number, b"x" * size))
            total[name] += 1
            await trio.sleep(pause)

    async def main() -> bytes:
        outbox, socket = attached(), Socket(*(whole for _, _, whole in sends * senders))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_into, outbox, socket, 2)
            async with trio.open_nursery() as sending:
                for name in range(senders):
                    sending.start_soon(send, outbox, name)
            outbox.finish(DONE)
        return socket.out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keryx_trio.outbox.BURST_SECONDS", 0.0)
        out = trio.run(main, clock=MockClock(autojump_threshold=0))
    items = [item.split(b":") for item in out.split(b";")[:-1]]
    for name in range(senders):
        own = [(int(number), len(text)) for by, number, text in items if int(by) == name]
        assert own == [(number, size) for number, (size, _, _) in enumerate(sends)]
