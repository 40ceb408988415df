"""Agents over standard input and output: a process of their own, on whose output nothing but the protocol comes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from keryx_trio.cli.applications import find_application
from keryx_trio.transports.stdio import MAX_LINE, Lines
from tests.e2e.serving import ROOT, command, environment, until
from tests.mcp.agents import INITIALIZE, MODES, message

LIMIT = 30.0
APP = "tests.mcp.noisy:app"
modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


@asynccontextmanager
async def agent(mode: str, notes: Path, log: Any = None, app: str = APP) -> AsyncIterator[Client]:
    words = command("keryx_trio", "mcp", app)
    parameters = StdioServerParameters(command=words[0], args=words[1:], cwd=ROOT, env=environment(NOTES=str(notes)))
    with (notes.parent / "stderr").open("w") as errors:
        transport = stdio_client(parameters, errlog=errors)
        async with Client(transport, mode=mode, logging_callback=log, log_level="info") as client:
            yield client


@modes
async def test_an_agent_sees_a_stream_of_two_seconds_as_it_is_made_and_ends_it_by_a_cancel(
    mode: str, notes: Path, measured: Callable[[str], None]
) -> None:
    arrivals: list[tuple[float, Any]] = []

    async def log(said: Any) -> None:
        arrivals.append((trio.current_time() - start, said.data))

    with trio.fail_after(LIMIT):
        async with agent(mode, notes, log) as client:
            start = trio.current_time()
            result = await client.call_tool("stream", {"to": 10, "pause": 0.2})
            assert [data for _, data in arrivals] == [f"{number} " for number in range(10)]
            assert result.content[0].text == "".join(f"{number} " for number in range(10))
            steps = [after[0] - before[0] for before, after in itertools.pairwise(arrivals)]
            assert all(0.1 < step < 0.4 for step in steps), steps
            notes.write_text("")
            with trio.move_on_after(0.5):
                await client.call_tool("stream", {"to": 1000})
            start = trio.current_time()
            await until(lambda: "producer ended" in notes.read_text(), 1)
            measured(f"the producer had ended {(trio.current_time() - start) * 1000:.0f} ms after the cancel")
            counts = [json.loads((await client.call_tool("visits", {})).content[0].text) for _ in range(2)]
            assert counts == [[1, "stdio", "mcp"], [2, "stdio", "mcp"]]
    assert "lifespan ended" in notes.read_text()
    errors = (notes.parent / "stderr").read_text()
    for line in ("at import", "at the start", "in an action", "at the end"):
        assert f"printed {line}" in errors
    assert "from a child" in errors


async def test_the_chat_works_as_it_is(notes: Path) -> None:
    with trio.fail_after(LIMIT):
        async with agent("legacy", notes, app="examples.chat:app") as client:
            result = await client.call_tool("chat-stream", {"prompt": "what is a lambda", "pace": 0})
    text, _, last = result.content[0].text.rpartition("\n")
    assert text.startswith("Lambdas")
    assert json.loads(last) == {"done": True, "topic": "lambda"}


# By hand


@asynccontextmanager
async def process(
    notes: Path, app: str = APP, environ: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[trio.Process]:
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **options}
    running = partial(
        trio.run_process, command("keryx_trio", "mcp", app), cwd=ROOT, env=environment(NOTES=str(notes), **(environ or {})), check=False,
        **settings,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        yield await nursery.start(running)


async def say(server: trio.Process, *messages: dict[str, Any]) -> None:
    await server.stdin.send_all("".join(json.dumps(each) + "\n" for each in messages).encode())


HELLO = (INITIALIZE, message("notifications/initialized", id=None))


async def hear(server: trio.Process, count: int) -> list[dict[str, Any]]:
    received = b""
    while received.count(b"\n") < count:
        data = await server.stdout.receive_some()
        assert data, received
        received += data
    return [json.loads(line) for line in received.decode().splitlines()]


async def test_every_line_of_the_output_is_a_message(notes: Path) -> None:
    with trio.fail_after(LIMIT):
        async with process(notes) as server:
            await say(server, *HELLO, message("tools/call", {"name": "stream"}, id=2))
            lines = await hear(server, 5)
            await server.stdin.aclose()
            rest = b"".join([data async for data in server.stdout])
            assert await server.wait() == 0
    assert rest == b""
    assert {line["jsonrpc"] for line in lines} == {"2.0"}
    assert [line["params"]["data"] for line in lines if "params" in line] == ["0 ", "1 ", "2 "]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_calls_have_their_last_words(sign: signal.Signals, notes: Path) -> None:
    with trio.fail_after(LIMIT):
        async with process(notes) as server:
            await say(server, *HELLO, message("tools/call", {"name": "stream", "arguments": {"to": 1000}}, id=2))
            await hear(server, 2)
            server.send_signal(sign)
            said = b"".join([data async for data in server.stdout])
            assert await server.wait() == 0
    assert json.loads(said.splitlines()[-1])["result"]["isError"] is True
    assert "producer ended\nlifespan ended" in notes.read_text()


async def test_a_client_that_closes_the_output_is_gone(notes: Path) -> None:
    with trio.fail_after(LIMIT):
        async with process(notes) as server:
            await say(server, *HELLO, message("tools/call", {"name": "stream", "arguments": {"to": 1000}}, id=2))
            await hear(server, 2)
            await server.stdout.aclose()
            await server.stdin.aclose()
            assert await server.wait() == 0
    assert "producer ended" in notes.read_text()


async def test_a_client_that_reads_nothing_and_leaves_does_not_keep_the_process(notes: Path) -> None:
    with trio.fail_after(LIMIT):
        async with process(notes, environ={"KERYX_WRITE_TIMEOUT": "0.5"}) as server:
            await say(server, *HELLO, message("tools/call", {"name": "large"}, id=2))
            await hear(server, 1)
            await trio.sleep(0.3)
            await server.stdin.aclose()
            assert await server.wait() == 0


async def test_the_input_may_be_a_file(notes: Path, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("".join(json.dumps(each) + "\n" for each in HELLO))
    with trio.fail_after(LIMIT), path.open() as file:
        async with process(notes, stdin=file) as server:
            said = b"".join([data async for data in server.stdout])
            assert await server.wait() == 0
    assert json.loads(said)["result"]["serverInfo"]["name"] == "keryx_trio"


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("nowhere:app", "there is no module 'nowhere' in "),
        ("tests.mcp.nowhere:app", "there is no module 'tests.mcp.nowhere' in "),
        ("tests.mcp.noisy:other", "must name a Keryx application, as in module:app, and names nothing"),
        ("tests.mcp.noisy:print.x", "names nothing"),
        ("os:path", "names a module"),
        ("", "is no module:attribute"),
        (":app", "is no module:attribute"),
        ("../noisy:app", "is no module:attribute"),
    ],
)
def test_an_application_that_is_not_there_is_wrong_usage(app: str, words: str, notes: Path) -> None:
    run = subprocess.run(
        command("keryx_trio", "mcp", app), cwd=ROOT, env=environment(NOTES=str(notes)), capture_output=True, text=True,
        check=False, timeout=LIMIT,
    )  # fmt: skip
    assert run.returncode == 2
    assert words in " ".join(run.stderr.split())
    assert run.stdout == ""
    assert "Traceback" not in run.stderr


def test_an_application_is_found_from_the_current_folder_and_under_the_name_app(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text("import keryx_trio\napp = keryx_trio.Keryx()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert find_application("found_here") is sys.modules["found_here"].app
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere_at_all", "cannot import broken: ModuleNotFoundError: No module named 'nowhere_at_all' ("),
        ("def", "cannot import broken: SyntaxError: invalid syntax"),
        ("1 / 0", "cannot import broken: ZeroDivisionError: division by zero ("),
        (
            "import keryx_trio\napp = keryx_trio.Keryx(lifespan=lambda app: 1 / 0)",
            "broken:app failed: ZeroDivisionError: division by zero (",
        ),
        ("import keryx_trio\napp = keryx_trio.Keryx(store='sqlite:////nowhere/x.db')", "/nowhere"),
    ],
)
def test_an_application_that_fails_says_so_in_one_line(source: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source + "\n")
    run = subprocess.run(
        command("keryx_trio", "mcp", "broken:app"), cwd=tmp_path, env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=LIMIT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert run.returncode == 1
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) <= 2
    assert run.stdout == ""


def test_the_command_says_its_version_and_how_it_is_used() -> None:
    shown = [
        subprocess.run(command("keryx_trio", *words), capture_output=True, text=True, check=True, timeout=LIMIT).stdout
        for words in (["--version"], ["--help"], ["mcp", "--help"])
    ]
    assert shown[0].startswith("keryx-trio 0.")
    assert "mcp" in shown[1]
    assert "standard input and output" in shown[2]


def test_without_the_extra_the_command_names_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mcp'] = sys.modules['mcp_types'] = None\n"
        "from keryx_trio.cli import main; main(['mcp', 'x:y'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LIMIT)
    assert run.returncode == 1
    assert run.stderr.startswith("Error: MCP needs an extra: pip install 'keryx-trio[mcp]'")
    assert run.stderr.count("\n") == 1


class Chunks(trio.abc.ReceiveStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._chunks.pop(0) if self._chunks else b""

    async def aclose(self) -> None: ...


async def test_lines_are_put_together_however_they_are_cut() -> None:
    lines = Lines(Chunks(b"on", b"e\ntw", b"o\n\xff\nrest"))
    assert [line async for line in lines] == ["one\n", "two\n", "\ufffd\n", "rest\n"]


async def test_a_line_without_an_end_is_refused() -> None:
    lines = Lines(Chunks(*[bytes(1024 * 1024)] * (MAX_LINE // 1024**2 + 2)))
    with pytest.raises(ValueError, match="a line of the input has more than"):
        await anext(lines)
