"""Single values: from JSON, where nothing is coerced, and from text, where everything starts as a string.

Owns: what each scalar kind accepts in both modes. Does not know: containers, classes, limits.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from ..uploads import UploadFile
from .annotations import Kind, Reading, choices
from .faults import Fault, expected

Take = Callable[[Any], Any]
"""Makes a value from a raw one, or raises Fault."""

BOOLEANS: Final[Mapping[str, bool]] = {
    "true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False,
}  # fmt: skip
NULLS: Final = frozenset({"", "null"})
INTEGER_KEY: Final = "^(0|-?[1-9][0-9]{0,19})$"
"""The one text form of an integer as an object's key, as JSON Schema has it; 20 digits hold all of 64 bits."""

_MAX_SHOWN: Final = 20


def from_json(reading: Reading) -> Take:
    """What takes a JSON value, or one that has been structured before, for a scalar."""
    if reading.kind in (Kind.LITERAL, Kind.ENUM):
        return _choice(reading)
    return _FROM_JSON.get(reading.kind) or _convert(reading, strict=True)


def from_text(reading: Reading) -> Take:
    """What takes the text of a query, a form, a path or a shell for a scalar."""
    strict = from_json(reading)
    lenient = _lenient(reading, strict)

    def take(raw: Any) -> Any:
        value = single(raw) if isinstance(raw, list) else raw
        return lenient(value) if isinstance(value, str) else strict(value)

    return take


def single(raw: Any) -> Any:
    """The only occurrence of a key in a query or form."""
    if not isinstance(raw, list):
        return raw
    if len(raw) != 1:
        raise Fault(f"expected one value, got {len(raw)}")
    return raw[0]


def as_key(reading: Reading) -> Take:
    """What takes an object's key, which is text in JSON, for the key of a dict."""
    match reading.kind:
        case Kind.INT:
            return _take_integer_key
        case Kind.LITERAL | Kind.ENUM:
            return from_text(reading)
    return from_json(reading)


def as_text(form: object) -> str:
    """The text form of a Literal's or Enum's value: `true` and `null` as in JSON."""
    return form if isinstance(form, str) else msgspec.json.encode(form).decode()


def _take_any(value: Any) -> Any:
    return value


def _take_none(value: Any) -> None:
    if value is not None:
        raise expected("null", value)


def _take_upload(value: Any) -> UploadFile:
    if isinstance(value, Fault):  # of a file that could not be opened, told by who tried
        raise value
    if not isinstance(value, UploadFile):
        raise expected("a file", value)
    return value


def _take_str(value: Any) -> str:
    if not isinstance(value, str):
        raise expected("a string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which could not be written anywhere
            raise Fault("is not valid Unicode text") from None
    return value


def _take_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise expected("an integer", value)


def _take_float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise expected("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Fault("must be a finite number")
    return number


def _take_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def _take_decimal(value: Any) -> Decimal:
    if not isinstance(value, str | int | float | Decimal) or isinstance(value, bool):
        raise expected("a decimal number", value)
    try:
        number = msgspec.convert(value, Decimal)
    except msgspec.ValidationError:
        raise Fault("expected a decimal number", value) from None
    if not number.is_finite():
        raise Fault("must be a finite number")
    return number


def _take_integer_key(key: Any) -> int:
    if isinstance(key, str) and _INTEGER_KEY.fullmatch(key):
        return int(key)
    return _take_int(key)


_INTEGER_KEY: Final = re.compile(INTEGER_KEY)
_FROM_JSON: Final[Mapping[Kind, Take]] = {
    Kind.ANY: _take_any,
    Kind.NONE: _take_none,
    Kind.UPLOAD: _take_upload,
    Kind.STR: _take_str,
    Kind.INT: _take_int,
    Kind.FLOAT: _take_float,
    Kind.BOOL: _take_bool,
    Kind.DECIMAL: _take_decimal,
}


def _convert(reading: Reading, *, strict: bool) -> Take:
    """Kinds that JSON writes as strings: msgspec reads them; one that is of its type already passes."""
    form, what = reading.form, reading.kind.value

    def take(value: Any) -> Any:
        if not isinstance(value, str | form):
            raise expected(what, value)
        try:
            return msgspec.convert(value, form, strict=strict)
        except msgspec.ValidationError:
            raise Fault(f"expected {what}", value) from None

    return take


def _choice(reading: Reading) -> Take:
    pairs = choices(reading)
    table = {choice_key(form): value for form, value in pairs}
    message = must_be_one_of(pairs)

    def take(value: Any) -> Any:
        if reading.kind is Kind.ENUM and isinstance(value, reading.form):
            return value
        form = value.value if isinstance(value, enum.Enum) else value
        if isinstance(form, str | int | float | None) and choice_key(form) in table:
            return table[choice_key(form)]
        raise Fault(message, value)

    return take


def choice_key(form: object) -> tuple[bool, object]:
    """What a Literal's value is found by: True is not 1, as in JSON, but 1.0 is."""
    return isinstance(form, bool), form


def must_be_one_of(pairs: list[tuple[Any, Any]]) -> str:
    """The message that names what is allowed, or the first of it."""
    names = [as_text(form) for form, _ in pairs]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"must be one of: {', '.join(names[:_MAX_SHOWN])}{more}"


def _lenient(reading: Reading, strict: Take) -> Take:
    match reading.kind:
        case Kind.STR | Kind.ANY | Kind.UPLOAD | Kind.DECIMAL | Kind.BYTES:
            return strict
        case Kind.NONE:
            return _none_from_text
        case Kind.BOOL:
            return _bool_from_text
        case Kind.LITERAL | Kind.ENUM:
            return _choice_from_text(reading)
        case Kind.INT | Kind.FLOAT:
            return _number_from_text(reading, strict)
    return _convert(reading, strict=False)


def _none_from_text(text: str) -> None:
    if text.lower() not in NULLS:
        raise Fault("expected null", text)


def _bool_from_text(text: str) -> bool:
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise Fault("expected true or false", text)
    return value


def _choice_from_text(reading: Reading) -> Take:
    pairs = choices(reading)
    table = {as_text(form): value for form, value in reversed(pairs)}  # the first of two with one text wins
    table |= {form: value for form, value in pairs if isinstance(form, str)}  # and a string wins over a number
    message = must_be_one_of(pairs)

    def take(text: str) -> Any:
        if text not in table:
            raise Fault(message, text)
        return table[text]

    return take


def _number_from_text(reading: Reading, strict: Take) -> Take:
    """As msgspec reads it, which also bounds the length of an integer, whose conversion is quadratic."""
    convert = _convert(reading, strict=False)
    return lambda text: strict(convert(text))
