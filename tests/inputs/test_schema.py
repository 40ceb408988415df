# ruff: noqa: PYI061 - a Literal with None in it is what is tested
import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from keryx_trio.errors import TypedError
from keryx_trio.inputs import SECRET, Inputs
from keryx_trio.inputs.schema import describe, type_schema
from keryx_trio.uploads import UploadFile


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Address:
    """Where somebody
    lives.
    """

    zip: Annotated[str, Meta(min_length=3)]
    _floor: int = 0


@dataclasses.dataclass
class Point:
    x: int
    when: dt.datetime = dataclasses.field(default_factory=lambda: dt.datetime.now(dt.UTC))
    names: list[str] = dataclasses.field(default_factory=list)


@attrs.define
class Node:
    value: int
    children: "list[Node]" = attrs.Factory(list)


@attrs.define
class Login:
    password: Annotated[str, SECRET]


@attrs.define
class Circle:
    kind: Literal["circle"]
    radius: float


@attrs.define
class Square:
    side: float
    kind: Literal["square"] = "square"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    first: int
    second: str


class Wire(msgspec.Struct, rename="kebab"):
    one_word: int
    two_words: str = "x"


def other_point():
    @attrs.define
    class Point:
        y: int

    return Point


def inputs_for(annotation: Any, default: Any = attrs.NOTHING) -> Inputs:
    async def action(x): ...

    action.__annotations__["x"] = annotation
    if default is not attrs.NOTHING:
        action.__defaults__ = (default,)
    return Inputs.of(action, action="test", connection_type=type("Connection", (), {}))


def property_for(annotation: Any, default: Any) -> dict[str, Any]:
    return inputs_for(annotation, default).schema()["properties"]["x"]


ADDRESS = {
    "description": "Where somebody\nlives.",
    "type": "object",
    "properties": {"zip": {"type": "string", "minLength": 3}, "floor": {"type": "integer", "default": 0}},
    "required": ["zip"],
}

CASES = [
    (Any, {}),
    (None, {"type": "null"}),
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (dt.datetime, {"type": "string", "format": "date-time"}),
    (dt.date, {"type": "string", "format": "date"}),
    (dt.time, {"type": "string", "format": "time"}),
    (dt.timedelta, {"type": "string", "format": "duration"}),
    (uuid.UUID, {"type": "string", "format": "uuid"}),
    (bytes, {"type": "string", "contentEncoding": "base64"}),
    (UploadFile, {"type": "string", "format": "binary"}),
    (decimal.Decimal, {"anyOf": [{"type": "string", "format": "decimal"}, {"type": "number"}]}),
    (Color, {"type": "string", "enum": ["red", "green"]}),
    (Level, {"type": "integer", "enum": [1, 2]}),
    (Literal["a"], {"type": "string", "const": "a"}),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (tuple[()], {"type": "array", "maxItems": 0}),
    (
        tuple[int, str],
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
    ),
    (Pair, {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (
        dict[int, int],
        {
            "type": "object",
            "propertyNames": {"pattern": "^(0|-?[1-9][0-9]{0,19})$"},
            "additionalProperties": {"type": "integer"},
        },
    ),
    (dict[Level, Any], {"type": "object", "propertyNames": {"enum": ["1", "2"]}, "additionalProperties": {}}),
    (
        dict[Annotated[str, Meta(max_length=2)], Any],
        {"type": "object", "propertyNames": {"type": "string", "maxLength": 2}, "additionalProperties": {}},
    ),
    (
        Annotated[int, Meta(ge=1, lt=9, multiple_of=2, title="T", description="D", examples=[2, 4])],
        {
            "type": "integer",
            "minimum": 1,
            "exclusiveMaximum": 9,
            "multipleOf": 2,
            "title": "T",
            "description": "D",
            "examples": [2, 4],
        },
    ),
    (Annotated[str, Meta(pattern="^a$", extra_json_schema={"x-a": 1})], {"type": "string", "pattern": "^a$", "x-a": 1}),
    (
        Annotated[list[int], Meta(min_length=1, max_length=2)],
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
    ),
    (
        Annotated[dict[str, Any], Meta(min_length=1)],
        {"type": "object", "additionalProperties": {}, "minProperties": 1},
    ),
    (
        Annotated[int | None, Meta(ge=1, description="D")],
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "description": "D"},
    ),
    (
        Annotated[str, SECRET, Meta(examples=["hunter2"], min_length=3)],
        {"type": "string", "minLength": 3, "format": "password", "writeOnly": True},
    ),
    (Address, {"$ref": "#/$defs/Address", "$defs": {"Address": ADDRESS}}),
    (
        Movie,
        {
            "$ref": "#/$defs/Movie",
            "$defs": {
                "Movie": {
                    "type": "object",
                    "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
                    "required": ["title"],
                }
            },
        },
    ),
    (
        Wire,
        {
            "$ref": "#/$defs/Wire",
            "$defs": {
                "Wire": {
                    "type": "object",
                    "properties": {"one-word": {"type": "integer"}, "two-words": {"type": "string", "default": "x"}},
                    "required": ["one-word"],
                }
            },
        },
    ),
    (
        Point,
        {
            "$ref": "#/$defs/Point",
            "$defs": {
                "Point": {
                    "type": "object",
                    "properties": {
                        "x": {"type": "integer"},
                        "when": {"type": "string", "format": "date-time"},
                        "names": {"type": "array", "items": {"type": "string"}, "default": []},
                    },
                    "required": ["x"],
                }
            },
        },
    ),
]


@pytest.mark.parametrize(("annotation", "schema"), CASES)
def test_a_type_is_described(annotation, schema):
    assert describe(annotation) == schema
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_bounds_of_a_decimal_hold_where_it_is_a_number():
    schema = describe(Annotated[decimal.Decimal, Meta(ge=1)])
    assert schema["anyOf"] == [{"type": "string", "format": "decimal"}, {"type": "number", "minimum": 1}]


def test_a_class_that_contains_itself_is_described_once():
    schema = describe(list[Node])
    assert schema["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert list(schema["$defs"]) == ["Node"]


def test_two_classes_of_one_name_are_kept_apart():
    schema = describe(tuple[Point, other_point(), other_point(), Point])
    assert [part["$ref"] for part in schema["prefixItems"]] == [
        "#/$defs/Point",
        "#/$defs/Point_2",
        "#/$defs/Point_3",
        "#/$defs/Point",
    ]


def test_an_action_without_inputs_takes_an_empty_object():
    async def action(): ...

    inputs = Inputs.of(action, action="test", connection_type=int)
    assert inputs.schema() == {"type": "object", "properties": {}}


def test_the_schema_of_inputs_is_made_once_and_keeps_the_order_of_the_signature():
    async def action(b: int, a: Address, c: str = "x", *, d: Node): ...

    inputs = Inputs.of(action, action="test", connection_type=dict)
    schema = inputs.schema()
    assert list(schema["properties"]) == ["b", "a", "c", "d"]
    assert schema["required"] == ["b", "a", "d"]
    assert list(schema["$defs"]) == ["Address", "Node"]
    assert inputs.schema() is schema


@pytest.mark.parametrize(
    ("annotation", "default", "shown"),
    [
        (int, 1, 1),
        (int | None, None, None),
        (Color, Color.RED, "red"),
        (dt.date, dt.date(2026, 1, 31), "2026-01-31"),
        (decimal.Decimal, decimal.Decimal("1.5"), "1.5"),
        (set[str], {"b", "a"}, ["a", "b"]),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (
            Point,
            Point(1, dt.datetime(2026, 1, 31, tzinfo=dt.UTC), []),
            {"x": 1, "when": "2026-01-31T00:00:00Z", "names": []},
        ),
        (Login | None, None, None),
    ],
)
def test_a_default_is_shown_in_its_json_form(annotation, default, shown):
    assert property_for(annotation, default)["default"] == shown


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(Annotated[str, SECRET], "hunter2"), (Login, Login("hunter2")), (Any, object()), (Any, float("nan"))],
)
def test_a_default_that_is_secret_or_has_no_json_form_is_left_out(annotation, default):
    assert "default" not in property_for(annotation, default)
    assert "hunter2" not in json.dumps(inputs_for(annotation, default).schema())


def test_what_is_sent_is_described_narrower_than_what_is_taken():
    assert type_schema(decimal.Decimal) == {"type": "string", "format": "decimal"}
    assert type_schema(list[int]) == describe(list[int])


@pytest.mark.parametrize("annotation", [object, Callable[[int], int], Level.LOW, list[object], "int"])
def test_a_type_that_cannot_be_described_has_no_schema(annotation):
    assert type_schema(annotation) is None


# What is left out here has a format, which validators do not check, or is compared by structured value (sets of bool).
AGREEING = [
    int, float, str, bool, None, Any, Color, Level, Literal["a", 1, None], Literal[True, 0], Literal[1, False],
    list[int], list[float | None], set[str], frozenset[int], tuple[int, str], tuple[int, ...], tuple[()], Pair,
    dict[str, int], dict[int, float], dict[Color, int], dict[Annotated[str, Meta(min_length=2)], bool],
    int | str, bool | float, list[int] | int | None, Address, Node, list[Node], Movie, Wire, Point,
    Circle | Square, Circle | Address, Address | dict[str, int], Circle | Square | None,
    Annotated[int, Meta(ge=0, le=5)], Annotated[float, Meta(gt=0, lt=5)], Annotated[int, Meta(multiple_of=3)],
    Annotated[str, Meta(min_length=1, max_length=3)], Annotated[str, Meta(pattern="^[a-c]+$")],
    Annotated[list[int], Meta(min_length=1, max_length=2)], Annotated[dict[str, int], Meta(max_length=1)],
    Annotated[int | str | None, Meta(ge=3)],
]  # fmt: skip
KEYS = st.sampled_from(["zip", "floor", "value", "children", "kind", "radius", "side", "title", "year", "a", "red"]) | (
    st.sampled_from(["one-word", "two-words", "x", "names", "1", "-0", "01", "-7", "1.0", "", "ab"])
)
NUMBERS = st.integers(-3, 9) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text("abc", max_size=4) | st.sampled_from(["red", "circle", "square", "1", "12345"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("annotation", AGREEING)
def test_the_schema_accepts_what_structuring_accepts(annotation):
    inputs = inputs_for(annotation)
    schema = inputs.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    @given(JSON)
    def agree(value):
        raw = {"x": value}
        try:
            inputs.structure(raw)
        except TypedError as error:
            assert not validator.is_valid(raw), error.message
        else:
            assert validator.is_valid(raw)

    agree()
