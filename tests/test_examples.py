"""Every example, imported and run on real input."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx
import hypercorn
import hypercorn.trio
import pytest
import trio

from examples import chat, export, progress, report
from keryx_trio import Keryx, Task, TypedError
from keryx_trio.testing import Client, EventReader, open_client
from tests.e2e.serving import ROOT, command, environment, until

EXAMPLES = sorted(path.stem for path in Path(__file__).parent.parent.joinpath("examples").glob("*.py"))
CHAT = "/api/chat/stream"


@asynccontextmanager
async def serving(app: object) -> AsyncIterator[str]:
    """A real server on a free port; its address."""
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1
    config.errorlog = None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait))
        try:
            yield address
        finally:
            stop.set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_an_app_and_says_how_to_try_it(name: str):
    example = importlib.import_module(f"examples.{name}")
    assert isinstance(example.app, Keryx)
    assert f"hypercorn --worker-class trio examples.{name}:app" in example.__doc__
    commands = re.findall(r"^    (curl .*127\.0\.0\.1:8000(/[^\s']+).*)$", example.__doc__, re.MULTILINE)
    assert commands
    for line, target in commands:
        method = "POST" if re.search(" -X POST | -d ", line) else "GET"
        assert example.app.router.find(method, target.partition("?")[0]) is not None, target


# chat


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("prompt", "topic"),
    [
        ("with statement", "with"),
        ("what is a lambda", "lambda"),
        ("how do I use try and except", "try"),
        ("How do slices work?", "slicings"),
        ("operator precedence", "operator-summary"),
        ("tell me about the debugger", "debugger"),
    ],
)
async def test_the_chat_says_the_topic_that_fits_word_by_word(autojump_clock, prompt: str, topic: str):
    async with open_client(chat.app) as client:
        answer = await client.post(CHAT, json={"prompt": prompt})
    *tokens, done = answer.events()
    assert {event.event for event in tokens} == {"token"}
    assert "".join(event.data for event in tokens) == topics[topic]
    assert [event.id for event in tokens] == [str(number) for number in range(1, len(tokens) + 1)]
    assert (done.event, done.id, done.json()) == ("done", "done", {"done": True, "topic": topic})


async def test_the_chat_finds_a_topic_with_decorators(autojump_clock):
    async with open_client(chat.app) as client:
        answer = await client.get(CHAT, params={"prompt": "how do decorators work"})
    assert "decorator" in "".join(event.data for event in answer.events())


async def test_the_chat_says_so_where_nothing_fits(autojump_clock):
    async with open_client(chat.app) as client:
        *tokens, done = (await client.get(CHAT, params={"prompt": "xyzzy"})).events()
    assert "".join(event.data for event in tokens) == chat.NOTHING_FITS
    assert done.json() == {"done": True, "topic": None}


async def test_the_chat_keeps_its_pace(autojump_clock):
    async with open_client(chat.app) as client:
        start = trio.current_time()
        answer = await client.get(CHAT, params={"prompt": "lambda", "pace": 0.5})
        assert trio.current_time() - start == pytest.approx(0.5 * (len(answer.events()) - 1))


async def test_a_reader_who_comes_back_goes_on_where_it_was_and_stays_away_after_the_end(autojump_clock):
    async with open_client(chat.app) as client:
        async with client.stream("GET", CHAT, params={"prompt": "lambda"}) as stream:
            heard = [await stream.receive_event() for _ in range(10)]
        again = await client.get(CHAT, params={"prompt": "lambda"}, headers={"Last-Event-ID": heard[-1].id})
        *rest, done = again.events()
        assert "".join(event.data for event in heard + rest) == topics["lambda"]
        after = await client.get(CHAT, params={"prompt": "lambda"}, headers={"Last-Event-ID": done.id})
        assert (after.status, after.body) == (204, b"")
        whole = await client.get(CHAT, params={"prompt": "lambda"}, headers={"Last-Event-ID": "¹ nonsense"})
        assert len(whole.events()) == len(heard + rest) + 1


async def test_leaving_the_chat_ends_its_producer(autojump_clock, monkeypatch: pytest.MonkeyPatch):
    ended = []

    async def recite(*args: object) -> None:
        try:
            await original(*args)
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    original = chat.recite
    monkeypatch.setattr(chat, "recite", recite)
    async with open_client(chat.app) as client:
        async with client.stream("GET", CHAT, params={"prompt": "lambda", "pace": 1}) as stream:
            await stream.receive_event()
            assert len(chat.app.connections) == 1
        assert ended == ["cancelled"]
        assert not chat.app.connections


async def test_the_chat_refuses_what_it_can_not_answer(autojump_clock):
    async with open_client(chat.app) as client:
        for inputs in ({}, {"prompt": ""}, {"prompt": "x" * 4001}, {"prompt": "lambda", "pace": 1.5}):
            assert (await client.post(CHAT, json=inputs)).status == 422


# chat, with a model


class Upstream:
    """Answers as a model's server does, over real sockets; `script` says what."""

    def __init__(self, script: list[str], status: int = 200) -> None:
        self.script, self.status = script, status
        self.asked: dict[str, object] = {}
        self.authorization = ""
        self.left = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        assert scope["path"] == "/v1/chat/completions"
        self.authorization = dict(scope["headers"])[b"authorization"].decode()
        self.asked = json.loads((await receive())["body"])
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [(b"content-type", b"text/event-stream")]}
        )
        for data in self.script:
            if data == "wait":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
                return
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body"})


def chunk(token: str | None) -> str:
    return json.dumps(
        {"choices": [{"index": 0, "delta": {} if token is None else {"content": token}}]}, ensure_ascii=False
    )


TOKENS = ["Hallo", " Wörld\n", "\n", "a\u2028b", " 🙂"]


@asynccontextmanager
async def relayed(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The chat on a real server, with a model behind it."""
    async with serving(upstream) as model, serving(chat.app) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{model}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        yield address + CHAT


async def test_the_chat_relays_a_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_MODEL", "tiny")
    upstream = Upstream([*map(chunk, [None, *TOKENS, None]), '{"choices": [], "usage": {}}', "[DONE]"])
    async with relayed(upstream, monkeypatch) as url, httpx.AsyncClient() as client:
        answer = await client.post(url, json={"prompt": "hi"})
        assert answer.headers["content-type"] == "text/event-stream"
        *tokens, done = EventReader().feed(answer.content)
        assert [event.data for event in tokens] == TOKENS
        assert (done.event, done.id, done.json()) == ("done", "done", {"done": True, "model": "tiny"})
        for last in ("done", "2"):
            assert (await client.get(url, params={"prompt": "hi"}, headers={"Last-Event-ID": last})).status_code == 204
    assert upstream.authorization == "Bearer sk-very-secret"
    assert upstream.asked == {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_leaving_the_chat_closes_the_request_to_the_model(monkeypatch: pytest.MonkeyPatch):
    upstream = Upstream([chunk("Hallo"), "wait"])
    async with relayed(upstream, monkeypatch) as url:
        async with await trio.open_tcp_stream("127.0.0.1", httpx.URL(url).port) as client:
            await client.send_all(f"GET {CHAT}?prompt=hi HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            received = b""
            while b"data: Hallo\n\n" not in received:
                received += await client.receive_some()
            assert not upstream.left.is_set()
        with trio.fail_after(5):
            await upstream.left.wait()


async def test_what_a_model_refuses_is_told_before_the_stream_and_without_the_key(monkeypatch: pytest.MonkeyPatch):
    upstream = Upstream(['{"error": {"message": "Incorrect API key: sk-very-secret"}}'], status=401)
    async with relayed(upstream, monkeypatch) as url, httpx.AsyncClient() as client:
        answer = await client.post(url, json={"prompt": "hi"})
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the model's server answered with status 401"
        assert "sk-very-secret" not in answer.text

        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
        answer = await client.post(url, json={"prompt": "hi"})
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the model's server can't be reached, or broke off (ConnectError)"


async def test_a_model_that_breaks_off_is_told_in_the_stream(monkeypatch: pytest.MonkeyPatch):
    upstream = Upstream([chunk("Hallo"), '{"error": {"message": "overloaded, dear sk-very-secret"}}'])
    async with relayed(upstream, monkeypatch) as url, httpx.AsyncClient() as client:
        text = (await client.post(url, json={"prompt": "hi"})).text
    assert text.startswith("event: token\nid: 1\ndata: Hallo\n\nevent: error\ndata: {")
    assert "the model's server broke off" in text
    assert "sk-very-secret" not in text


# export


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table, made once, by the example itself."""
    path = tmp_path_factory.mktemp("export") / "orders.db"

    async def make() -> None:
        await export.build(export.app, path)

    trio.run(make)
    assert [file.name for file in path.parent.iterdir()] == ["orders.db"]
    return path


@pytest.fixture
def export_db(orders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXPORT_DB", str(orders))


async def test_an_export_is_a_download_that_reads_as_csv(export_db):
    async with open_client(export.app) as client:
        answer = await client.get("/api/export", params={"limit": 12_345})
        empty = await client.get("/api/export", params={"limit": 0})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert tuple(header) == export.COLUMNS
    assert [int(row[0]) for row in rows] == list(range(1, 12_346))
    assert {row[2] for row in rows} == set(export.CUSTOMERS)
    assert {row[3] for row in rows} == set(export.ITEMS)
    assert empty.text == "id,day,customer,item,cents\r\n"


async def test_leaving_an_export_closes_the_database(export_db, monkeypatch: pytest.MonkeyPatch):
    opened: list[sqlite3.Connection] = []

    def open_database(path: Path) -> sqlite3.Connection:
        opened.append(original(path))
        return opened[-1]

    original = export.open_database
    monkeypatch.setattr(export, "open_database", open_database)
    async with open_client(export.app) as client:
        async with client.stream("GET", "/api/export") as stream:
            await stream.receive_bytes()
            opened[0].execute("SELECT 1")
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened[0].execute("SELECT 1")


SERVER = """
import sys, trio, hypercorn, hypercorn.trio
from functools import partial
from examples.export import app

async def main():
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(hypercorn.trio.serve, app, config))
        print(address, flush=True)

trio.run(main)
"""


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps to read what a process takes")
async def test_a_million_rows_take_no_more_memory_than_a_few(export_db, tmp_path: Path):
    server = await trio.lowlevel.open_process(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )

    def memory() -> int:
        """Of the server, in KiB."""
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(server.pid)], text=True))

    file = tmp_path / "orders.csv"
    try:
        url = (await server.stdout.receive_some()).decode().strip() + "/api/export"
        async with httpx.AsyncClient(timeout=30) as client:
            await client.get(url, params={"limit": 20_000})
            before = peak = memory()
            with file.open("wb") as out:
                async with client.stream("GET", url) as answer:
                    size = 0
                    async for data in answer.aiter_bytes():
                        out.write(data)
                        if size // 4_000_000 != (size := size + len(data)) // 4_000_000:
                            peak = max(peak, memory())
    finally:
        server.terminate()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await server.wait()
    with file.open(newline="", encoding="utf-8") as lines:
        assert sum(1 for _ in csv.reader(lines)) == 1 + export.ROWS
    assert file.stat().st_size > 50_000_000
    assert peak - before < 16 * 1024, f"from {before} to {peak} KiB"


# progress


def digest_of(folder: Path) -> str:
    names = [
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    listing = b"".join(
        hashlib.sha256((folder / os.fsdecode(name)).read_bytes()).hexdigest().encode() + b"  ./" + name + b"\n"
        for name in sorted(names)
    )
    return hashlib.sha256(listing).hexdigest()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_digest_of_a_folder_is_the_one_computed_by_hand(method: str):
    folder = Path(json.__file__).parent
    async with open_client(progress.app) as client:
        answer = await client.request(method, "/api/progress?path=json")
    done = answer.events()[-1]
    assert done.event == "done"
    assert done.json()["sha256"] == digest_of(folder)
    assert done.json()["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_a_folder_tells_how_far_it_is_and_stops_when_its_reader_leaves(monkeypatch, tmp_path: Path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20 << 30)  # takes no room, and more than a quarter of a minute
    monkeypatch.setenv("PROGRESS_ROOT", str(tmp_path))
    async with open_client(progress.app) as client:
        async with client.stream("GET", "/api/progress") as stream:
            first, second = [await stream.receive_event() for _ in range(2)]
            start = trio.current_time()
        assert trio.current_time() - start < 1  # the thread has ended
    assert first.event == second.event == "progress"
    assert 0 < first.json()["bytes"] < second.json()["bytes"] < 20 << 30
    assert first.json()["percent"] <= second.json()["percent"] < 100
    assert (first.json()["current"], first.json()["of"]) == ("large", 1)


async def test_a_file_that_can_not_be_read_is_told(monkeypatch):
    monkeypatch.setattr(progress, "list_files", lambda _: [("gone while we looked", 3)])
    async with open_client(progress.app) as client:
        [error] = (await client.get("/api/progress")).events()
    assert error.event == "error"
    assert error.json()["message"] == "a file can't be read: No such file or directory"


async def test_no_path_leads_out_of_the_root(monkeypatch, tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "root-outside"
    for folder in (root / "inner", outside):
        folder.mkdir(parents=True)
        (folder / "file").write_text("text")
    (root / "link").symlink_to(outside)
    (root / "inner" / "linked").symlink_to(outside / "file")
    (root / "inner" / "folder").symlink_to(outside)
    monkeypatch.setenv("PROGRESS_ROOT", str(root))
    async with open_client(progress.app) as client:
        for path in ("..", "link", "../root-outside", str(outside), "inner/../..", "no", "inner/file", "\0", "x" * 999):
            answer = await client.post("/api/progress", json={"path": path})
            assert (answer.status, answer.json()["error"]["key"]) == (422, "path"), path
        done = (await client.post("/api/progress", json={"path": "inner"})).events()[-1].json()
    assert done["files"] == 1
    assert done["sha256"] == digest_of(root / "inner")


# report. What clocks did in 2024 is history, and stays what it was.


CHANGES = {  # of the days from 2024-03-01 to 2024-04-30
    "America/New_York": [("2024-03-10T07:00:00Z", 1.0)],
    "America/Santiago": [("2024-04-07T03:00:00Z", -1.0)],
    "Antarctica/Troll": [("2024-03-31T01:00:00Z", 2.0)],
    "Asia/Tokyo": [],
    "Australia/Lord_Howe": [("2024-04-06T15:00:00Z", -0.5)],
    "Africa/Casablanca": [("2024-03-10T02:00:00Z", -1.0), ("2024-04-14T02:00:00Z", 1.0)],
    "Europe/Berlin": [("2024-03-31T01:00:00Z", 1.0)],
}


@asynccontextmanager
async def reporting() -> AsyncIterator[Client]:
    """A client of the application, whose first report of the night ends before the application does."""
    async with open_client(report.app) as client:
        yield client
        await until(lambda: not report.app.connections, patience=5)


def check_report(events: list[tuple[str | None, Any]]) -> None:
    """All of a report, from 2024-03-01 on for 60 days."""
    changes = [data for event, data in events if event == "change"]
    for zone, expected in CHANGES.items():
        assert [(change["at"], change["hours"]) for change in changes if change["zone"] == zone] == expected, zone
    areas = [data["area"] for event, data in events if event == "progress"]
    assert tuple(areas) == report.AREAS
    event, done = events[-1]
    zones = len(report.zones_of_places())
    assert (event, done) == ("done", {"day": "2024-03-01", "days": 60, "zones": zones, "changes": len(changes)})
    assert events[-2] == ("progress", {"area": "Pacific", "zones": zones, "of": zones})


async def test_the_report_comes_over_http_as_a_stream_that_tells_how_far_it_is():
    async with reporting() as client:
        answer = await client.get("/api/report?day=2024-03-01&days=60")
        today = (await client.get("/api/report?days=1")).events()[-1].json()
    check_report([(event.event, event.json()) for event in answer.events()])
    assert today["day"] in {str(datetime.now(UTC).date() - timedelta(days=ago)) for ago in (0, 1)}


async def test_the_report_is_made_from_the_shell():
    words = ("report:nightly", "--day", "2024-03-01", "--days", "60")
    ran = await trio.run_process(
        command("keryx_trio", "run", "-q", "examples.report:app", *words),
        cwd=ROOT,
        env=environment(),
        capture_stdout=True,
    )
    check_report([(event["event"], event["data"]) for event in json.loads(ran.stdout)["response"]])
    ran = await trio.run_process(
        command("keryx_trio", "run", "-q", "examples.report:app", *words, "--follow"),
        cwd=ROOT,
        env=environment(),
        capture_stdout=True,
    )
    assert b'change    {"zone": "Europe/Berlin", "at": "2024-03-31T01:00:00Z", "hours": 1.0}\n' in ran.stdout


async def test_a_report_that_is_ordered_is_made_by_a_worker_and_kept():
    async with reporting() as client:
        ordered = (await client.post("/api/reports", json={"day": "2024-03-01", "days": 60})).json()
        job = await report.app.job(ordered["id"])
        assert (ordered["status"], job.queue) == ("queued", "reports")
        await job.result()
        found = (await client.get(f"/api/reports/{job.id}")).json()
        assert (found["status"], found["attempts"]) == ("done", 1)
        check_report([(event["event"], event["data"]) for event in found["result"]])
        assert (await client.get("/api/reports/nobody")).status == 404


async def test_a_report_that_failed_tells_why():
    async with reporting() as client:
        ordered = (await client.post("/api/reports", json={"day": "9999-12-31"})).json()
        with pytest.raises(TypedError):
            await (await report.app.job(ordered["id"])).result()
        found = (await client.get(f"/api/reports/{ordered['id']}")).json()
        assert found["status"] == "failed"
        assert found["error"]["message"] == "must be in the years 1970 to 2100"


async def test_the_report_is_made_once_a_night_and_kept_until_the_next_one(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(report, "zones_of_places", lambda: made.append(1) or {"Europe/Berlin"})
    assert report.nightly.task == Task(queue="reports", every=86_400)
    assert report.app.config.tasks.result_ttl > 86_400
    async with reporting():
        await until(lambda: made, patience=5)
    assert made == [1]


async def test_a_machine_without_time_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "available_timezones", set)
    async with reporting() as client:
        [error] = (await client.get("/api/report")).events()
    assert error.json()["message"] == "this machine has no time zones: pip install tzdata"
