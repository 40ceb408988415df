"""The shell's side of a call, in this process."""

from __future__ import annotations

import os
import pwd
import threading
from typing import Any

import pytest
import trio
import trio.testing

from keryx_trio import Config, Connection, Keryx, StreamingResponse, TypedError
from keryx_trio.transports import shell


@pytest.fixture
def pipe() -> Any:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == read  # which a test may have closed


async def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, int]):
    read, write = pipe
    os.set_blocking(write, False)
    data, got = os.urandom(1_000_000), bytearray()

    def take() -> None:
        while len(got) < len(data):
            got.extend(os.read(read, 65536))

    reader = threading.Thread(target=take)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.Output(write).write, data)
            await trio.sleep(0.05)  # it is full by now
            reader.start()
            await trio.to_thread.run_sync(reader.join)
    assert got == data


async def test_a_pipe_tells_when_it_has_lost_its_reader_and_a_write_says_so(pipe: tuple[int, int]):
    read, write = pipe
    output = shell.Output(write)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.left)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert nursery.child_tasks
            os.close(read)
    with pytest.raises(trio.BrokenResourceError):
        await output.write(b"x")


async def test_a_write_that_nobody_takes_can_be_cancelled(pipe: tuple[int, int]):
    with trio.fail_after(10), trio.move_on_after(0.1) as scope:
        await shell.Output(pipe[1]).write(bytes(10_000_000))
    assert scope.cancelled_caught
    os.close(pipe[0])  # which lets the thread go


async def test_a_file_never_loses_its_reader(tmp_path: Any):
    with (tmp_path / "file").open("wb") as file, trio.move_on_after(0.05) as scope:
        await shell.Output(file.fileno()).left()
    assert scope.cancelled_caught


def test_a_user_without_a_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch):
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    app = Keryx(config=Config())

    @app.action("it")
    async def it() -> None: ...

    call = shell.make_call(app, it, shell.ShellReply(shell.Output(1), 1), {})
    assert call.connection.identifier == f"cli:{os.getuid()}"


def test_where_there_are_no_actions_it_says_so():
    with pytest.raises(TypedError, match="action not found: it; the application has no actions"):
        shell.find_action(Keryx(config=Config()), "it")


class Paper:
    """A sink that keeps what was written, and loses its reader when it is told to."""

    def __init__(self) -> None:
        self.written = b""
        self.gone = trio.Event()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone.is_set():
            raise trio.BrokenResourceError
        self.written += data

    async def left(self) -> None:
        await self.gone.wait()


async def ask(app: Keryx, name: str, sink: Any, **raw: Any) -> shell.Ended:
    with trio.fail_after(10):
        return await shell.run(app, app.actions[name], sink, raw)


async def test_an_application_runs_for_one_call_and_serves_nobody():
    app, paper = Keryx(config=Config(), mcp=True), Paper()

    @app.action("it")
    async def it(connection: Connection) -> bool:
        await connection.session.regenerate()  # nobody has a cookie that would have to change
        await connection.session.update(a=1)
        return app.serving

    assert await ask(app, "it", paper) == shell.Ended(0)
    assert paper.written == b'{"response":false}\n'
    assert not app.connections


async def test_a_reader_that_leaves_with_the_answer_had_it():
    class Hasty(Paper):
        async def write(self, data: bytes) -> None:
            await super().write(data)
            self.gone.set()
            await trio.testing.wait_all_tasks_blocked()

    app, paper = Keryx(config=Config()), Hasty()

    @app.action("it")
    async def it() -> str:
        return "all"

    assert await ask(app, "it", paper) == shell.Ended(0)
    assert paper.written == b'{"response":"all"}\n'


async def test_a_reader_that_leaves_before_ends_the_call():
    app, paper, cleaned = Keryx(config=Config()), Paper(), trio.Event()

    @app.action("it", timeout=0)
    async def it() -> StreamingResponse:
        async def produce(sse: Any) -> None:
            try:
                await sse.send("x")
                paper.gone.set()
                await trio.sleep_forever()
            finally:
                cleaned.set()

        return StreamingResponse.sse(produce)

    assert await ask(app, "it", paper) == shell.Ended(141)
    assert cleaned.is_set()
    assert paper.written == b""
