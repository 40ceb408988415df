"""The way out of a socket: turns, bounds, and what can no longer be written."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from keryx_trio.transports.socket_reply import TURN, Pieces, SocketReply, WayOut


class Wire:
    """A server that takes what it is handed, until it is told not to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.fails: BaseException | None = None
        self.stuck = False
        self.lost = 0
        self.out = WayOut(self.send, {}, 5, self.lose)

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise self.fails
        if self.stuck:
            await trio.sleep_forever()
        self.sent.append(message.get("text", message["type"]))

    def lose(self) -> None:
        self.lost += 1


async def test_turns_are_short_and_go_round():
    wire = Wire()
    small, large = b"s" * 10, b"l" * (TURN + 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.out.say, [small] * 100)
        nursery.start_soon(wire.out.say, [large] * 3)
    kinds = "".join(text[0] for text in wire.sent)
    assert sorted(kinds) == sorted("s" * 100 + "l" * 3)
    assert kinds.strip("s").strip("l").count("s") == 32  # two turns of small ones between three of a large one


@pytest.mark.parametrize("error", [OSError(), trio.BrokenResourceError(), trio.ClosedResourceError()], ids=repr)
async def test_a_client_that_has_left_is_told_nothing_more(error):
    wire = Wire()
    wire.fails = error
    with pytest.raises(trio.BrokenResourceError):
        await wire.out.say([b"x"])
    wire.fails = None
    with pytest.raises(trio.BrokenResourceError):
        await wire.out.say([b"x"])
    assert await wire.out.close(1001, "") is False
    assert (wire.sent, wire.lost) == ([], 1)


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock):
    wire = Wire()
    wire.stuck = True
    with pytest.raises(trio.BrokenResourceError, match="took nothing for 5 seconds"):
        await wire.out.say([b"x"])
    assert wire.lost == 1


async def test_nothing_is_written_after_the_close():
    wire = Wire()
    assert await wire.out.close(1001, "") is True
    assert await wire.out.close(1001, "") is False
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await wire.out.say([b"x"])
    assert (wire.sent, wire.lost) == (["websocket.close"], 0)


async def test_a_close_that_fails_is_a_close_too():
    wire = Wire()
    wire.fails = OSError()
    assert await wire.out.close(1001, "") is False
    assert (wire.out.closed, wire.lost) == (True, 1)


# Where the server is ours


class Ours(Wire):
    """Our server: it takes messages together, and attempts them as long as there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[list[bytes]] = []
        self.attempted: list[bytes] = []
        self.outcome: bool | None = True
        self.out = WayOut(self.send, {"say": self.say, "attempt": self.attempt}, 0, self.lose)

    async def say(self, messages):
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise self.fails
        if self.stuck:
            await trio.sleep_forever()
        self.turns.append(messages)

    def attempt(self, message):
        self.attempted.append(message)
        return self.outcome


async def test_our_server_is_handed_a_turn_at_once():
    ours = Ours()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.out.say, [b"s" * 100] * 400)
        nursery.start_soon(ours.out.say, [b"l" * (TURN + 1)] * 2)
    assert [(turn[0][:1], len(turn)) for turn in ours.turns] in (
        [(b"s", 164), (b"l", 1), (b"s", 164), (b"l", 1), (b"s", 72)],
        [(b"l", 1), (b"s", 164), (b"l", 1), (b"s", 164), (b"s", 72)],
    )
    assert ours.sent == []


@pytest.mark.parametrize("outcome", [True, False, None])
async def test_a_message_is_attempted_while_it_is_nobody_s_turn(outcome):
    ours = Ours()
    ours.outcome = outcome
    assert ours.out.attempts
    assert ours.out.attempt(b"first") is outcome
    ours.stuck = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.out.say, [b"x"])
        await trio.testing.wait_all_tasks_blocked()
        assert ours.out.attempt(b"out of turn") is None
        nursery.cancel_scope.cancel()
    assert ours.out.attempt(b"after what was cut") is None
    assert ours.attempted == [b"first"]


async def test_what_an_attempt_has_left_is_flushed_in_its_turn_and_nothing_is_attempted_after_the_close():
    ours = Ours()
    reply = SocketReply(ours.out, b"1", lambda: None)
    assert reply.attempt(b"torn") is True
    await reply.write([])
    await reply.write([b"next"])
    assert ours.turns == [[], [b"next"]]
    assert reply.attempt(Pieces([b"p"])) is None
    await ours.out.close(1000, "")
    assert reply.attempt(b"x") is None
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await reply.write([])
    assert ours.attempted == [b"torn"]


@pytest.mark.parametrize("make", [Wire, Ours])
async def test_who_is_cancelled_begins_no_write_and_leaves_the_way_to_others(make):
    wire = make()
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.out.say([b"x"])
    assert scope.cancelled_caught
    await wire.out.say([b"y"])
    assert (wire.sent, getattr(wire, "turns", None)) in ((["y"], None), ([], [[b"y"]]))


def test_on_another_server_nothing_is_attempted():
    reply = SocketReply(Wire().out, b"1", lambda: None)
    assert reply.attempt is None
    assert reply._out.attempt(b"x") is None
