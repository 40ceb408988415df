from __future__ import annotations

import io
import json
import logging
import re
import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.config import LogConfig
from keryx_trio.logs import LOGGER, Log, call_line, configured, plain, shortened, stream_line
from keryx_trio.secrecy import Secrets


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Broken:
    def __str__(self):
        raise LookupError("no text")

    __repr__ = __str__


class MuteError(Exception):
    def __str__(self):
        raise ValueError("cannot show hunter2")


@pytest.fixture(autouse=True)
def root(monkeypatch):
    """As in a fresh process: the root logger has no handlers, also none of pytest's."""
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging.getLogger(LOGGER), "parent", root)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return root


@pytest.fixture
def stderr(capsys):
    """What was written to stderr since it was asked last."""
    return lambda: capsys.readouterr().err


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def records():
    handler = Records()
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel("NOTSET")


CALL = {
    "action": "chat:stream",
    "transport": "web",
    "status": "ok",
    "duration": 3.2,
    "identifier": "127.0.0.1",
    "method": "POST",
    "url": "/api/chat/stream",
    "correlation_id": "id",
    "params": {"prompt": "hi"},
}
STREAM = {
    "action": "chat:stream",
    "transport": "web",
    "outcome": "done",
    "events": 12,
    "bytes": 345,
    "duration": 2100,
    "time_to_first_event": 41,
    "correlation_id": "id",
}


class TestTheLineOfACall:
    def test_reads_at_a_glance(self):
        assert call_line(**CALL) == (
            '[ACTION:WEB:OK] chat:stream (3ms) [POST] 127.0.0.1(/api/chat/stream) [cor:id] {"prompt": "hi"}'
        )

    def test_leaves_out_what_is_not_there(self):
        line = call_line(action="report", transport="task", status="ok", duration=1500)
        assert line == "[ACTION:TASK:OK] report (1.5s)"

    def test_tells_the_error(self):
        line = call_line(**{**CALL, "status": "error", "error_type": "CONNECTION_ACTION_RUN", "error": "it failed"})
        assert "[cor:id] CONNECTION_ACTION_RUN it failed {" in line

    @given(st.text(), st.text(), st.text())
    def test_is_one_line_whatever_the_client_sends(self, url, value, correlation_id):
        line = call_line(**{**CALL, "url": url, "params": {"prompt": value}, "correlation_id": correlation_id})
        assert line.isprintable()

    def test_is_logged_with_its_fields(self, records):
        Log(LogConfig()).call(**CALL)
        (record,) = records
        assert record.getMessage() == call_line(**CALL)
        assert record.keryx_fields == CALL
        assert (record.levelname, record.name) == ("INFO", "keryx_trio")

    def test_has_its_inputs_cut_at_the_configured_length(self, records):
        Log(LogConfig(max_param_length=5)).call(
            "error", **{**CALL, "params": {"a": "123456", "b": [1, 2, 3], "c": 12345678}}
        )
        assert records[0].keryx_fields["params"] == {"a": "12345…", "b": "[1, 2…", "c": 12345678}
        assert '{"a": "12345…"' in records[0].getMessage()

    def test_may_have_no_inputs(self, records):
        Log(LogConfig()).call(**{**CALL, "params": None})
        assert "params" not in records[0].keryx_fields


class TestTheLineOfAStream:
    def test_reads_at_a_glance(self):
        line = stream_line(**STREAM)
        assert line == "[STREAM:WEB:DONE] chat:stream (2.1s) events=12 bytes=345 first_event=41ms [cor:id]"

    def test_leaves_out_what_is_not_there(self):
        line = stream_line(**{**STREAM, "outcome": "client gone", "time_to_first_event": None, "correlation_id": None})
        assert line == "[STREAM:WEB:CLIENT GONE] chat:stream (2.1s) events=12 bytes=345"

    def test_is_logged_with_its_fields(self, records):
        Log(LogConfig()).stream(**STREAM)
        assert records[0].getMessage() == stream_line(**STREAM)
        assert records[0].keryx_fields == STREAM


class TestAMessage:
    def test_has_its_fields_behind_it_and_on_the_record(self, records):
        Log(LogConfig()).info("serving", bind="127.0.0.1:8000", workers=2, tls=None, tags=["a"])
        assert records[0].getMessage() == 'serving bind=127.0.0.1:8000 workers=2 tags=["a"]'
        assert records[0].keryx_fields == {"bind": "127.0.0.1:8000", "workers": 2, "tags": ["a"]}

    def test_has_a_level(self, records):
        log = Log(LogConfig())
        for method in (log.debug, log.info, log.warning, log.error):
            method("hello")
        assert [record.levelname for record in records] == ["DEBUG", "INFO", "WARNING", "ERROR"]

    def test_cannot_be_forged_by_a_value(self, records):
        Log(LogConfig()).warning("bad\nvalue", who="a b", what="x\r\n2026-11-22 [info] ok", none="")
        assert records[0].getMessage() == r'bad\nvalue who="a b" what="x\r\n2026-11-22 [info] ok" none=""'

    def test_takes_fields_of_any_name_and_percent_signs(self, records):
        Log(LogConfig()).info("100%s", message="m", self=1)
        assert records[0].getMessage() == "100%s message=m self=1"


class TestWhatIsNotEnabled:
    def test_is_not_built(self, records):
        logging.getLogger(LOGGER).setLevel("CRITICAL")
        log = Log(LogConfig())
        log.debug("no", value=Broken())
        log.exception("no", ValueError())
        log.call(**CALL)
        log.stream(**STREAM)
        assert records == []

    def test_can_be_asked_for(self, records):
        logging.getLogger(LOGGER).setLevel("WARNING")
        log = Log(LogConfig())
        assert [log.enabled(level) for level in ("debug", "info", "warning", "error", "critical")] == [
            False,
            False,
            True,
            True,
            True,
        ]


def fail(error):
    raise error


def raised(error):
    try:
        fail(error)
    except type(error) as caught:
        return caught


class TestAnError:
    def test_is_logged_whole(self, records):
        error = raised(ValueError("boom"))
        Log(LogConfig()).exception("the action failed", error, action="a")
        (record,) = records
        assert record.getMessage() == "the action failed action=a error_type=ValueError error=boom"
        assert record.exc_info == (ValueError, error, error.__traceback__)
        assert record.keryx_traceback.startswith("Traceback (most recent call last):\n")
        assert record.keryx_traceback.endswith("ValueError: boom\n")

    def test_is_shown_by_the_formatters_of_others(self, records):
        Log(LogConfig()).exception("failed", raised(ValueError("boom")), secrets=Secrets(["boom"]))
        shown = logging.Formatter("%(message)s").format(records[0])
        assert shown.startswith("failed error_type=ValueError error=[[secret]]\n    Traceback (most")
        assert "boom" not in shown

    def test_says_no_secret(self, records):
        key = "ab1\ncd2\nhunter2"
        group = raised(ExceptionGroup(f"several {key}", [ValueError(f"bad: {key}"), KeyError(key)]))
        Log(LogConfig()).exception("failed", group, secrets=Secrets([key]), tries=1)
        (record,) = records
        said = f"{record.getMessage()} {record.__dict__} {record.exc_text}"
        assert not any(line in said for line in key.split())
        assert record.exc_info is None
        assert record.keryx_fields["tries"] == 1

    def test_without_a_text_is_logged_all_the_same(self, records, stderr):
        Log(LogConfig()).exception("failed", raised(MuteError()), secrets=Secrets(["hunter2"]))
        assert records[0].getMessage() == 'failed error_type=MuteError error="<a MuteError that has no text>"'
        assert "in fail\n" in records[0].keryx_traceback
        assert "hunter2" not in records[0].keryx_traceback + stderr()

    def test_keeps_our_own_words_whatever_is_secret(self, records):
        Log(LogConfig()).exception("the action failed", ValueError("a"), secrets=Secrets(["a"]), action="login")
        assert records[0].getMessage() == "the action failed action=login error_type=ValueError error=[[secret]]"

    def test_cannot_pass_for_a_line_of_its_own(self, records):
        Log(LogConfig()).exception("failed", raised(ValueError("x\n2026-11-22 12:00:00 [info] forged\x1b[0m")))
        assert "\n    2026-11-22 12:00:00 [info] forged\\x1b[0m" in records[0].exc_text


class TestALogThatFails:
    @pytest.fixture
    def _broken_handler(self, monkeypatch):
        def fail(_record):
            raise LookupError("broken handler")

        handler = logging.Handler()
        handler.emit = fail
        monkeypatch.setattr(logging.getLogger(LOGGER), "handlers", [handler])

    @pytest.mark.usefixtures("_broken_handler")
    def test_breaks_no_call_and_is_told_on_stderr(self, stderr):
        log = Log(LogConfig())
        log.error("hello")
        log.exception("hello", ValueError())
        log.call("error", **CALL)
        log.stream("error", **STREAM)
        shown = stderr()
        assert shown.count("lost a line of its log to LookupError") == 4
        assert "in fail\n" in shown
        assert "broken handler" not in re.sub(r".*raise .*", "", shown)

    @pytest.mark.usefixtures("_broken_handler")
    def test_does_not_tell_the_error_that_is_being_handled(self, stderr):
        try:
            fail(ValueError("swordfish"))
        except ValueError as error:
            Log(LogConfig()).exception("hello", error, secrets=Secrets(["swordfish"]))
        assert "swordfish" not in stderr()

    @pytest.mark.usefixtures("_broken_handler")
    def test_is_silent_where_the_standard_library_is_told_to_be(self, stderr, monkeypatch):
        monkeypatch.setattr(logging, "raiseExceptions", False)
        Log(LogConfig()).error("hello")
        assert stderr() == ""

    @pytest.mark.usefixtures("_broken_handler")
    def test_breaks_no_call_even_without_stderr(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        Log(LogConfig()).error("hello")
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
        Log(LogConfig()).error("hello")

    def test_breaks_no_call_when_a_value_has_no_text(self, records, stderr):
        Log(LogConfig()).info("hello", value=Broken())
        Log(LogConfig()).call(**{**CALL, "params": {"a": Broken()}})
        assert records == []
        assert stderr().count("lost a line of its log to LookupError") == 2


class TestWhereTheApplicationHasNoLogging:
    def test_lines_for_people_go_to_stderr(self, stderr):
        with configured(LogConfig()):
            Log(LogConfig()).info("serving", port=8000)
            Log(LogConfig()).debug("hidden")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info\] serving port=8000\n", stderr())

    def test_an_error_has_its_traceback_below_it(self, stderr):
        with configured(LogConfig()):
            Log(LogConfig()).exception("failed", raised(ValueError("boom")))
        first, *rest = stderr().splitlines()
        assert first.endswith("[error] failed error_type=ValueError error=boom")
        assert rest[0] == "    Traceback (most recent call last):"
        assert rest[-1] == "    ValueError: boom"

    def test_a_terminal_has_colours(self, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with configured(LogConfig()):
            Log(LogConfig()).warning("careful")
        assert "[\x1b[33mwarning\x1b[0m] careful" in terminal.getvalue()

    def test_a_terminal_has_none_where_they_are_not_wanted(self, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        with configured(LogConfig()):
            Log(LogConfig()).warning("careful")
        assert "\x1b" not in terminal.getvalue()

    def test_json_is_an_object_a_line(self, stderr):
        with configured(LogConfig(format="json", level="debug")):
            Log(LogConfig()).debug("one\ntwo", level="mine", uuid=UUID(int=0))
            Log(LogConfig()).exception("failed", raised(ValueError("boom")))
            Log(LogConfig()).call(**CALL)
        one, failed, call = (json.loads(line) for line in stderr().splitlines())
        assert list(one) == ["timestamp", "level", "message", "pid", "uuid"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", one["timestamp"])
        assert (one["level"], one["message"]) == ("debug", "one\ntwo")
        assert call["message"] == call_line(**CALL)
        assert failed["traceback"].endswith("ValueError: boom\n")
        assert {key: call[key] for key in CALL} == CALL
        assert "traceback" not in call

    def test_nothing_is_left_behind(self, stderr):
        logger = logging.getLogger(LOGGER)
        before = (logger.handlers[:], logger.level, logger.propagate)
        with configured(LogConfig(level="error")):
            during = (logger.handlers[:], logger.level, logger.propagate)
        assert during != before
        assert (logger.handlers, logger.level, logger.propagate) == before

    def test_a_process_without_stderr_loses_its_lines_and_nothing_else(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        with configured(LogConfig()):
            Log(LogConfig()).info("hello")


class TestWhereTheApplicationHasLogging:
    @pytest.mark.parametrize("where", ["root", "keryx_trio"])
    def test_it_is_left_alone(self, where, root, stderr, monkeypatch):
        own = Records()
        monkeypatch.setattr(root if where == "root" else logging.getLogger(LOGGER), "handlers", [own])
        with configured(LogConfig(level="debug")):
            Log(LogConfig()).debug("hidden")
            Log(LogConfig()).warning("seen")
            assert logging.getLogger(LOGGER).level == logging.NOTSET
        assert [record.getMessage() for record in own.records] == ["seen"]
        assert stderr() == ""


class TestShortening:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("12345", "12345"),
            ("123456", "12345…"),
            (None, None),
            (1234567, 1234567),
            ([1], [1]),
            ({"a": 1, "b": 2}, '{"a":…'),
            ({UUID(int=0): 1}, "{UUID…"),
            (b"1234567", "\"b'12…"),
        ],
    )
    def test_keeps_what_is_short(self, value, expected):
        assert shortened(value, 5) == expected

    def test_does_not_write_out_what_is_huge(self):
        def chunks():
            yield "[1"
            raise AssertionError("was read to its end")

        class Huge(list):
            def __iter__(self):
                yield "12345678"
                raise AssertionError("was read to its end")

        assert shortened(Huge([1, 2]), 5) == '["123…'

    def test_survives_a_value_that_holds_itself(self):
        value = {}
        value["me"] = value
        assert shortened(value, 500) == "{'me': {...}}"


def test_what_is_not_printable_is_escaped():
    assert plain("a b") == "a b"
    assert plain("a\tb\x1b\u2028\ud800é") == r"a\tb\x1b\u2028\ud800é"
