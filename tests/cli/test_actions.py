"""`keryx-trio actions`: a table of what an application can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import APP, Run
from tests.e2e.serving import ROOT


def test_every_action_has_a_row_with_where_it_is_and_what_it_takes(keryx: Callable[..., Run]):
    lines = keryx("actions", APP).out.decode().splitlines()
    assert lines[0].split() == ["ACTION", "WHERE", "INPUTS", "WHAT", "IT", "DOES"]
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:]}
    assert rows["echo"].startswith("GET,POST /api/echo, tool echo text [number] [ratio]")
    assert rows["echo"].endswith("Say it again.")
    assert rows["count"] == "GET /api/count, events, tool count [to] [pause] [fails] Count."
    assert rows["bytes"].startswith("GET /api/bytes, application/octet-stream, tool bytes size [piece] [fails]")
    assert rows["two:bytes"] == "tool two-bytes Two bytes, and then silence."
    assert rows["login"] == "name password Log in."
    assert rows["who"] == "tool who, queue default, every 3600 s Action who"
    assert rows["upload"] == "tool upload, queue files file [more] [size] Take files."


def test_the_columns_are_aligned_and_fit_the_terminal(keryx: Callable[..., Run]):
    lines = keryx("actions", APP, COLUMNS="90").out.decode().splitlines()
    assert max(map(len, lines)) <= 90
    place = lines[0].index("WHAT")
    assert all(line[place - 2 : place].strip() == "" for line in lines)


def test_an_application_without_actions_says_so(keryx: Callable[..., Run], tmp_path: Path):
    (tmp_path / "bare.py").write_text("import keryx_trio\napp = keryx_trio.Keryx()\n")
    run = keryx("actions", "bare:app", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (run.status, run.out, run.err) == (0, b"", "bare:app has no actions\n")


def test_a_wrong_application_is_wrong_usage(keryx: Callable[..., Run]):
    assert keryx("actions", "nowhere:app").status == 2
