"""The way out of a socket: turns, bounds, and what can no longer be written."""

from __future__ import annotations

import pytest
import trio

from keryx_trio.transports.socket_reply import TURN, WayOut


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
