"""What ends `keryx-trio run` early: signals, and readers that leave; and what a terminal adds."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import APP, LIMIT, SOON, process, until
from tests.e2e.serving import ROOT, command, environment


def running(notes: Path, *words: str, **options: Any) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return process(notes, "run", APP, *words, **options)


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_a_stream_and_leaves_the_lifespan(sign: signal.Signals, status: int, notes: Path):
    with running(notes, "--follow", "count", "--to", "9999", "--pause", "0.05") as process:
        assert process.stdout.readline() == b'tick      {"number": 0}\n'
        start = time.monotonic()
        process.send_signal(sign)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == status
        assert time.monotonic() - start < SOON
    assert notes.read_text() == "producer ended\nlifespan ended\n"
    assert b"[STREAM:CLI:CLIENT GONE] count" in err
    assert b"[error]" not in err
    assert b"Traceback" not in err


def test_a_signal_cancels_a_plain_call_whose_cleanup_may_take_its_time(notes: Path):
    with running(notes, "wait") as process:
        until(notes, "waiting")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, out) == (130, b"")
    assert notes.read_text() == "waiting\ncleaning up\nlifespan ended\n"
    assert b'"error"' not in err


def test_a_signal_while_the_application_starts_gives_the_start_up(notes: Path):
    with running(notes, "count", variables={"SLOW_START": "1"}) as process:
        until(notes, "starting")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
        assert process.returncode == 130
    assert notes.read_text() == "starting\nstart given up\n"


def test_an_end_that_fails_after_a_signal_is_in_the_log(notes: Path):
    with running(notes, "wait", variables={"BAD_END": "1"}) as process:
        until(notes, "waiting")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
    assert b"RuntimeError: the end went wrong" in err


def test_a_signal_after_the_answer_ends_a_producer_that_goes_on(notes: Path):
    with running(notes, "closed") as process:
        assert json.loads(process.stdout.readline()) == {"response": [{"data": "all"}]}
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        assert time.monotonic() - start < SOON
    assert notes.read_text() == "producer ended\nlifespan ended\n"
    assert b"[STREAM:CLI:DONE]" in err


def test_a_cleanup_that_outlasts_the_drain_is_named_and_left_behind(notes: Path):
    with running(notes, "wait", "--shielded", variables={"KERYX_DRAIN_TIMEOUT": "0.2"}) as process:
        until(notes, "waiting")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 143
    assert notes.read_text() == "waiting\ncleaning up\nlifespan ended\n"
    assert b"left behind" in err
    assert b"action=wait" in err


def test_a_second_signal_ends_it_at_once(notes: Path):
    with running(notes, "wait", "--shielded") as process:
        until(notes, "waiting")
        process.send_signal(signal.SIGINT)
        until(notes, "cleaning up")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SOON)
        assert process.returncode == 130
    assert b"a second signal came" in err


@pytest.mark.parametrize(
    ("closed", "out", "words"), [(0, 1, ["who"]), (1, 0, ["who"]), (2, 1, ["who"]), (0, 0, ["echo", "--json", "-"])]
)
def test_descriptors_that_the_parent_has_closed_are_left_alone(notes: Path, closed: int, out: int, words: list[str]):
    with running(notes, "-q", *words, preexec_fn=lambda: os.close(closed)) as process:
        told, err = process.communicate(timeout=LIMIT)
    assert told.count(b"\n") == out
    assert told.startswith(b'{"response":') or not out
    assert b"Traceback" not in err


def test_a_signal_that_the_parent_ignores_stays_ignored(notes: Path):
    with running(
        notes, "count", "--to", "3", "--pause", "0.3", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ) as process:
        until(notes, "")
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert len(json.loads(out)["response"]) == 4


# Readers that leave


def test_a_reader_that_leaves_between_two_events_cancels_the_producer_inside_its_wait(notes: Path):
    with running(notes, "--follow", "count", "--pause", "9999") as process:
        process.stdout.readline()
        process.stdout.close()
        start = time.monotonic()
        assert process.wait(timeout=LIMIT) == 141
        assert time.monotonic() - start < SOON
        err = process.stderr.read()
    assert notes.read_text() == "producer ended\nlifespan ended\n"
    assert b"CLIENT GONE" in err
    assert b"[error]" not in err
    assert b"Broken" not in err


def test_head_ends_a_stream_of_bytes_quietly(notes: Path):
    script = f"{' '.join(command('keryx_trio', 'run', '-q', APP, 'bytes', '--size', '999999999'))} | head -c 5 | wc -c"
    run = subprocess.run(
        ["bash", "-c", f"{script}; echo ${{PIPESTATUS[0]}}"], cwd=ROOT, env=environment(NOTES=str(notes)),
        capture_output=True, text=True, check=True, timeout=LIMIT,
    )  # fmt: skip
    assert run.stdout.split() == ["5", "141"]
    assert notes.read_text() == "producer ended\nlifespan ended\n"
    assert [line for line in run.stderr.splitlines() if not line.startswith("printed")] == []


def test_a_reader_that_is_slow_slows_the_producer_down(notes: Path):
    with running(notes, "-q", "bytes", "--size", str(64 * 1024 * 1024)) as process:
        time.sleep(1.0)
        assert notes.read_text() == ""
        size = 0
        while data := process.stdout.read(1024 * 1024):
            size += len(data)
        assert size == 64 * 1024 * 1024
        assert process.wait(timeout=LIMIT) == 0


def test_a_signal_ends_it_while_nobody_reads(notes: Path):
    with running(notes, "-q", "bytes", "--size", "999999999") as process:
        assert process.stdout.read(1) == b"\0"
        time.sleep(0.3)  # the pipe is full by now
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=SOON) == 130
    assert notes.read_text() == "producer ended\nlifespan ended\n"


def test_bytes_come_as_they_are_made(notes: Path):
    with running(notes, "two:bytes") as process:
        assert process.stdout.read(2) == b"ab"
        assert "ended" not in notes.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT) == 143


# Following


def test_followed_events_come_as_they_are_sent_without_colours(notes: Path):
    with running(notes, "-q", "--follow", "count", "--to", "2", "--pause", "0.2") as process:
        assert process.stdout.readline() == b'tick      {"number": 0}\n'
        assert notes.read_text() == ""
        out, err = process.communicate(timeout=LIMIT)
    assert out.decode() == 'tick      {"number": 1}\n          é\n          last\n'
    assert b"events)" not in err


def test_what_is_followed_is_not_bounded_and_keeps_what_came_before_an_error(notes: Path):
    with running(
        notes, "-q", "count", "--follow", "--to", "500", "--fails", variables={"KERYX_MAX_COLLECTED": "200"}
    ) as process:
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
    assert len(out.splitlines()) == 500
    assert json.loads(err.splitlines()[-1])["error"]["message"] == "out of numbers"


def test_what_is_followed_cannot_steer_the_terminal_and_long_json_has_lines_of_its_own(notes: Path):
    with running(notes, "-q", "--follow", "visible") as process:
        out, _ = process.communicate(timeout=LIMIT)
    lines = out.decode().splitlines()
    assert lines[0] == r"bell\x1b  \x1b[31mred\x07"
    assert lines[1:] == ["json      {", f'            "long": "{"x" * 200}",', '            "n": 1', "          }"]


def test_a_value_is_the_same_line_when_it_is_followed(notes: Path):
    with running(notes, "-q", "--follow", "none") as process:
        assert process.communicate(timeout=LIMIT)[0] == b'{"response":null}\n'


# A terminal


def at_terminal(notes: Path, *words: str, types: tuple[str, bytes] = ("", b""), **variables: str) -> tuple[int, str]:
    """Run it where a person is, who types something once something is shown; its status, and what was shown."""
    process, terminal = pty.fork()
    if not process:  # pragma: no cover - the child
        os.chdir(ROOT)
        words = command("keryx_trio", "run", *words)
        os.execve(words[0], words, environment(NOTES=str(notes), **variables))
    shown, (wanted, typed), end = b"", types, time.monotonic() + LIMIT
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    data = os.read(terminal, 65536)
                except OSError:  # the other side is closed
                    break
                if not data:
                    break
                shown += data
            if typed and wanted.encode() in shown:
                os.write(terminal, typed)
                typed = b""
        else:
            raise AssertionError(shown.decode())
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_a_count_at_the_end(notes: Path):
    status, shown = at_terminal(notes, APP, "--follow", "count", "--to", "1")
    assert status == 0
    assert '\x1b[36mtick\x1b[0m      {"number": 0}\n' in shown
    assert shown.endswith("(2 events)\n")
    assert "\x1b[36m" not in at_terminal(notes, APP, "--follow", "count", NO_COLOR="1")[1]


def test_ctrl_c_at_a_terminal(notes: Path):
    status, shown = at_terminal(
        notes, "-q", APP, "--follow", "count", "--pause", "0.1", "--to", "9999", types=('"number": 2', b"\x03")
    )
    assert status == 130
    assert "Traceback" not in shown
    assert notes.read_text() == "producer ended\nlifespan ended\n"


def test_a_secret_is_asked_for_and_not_shown(notes: Path):
    status, shown = at_terminal(notes, "-q", APP, "login", "--name", "ada", types=("password: ", b"swordfish\n"))
    assert status == 0
    assert '{"response":"ada has a password of 9 characters"}\n' in shown
    assert "swordfish" not in shown


@pytest.mark.parametrize(("typed", "status"), [(b"\x03", 130), (b"\x04", 1)], ids=["ctrl-c", "ctrl-d"])
def test_who_does_not_tell_a_secret_ends_it(notes: Path, typed: bytes, status: int):
    ended, shown = at_terminal(notes, "-q", APP, "login", "--name", "ada", types=("password: ", typed))
    assert ended == status
    assert ('"is required"' in shown) == (status == 1)
    assert "Traceback" not in shown


def test_an_interrupt_while_the_inputs_are_read_ends_it(notes: Path):
    with running(notes, "echo", "--json", "-", stdin=subprocess.PIPE) as process:
        line = process.stderr.readline()  # by now the application has been imported
        assert line == b"printed at import\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
