"""Values to JSON text."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import uuid
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire.json import encode
from keryx_trio.wire.text import to_utf8


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


@attrs.define
class Point:
    x: int
    _hidden: set[int] = attrs.field(factory=set)


@dataclasses.dataclass
class Box:
    content: Any


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true]}'),
        ("grüß", '"grüß"'),
        (2**70, "1180591620717411303424"),
        ({"deep": [{"n": 2**70}]}, '{"deep":[{"n":1180591620717411303424}]}'),
        (float("nan"), "null"),
        (b"ab", '"YWI="'),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), '"2026-01-02T00:00:00Z"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.20"), '"1.20"'),
        (Colour.RED, '"red"'),
        ({Colour.RED: 1}, '{"red":1}'),
        ({1: 2}, '{"1":2}'),
        ((1, (2,)), "[1,[2]]"),
        ({3}, "[3]"),
        (Pair(1, 2), "[1,2]"),
        (collections.deque([1]), "[1]"),
        (collections.OrderedDict(a=1), '{"a":1}'),
        (Point(1, {2}), '{"x":1,"hidden":[2]}'),
        (Box(Point(1)), '{"content":{"x":1,"hidden":[]}}'),
        ([Box({"k": Name("n")})], '[{"content":{"k":"n"}}]'),
        (Name("n"), '"n"'),
        (pathlib.PurePosixPath("/a"), '"/a"'),
    ],
)
def test_values_take_their_json_form(value, text):
    assert encode(value).decode() == text


@pytest.mark.parametrize("value", [object(), {"a": object()}, {(1, 2): 3}, lambda: 1, Box(object())])
def test_what_has_no_json_form_is_a_type_error_that_shows_no_value(value):
    with pytest.raises(TypeError, match="has no JSON form") as raised:
        encode(value)
    assert "0x" not in str(raised.value)


def test_a_value_that_contains_itself_is_an_error_and_no_crash():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        encode(loop)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_values_come_back_as_they_were(value):
    assert json.loads(encode(value)) == value


@given(st.text(st.characters(), max_size=30))
def test_every_text_becomes_valid_utf_8_on_one_line(text):
    data = encode({"t": text})
    assert b"\n" not in data
    assert b"\r" not in data
    data.decode()


@given(st.text(st.characters(categories=["Cs", "Lu", "So"]), max_size=20))
def test_surrogates_never_raise(text):
    decoded = to_utf8(text).decode()
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert decoded == text
    json.loads(encode(text))


def test_a_pair_of_surrogates_becomes_its_character_and_a_lone_one_is_replaced():
    assert to_utf8("\ud83d\ude00!\ud83d") == "😀!\ufffd".encode()
