"""Inputs as options, and what the help says of them; what the shell may complete."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import click
import pytest
from click.shell_completion import ShellComplete
from msgspec import Meta

from keryx_trio import SECRET, action
from keryx_trio.cli import main
from keryx_trio.cli.describing import constraints, metavar
from keryx_trio.cli.following import Follower
from keryx_trio.cli.options import gather, options
from keryx_trio.inputs.schema import describe
from keryx_trio.transports.collecting import Sent

LONG = Literal["alpha-alpha", "beta-beta-beta", "gamma-gamma-gamma", "delta-delta", "epsilon-epsilon"]


@pytest.mark.parametrize(
    ("annotation", "word", "told"),
    [
        (str, "TEXT", []),
        (Any, "TEXT", []),
        (bytes, "BASE64", []),
        (UUID, "UUID", []),
        (Decimal, "NUMBER", []),
        (Annotated[Decimal, Meta(ge=1)], "NUMBER", ["1 or more"]),
        (Annotated[int, Meta(le=3)], "INTEGER", ["3 or less"]),
        (Annotated[int, Meta(lt=3, multiple_of=2)], "INTEGER", ["less than 3", "a multiple of 2"]),
        (Annotated[str, Meta(pattern="^a")], "TEXT", ["matches ^a"]),
        (Annotated[str, Meta(min_length=2, max_length=2)], "TEXT", ["2 characters"]),
        (Annotated[str, Meta(max_length=1)], "TEXT", ["1 character or less"]),
        (Literal[1], "[1]", []),
        (LONG, "CHOICE", ["one of alpha-alpha, beta-beta-beta, gamma-gamma-gamma, delta-delta, epsilon-epsilon"]),
        (Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=3)], "INTEGER", ["may be repeated", "3 items or less", "0 or more"]),
        (set[str], "TEXT", ["may be repeated", "no item counts twice"]),
        (tuple[int, str], "INTEGER|TEXT", ["may be repeated", "2 items"]),
        (list[list[int]], "JSON", ["may be repeated"]),
        (list, "TEXT", ["may be repeated"]),
        (Annotated[dict[str, int], Meta(min_length=1)], "JSON", ["1 key or more"]),
        (bool | int | None, "true|false|INTEGER", []),
    ],
    ids=str,
)  # fmt: skip
def test_a_type_and_its_constraints_are_told_in_words(annotation: Any, word: str, told: list[str]):
    schema = describe(annotation)
    assert metavar(schema, {}) == word
    assert constraints(schema, {}) == told


def test_a_default_is_shown_short():
    assert constraints({"default": "x" * 100}, {}) == [f"default: {'x' * 60}…"]
    assert constraints({"default": None}, {}) == []


def names(*declared: Any) -> list[str]:
    return ["/".join([*option.opts, *option.secondary_opts]) for option in options(declared[0].inputs)]


def test_an_option_is_never_that_of_another_input():
    @action("x")
    async def x(  # noqa: PLR0917 - inputs that are in each other's way
        flag: bool, no_flag: str, key: Annotated[str, SECRET], key_file: str, other: bool, json: bool, _q: int
    ) -> None: ...

    assert names(x) == ["--flag", "--no-flag", "--key", "--key-file", "--other/--no-other", "---q"]


def test_an_input_may_be_called_as_the_file_of_a_secret_that_is_not_there():
    @action("x")
    async def x(password: Annotated[str, SECRET] | None = None) -> None: ...

    assert names(x) == ["--password", "--password-file"]


def test_only_a_required_secret_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    @action("x")
    async def x(
        one: Annotated[str, SECRET], two: dict[str, Annotated[str, SECRET]], three: Annotated[str, SECRET] = "x"
    ) -> None: ...

    def ask(name: str) -> str:
        asked.append(name)
        return "typed"

    monkeypatch.setenv("KERYX_INPUT_TWO", '{"a": "b"}')
    assert gather(x.inputs, {}, {}, stack=None, ask=ask) == ({"one": "typed", "two": '{"a": "b"}'}, {"one", "two"})
    assert asked == ["one"]
    assert gather(x.inputs, {}, {"one": "given"}, stack=None, ask=ask)[0]["one"] == "given"


def test_what_is_followed_is_laid_out_in_columns():
    follower = Follower(width=40)
    shown = [
        follower.show(item).decode()
        for item in (
            Sent("no name"),
            Sent("a\nb\r\nc\n", "say"),
            Sent(b'{"a": 1}', "quite-a-long-name"),
            Sent(b"[1]"),
            Sent("", "empty"),
            Sent("\ud800", "half"),
        )
    ]
    assert shown == [
        "no name\n",
        "say       a\n          b\n          c\n",
        'quite-a-long-name  {"a": 1}\n',
        "                   [1]\n",
        "empty\n",
        "half               \ufffd\n",
    ]
    assert follower.summary == "(6 events)"


def test_an_error_that_is_followed_is_red():
    assert Follower(colours=True).show(Sent("x", "error")).startswith(b"\x1b[31merror\x1b[0m")


def test_the_shell_completes_commands_and_actions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    def completed(*words: str) -> list[str]:
        completions = ShellComplete(main, {}, "keryx-trio", "_KERYX_TRIO_COMPLETE")
        return [each.value for each in completions.get_completions([*words[:-1]], words[-1])]

    assert completed("ac") == ["actions"]
    assert completed("run", "") == []
    assert completed("run", "tests.cli.tool:app", "c") == ["count", "closed", "collide"]
    assert completed("run", "tests.cli.tool:app", "echo", "--nu") == ["--number"]


def test_a_group_knows_its_commands_by_name():
    with click.Context(main) as context:
        assert main.get_command(context, "nothing") is None
