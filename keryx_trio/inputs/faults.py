"""What is wrong with an input, in plain words and with its place.

Owns: `Fault`, the limits of `msgspec.Meta` as checks, and the way from cattrs' groups of errors to a flat list.
Does not know: actions, secrets, or how a fault is sent.

Invariant: a message never shows the value it is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, cast

import attrs
from cattrs.errors import AttributeValidationNote, BaseValidationError, IterableValidationNote

from ..uploads import UploadFile
from .annotations import Kind, Reading

REQUIRED: Final = "is required"
TOO_DEEP: Final = "is nested too deeply"
INVALID: Final = "is not valid"

MAX_FAULTS: Final = 1000
"""Faults that are told of one call. A client must not get back more than it sent, nor keep us busy with it."""

_MAX_BRIEF: Final = 100
_MAX_PATH: Final = 300
_SIMPLE_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_KEY: Final = 64

NOUNS: Final[Mapping[type, str]] = MappingProxyType(
    {
        type(None): "null",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "a list",
        tuple: "a list",
        dict: "an object",
        UploadFile: "a file",
    }
)


class Fault(ValueError):  # noqa: N818 - what is wrong with an input is no error of the program
    """One thing that is wrong with one value.

    Args:
        message: in plain words, to be read after the path.
        value: what was given; NOTHING where it must not, or cannot, be shown.
        quoted: whether the message has the application's own text in it, all of it, and so may hold anything.
        path: where it is, below the place where it is raised.
    """

    def __init__(
        self, message: str, value: object = attrs.NOTHING, *, quoted: bool = False, path: tuple[Step, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.quoted = quoted
        self.path = path


def expected(what: str, value: object) -> Fault:
    """The fault of a value of another kind than `what`."""
    return Fault(f"expected {what}, got {noun(value)}", value)


def noun(value: object) -> str:
    """What the kind of a value is called."""
    return NOUNS.get(type(value), "another kind of value")


Step = tuple[str, object]
"""A step of a path: ("field", its name), or ("item", an index or a dict's key)."""


def at(step: int | str, error: Exception) -> Exception:
    """The error of an item, with its place told as cattrs tells it."""
    error.__notes__ = [*getattr(error, "__notes__", ()), IterableValidationNote("", step, None)]
    return error


def flatten(error: BaseException, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], Fault]]:
    """Every fault in what cattrs raised, in the order of the fields and items, each with its path.

    A stack, not recursion: the groups are as deep as the input is.
    """
    stack = [(error, path)]
    while stack:
        current, where = stack.pop()
        if isinstance(current, BaseValidationError):
            stack += [(inner, where + _step(inner, current)) for inner in reversed(current.exceptions)]
        else:
            fault = _as_fault(current)
            yield where + fault.path, fault


def _step(inner: BaseException, group: BaseValidationError) -> tuple[Step, ...]:
    """Every error in a group bears a note of its place; it is the last one, others would be the error's own."""
    note = inner.__notes__[-1]
    if isinstance(note, AttributeValidationNote):
        return (("field", attrs.fields_dict(group.cl)[note.name].metadata["key"]),)
    return (("item", cast("IterableValidationNote", note).index),)


def _as_fault(error: BaseException) -> Fault:
    match error:
        case Fault():
            return error
        case KeyError():  # how cattrs says that a field is missing
            return Fault(REQUIRED)
        case RecursionError():
            return Fault(TOO_DEEP)
    return Fault(INVALID)


def brief(error: BaseException) -> Fault:
    """The first fault in an error, its place in the message: one line, for a message about something larger.

    What is too long is left out, not cut: of a text with a secret in it, a part would not be known for one.
    """
    path, fault = next(flatten(error, (("field", ""),)))
    place = show_path(path, hide=True).lstrip(".")
    text = f"{place}: {fault.message}" if place else fault.message
    if len(text) > _MAX_BRIEF or "\n" in text:
        return Fault(INVALID)
    return Fault(text, quoted=fault.quoted)


def show_path(path: tuple[Step, ...], *, hide: bool) -> str:
    """`address.zip`, `tags[0]`, `prices["a b"]`, or `prices["..."]` where keys of the input are hidden."""
    (_, first), *rest = path
    text = str(first)
    for kind, step in rest:
        if len(text) > _MAX_PATH:
            return f"{text}..."
        if isinstance(step, int):
            text += f"[{step}]"
        elif kind == "item" and hide:
            text += '["..."]'
        elif _SIMPLE_KEY.fullmatch(str(step)[: _MAX_KEY + 1]) and len(str(step)) <= _MAX_KEY:
            text += f".{step}"
        else:
            text += f"[{json.dumps(str(step)[:_MAX_KEY])}]"
    return text


Check = tuple[Callable[[Any], bool], str]
"""A test that a good value passes, and what is said of one that does not."""


def checks(reading: Reading) -> tuple[Check, ...]:
    """The limits that an annotation sets, as tests."""
    limits = reading.limits
    if reading.kind is Kind.DECIMAL:  # 1.1 means the decimal 1.1, not the nearest binary number
        limits = {name: Decimal(str(limit)) for name, limit in limits.items()}
    unit = {Kind.STR: "character", Kind.BYTES: "byte"}.get(reading.kind, "item")
    return tuple(_check(name, limit, unit) for name, limit in limits.items())


def _check(name: str, limit: Any, unit: str) -> Check:  # noqa: PLR0911 - one line a limit
    match name:
        case "ge":
            return lambda value: value >= limit, f"must be >= {limit}"
        case "gt":
            return lambda value: value > limit, f"must be > {limit}"
        case "le":
            return lambda value: value <= limit, f"must be <= {limit}"
        case "lt":
            return lambda value: value < limit, f"must be < {limit}"
        case "multiple_of":
            return lambda value: _is_multiple(value, limit), f"must be a multiple of {limit}"
        case "min_length":
            return lambda value: len(value) >= limit, _length("at least", limit, unit)
        case "max_length":
            return lambda value: len(value) <= limit, _length("at most", limit, unit)
        case "pattern":
            search = re.compile(_to_the_end(limit)).search
            return lambda value: search(value) is not None, f"must match the pattern {limit}"
    return lambda value: (value.tzinfo is not None) == limit, f"must have {'a' if limit else 'no'} time zone"


_PIECES: Final = re.compile(r"(?s:\\.)|\[\^?\]?(?:(?s:\\.)|[^\]\\])*\]|(?P<lines>\(\?[a-zA-Z]*m)|(?P<end>\$)")
"""Of a pattern: an escape, a set of characters, the flag for `$` at the end of every line, a `$`."""


def _to_the_end(pattern: str) -> str:
    """The pattern with `$` as in JSON Schema: the end, where Python's lets one more line break pass."""
    if any(piece["lines"] for piece in _PIECES.finditer(pattern)):
        return pattern
    return _PIECES.sub(lambda piece: r"\Z" if piece["end"] else piece[0], pattern)


def _length(bound: str, limit: int, unit: str) -> str:
    count = f"{limit} {unit}" if limit == 1 else f"{limit} {unit}s"
    return f"must have {bound} {count}" if unit == "item" else f"must be {bound} {count} long"


def _is_multiple(value: Any, of: Any) -> bool:
    """Whether the numbers divide as they are written: 0.3 is a multiple of 0.1."""
    if isinstance(value, Decimal):
        try:
            return not value % of
        except ArithmeticError:  # the quotient has more digits than the decimal context holds
            return False
    if isinstance(value, int) and isinstance(of, int):
        return not value % of
    return Fraction(repr(value)) % Fraction(repr(of)) == 0
