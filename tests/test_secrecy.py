"""What is secret is found however it is written, and looking for it costs little."""

from __future__ import annotations

import base64
import json
import time
import traceback
from urllib.parse import quote, quote_plus

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keryx_trio import secrecy
from keryx_trio.secrecy import Secrets

LONG = "".join(f"{number:04}-" for number in range(400))


def hide(text: str, *secrets: str) -> str:
    return Secrets(secrets).hide(text)


class TestText:
    @given(st.text(min_size=1, max_size=200))
    @example("a\x1ab")
    @example("'\"\\\n\x1b")
    def test_shows_no_secret_however_it_is_written(self, secret):
        sent = secret.encode(errors="replace")
        for form in (
            secret,
            json.dumps(secret),
            json.dumps(secret, ensure_ascii=False),
            repr(secret),
            ascii(secret),
            repr({"a": [secret]}),
            repr("'\"" + secret),
            repr(sent),
            base64.b64encode(sent).decode(),
            quote(secret, safe="", errors="replace"),
            quote_plus(secret, errors="replace"),
            quote(secret, safe="!*'()", errors="replace"),
        ):
            assert not any(form in part for part in hide(f"<{form}>", secret).split("[[secret]]"))

    @pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
    @pytest.mark.parametrize("after", ["", "x", "\n"])
    @pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
    def test_shows_no_secret_that_is_a_part_of_what_base64_holds(self, before, after, encode):
        shown = hide(encode(f"{before}hunter2>>>???{after}".encode()).decode(), "hunter2>>>???")
        assert "[[secret]]" in shown
        assert len(shown.replace("[[secret]]", "")) <= len("user:") * 4 / 3 + 6

    def test_is_changed_nowhere_else(self):
        assert hide("tell me secrets of the p@ss, p%40ss, p%40SS", "p@ss") == (
            "tell me secrets of the [[secret]], [[secret]], p%40SS"
        )
        assert hide("a%2fb a%2Fb", "a/b") == "[[secret]] [[secret]]"

    def test_loses_the_longest_secret_first(self):
        assert hide("abc ab", "ab", "abc") == "[[secret]] [[secret]]"

    def test_has_marks_that_are_not_searched_themselves(self):
        assert hide("secret t", "t", "secret", "[", "\x1a") == "[[secret]] [[secret]]"

    def test_is_as_it_was_where_nothing_is_secret(self):
        assert hide("abc", "", "") == "abc"
        assert not Secrets(["", ""])

    def test_shows_no_line_of_a_secret_that_has_several(self):
        assert hide("at KEYKEY, } and ]", "{{{\nKEYKEY\n}\n") == "at [[secret]], } and ]"

    def test_shows_no_secret_that_came_later(self):
        secrets = Secrets(["one"])
        assert secrets.hide("one two") == "[[secret]] two"
        secrets.extend(["two", ""])
        assert secrets.hide("one two") == "[[secret]] [[secret]]"

    def test_is_searched_with_what_was_made_once(self, monkeypatch):
        made = []
        monkeypatch.setattr(secrecy, "_forms", lambda text: made.append(text) or [text])
        secrets = Secrets(["one"])
        secrets.extend(["one"])
        assert made == []
        for _ in range(3):
            secrets.hide("one")
            secrets.extend(["one"])
        assert made == ["one"]


class TestALongSecret:
    def test_is_taken_out_where_it_stands(self):
        assert hide(f"the key {LONG} is old, {LONG[:40]}", LONG) == f"the key [[secret]] is old, {LONG[:40]}"

    @pytest.mark.parametrize("text", [LONG[:100], LONG[-70:], base64.b64encode(LONG.encode()).decode()])
    def test_hides_a_text_that_has_an_end_of_it(self, text):
        assert hide(f"the key {text} is old", LONG) == "[[secret]]"

    def test_hides_a_text_that_has_an_end_of_it_in_another_form(self):
        assert hide(json.dumps("é" * 500), "é" * 500) == hide(quote("é" * 500), "é" * 500) == "[[secret]]"

    def test_of_many_lines_shows_none_of_them(self):
        key = "\n".join(["-----BEGIN", *(f"{number:064}" for number in range(30)), "-----END"])
        assert hide(f"line {3:064} of it", key) == "line [[secret]] of it"
        assert hide(repr(key), key) == "[[secret]]"


@attrs.define
class Creds:
    user: str
    password: str


class TestAValue:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (Creds("u", "hunter2"), {"user": "u", "password": "[[secret]]"}),
            ({"hunter2": ["a hunter2", None, True, 5]}, {"[[secret]]": ["a [[secret]]", None, True, 5]}),
            ({"hunter2"}, ["[[secret]]"]),
            (b"hunter2", "[[secret]]"),
            (b"it is hunter2!", "aXQgaXMg[[secret]]iE="),
            ([4815162342, 48, 1.5], ["[[secret]]", 48, 1.5]),
        ],
    )
    def test_shows_no_secret_in_any_of_its_parts(self, value, expected):
        assert Secrets(["hunter2", "4815162342"]).hide_in(value) == expected

    def test_keeps_keys_that_are_our_own(self):
        row = {"key": "a key", "message": "no"}
        assert Secrets(["key"]).hide_in([row], keys=False) == [{"key": "a [[secret]]", "message": "no"}]

    def test_is_itself_where_nothing_is_secret(self):
        value = object()
        assert Secrets().hide_in(value) is value


def fail(error):
    raise error


def raised(error):
    try:
        fail(error)
    except BaseException as caught:  # noqa: BLE001
        return caught


class TestATraceback:
    def test_is_pythons_own_where_nothing_is_secret(self):
        error = raised(ValueError("boom"))
        assert Secrets().traceback(error) == "".join(traceback.format_exception(error))
        assert Secrets(["x y z"]).traceback(error) == "".join(traceback.format_exception(error))

    def test_shows_no_secret_of_any_error_in_it(self):
        key = "ab1\ncd2\nef3"
        inner = raised(KeyError(key))
        inner.__cause__ = raised(ValueError(f"cause {key}"))
        inner.__context__ = None
        group = raised(ExceptionGroup("g", [raised(ExceptionGroup(f"h {key}", [inner])), ValueError(f"bad: {key}")]))
        group.add_note(f"by the way: {key}")
        shown = Secrets([key]).traceback(group)
        assert not any(line in shown for line in key.split())
        assert "ValueError: bad: [[secret]]" in shown
        assert "by the way: [[secret]]" in shown
        assert shown.count("in fail") == 4

    def test_shows_no_secret_of_the_source(self):
        try:
            raise ValueError("it was swordfish")
        except ValueError as error:
            shown = Secrets(["swordfish"]).traceback(error)
        assert 'raise ValueError("it was [[secret]]")' in shown
        assert "swordfish" not in shown

    def test_survives_errors_that_are_in_each_other(self):
        error, other = ValueError("one"), ValueError("two")
        error.__context__, other.__context__ = other, error
        assert "[[secret]]" in Secrets(["two"]).traceback(error)


class TestTheCost:
    """Seconds are far above what is measured, and far below what a product of texts and secrets would take."""

    @pytest.mark.parametrize(
        "secret",
        ["ä" * 2_000_000, "\n".join(f"l{number:05}" for number in range(200_000)), "\n" * 5_000_000, "a" * 3_000_000],
        ids=["one line", "many lines", "empty lines", "one letter"],
    )
    def test_of_a_huge_secret_is_small(self, secret):
        secrets = Secrets([secret])
        started = time.perf_counter()
        assert secrets.hide("x" * 1000) == "x" * 1000
        assert secret not in secrets.hide(f"it is {secret}")
        assert secret[-64:] not in secrets.hide(f"it is {secret!r} {json.dumps(secret)}")
        assert time.perf_counter() - started < 2

    @pytest.mark.parametrize("count", [100, 10_000, 1_000_000])
    def test_of_many_secrets_and_many_texts_is_small(self, count):
        secrets = Secrets(f"tok{number:07}" for number in range(count))
        errors = [{"key": f"ids[{number}]", "message": "expected an integer"} for number in range(1000)]
        started = time.perf_counter()
        shown = secrets.hide_in(errors, keys=False)
        assert time.perf_counter() - started < 1
        assert shown == errors if count == 100 else set(shown[0].values()) == {"[[secret]]"}

    def test_bounds_the_text_that_is_searched(self):
        assert hide("x" * secrecy.MAX_WORK, "hunter2") == "[[secret]]"
