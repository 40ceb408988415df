"""When our server is in hypercorn's place, and when it is not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import hypercorn.trio.run
import pytest

from keryx_trio import Config, Keryx, server
from keryx_trio.server import mend
from tests.e2e.raw import open_raw
from tests.e2e.serving import ROOT, environment, serve, serve_process
from tests.server.target import make_app

TWO_HOSTS = b"GET /api/quick HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


async def status(app: Keryx) -> int:
    """What our server answers with 400, and hypercorn's with 200."""
    async with serve(app) as served, open_raw(served.port) as raw:
        raw.expect("GET")
        await raw.send(TWO_HOSTS)
        return (await raw.head()).status


async def test_an_application_says_in_a_line_who_serves_it(journal: Any) -> None:
    assert await status(make_app(ping=0.0)) == 400
    assert len([line for line in journal.records if "KERYX_SERVER=hypercorn" in line.getMessage()]) == 1


async def test_it_can_be_switched_off_for_an_application(journal: Any) -> None:
    off = Keryx(config=Config(server="hypercorn"))
    off.add(make_app(ping=0.0).actions["quick"])
    assert await status(off) == 200
    assert not [line for line in journal.records if "KERYX_SERVER" in line.getMessage()]


async def test_another_hypercorn_serves_with_its_own_code_and_the_log_says_so(
    journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mend, "_version", lambda: "0.180.1")
    assert await status(make_app(ping=0.0)) == 200
    (warning,) = [line.getMessage() for line in journal.records if line.levelname == "WARNING"]
    assert "hypercorn 0.180.1" in warning


def test_it_is_put_there_once() -> None:
    before = hypercorn.trio.run.TCPServer, hypercorn.trio.run.worker_serve
    assert server.install() is None
    Keryx()
    assert (hypercorn.trio.run.TCPServer, hypercorn.trio.run.worker_serve) == before


@pytest.mark.parametrize("server", ["keryx", "hypercorn"])
async def test_a_variable_decides_for_a_process(server: str) -> None:
    environ = environment(KERYX_SERVER=server)
    async with (
        serve_process("tests.server.target:app", environ=environ) as process,
        open_raw(int(process.url.rpartition(":")[2])) as raw,
    ):
        raw.expect("GET")
        await raw.send(TWO_HOSTS)
        assert (await raw.head()).status == (400 if server == "keryx" else 200)
    assert ("KERYX_SERVER=hypercorn" in process.output) is (server == "keryx")


def test_who_does_not_serve_loads_no_server() -> None:
    code = (
        "import sys, keryx_trio; keryx_trio.Keryx()\n"
        "print(*sorted({'hypercorn', 'httptools', 'h2', 'wsproto', 'keryx_trio.server.tcp'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout.split() == []
