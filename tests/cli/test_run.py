"""`keryx-trio run`, in processes of its own: what goes in, what comes out, and the status."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import APP, LIMIT, Run
from tests.e2e.serving import ROOT, command, environment

Call = Callable[..., Run]


# What comes out


def test_a_value_is_one_line_of_json_and_nothing_else_is_on_the_output(keryx: Call, notes: Path):
    run = keryx("run", APP, "none")
    assert run.out == b'{"response":null}\n'
    assert run.status == 0
    for said in ("printed at import", "printed at the start", "printed in an action", "written to descriptor 1", "from a child", "printed at the end", "[ACTION:CLI:OK] none"):  # fmt: skip
        assert said in run.err
    assert notes.read_text() == "lifespan ended\n"


def test_q_silences_the_log_wherever_it_stands(keryx: Call):
    for words in (["-q", APP, "who"], [APP, "-q", "who"], [APP, "who", "-q"]):
        run = keryx("run", *words)
        assert "[info]" not in run.err
        assert "printed" in run.err  # which is not the log's
        assert run.response == ["cli", f"cli:{getpass.getuser()}"]


def test_a_stream_of_events_is_collected_into_one_line(call: Call, notes: Path):
    assert call("count", "--to", "2").response == [
        {"data": {"number": 0}, "event": "tick", "id": "0"},
        {"data": {"number": 1}, "event": "tick", "id": "1"},
        {"data": "é\nlast"},
    ]
    assert notes.read_text() == "producer ended\nlifespan ended\n"


def test_a_stream_of_bytes_comes_as_it_is_however_long_it_is(call: Call):
    run = call("bytes", "--size", "300001", "--piece", "777", KERYX_MAX_COLLECTED="1000")
    assert (run.status, len(run.out), set(run.out)) == (0, 300_001, {0})


def test_a_response_is_its_body(call: Call):
    assert call("response").response == "<p>"
    assert call("response", "--binary").response == "/wA="


# Errors


def test_an_error_is_the_last_line_of_stderr_below_all_that_is_printed(keryx: Call):
    run = keryx("run", APP, "fail")
    assert "printed at the end" in run.err
    assert run.error | {"timestamp": 0} == {
        "message": "no such thing", "type": "CONNECTION_ACTION_RUN", "timestamp": 0, "key": "kind", "value": "typed",
    }  # fmt: skip
    assert run.out == b""


def test_an_unknown_exception_is_told_in_general_words(call: Call):
    assert "private" not in call("fail", "--kind", "other").err
    assert (
        "LookupError: the details are private" in call("fail", "--kind", "other", KERYX_DEBUG="true").error["message"]
    )


def test_a_stream_that_fails_is_an_error_and_nothing_of_it_is_told(call: Call):
    run = call("count", "--fails")
    assert run.error["message"] == "out of numbers"
    assert run.out == b""


def test_a_stream_of_bytes_that_fails_has_sent_what_it_had(call: Call):
    run = call("bytes", "--size", "10", "--fails")
    assert run.error["message"] == "the disk is gone"
    assert run.out == bytes(10)


def test_what_is_collected_is_bounded(call: Call):
    assert call("count", "--to", "1000", KERYX_MAX_COLLECTED="2000").error["type"] == "CONNECTION_PAYLOAD_TOO_LARGE"


def test_the_timeout_ends_a_call(tmp_path: Path, keryx: Call):
    assert keryx("run", "-q", APP, "closed", KERYX_ACTION_TIMEOUT="0.1").response == [{"data": "all"}]


def test_every_fault_is_told_at_once(call: Call):
    error = call("echo", "--number", "x", "--pairs", "1", "--pairs", "y", "--address", '{"zip": "1"}').error
    assert error["type"] == "CONNECTION_ACTION_PARAM_VALIDATION"
    assert [fault["key"] for fault in error["errors"]] == ["text", "number", "pairs[1]", "address.zip"]


def test_an_option_given_twice_where_one_value_is_taken_is_a_fault(call: Call):
    assert call("echo", "--text", "a", "--text", "b").error["errors"] == [
        {"key": "text", "message": "expected one value, got 2"}
    ]


def test_an_unknown_action_names_those_that_look_like_it(call: Call):
    error = call("ecko").error
    assert error["type"] == "CONNECTION_ACTION_NOT_FOUND"
    assert "did you mean echo?" in error["message"]
    assert "did you mean two:bytes?" in call("two-bytes").error["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["echo", "--txt", "a"], "No such option '--txt'. Did you mean '--text'?"),
        (["echo", "a"], "unexpected extra argument"),
        (["echo", "--text"], "requires an argument"),
        (["echo", "--json", "/nowhere.json"], "cannot read /nowhere.json: No such file or directory"),
        (["--nothing", "echo"], "No such option '--nothing'"),
        ([], "echo"),
    ],
)
def test_wrong_usage_is_told_with_status_2(call: Call, words: list[str], said: str):
    run = call(*words)
    assert run.status == 2
    assert said in " ".join(run.err.split())
    assert run.out == b""


def test_an_application_that_is_not_there_is_wrong_usage_and_says_where_it_was_looked_for(keryx: Call):
    run = keryx("run", "nowhere:app", "echo")
    assert run.status == 2
    assert f"there is no module 'nowhere' in {ROOT}" in " ".join(run.err.split())


FAILING_TASK = """
import contextlib, trio, keryx_trio

async def fail():
    raise LookupError("a task of the application")

@contextlib.asynccontextmanager
async def lifespan(app):
    yield app.nursery.start_soon

app = keryx_trio.Keryx(lifespan=lifespan)

@app.action("x")
async def x():
    app.state(fail)
    await trio.sleep_forever()
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "cannot import broken: ZeroDivisionError: division by zero ("),
        ("import keryx_trio\napp = keryx_trio.Keryx(lifespan=lambda app: 1 / 0)\n@app.action('x')\nasync def x(): ...",
         "the application failed: ZeroDivisionError: division by zero ("),
        (FAILING_TASK, "the application failed: LookupError: a task of the application ("),
    ],
)  # fmt: skip
def test_an_application_that_fails_is_the_error(keryx: Call, tmp_path: Path, source: str, said: str):
    (tmp_path / "broken.py").write_text(source + "\n")
    error = keryx("run", "broken:app", "x", cwd=tmp_path, PYTHONPATH=str(ROOT)).error
    assert error["message"].startswith(said)
    assert error["type"] == "CONNECTION_SERVER_ERROR"


def test_a_bad_setting_is_one_line_that_names_the_variable(keryx: Call):
    assert keryx("run", APP, "echo", KERYX_PING="often").error["message"].startswith("KERYX_PING must be a number")


def test_a_lifespan_that_fails_at_the_end_is_an_error_although_the_answer_is_there(keryx: Call):
    run = keryx("run", "-q", APP, "who", BAD_END="1")
    assert run.error["message"].startswith("the application failed: RuntimeError: the end went wrong")
    assert run.out.startswith(b'{"response":')


def test_an_output_that_takes_nothing_more_is_an_error(notes: Path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no full device")
    with full.open("w") as output:
        run = subprocess.run(
            command("keryx_trio", "run", "-q", APP, "who"), cwd=ROOT, env=environment(NOTES=str(notes)),
            stdout=output, stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT,
        )  # fmt: skip
    assert run.returncode == 1
    assert "cannot be written: No space left" in json.loads(run.stderr.splitlines()[-1])["error"]["message"]


# What goes in


def test_options_are_the_inputs_as_text(call: Call):
    options = (
        "--text=é --number 3 --ratio 0.5 --colour green --order desc --when 2026-01-31T12:00:00Z --tags a --tags b "
        '--pairs -5 --no-dry-run --sure --counts {"a":1} --id-or-name 5'
    )  # fmt: skip
    assert call("echo", *options.split(), "--address", '{"zip": "123", "street": "X"}').response == {
        "text": "é", "number": 3, "ratio": 0.5, "colour": "green", "order": "desc", "when": "2026-01-31T12:00:00Z",
        "tags": ["a", "b"], "pairs": [-5], "dry_run": False, "sure": True, "address": {"zip": "123", "street": "X"},
        "counts": {"a": 1}, "id_or_name": 5,
    }  # fmt: skip


def test_what_is_left_out_has_its_default(call: Call):
    assert call("echo", "--text", "x").response == {
        "text": "x", "number": 7, "colour": "red", "order": "asc", "pairs": [1, 2], "dry_run": True,
        "id_or_name": "nobody",
    }  # fmt: skip
    assert call("echo", "--text", "x", "--no-sure").response["sure"] is False
    assert call("echo", "--text", "x", "--id_or_name", "y").response["id_or_name"] == "y"


def test_json_gives_the_inputs_uncoerced_and_options_win(call: Call, tmp_path: Path):
    given = {"text": "json", "number": 1, "tags": ["a"], "address": {"zip": "123"}, "unknown": 1}
    said = call("echo", "--json", "-", "--number", "2", stdin=json.dumps(given).encode()).response
    assert (said["text"], said["number"], said["tags"], said["address"]["zip"]) == ("json", 2, ["a"], "123")
    (tmp_path / "inputs.json").write_text(json.dumps(given))
    assert call("--json", str(tmp_path / "inputs.json"), "echo").response["text"] == "json"
    error = call("echo", "--json", "-", stdin=b'{"text": "x", "number": "1"}').error
    assert error["errors"] == [{"key": "number", "message": "expected an integer, got a string"}]


@pytest.mark.parametrize(
    ("given", "said"), [(b"{", "not valid JSON"), (b"[1]", "must be a JSON object"), (b"\xff", "")]
)
def test_json_that_is_none_is_an_error(call: Call, given: bytes, said: str):
    error = call("echo", "--json", "-", stdin=given).error
    assert error["type"] == "CONNECTION_ACTION_PARAM_FORMATTING"
    assert said in error["message"]


def test_a_file_is_opened_read_and_closed(call: Call, tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b")
    (tmp_path / "b").write_text("more")
    said = call(
        "upload", "--file", str(tmp_path / "a.csv"), "--more", str(tmp_path / "b"), "--more", "/dev/null"
    ).response
    assert said == ["a.csv", "text/csv", 3, "a,b", 0, ["b", "more"], ["null", ""]]


def test_a_file_that_cannot_be_opened_is_a_fault_among_others(call: Call, tmp_path: Path):
    error = call("upload", "--file", "/nowhere/x", "--more", str(tmp_path), "--size", "x").error
    assert error["errors"] == [
        {"key": "file", "message": "cannot open /nowhere/x: No such file or directory"},
        {"key": "more[0]", "message": f"cannot open {tmp_path}: Is a directory"},
        {"key": "size", "message": "expected an integer"},
    ]


def test_inputs_that_bear_the_names_of_our_options_are_given_by_json(call: Call):
    given = json.dumps({"follow": 1, "json": "x", "help": True}).encode()
    said = call("collide", "--json", "-", "--q", "y", "--no-quiet", stdin=given).response
    assert said == [1, "x", True, "y", True, False]
    shown = " ".join(call("collide", "--help").out.decode().split())
    for name in ("follow", "json", "help"):
        assert f"{name} Only by --json: the option of this name is the command's." in shown


# Secrets


def test_a_secret_comes_from_a_file_the_input_or_a_variable(call: Call, tmp_path: Path):
    path = tmp_path / "password"
    path.write_text("swordfish\n")
    told = "ada has a password of 9 characters"
    assert call("login", "--name", "ada", "--password-file", str(path)).response == told
    assert call("login", "--name", "ada", "--password-file", "-", stdin=b"swordfish").response == told
    assert call("login", "--name", "ada", KERYX_INPUT_PASSWORD="swordfish").response == told
    assert call("login", "--name", "ada", "--password", "swordfish").response == told
    assert call("login", "--json", "-", stdin=b'{"name": "ada", "password": "swordfish"}').response == told


def test_a_secret_is_not_asked_for_where_nobody_is_there(call: Call):
    assert call("login", "--name", "ada").error["errors"] == [{"key": "password", "message": "is required"}]


def test_a_secret_is_told_nowhere(keryx: Call):
    run = keryx("run", APP, "login", "--password", "pw", "--name", "ada", KERYX_DEBUG="true")
    assert run.error["key"] == "password"
    assert "pw" not in run.err.replace("/pw", "")
    assert "[[secret]]" in run.err


def test_a_secret_given_twice_or_in_no_file_is_wrong_usage(call: Call):
    both = call("login", "--name", "ada", "--password", "x", "--password-file", "/dev/null")
    assert (both.status, "--password and --password-file give the same input" in both.err) == (2, True)
    missing = call("login", "--name", "ada", "--password-file", "/nowhere")
    assert (missing.status, "cannot read /nowhere" in missing.err) == (2, True)


# Help


def test_the_help_of_an_action_shows_its_inputs(call: Call):
    shown = " ".join(call("echo", "--help", COLUMNS="100").out.decode().split())
    for told in (
        "run -q", "Say it again. And say of which type it is.",
        "--text TEXT What to say [required; 1 to 40 characters]",
        "--number INTEGER [0 to 9; default: 7]",
        "--ratio NUMBER [more than 0]",
        "--colour [red|green] [default: red]",
        "--order [asc|desc] [default: asc]",
        "--when DATETIME [such as 2026-01-31T12:00:00Z]",
        "--tags TEXT [may be repeated]",
        "--pairs INTEGER [may be repeated; default: [1, 2]]",
        "--dry-run / --no-dry-run [default: true]",
        "--sure / --no-sure",
        "--address JSON [keys: zip, street?]",
        "--counts JSON",
        "--id-or-name INTEGER|TEXT [default: nobody]",
        "--follow", "--json -|FILE", "-q",
    )[1:]:  # fmt: skip
        assert told in shown, shown
    secret = " ".join(call("login", "--help").out.decode().split())
    assert "--password TEXT [required; 3 characters or more; secret]" in secret
    assert "--password-file PATH" in secret
    assert "KERYX_INPUT_NAME" in secret
    assert "There are none." in call("none", "--help").out.decode()
    assert "--file FILE [required]" in " ".join(call("upload", "--help").out.decode().split())


def test_the_help_of_an_application_shows_its_actions_and_nothing_it_prints(keryx: Call):
    run = keryx("run", APP, "--help")
    assert run.status == 0
    assert b"printed" not in run.out
    assert b"two:bytes  Two bytes, and then silence." in run.out


def test_the_help_teaches(keryx: Call):
    for words in ([], ["run"], ["serve"], ["actions"]):
        shown = keryx(*words, "--help").out.decode()
        assert "Examples:" in shown
        assert "keryx-trio " in shown


# Start


def test_a_call_imports_nothing_that_it_does_not_need(tmp_path: Path):
    (tmp_path / "plain.py").write_text(
        "import keryx_trio\n"
        "app = keryx_trio.Keryx(mcp=True)\n"
        "app.static('/', '.')\n"
        "@app.action('status', web=keryx_trio.Web('/status'))\n"
        "async def status() -> dict[str, bool]:\n"
        "    return {'ok': True}\n"
    )
    code = (
        "import sys\n"
        "from keryx_trio.cli import main\n"
        "try:\n"
        "    main(['run', 'plain:app', 'status'])\n"
        "finally:\n"
        "    print(*sorted(name for name in sys.modules), file=sys.stderr)\n"
    )
    bare = {name: value for name, value in environment(PYTHONPATH=str(ROOT)).items() if not name.startswith("COVERAGE")}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=bare, capture_output=True, text=True, check=True, timeout=LIMIT,
    )  # fmt: skip
    assert run.stdout == '{"response":{"ok":true}}\n'
    imported = set(run.stderr.splitlines()[-1].split())
    roots = {name.partition(".")[0] for name in imported}
    assert not roots & {
        "anyio", "asyncio", "coredis", "h11", "h2", "httpx", "hypercorn", "mcp", "mcp_types", "pydantic",
        "python_multipart", "rich", "sqlite3", "starlette", "structlog", "trio_websocket", "uvicorn", "wsproto",
    }  # fmt: skip
    ours = {name.removeprefix("keryx_trio.") for name in imported if name.startswith("keryx_trio.")}
    assert {name for name in ours if name.startswith("transports.")} <= {
        "transports.collecting", "transports.exchange", "transports.files", "transports.patience", "transports.shell",
        "transports.signals", "transports.stdio", "transports.worker",
    }  # fmt: skip
    assert not {
        name for name in ours if name.startswith(("server", "testing", "openapi", "store.redis", "store.sqlite"))
    }


def test_it_runs_as_a_module_and_says_its_version():
    shown = subprocess.run(
        command("keryx_trio", "--version"), capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert shown.stdout.startswith("keryx-trio 0.")
