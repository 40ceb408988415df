"""Values to JSON text: cattrs makes them plain, msgspec writes them. And the object of a call's inputs, read.

Owns the one encoder that answers, events and payloads go through. Plain values (what JSON itself has, and the
dates, UUIDs and Decimals that msgspec writes as text) skip cattrs: an event costs a tenth that way.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import uuid
from typing import Any, Final

import cattrs
import msgspec

from ..errors import ErrorType, TypedError
from .text import to_utf8

_converter: Final = cattrs.Converter(use_alias=True)  # a field goes out under the name it came in by

_LEAVES: Final = frozenset(
    {str, int, float, bool, type(None), bytes, uuid.UUID, decimal.Decimal}
    | {dt.datetime, dt.date, dt.time, dt.timedelta}
)
_BUILTINS: Final[tuple[type[Any], ...]] = (str, int, float, bytes, dict, list, tuple)


def encode(value: object) -> bytes:
    """`value` as one line of UTF-8 JSON.

    datetimes, dates, UUIDs, Decimals, Enums, sets, bytes (base64), paths, attrs classes and dataclasses take their
    JSON form; NaN and the infinities become null, as in JavaScript. A lone surrogate becomes U+FFFD.

    Raises:
        TypeError: for what has no JSON form.
    """
    if not (type(value) is dict and _LEAVES.issuperset(map(type, value.values()))) and not _is_plain(value):
        value = _converter.unstructure(value)
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError):
        # A lone surrogate, or an integer beyond 64 bits: rare, so the slow and exact way may serve.
        plain = msgspec.to_builtins(value, enc_hook=_simplify, str_keys=True)
        return to_utf8(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


def decode_object(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object with the inputs of a call.

    Args:
        text: its text, in UTF-8.
        what: where it came from, for the error: "the body".

    Raises:
        TypedError: CONNECTION_ACTION_PARAM_FORMATTING, for what is no JSON object.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(f"{what} is not valid JSON: {error}") from None
    except RecursionError:
        raise _malformed(f"{what} is not valid JSON: it is nested too deeply") from None
    if not isinstance(value, dict):
        raise _malformed(f"{what} must be a JSON object with the inputs, not {_KINDS.get(type(value), 'null')}")
    return value


_KINDS: Final = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def _malformed(message: str) -> TypedError:
    return TypedError(message, ErrorType.CONNECTION_ACTION_PARAM_FORMATTING)


def _is_plain(value: object) -> bool:
    """Whether nothing in `value` needs cattrs."""
    kind = type(value)
    if kind in _LEAVES:
        return True
    if kind is dict:
        items = value.values()  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    return _LEAVES.issuperset(map(type, items)) or all(map(_is_plain, items))


def _simplify(value: object) -> Any:
    """What neither cattrs nor msgspec made plain: subclasses of built-in types, and paths."""
    for builtin in _BUILTINS:
        if isinstance(value, builtin) and type(value) is not builtin:
            return builtin(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form: return plain values, attrs classes or dataclasses")


_encoder: Final = msgspec.json.Encoder(enc_hook=_simplify)
