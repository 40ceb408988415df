# ruff: noqa: PYI061 - a Literal with None in it is what is tested
import contextlib
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import io
import json
import pickle
import sqlite3
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from typing_extensions import TypeAliasType

from keryx_trio.errors import ErrorType, TypedError
from keryx_trio.inputs import SECRET, Inputs, Secret
from keryx_trio.inputs.faults import MAX_FAULTS
from keryx_trio.uploads import UploadFile

PASSWORD = "hunter2-ö"


class Connection:
    pass


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Address:
    zip: Annotated[str, Meta(min_length=3)]
    _floor: int = 0


@attrs.define
class Home(Address):
    tags: list[str] = attrs.field(factory=list, kw_only=True)
    made: int = attrs.field(default=7, init=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


@attrs.define
class Node:
    value: int
    children: "list[Node]" = attrs.Factory(list)
    next: "Node | None" = None


@attrs.define
class Login:
    user: str
    password: Annotated[str, SECRET]


@attrs.define
class Chain:
    password: Annotated[str, SECRET]
    next: "Chain | None" = None


@attrs.define
class Circle:
    kind: Literal["circle"]
    radius: float


@attrs.define
class Square:
    side: float
    kind: Literal["square"] = "square"


@attrs.define
class Ring:
    kind: Literal["ring"]
    inner: float


@attrs.define
class Disc:
    kind: Literal["circle", "disc"]
    hole: float


class Unhashable(msgspec.Struct, frozen=True):
    size: int

    def __hash__(self):
        raise OverflowError(PASSWORD)


@attrs.define
class Cat:
    lives: int


@attrs.define
class Dog:
    tricks: list[str]


@attrs.define
class Left:
    child: "Left | Right | None"


@attrs.define
class Right:
    child: "Left | Right | None"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Loose(TypedDict, total=False):
    name: Required[str]
    age: int


class Pair(NamedTuple):
    first: int
    second: str


class Wire(msgspec.Struct, rename="kebab"):
    one_word: int
    two_words: str = "x"
    more: list[int] = []


@attrs.define
class Adult:
    age: int = attrs.field()

    @age.validator
    def _check(self, _, value):
        if value < 0:
            raise ZeroDivisionError
        if value < 18:
            raise ValueError(f"must be of age, not {value}\nsecond line")


UserId = NewType("UserId", Annotated[int, Meta(ge=1)])
Name = TypeAliasType("Name", Annotated[str, Meta(max_length=5)])
Postponed = TypeAliasType("Postponed", "list[Postponed]")
Endless = type("TypeAliasType", (), {})()  # what `type Endless = list[Endless]` makes since Python 3.12
Endless.__value__ = list[Endless]


def inputs_of(function: Callable, name: str = "test") -> Inputs:
    return Inputs.of(function, action=name, connection_type=Connection)


def inputs_for(annotation: Any, default: Any = attrs.NOTHING) -> Inputs:
    async def action(x): ...

    action.__annotations__["x"] = annotation
    if default is not attrs.NOTHING:
        action.__defaults__ = (default,)
    return inputs_of(action)


def from_json(annotation: Any, value: Any) -> Any:
    return inputs_for(annotation).structure({"x": value})["x"]


def from_text(annotation: Any, value: Any) -> Any:
    return inputs_for(annotation).structure({"x": value}, text={"x"})["x"]


def fault(annotation: Any, value: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(TypedError) as caught:
        inputs_for(annotation).structure({"x": value}, **options)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    ((key, message),) = caught.value.errors
    return key, message


def text_fault(annotation: Any, value: Any) -> str:
    key, message = fault(annotation, value, text={"x"})
    assert key == "x"
    return message


def same(got: Any, wanted: Any) -> bool:
    return got == wanted and type(got) is type(wanted)


MOMENT = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (str, "é", "é"),
        (int, 1, 1),
        (int, 1.0, 1),
        (int, 10**30, 10**30),
        (float, 1, 1.0),
        (float, 1.5, 1.5),
        (bool, True, True),
        (None, None, None),
        (Any, {"a": [None]}, {"a": [None]}),
        (dt.datetime, "2026-01-31T12:00:00Z", MOMENT),
        (dt.datetime, MOMENT, MOMENT),
        (dt.date, "2026-01-31", dt.date(2026, 1, 31)),
        (dt.time, "12:00:00", dt.time(12)),
        (dt.timedelta, "PT30S", dt.timedelta(seconds=30)),
        (uuid.UUID, str(ID), ID),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (decimal.Decimal, 1.1, decimal.Decimal("1.1")),
        (decimal.Decimal, 3, decimal.Decimal(3)),
        (bytes, "aGk=", b"hi"),
        (Color, "red", Color.RED),
        (Color, Color.RED, Color.RED),
        (Level, 2.0, Level.HIGH),
        (Literal["a", 1, True, None], True, True),
        (Literal["a", 1, True, None], 1.0, 1),
        (Literal["a", 1, True, None], None, None),
        (Literal[Color.RED], "red", Color.RED),
        (Literal[Color.RED], Color.RED, Color.RED),
        (list[int], [1, 2.0], [1, 2]),
        (list, ["a", 1], ["a", 1]),
        (Sequence[int], (1, 2), [1, 2]),
        (set[str], ["a", "b"], {"a", "b"}),
        (frozenset[int | str], [1, "b"], frozenset({1, "b"})),
        (set[tuple[int, str]], [[1, "a"]], {(1, "a")}),
        (set[Address], [{"zip": "123"}], {Address("123")}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple, [1, "a"], (1, "a")),
        (tuple[()], [], ()),
        (Pair, [1, "a"], Pair(1, "a")),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict, {"a": 1}, {"a": 1}),
        (Mapping[int, str], {"-1": "a", "0": "b"}, {-1: "a", 0: "b"}),
        (dict[int, str], {5: "typed already"}, {5: "typed already"}),
        (dict[Color, int], {"red": 1}, {Color.RED: 1}),
        (dict[Level, int], {"2": 1}, {Level.HIGH: 1}),
        (dict[uuid.UUID, int], {str(ID): 1}, {ID: 1}),
        (int | str, 1, 1),
        (int | str, "1", "1"),
        (float | int, 5, 5),
        (str | dt.date, "2026-01-31", dt.date(2026, 1, 31)),
        (str | dt.date, "soon", "soon"),
        (dt.date | dt.datetime, MOMENT, MOMENT),
        (list[int] | None, None, None),
        (list[int] | None, [1], [1]),
        (Annotated[int | str, Meta(ge=1)] | None, 3, 3),
        (Address, {"zip": "123", "floor": 2, "other": 1}, Address("123", 2)),
        (Address, Address("1234"), Address("1234")),
        (Home, {"zip": "123", "tags": ["a"], "made": 1}, Home("123", tags=["a"])),
        (Point, {"x": 1}, Point(x=1)),
        (Node, {"value": 1, "children": [{"value": 2}], "next": {"value": 3}}, Node(1, [Node(2)], Node(3))),
        (Movie, {"title": "a", "other": 1}, {"title": "a"}),
        (Movie, {"title": "a", "year": 1.0}, {"title": "a", "year": 1}),
        (Loose, {"name": "a"}, {"name": "a"}),
        (Wire, {"one-word": 1, "two-words": "y"}, Wire(1, "y")),
        (UserId, 5, 5),
        (Name, "abc", "abc"),
        (Circle | Square, {"kind": "circle", "radius": 1}, Circle("circle", 1.0)),
        (Circle | Square | None, {"side": 1}, Square(1.0)),
        (Circle | Square, Square(1.0), Square(1.0)),
        (Cat | Dog, {"tricks": []}, Dog([])),
        (Circle | Disc, {"kind": "circle", "hole": 1}, Disc("circle", 1.0)),
        (Cat | dict[str, int], {"legs": 4}, {"legs": 4}),
        (Annotated[decimal.Decimal, Meta(ge=1.1, multiple_of=0.1)], "1.1", decimal.Decimal("1.1")),
        (Annotated[float, Meta(multiple_of=0.1)], 0.3, 0.3),
        (Annotated[int, Meta(multiple_of=5)], 10, 10),
        (Annotated[dt.datetime, Meta(tz=True)], "2026-01-31T12:00:00Z", MOMENT),
    ],
)
def test_a_json_value_of_the_right_kind_is_structured(annotation, value, wanted):
    assert same(from_json(annotation, value), wanted)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (str, 1, "expected a string, got an integer"),
        (str, "\ud800", "is not valid Unicode text"),
        (int, "1", "expected an integer, got a string"),
        (int, 1.5, "expected an integer, got a number"),
        (int, True, "expected an integer, got true or false"),
        (int, {}, "expected an integer, got an object"),
        (int, b"1", "expected an integer, got another kind of value"),
        (float, "1", "expected a number, got a string"),
        (float, True, "expected a number, got true or false"),
        (float, float("nan"), "must be a finite number"),
        (float, float("inf"), "must be a finite number"),
        (float, 10**400, "must be a finite number"),
        (bool, 1, "expected true or false, got an integer"),
        (None, 0, "expected null, got an integer"),
        (uuid.UUID, "x", "expected a UUID"),
        (uuid.UUID, 1, "expected a UUID, got an integer"),
        (decimal.Decimal, "x", "expected a decimal number"),
        (decimal.Decimal, True, "expected a decimal number, got true or false"),
        (decimal.Decimal, "NaN", "must be a finite number"),
        (bytes, "!", "expected base64 text"),
        (Color, "blue", "must be one of: red, green"),
        (Level, True, "must be one of: 1, 2"),
        (Literal["a", 1], True, "must be one of: a, 1"),
        (Literal[True, None], 1, "must be one of: true, null"),
        (Literal["a"], ["a"], "must be one of: a"),
        (UploadFile, "x", "expected a file, got a string"),
        (list[int], "12", "expected a list, got a string"),
        (list[int], {"a": 1}, "expected a list, got an object"),
        (set[int], [1, 1], "has the same item twice"),
        (tuple[int, str], [1], "expected a list of 2, got one of 1"),
        (dict[str, int], [1], "expected an object, got a list"),
        (Address, "x", "expected an object, got a string"),
        (Address, None, "expected an object, got null"),
        (int | str, [], "expected an integer or a string, got a list"),
        (int | None, "x", "expected null or an integer, got a string"),
        (dt.date | uuid.UUID, "x", "expected a UUID or a date (such as 2026-01-31)"),
        (
            Annotated[int, Meta(ge=5)] | Annotated[float, Meta(ge=9)],
            1,
            "fits none of: an integer (must be >= 5); a number (must be >= 9)",
        ),
        (Cat | Dog, {}, "fits none of: Cat (lives: is required); Dog (tricks: is required)"),
        (Adult, {"age": 3}, "must be of age, not 3"),
        (Adult, {"age": -1}, "is not valid"),
        (set[Unhashable], [{"size": 1}], "is not valid"),
        (Annotated[int, Meta(ge=1)], 0, "must be >= 1"),
        (Annotated[int, Meta(gt=1)], 1, "must be > 1"),
        (Annotated[int, Meta(le=1)], 2, "must be <= 1"),
        (Annotated[int, Meta(lt=1)], 1, "must be < 1"),
        (Annotated[int, Meta(le=5)], 10**30, "must be <= 5"),
        (Annotated[int, Meta(multiple_of=5)], 7, "must be a multiple of 5"),
        (Annotated[int, Meta(multiple_of=0.5)], 7, None),
        (Annotated[decimal.Decimal, Meta(multiple_of=3)], "1e999999", "must be a multiple of 3"),
        (Annotated[decimal.Decimal, Meta(gt=1.1)], "1.1", "must be > 1.1"),
        (Annotated[str, Meta(min_length=1)], "", "must be at least 1 character long"),
        (Annotated[str, Meta(max_length=2)], "abc", "must be at most 2 characters long"),
        (Annotated[bytes, Meta(max_length=1)], "aGk=", "must be at most 1 byte long"),
        (Annotated[str, Meta(pattern="^a+$")], "b", "must match the pattern ^a+$"),
        (Annotated[list[int], Meta(min_length=2)], [1], "must have at least 2 items"),
        (Annotated[dict[str, int], Meta(max_length=1)], {"a": 1, "b": 2}, "must have at most 1 item"),
        (Annotated[dt.datetime, Meta(tz=True)], "2026-01-31T12:00:00", "must have a time zone"),
        (Annotated[dt.datetime, Meta(tz=False)], "2026-01-31T12:00:00Z", "must have no time zone"),
        (Annotated[int | None, Meta(ge=1)], 0, "must be >= 1"),
        (UserId, 0, "must be >= 1"),
        (Annotated[Name, Meta(max_length=9)], "much too long", "must be at most 9 characters long"),
    ],
)
def test_a_json_value_that_does_not_fit_is_refused_in_plain_words(annotation, value, message):
    if message is None:
        assert from_json(annotation, value) == value
    else:
        assert fault(annotation, value) == ("x", message)


@pytest.mark.parametrize(
    ("annotation", "value", "path", "message"),
    [
        (list[str], ["a", 1], "x[1]", "expected a string, got an integer"),
        (tuple[int, str], [1, 2], "x[1]", "expected a string, got an integer"),
        (Address, {"zip": "1"}, "x.zip", "must be at least 3 characters long"),
        (Address, {}, "x.zip", "is required"),
        (Address, {"zip": "123", "floor": "x"}, "x.floor", "expected an integer, got a string"),
        (list[Point], [{"x": 1}, {"x": 1, "names": [1]}], "x[1].names[0]", "expected a string, got an integer"),
        (dict[str, int], {"apple": "1"}, "x.apple", "expected an integer, got a string"),
        (dict[str, int], {"a b": "1"}, 'x["a b"]', "expected an integer, got a string"),
        (dict[str, int], {"k" * 99: "1"}, f'x["{"k" * 64}"]', "expected an integer, got a string"),
        (dict[int, int], {"1.0": 1}, 'x["1.0"]', "expected an integer, got a string"),
        (dict[Color, int], {"blue": 1}, "x.blue", "must be one of: red, green"),
        (dict[Annotated[str, Meta(max_length=1)], int], {"ab": 1}, "x.ab", "must be at most 1 character long"),
        (Wire, {}, "x.one-word", "is required"),
        (Circle | Square, {"kind": "oval"}, "x.kind", "must be one of: circle, square"),
        (Circle | Square, {"kind": ["circle"]}, "x.kind", "must be one of: circle, square"),
        (Circle | Square, {"kind": "circle"}, "x.radius", "is required"),
        (Circle | Ring, {}, "x.kind", "is required"),
        (Address | None, {"zip": 1}, "x.zip", "expected a string, got an integer"),
    ],
)
def test_a_fault_inside_a_value_is_named_by_its_path(annotation, value, path, message):
    key, text = fault(annotation, value)
    assert key.replace('["one-word"]', ".one-word") == path
    assert text == message


UPLOAD = UploadFile(io.BytesIO(b"abc"), "a.txt", size=3)
NO_FILE = UploadFile(io.BytesIO(b""))


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (str, "a", "a"),
        (str, ["a"], "a"),
        (str | None, "", ""),
        (str | None, "null", "null"),
        (str | None, None, None),
        (int, "5", 5),
        (int, 5, 5),
        (float, "1.5", 1.5),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (None, "", None),
        (int | None, "", None),
        (int | None, [""], None),
        (int | None, "NULL", None),
        (int | None, "5", 5),
        (int | str, "5", 5),
        (str | int, "5", 5),
        (int | str, "five", "five"),
        (int | bool, "1", 1),
        (int | bool, "yes", True),
        (Color, "green", Color.GREEN),
        (Level, "2", Level.HIGH),
        (Literal[1, "1", True, None], "1", "1"),
        (Literal[1, True, None], "true", True),
        (Literal[1, True, None], "null", None),
        (dt.datetime, "2026-01-31T12:00:00Z", MOMENT),
        (uuid.UUID, str(ID), ID),
        (bytes, "aGk=", b"hi"),
        (Any, "5", "5"),
        (list[int], "5", [5]),
        (list[int], ["5", "6"], [5, 6]),
        (list[int] | None, "", None),
        (list[int] | None, ["5", "6"], [5, 6]),
        (int | list[int], "5", 5),
        (int | list[int], ["5", "6"], [5, 6]),
        (set[int], ["5", "5"], {5}),
        (tuple[int, str], ["5", "6"], (5, "6")),
        (tuple[int, ...], "5", (5,)),
        (list[list[int]], "[1, 2]", [[1, 2]]),
        (list[list[int] | None], ["[1]", "null"], [[1], None]),
        (list[Point], ['{"x": 1}', '{"x": 2}'], [Point(x=1), Point(x=2)]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Address, '{"zip": "123"}', Address("123")),
        (Address | str, "plain", "plain"),
        (Address | None, "", None),
        (UploadFile, UPLOAD, UPLOAD),
        (UploadFile, [UPLOAD], UPLOAD),
        (UploadFile | None, UPLOAD, UPLOAD),
        (UploadFile | None, NO_FILE, None),
        (UploadFile | None, "", None),
        (list[UploadFile], UPLOAD, [UPLOAD]),
        (list[UploadFile], [UPLOAD, UPLOAD], [UPLOAD, UPLOAD]),
    ],
)
def test_text_is_coerced(annotation, value, wanted):
    assert same(from_text(annotation, value), wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (word, value)
        for value, words in {True: "true 1 On YES", False: "false 0 Off no"}.items()
        for word in words.split()
    ],
)
def test_a_boolean_in_text_may_be_spelt_in_four_ways(text, wanted):
    assert from_text(bool, text) is wanted


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (str, ["a", "b", "c"], "expected one value, got 3"),
        (str, UPLOAD, "expected a string, got a file"),
        (int, "x", "expected an integer"),
        (int, "1.5", "expected an integer"),
        (int, "9" * 5000, "expected an integer"),
        (float, "nan", "must be a finite number"),
        (float, "1e999", "expected a number"),
        (bool, "maybe", "expected true or false"),
        (None, "x", "expected null"),
        (Color, "blue", "must be one of: red, green"),
        (int | None, "x", "expected an integer"),
        (int | None, ["1", "2"], "expected one value, got 2"),
        (int | bool, "x", "expected an integer or true or false"),
        (int | None, UPLOAD, "expected an integer, got a file"),
        (UploadFile, "x", "expected a file, got a string"),
        (Address, "{", "is not valid JSON"),
        (Address, "\ud800", "is not valid JSON"),
        (Address, ["{}", "{}"], "expected one value, got 2"),
        (dict[str, int], "[1]", "expected an object, got a list"),
    ],
)
def test_text_that_cannot_be_coerced_is_refused_in_plain_words(annotation, value, message):
    assert text_fault(annotation, value) == message


def test_inside_of_json_in_text_nothing_is_coerced():
    assert fault(Point, '{"x": "1"}', text={"x"}) == ("x.x", "expected an integer, got a string")


def test_the_path_of_an_item_in_text_has_its_index():
    assert fault(list[int], ["1", "b"], text={"x"}) == ("x[1]", "expected an integer")


def test_long_lists_of_allowed_values_are_cut():
    many = Literal[tuple(f"v{n}" for n in range(25))]
    assert fault(many, "x")[1].endswith("v19 and 5 more")


async def everything(  # noqa: PLR0917 - an action has many inputs
    connection: Connection,
    prompt: Annotated[str, Meta(min_length=1)],
    count: int,
    address: Address,
    tags: list[str] = [],  # noqa: B006 - that it is not shared is what is tested
    color: Color = Color.RED,
    ratio: float = 1,
):
    pass


def test_all_faults_of_a_call_come_in_one_error_in_the_order_of_the_signature():
    with pytest.raises(TypedError) as caught:
        inputs_of(everything).structure({"tags": [1, "a", 2], "count": "x", "prompt": "", "address": {}, "zzz": 1})
    error = caught.value
    assert error.type is ErrorType.CONNECTION_ACTION_PARAM_VALIDATION
    assert error.errors == (
        ("prompt", "must be at least 1 character long"),
        ("count", "expected an integer, got a string"),
        ("address.zip", "is required"),
        ("tags[0]", "expected a string, got an integer"),
        ("tags[2]", "expected a string, got an integer"),
    )
    assert (error.key, error.value) == ("prompt", "")
    assert error.message == "prompt: must be at least 1 character long (and 4 more)"


def test_defaults_are_filled_in_and_not_shared_between_calls():
    inputs = inputs_of(everything)
    raw = {"prompt": "a", "count": 1, "address": {"zip": "123"}}
    first = inputs.structure(raw)
    assert list(first) == ["prompt", "count", "address", "tags", "color", "ratio"]
    assert (first["color"], first["ratio"]) == (Color.RED, 1.0)
    first["tags"].append("x")
    assert inputs.structure(raw)["tags"] == []


@attrs.define(eq=False)
class Options:
    tags: list[str] = attrs.Factory(list)


@pytest.mark.parametrize(
    ("annotation", "default"), [(Options, Options()), (Any, (1, Options())), (Any, {1: Options()})]
)
def test_a_default_that_may_change_is_not_shared_though_it_has_a_hash(annotation, default):
    inputs = inputs_for(annotation, default)
    first, second = inputs.structure({})["x"], inputs.structure({})["x"]
    assert first is not second
    assert first is not default


@pytest.mark.parametrize("default", [None, 1, "a", Color.RED, (1, ("a", MOMENT)), frozenset({ID}), object(), b"a"])
def test_a_default_that_cannot_change_is_given_as_it_is(default):
    assert inputs_for(Any, default).structure({})["x"] is default


@pytest.mark.parametrize("name", ["self", "_x", "cls", "NOTHING", "__class__", "attr_dict"])
def test_an_input_may_have_any_name(name):
    space: dict[str, Any] = {}
    exec(f"async def action({name}: str): ...", space)
    inputs = inputs_of(space["action"])
    assert inputs.structure({name: "a"}) == {name: "a"}
    assert inputs.schema()["required"] == [name]


def test_an_input_that_is_missing_is_required_and_has_no_value():
    with pytest.raises(TypedError) as caught:
        inputs_for(int).structure({})
    assert (caught.value.message, caught.value.value) == ("x: is required", None)


@pytest.mark.parametrize("value", ["a" * 300, float("nan"), {"a": b""}, ["\ud800"], [10**5000]])
def test_the_error_shows_no_value_that_is_long_or_no_json(value):
    with pytest.raises(TypedError) as caught:
        inputs_for(bool).structure({"x": value})
    assert caught.value.value is None


def nested(depth: int) -> Any:
    value: Any = {"value": 1}
    for _ in range(depth):
        value = {"value": 1, "children": [value]}
    return value


def test_input_that_is_nested_too_deeply_is_a_fault_and_no_crash():
    error = faults_of(Node, nested(100_000))
    # Python may run out of depth at a value and at what stands beside it, so there may be two.
    assert all(key.startswith("x") for key, _ in error.errors)
    assert {message for _, message in error.errors} == {"is nested too deeply"}
    assert text_fault(Node, "[" * 100_000) in {"is nested too deeply", "is not valid JSON"}


# What hostile input may cost: work is counted, not timed, where that can be done.


def faults_of(annotation: Any, value: Any, **options: Any) -> TypedError:
    with pytest.raises(TypedError) as caught:
        inputs_for(annotation).structure({"x": value}, **options)
    return caught.value


class Seen(list):
    """A list that counts how many of its items were looked at."""

    looked_at = 0

    def __iter__(self):
        for item in super().__iter__():
            self.looked_at += 1
            yield item


class SeenDict(dict):
    looked_at = 0

    def __iter__(self):
        for key in super().__iter__():
            self.looked_at += 1
            yield key


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[int], Seen(["a"] * 3000)),
        (set[int], Seen(["a"] * 3000)),
        (tuple[int, ...], Seen(["a"] * 3000)),
        (tuple[(int,) * 3000], Seen(["a"] * 3000)),
        (dict[str, int], SeenDict.fromkeys(map(str, range(3000)))),
        (dict[int, Any], SeenDict.fromkeys("a" + str(n) for n in range(3000))),
    ],
)
def test_faults_are_looked_for_until_there_are_as_many_as_are_told(annotation, value):
    error = faults_of(annotation, value)
    assert (len(error.errors), value.looked_at) == (MAX_FAULTS, MAX_FAULTS)
    assert error.message.endswith("(and at least 999 more)")


def test_all_lists_of_a_call_share_the_room_for_faults():
    value = [Seen(["a"] * 700) for _ in range(100)]
    assert len(faults_of(list[list[int]], value).errors) == MAX_FAULTS
    assert [inner.looked_at for inner in value[:3]] == [700, 300, 0]
    inputs = inputs_for(list[int])
    for _ in range(2):  # each call has its own
        with pytest.raises(TypedError) as caught:
            inputs.structure({"x": ["a"] * 600})
        assert len(caught.value.errors) == 600
    assert caught.value.message.endswith("(and 599 more)")


def test_a_member_of_a_union_is_given_up_at_its_first_fault():
    value = Seen(["a"] * 700)
    assert faults_of(list[int] | tuple[bool, ...], value).errors == (
        (
            "x",
            "fits none of: a list ([0]: expected an integer, got a string); a list of items ([0]: expected true or false, got a string)",
        ),
    )
    assert value.looked_at < 100  # of them 40 for the value that is shown


def chain(depth: int, end: Any, key: str = "child", **more: Any) -> Any:
    for _ in range(depth):
        end = {key: end, **more}
    return end


class Looked(dict):
    """A dict that counts how often a value was taken from it."""

    looked_at = 0

    def __getitem__(self, key):
        self.looked_at += 1
        return super().__getitem__(key)


@attrs.define
class Up:
    n: int
    next: "Up | Down | None" = None


@attrs.define
class Down:
    n: str
    next: "Up | Down | None" = None


@pytest.mark.parametrize(("last", "times"), [({"n": []}, 2), ({"n": 1}, 1)])
def test_a_value_inside_of_untagged_unions_is_structured_once_for_each_class(last, times):
    inner = Looked(last)
    assert faults_of(Up | Down, chain(14, inner, key="next", n=[])).errors
    assert inner.looked_at == times
    assert from_json(Up | Down, chain(14, Looked(n="a"), key="next", n=1)).next.next.n == 1


@pytest.mark.parametrize("depth", [1, 5, 15, 60, 5000])
def test_the_message_of_a_union_is_short_however_deep_it_is(depth):
    error = faults_of(Left | Right, chain(depth, {"child": 5}))
    ((key, message),) = error.errors
    assert key == "x"
    assert len(message) <= 300
    assert message.startswith("fits none of: Left (")
    assert len(json.dumps(error.payload())) < 1000


def test_what_attempts_at_a_union_have_found_is_not_kept():
    inputs = inputs_for(Left | Right)
    with pytest.raises(TypedError):
        inputs.structure({"x": chain(5, {"child": 5})})
    assert not inputs._work._found
    assert inputs._work._attempts == 0


def test_a_message_and_a_path_are_bounded():
    long = Literal[tuple(f"{n:0>90}" for n in range(20))]
    assert [len(text) for text in fault(long, "x")] == [1, 500]
    deep = chain(100, {"value": "x"}, key="next", value=1)
    key, message = fault(Node, deep)
    assert len(key) < 320
    assert key.endswith(".next...")
    assert message == "expected an integer, got a string"


MERSENNE = 2**61 - 1  # of which the hash of a number is the remainder
SAME_HASH = [MERSENNE * n for n in range(1, 5000)]


@attrs.frozen
class Numbered:
    number: int


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (set[int], SAME_HASH),
        (frozenset[int | str], [*range(6000), *SAME_HASH]),
        (set[decimal.Decimal], [str(number) for number in SAME_HASH]),
        (set[uuid.UUID], [str(uuid.UUID(int=number)) for number in SAME_HASH]),
        (set[tuple[int, str]], [[number, ""] for number in SAME_HASH]),
        (set[Numbered], [{"number": number} for number in SAME_HASH]),
        (dict[uuid.UUID, int], {str(uuid.UUID(int=number)): 1 for number in SAME_HASH}),
        (dict[int, str], {str(MERSENNE * n): "" for n in [*range(-40, 0), *range(1, 40)]}),
    ],
)
def test_a_set_or_dict_of_keys_that_were_chosen_to_have_one_hash_is_refused(annotation, value):
    key, message = fault(annotation, value)
    assert (key, message) == ("x", "has too many items that are alike to a computer: they have one hash")


def test_an_item_that_was_chosen_for_its_hash_is_compared_with_few_others(monkeypatch):
    compared = 0

    class Loud(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return int(self) == int(other)

    fault(set[int], [Loud(number) for number in SAME_HASH])
    assert compared < 2000


def test_items_that_are_given_again_and_again_are_not_taken_for_chosen_ones():
    assert fault(set[int], [1] * 100) == ("x", "has the same item twice")
    assert from_text(set[int], ["1"] * 100 + ["2"]) == {1, 2}
    assert from_json(set[int], SAME_HASH[:20]) == set(SAME_HASH[:20])


@pytest.mark.parametrize("key", ["1\n", "1" * 21, "-" + "1" * 21, "\n1"])
def test_an_integer_as_a_key_has_one_text_of_up_to_20_digits(key):
    assert fault(dict[int, int], {key: 1})[1] == "expected an integer, got a string"
    assert from_json(dict[int, int], {"-" + "9" * 20: 1}) == {-(10**20) + 1: 1}


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[a-z]+$", "abc", "abc\n"),
        ("^(a|b$)", "b", "b\n"),
        (r"^\(?m[$\]]\$$", "m$$", "m$$\n"),
        ("^[]$]$", "]", "]\n"),
        ("^[^]$]$", "a", "a\n"),
        (r"\\$", "\\", "\\\n"),
        ("^a\n$", "a\n", "a\n\n"),
        ("(?m)^a$", "b\na\nb", "b"),
        ("(?i:(?m:^a$))", "b\nA\nb", "b"),
    ],
)
def test_the_dollar_of_a_pattern_is_the_end_as_in_json_schema(pattern, good, bad):
    annotation = Annotated[str, Meta(pattern=pattern)]
    assert from_json(annotation, good) == good
    assert fault(annotation, bad) == ("x", f"must match the pattern {pattern}")


# Signatures


def test_the_connection_is_no_input():
    inputs = inputs_of(everything)
    assert inputs.connection_parameter == "connection"
    assert inputs.keys == ("prompt", "count", "address", "tags", "color", "ratio")


@pytest.mark.parametrize("annotation", ["Connection", "Connection | None", Annotated[Connection, 1], Connection | None])
def test_the_connection_may_be_annotated_in_any_way(annotation):
    inputs = inputs_for(annotation)
    assert (inputs.connection_parameter, inputs.keys) == ("x", ())


def test_the_connection_may_be_imported_for_type_checkers_only():
    async def action(c, n): ...

    action.__annotations__ = {"c": "Wire_", "n": "int", "return": "NotThere"}
    inputs = Inputs.of(action, action="a", connection_type=type("Wire_", (), {}))
    assert (inputs.connection_parameter, inputs.keys) == ("c", ("n",))


def test_an_action_without_inputs_structures_to_nothing():
    async def action(): ...

    inputs = inputs_of(action)
    assert inputs.structure({"a": 1}) == {}
    assert inputs.redact({"a": 1}) == {}
    assert (inputs.connection_parameter, inputs.keys) == (None, ())


class Service:
    async def method(self, n: int): ...

    async def __call__(self, n: int): ...


def decorated(function: Callable) -> Callable:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any): ...

    return wrapper


async def two(n: int, mode: str): ...


@pytest.mark.parametrize(
    "function",
    [
        Service().method,
        Service(),
        decorated(two),
        functools.partial(two, mode="a"),
        functools.partial(Service().method),
    ],
)
def test_methods_objects_decorators_and_partials_are_read_through(function):
    inputs = inputs_of(function)
    assert inputs.keys[0] == "n"
    assert ("mode" in inputs.keys) is (getattr(function, "__wrapped__", None) is two)
    assert inputs.structure({"n": "5", "mode": "b"}, text={"n"})["n"] == 5


async def untyped(x): ...
async def several(*x: int): ...
async def named(**x: int): ...
async def positional(x: int, /): ...
async def unknown(x: "Nowhere"): ...  # noqa: F821
async def unread(x: "int int"): ...  # noqa: F722
async def failing(x: "int[1 // 0]"): ...
async def both(x: Connection, y: Connection): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (untyped, "action 'act', parameter 'x' has no annotation; say of which type it is"),
        (several, "action 'act', parameter 'x': inputs need names"),
        (named, "action 'act', parameter 'x': inputs need names"),
        (positional, "action 'act', parameter 'x': inputs are passed by name; remove the /"),
        (unknown, "action 'act', parameter 'x': 'Nowhere' must be resolvable at run time: name 'Nowhere' is not def"),
        (unread, "action 'act', parameter 'x': 'int int' must be resolvable at run time: "),
        (failing, "action 'act', parameter 'x': 'int\\[1 // 0\\]' must be resolvable at run time: .* by zero"),
        (both, "action 'act' has two connections, x and y"),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused_with_its_place(function, message):
    with pytest.raises(TypeError, match="^" + message.replace("/", "/")):
        inputs_of(function, "act")


@attrs.define
class Hidden:
    field: "Nowhere"  # noqa: F821


@attrs.define
class Failing:
    field: "int[1 // 0]"


@attrs.define
class Bare:
    field = attrs.field()


@attrs.define
class Holder:
    inner: Callable


class Odd(enum.Enum):
    A = (1, 2)


@pytest.mark.parametrize(
    ("annotation", "default", "message"),
    [
        (object, attrs.NOTHING, "object cannot be described in JSON; use a plain type"),
        (Callable[[int], int], attrs.NOTHING, "cannot be described"),
        (Service, attrs.NOTHING, "Service cannot be described"),
        (list[Service], attrs.NOTHING, "Service cannot be described"),
        (Service | None, attrs.NOTHING, "Service cannot be described"),
        (Holder, attrs.NOTHING, "Holder.inner: "),
        (Hidden, attrs.NOTHING, "Hidden: name 'Nowhere' is not defined"),
        (Failing, attrs.NOTHING, "Failing: .* by zero; its annotations must be resolvable"),
        (Bare, attrs.NOTHING, "Bare.field has no annotation"),
        (Odd, attrs.NOTHING, r"Odd: \(1, 2\) has no JSON form"),
        (Literal[b"a"], attrs.NOTHING, "has no JSON form"),
        (Endless, attrs.NOTHING, "an alias that contains itself"),
        (Postponed, attrs.NOTHING, "Postponed. cannot be described"),
        (set[list[int]], attrs.NOTHING, "the items of a set must be hashable"),
        (set[Node], attrs.NOTHING, "the items of a set must be hashable"),
        (set, attrs.NOTHING, "the items of a set must be hashable"),
        (dict[float, int], attrs.NOTHING, "the keys of a dict must be"),
        (dict[Annotated[str, SECRET], int], attrs.NOTHING, "a key cannot be SECRET"),
        (Annotated[int, SECRET], attrs.NOTHING, "only a str can be SECRET"),
        (Annotated[int | None, SECRET], attrs.NOTHING, "only a str can be SECRET"),
        (Annotated[int | str, SECRET], attrs.NOTHING, "only a str can be SECRET; take int out, or mark the str alone"),
        (list[Annotated[str | Color | None, SECRET]], attrs.NOTHING, "only a str can be SECRET; take Color out"),
        (Annotated[int, Meta(min_length=1)], attrs.NOTHING, "min_length does not fit this type"),
        (Annotated[int | None, Meta(min_length=1)], attrs.NOTHING, "min_length fits none of its types"),
        (Annotated[bool, Meta(ge=1)], attrs.NOTHING, "ge does not fit this type"),
        (int, None, "its default does not fit its type: expected an integer, got null"),
        (int, "1", "its default does not fit its type: expected an integer, got a string"),
        (list[int], ["a"], r"its default does not fit its type: \[0\]: expected an integer"),
        (Any, (n for n in "ab"), "its default cannot be copied for each call .*; make it in the action"),
    ],
)
def test_an_input_that_cannot_be_described_is_refused_at_registration(annotation, default, message):
    with pytest.raises(TypeError, match=f"action 'test', input 'x': .*({message})"):
        inputs_for(annotation, default)


# Secrets


async def login(  # noqa: PLR0917 - as above
    name: str,
    password: Annotated[str, SECRET, Meta(min_length=20)] | None = None,
    account: Login | None = None,
    tokens: list[Annotated[str, SECRET]] = [],  # noqa: B006
    keys: dict[str, Annotated[str, SECRET]] = {},  # noqa: B006
    pair: tuple[int, Annotated[str, SECRET]] = (1, ""),
    either: Cat | Login | None = None,
    chain: Chain | None = None,
): ...


@pytest.mark.parametrize(
    "raw",
    [
        {"password": PASSWORD},
        {"password": [PASSWORD]},
        {"password": {"a": {PASSWORD: 1}}},
        {"account": {"user": 1, "password": PASSWORD}},
        {"account": {"password": [PASSWORD], "Password": PASSWORD}},
        {"account": [PASSWORD]},
        {"account": PASSWORD},
        {"account": json.dumps({"password": PASSWORD})},
        {"account": '{"password": "' + PASSWORD},
        {"account": [PASSWORD, PASSWORD]},
        {"tokens": [1, PASSWORD]},
        {"tokens": PASSWORD},
        {"tokens": {PASSWORD: PASSWORD}},
        {"keys": {"a": PASSWORD, "b": 5}},
        {"keys": PASSWORD},
        {"keys": {"password: " + PASSWORD: 5, "a": PASSWORD}},
        {"pair": ["x", PASSWORD]},
        {"pair": ["x", PASSWORD, PASSWORD]},
        {"pair": PASSWORD},
        {"either": {"user": 1, "password": PASSWORD}},
        {"either": 5, "password": PASSWORD},
        {"either": {"Password": PASSWORD}, "password": PASSWORD},
        {"chain": {"password": 1, "next": {"password": PASSWORD, "next": 5}}},
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_a_secret_is_in_no_error_and_no_record_of_a_call_that_failed(raw, text):
    inputs = inputs_of(login)
    with pytest.raises(TypedError) as caught:
        inputs.structure(raw, text=raw if text else ())
    error = caught.value
    assert error.__context__ is error.__cause__ is None
    shown = repr(
        [error.args, vars(error), error.payload(), inputs.redact({k: v for k, v in raw.items() if k != "keys"})]
    )
    shown += "".join(traceback.format_exception(error))
    assert PASSWORD not in shown
    assert PASSWORD.encode("unicode_escape").decode() not in shown
    assert any(PASSWORD in secret for secret in inputs.secrets(raw))


def test_secrets_are_found_and_hidden_in_raw_and_structured_values_alike():
    inputs = inputs_of(login)
    raw = {
        "name": "a",
        "password": "p" * 20,
        "account": {"user": "u", "password": "secret 1"},
        "tokens": ["secret 2", "secret 3"],
        "keys": {"k": "secret 4"},
        "pair": [1, "secret 5"],
        "either": {"user": "u", "password": "secret 6"},
        "chain": {"password": "secret 7", "next": {"password": "secret 8"}},
        "other": "shown nowhere",
    }
    values = inputs.structure(raw)
    found = ("p" * 20, *(f"secret {number}" for number in range(1, 9)))
    assert inputs.secrets(raw) == inputs.secrets(values) == found
    assert inputs.redact(raw)["account"] == inputs.redact(values)["account"] == {"user": "u", "password": "[[secret]]"}
    assert not any(secret in repr((values, inputs.redact(raw))) for secret in found)
    assert values["password"] == "p" * 20
    assert type(values["chain"].next.password) is Secret


def test_a_number_where_a_secret_belongs_is_a_secret_too():
    inputs = inputs_of(login)
    assert inputs.secrets({"password": 12345}) == ("12345",)
    assert inputs.redact({"password": 12345, "account": None}) == {"password": "[[secret]]", "account": None}
    assert inputs.redact({"tokens": ["a", None]}) == {"tokens": ["[[secret]]", None]}


@pytest.mark.parametrize("value", [[PASSWORD], {"a": {PASSWORD: 48151623}}, [[48151623, PASSWORD]], 48151623, True])
@pytest.mark.parametrize("text", [(), ("x",)])
@pytest.mark.parametrize(
    "annotation", [Annotated[str, SECRET], Annotated[str | None, SECRET], Annotated[str, SECRET] | int]
)
def test_what_is_no_str_where_a_secret_belongs_is_hidden_whole(annotation, value, text):
    if isinstance(value, int) and annotation == Annotated[str, SECRET] | int:
        return
    inputs = inputs_for(annotation)
    assert inputs.redact({"x": value}) == {"x": "[[secret]]"}
    shown = ""
    try:
        inputs.structure({"x": value}, text=text)
    except TypedError as error:
        shown = repr((vars(error), error.payload(debug=True)))
    assert PASSWORD not in shown
    assert "48151623" not in shown
    if value is not True:
        assert {PASSWORD, "48151623"} & set(inputs.secrets({"x": value}))


@attrs.define
class Key:
    key: Annotated[str, SECRET]
    next: "Key | Lock | None" = None


@attrs.define
class Lock:
    key: Annotated[str, SECRET]
    size: int = 0
    next: "Key | Lock | None" = None


def test_nothing_where_an_object_belongs_is_shown_as_nothing():
    assert inputs_for(Login).redact({"x": None}) == {"x": None}


def test_inputs_know_which_of_them_hold_a_secret():
    inputs = inputs_of(login)
    assert [name for name in (*inputs.keys, "other") if inputs.is_secret(name)] == list(inputs.keys[1:])


def test_secrets_inside_of_untagged_unions_are_looked_for_once_for_each_class():
    inner = Looked(key=PASSWORD)
    inputs = inputs_for(Key | Lock)
    raw = {"x": chain(14, inner, key="next")}
    raw["x"]["key"] = "other"
    assert inputs.secrets(raw) == ("other", PASSWORD)
    assert inner.looked_at == 2
    assert inputs.redact(raw) == {"x": "[[secret]]"}
    in_text = {"x": json.dumps({"key": "other", "next": json.dumps({"key": PASSWORD})})}
    assert inputs.secrets(in_text) == ("other", PASSWORD)


def test_secrets_nested_too_deeply_are_hidden_as_a_whole():
    deep: Any = {"password": PASSWORD}
    for _ in range(100_000):
        deep = {"password": "x", "next": deep}
    inputs = inputs_of(login)
    assert inputs.redact({"chain": deep}) == {"chain": "[[secret]]"}
    assert PASSWORD in inputs.secrets({"chain": deep})


@attrs.define
class Checked:
    password: Annotated[str, SECRET]

    def __attrs_post_init__(self):
        raise ValueError(f"{self.password} is weak")


LONG_SECRET = "eyJ" + "".join(f"{n:04d}" for n in range(1000))


@pytest.mark.parametrize("annotation", [Checked, Checked | Cat, list[Checked] | Cat])
@pytest.mark.parametrize(
    "password", [PASSWORD, LONG_SECRET, LONG_SECRET[:400], f"{PASSWORD}\n{PASSWORD}", "a" * 90 + "\nb"]
)
def test_a_validator_that_tells_the_secret_is_not_quoted(annotation, password):
    value = {"password": password}
    key, message = fault(annotation, [value] if annotation == list[Checked] | Cat else value)
    assert key.startswith("x")
    assert "is not valid" in message
    assert password[:5] not in message


@attrs.define
class Quoting:
    name: str

    def __attrs_post_init__(self):
        raise ValueError(f"no {self.name}")


@pytest.mark.parametrize(
    ("keys", "name", "message"),
    [
        ([], "x" * 900, f"no {'x' * 497}"),
        ([PASSWORD], "x" * 900, f"no {'x' * 497}"),
        ([PASSWORD], "hunter", "no hunter"),
        ([PASSWORD], f"such {PASSWORD}", "is not valid"),
        ([PASSWORD], "x" * 200_000, "is not valid"),
        ([f"key {n}" for n in range(200)], "hunter", "is not valid"),
    ],
)
def test_the_application_is_quoted_where_no_secret_can_be_in_it(keys, name, message):
    async def action(keys: list[Annotated[str, SECRET]], x: dict[str, Quoting]): ...

    with pytest.raises(TypedError) as caught:
        inputs_of(action).structure({"keys": keys, "x": {"one": {"name": name}}})
    assert caught.value.errors == (('x["..."]' if message == "is not valid" else "x.one", message),)


def test_a_fault_is_not_shown_with_a_value_in_which_there_is_a_secret():
    async def action(name: int, password: Annotated[str, SECRET]): ...

    with pytest.raises(TypedError) as caught:
        inputs_of(action).structure({"name": [f"my {PASSWORD}"], "password": PASSWORD})
    assert caught.value.value is None


def test_a_secret_in_any_member_of_a_union_is_hidden():
    inputs = inputs_for(Annotated[str, SECRET] | int | list[Annotated[str, SECRET]])
    assert inputs.redact({"x": PASSWORD}) == {"x": "[[secret]]"}
    assert inputs.redact({"x": [PASSWORD]}) == {"x": ["[[secret]]"]}
    assert inputs.redact({"x": 5}) == {"x": 5}
    assert inputs.structure({"x": PASSWORD}) == {"x": PASSWORD}


def test_a_secret_is_a_str_that_does_not_show_itself():
    secret = Secret(PASSWORD)
    assert repr([secret, {"a": secret}]) == "[[[secret]], {'a': [[secret]]}]"
    assert (secret, hash(secret), f"{secret}", str(secret)) == (PASSWORD, hash(PASSWORD), PASSWORD, PASSWORD)
    assert json.loads(json.dumps(secret)) == PASSWORD
    assert msgspec.json.decode(msgspec.json.encode(secret, enc_hook=str)) == PASSWORD
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        assert db.execute("select ?", (secret,)).fetchone() == (PASSWORD,)
    assert {type(same) for same in (pickle.loads(pickle.dumps(secret)), copy.copy(secret), copy.deepcopy(secret))} == {
        Secret
    }
    assert (f"{secret!r} {secret!a}", f"{secret!r}", f"{[secret]}") == (
        "[[secret]] [[secret]]",
        "[[secret]]",
        "[[[secret]]]",
    )
    assert PASSWORD not in repr(
        (attrs.asdict(Login("u", secret)), dataclasses.asdict(Account(secret)), vars(Account(secret)))
    )
    assert copy.deepcopy(SECRET) is pickle.loads(pickle.dumps(SECRET)) is SECRET
    assert repr(Annotated[str, SECRET]) == "typing.Annotated[str, SECRET]"


@dataclasses.dataclass
class Account:
    password: str


# Properties

ANNOTATIONS = st.sampled_from(
    [
        int, float, str, bool, None, dt.datetime, uuid.UUID, decimal.Decimal, bytes, Color, Level, list[int], set[str],
        tuple[int, str], dict[str, int], dict[int, str], int | str, Address, Node, Circle | Square, Cat | Dog, Movie, Pair,
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["zip", "value", "kind"]), inner),
)


@given(ANNOTATIONS, JSON)
def test_any_json_value_is_structured_or_refused_with_a_typed_error(annotation, value):
    inputs = inputs_for(annotation)
    try:
        inputs.structure({"x": value})
    except TypedError as error:
        assert error.errors


@given(ANNOTATIONS, st.text() | st.lists(st.text(), min_size=1))
def test_any_text_is_structured_or_refused_with_a_typed_error(annotation, value):
    inputs = inputs_for(annotation)
    try:
        inputs.structure({"x": value}, text={"x"})
    except TypedError as error:
        json.dumps(error.payload(), allow_nan=False).encode()
