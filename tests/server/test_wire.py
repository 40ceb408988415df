"""What is read from a connection and written to it, where it is cancelled or closed in between."""

from __future__ import annotations

import os

import trio
import trio.testing

from keryx_trio.server.wire import Wire

DATA = bytes(range(256)) * 20_000


async def test_what_a_cancelled_write_has_left_goes_out_before_the_next_one() -> None:
    ours, theirs = trio.socket.socketpair()
    wire = Wire(trio.SocketStream(ours), 5)
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.write(DATA)
    assert scope.cancelled_caught
    received = bytearray()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, b"next")
            while len(received) < len(DATA) + 4:
                received += await theirs.recv(1 << 20)
    assert received == DATA + b"next"
    wire.close_now()
    theirs.close()


class CloseBefore(trio.abc.Instrument):
    """Closes a wire in the moment before a task goes on, and opens another connection under its number."""

    def __init__(self, wire: Wire, other: int) -> None:
        self.task: trio.lowlevel.Task | None = None
        self._wire, self._other = wire, other

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.task = None
            self._wire.abort()
            os.dup2(self._other, self._wire.fd)


async def test_nothing_is_read_from_whoever_has_the_number_of_a_closed_connection() -> None:
    ours, theirs = trio.socket.socketpair()
    other, sender = trio.socket.socketpair()
    wire = Wire(trio.SocketStream(ours), 5)
    received: list[bytes] = []

    async def read() -> None:
        received.append(await wire.receive())
        received.append(await wire.receive())

    await sender.send(b"for another one")
    closing = CloseBefore(wire, other.fileno())
    trio.lowlevel.add_instrument(closing)
    await theirs.send(b"first")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            (closing.task,) = nursery.child_tasks
            await theirs.send(b"second")
    trio.lowlevel.remove_instrument(closing)
    assert received == [b"first", b""]
    os.close(wire.fd)
    for each in (theirs, other, sender):
        each.close()


async def test_a_connection_ends_though_a_forked_process_has_its_socket_too() -> None:
    ours, theirs = trio.socket.socketpair()
    wire = Wire(trio.SocketStream(ours), 5)
    inherited = os.dup(wire.fd)  # which is what a fork does to it
    await wire.close()
    with trio.fail_after(1):
        assert await theirs.recv(1) == b""
    os.close(inherited)
    theirs.close()
