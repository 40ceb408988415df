"""A round: what is measured of a server, what is missing for it, and what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import clients, processes
from benchmarks.servers import HERE, Failed, Server, System, load_systems
from tests.benchmarks.loadgen import needs_loadgen
from tests.e2e.serving import ROOT, environment

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark needs Linux")

COMMAND = f"{sys.executable} -m hypercorn --worker-class trio -w 0 -b 127.0.0.1:{{port}} benchmarks.app:app"


def write_systems(folder: Path, **entry: object) -> Path:
    file = folder / "systems.json"
    file.write_text(json.dumps([{"name": "ours", "cmd": COMMAND, "cwd": "{project}", **entry}]))
    return file


@needs_loadgen
def test_a_turn_measures_a_server_and_leaves_nothing_of_it(tmp_path):
    file, out = write_systems(tmp_path), tmp_path / "results.json"
    words = ["-m", "benchmarks.run", "--systems-file", file, "--tests", "w4", "--rounds", "1", "--out", out, "--quick"]
    run = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "round 1 of 1, 1 of 1: ours" in run.stdout
    [turn] = json.loads(out.read_text())["runs"]
    for name in ("w4_fin", "w4_rst", "w4_silent"):
        assert turn["result"][name]["open"] == 50
        assert turn["result"][name]["seconds_to_zero"] < 5
    assert turn["result"]["alive_at_end"] is True
    assert turn["result"]["idle_rss_mib"] > 10


def test_the_systems_of_the_file_are_sound():
    systems = load_systems(HERE / "systems.json")
    assert systems[0].name == "keryx-trio"
    assert systems[0].env["KERYX_LOG_LEVEL"] == "warning"
    assert len({system.name for system in systems}) == len(systems)
    for system in systems:
        assert set(system.protocols) <= {"ws", "h2"}
        module = system.cmd.rpartition(" ")[2].partition(":")[0].replace(".", "/") + ".py"
        assert (ROOT / module).exists() or (HERE / "peers" / module).exists(), module
        assert "--port {port}" in system.cmd or "127.0.0.1:{port}" in system.cmd


def test_an_unknown_system_and_a_bad_entry_are_told(tmp_path):
    with pytest.raises(Failed, match="systems.json has no system nobody; it has ours"):
        load_systems(write_systems(tmp_path), ["nobody"])
    with pytest.raises(Failed, match="each with name and cmd.*'colour'"):
        load_systems(write_systems(tmp_path, colour="red"))


def test_a_server_that_cannot_start_is_told(tmp_path):
    with pytest.raises(Failed, match="ours ended with 3 instead of starting; see .*ours.log"):
        Server(System("ours", f"{sys.executable} -c 'raise SystemExit(3)'"), tmp_path)
    with pytest.raises(Failed, match="ours does not start: .*requirements.txt"):
        Server(System("ours", "{venv}/bin/there-is-none"), tmp_path)


def test_a_missing_compiler_is_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(clients, "LOADGEN", tmp_path / "loadgen")
    monkeypatch.setenv("CC", "there-is-none")
    with pytest.raises(Failed, match=r"\$CC is 'there-is-none', which is no program here: install gcc"):
        clients.build_loadgen()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="there is no C compiler: install gcc"):
        clients.build_loadgen()
    with pytest.raises(Failed, match="there is no wrk, which w3 needs: install it"):
        clients.check_wrk()


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(clients, "LOADGEN", tmp_path / "loadgen")
    monkeypatch.setenv("CC", f"{sys.executable} -c 'raise SystemExit(\"no headers\")'")
    with pytest.raises(Failed, match="no headers"):
        clients.build_loadgen()


def test_the_cpu_and_the_memory_of_a_tree_are_its_own_and_its_childrens():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    busy = "x = bytearray(50_000_000)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code, busy], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while processes.cpu_seconds(process.pid) < 0.3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(processes.tree(process.pid)) == 2
        assert processes.cpu_seconds(process.pid) >= 0.3
        assert processes.cpu_seconds_fine(process.pid) >= 0.25
        assert processes.resident_kib(process.pid) > 48_000
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    assert processes.cpu_seconds(process.pid) == processes.resident_kib(process.pid) == 0
