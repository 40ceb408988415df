"""What a type annotation says: its kind, its limits, whether it is a secret, and the fields of a class.

Owns: the list of types that inputs may have (`Kind`), `SECRET`, and the one reading of an annotation that structuring,
JSON Schema and redaction share, so that they cannot disagree. Does not know: values, faults, actions.

Invariant: what `read` accepts can be described and structured; everything else raises TypeError here.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

import attrs
import msgspec
from msgspec import Meta

from ..uploads import UploadFile

REDACTED: Final = "[[secret]]"

_MAX_DEPTH: Final = 50
"""Lists in lists, and so on, that nobody writes by hand: such a type goes on for ever."""


class _Marker(enum.Enum):
    """Marks in an annotation; an Enum, because its members stay the same object when copied or pickled."""

    SECRET = "SECRET"  # noqa: S105 - a name, not a password

    def __repr__(self) -> str:
        return self.value


SECRET: Final = _Marker.SECRET
"""`Annotated[str, SECRET]`: this value appears in no log, error, repr or record."""


class Secret(str):
    """A str that does not show itself: what an input annotated `SECRET` arrives as.

    It is equal to, and hashes like, the plain text, and `str(secret)` is the plain text; its `repr`, and so that of
    every container, record and traceback that holds it, is `[[secret]]`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return REDACTED


class Kind(enum.Enum):
    """The kinds of input types, in the order in which the members of a union are tried."""

    NONE = "null"
    UPLOAD = "a file"
    INT = "an integer"
    FLOAT = "a number"
    BOOL = "true or false"
    LITERAL = "one of the known values"
    ENUM = "one of the known names"
    UUID = "a UUID"
    DATETIME = "a date and time (such as 2026-01-31T12:00:00Z)"
    DATE = "a date (such as 2026-01-31)"
    TIME = "a time (such as 12:00:00)"
    DURATION = "a duration (such as PT30S)"
    DECIMAL = "a decimal number"
    CLASS = "an object"
    DICT = "an object with any keys"
    STR = "a string"
    BYTES = "base64 text"
    LIST = "a list"
    SET = "a list of different items"
    FROZENSET = "a list of different, fixed items"
    TUPLE = "a list of fixed length"
    VARIADIC = "a list of items"
    NAMED_TUPLE = "a list of named items"
    ANY = "any value"
    UNION = "one of several types"


SCALARS: Final[Mapping[object, Kind]] = {
    type(None): Kind.NONE,
    None: Kind.NONE,
    UploadFile: Kind.UPLOAD,
    int: Kind.INT,
    float: Kind.FLOAT,
    bool: Kind.BOOL,
    str: Kind.STR,
    bytes: Kind.BYTES,
    uuid.UUID: Kind.UUID,
    dt.datetime: Kind.DATETIME,
    dt.date: Kind.DATE,
    dt.time: Kind.TIME,
    dt.timedelta: Kind.DURATION,
    decimal.Decimal: Kind.DECIMAL,
    Any: Kind.ANY,
}

COLLECTIONS: Final[Mapping[object, Kind]] = {
    list: Kind.LIST,
    collections.abc.Sequence: Kind.LIST,
    collections.abc.MutableSequence: Kind.LIST,
    collections.abc.Collection: Kind.LIST,
    set: Kind.SET,
    collections.abc.Set: Kind.SET,
    collections.abc.MutableSet: Kind.SET,
    frozenset: Kind.FROZENSET,
    dict: Kind.DICT,
    collections.abc.Mapping: Kind.DICT,
    collections.abc.MutableMapping: Kind.DICT,
}

ITEMS: Final = frozenset({Kind.LIST, Kind.SET, Kind.FROZENSET, Kind.VARIADIC, Kind.TUPLE, Kind.NAMED_TUPLE})
"""The kinds whose JSON form is an array."""

KEYS: Final = frozenset({Kind.STR, Kind.INT, Kind.ENUM, Kind.LITERAL, Kind.UUID, Kind.DATE})
"""The kinds a dict's keys may have: those with one text form each."""

_BOUNDS: Final = frozenset({"ge", "gt", "le", "lt", "multiple_of"})
_LENGTHS: Final = frozenset({"min_length", "max_length"})
_LIMITS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.INT: _BOUNDS,
    Kind.FLOAT: _BOUNDS,
    Kind.DECIMAL: _BOUNDS,
    Kind.STR: _LENGTHS | {"pattern"},
    Kind.BYTES: _LENGTHS,
    Kind.DATETIME: frozenset({"tz"}),
    Kind.TIME: frozenset({"tz"}),
    Kind.LIST: _LENGTHS,
    Kind.SET: _LENGTHS,
    Kind.FROZENSET: _LENGTHS,
    Kind.VARIADIC: _LENGTHS,
    Kind.DICT: _LENGTHS,
}
_LIMIT_NAMES: Final = (*sorted(_BOUNDS | _LENGTHS), "pattern", "tz")
_WRAPPERS: Final = (typing.Required, typing.NotRequired, typing.Final)


@attrs.frozen
class Reading:
    """An annotation, read: what is left of it without `Annotated`, `NewType` and aliases, and what those said.

    `parts` are the annotations inside: of the items, of a dict's key and value, of a union's members.
    """

    form: Any
    kind: Kind
    parts: tuple[Any, ...]
    limits: Mapping[str, Any]
    metas: tuple[Meta, ...]
    secret: bool


def read(annotation: Any) -> Reading:
    """Read an annotation; TypeError, which says why and what to do, when inputs cannot have this type."""
    form, metas, secret = _unwrap(annotation)
    limits = {name: value for meta in metas for name in _LIMIT_NAMES if (value := getattr(meta, name)) is not None}
    if get_origin(form) in (Union, types.UnionType):
        members = _members(form, limits, secret=secret)
        return Reading(form, Kind.UNION, members, {}, metas, secret=False)
    kind, parts = _kind(form)
    _check_fit(form, kind, limits, secret=secret)
    if kind is Kind.DICT and read(parts[0]).kind not in KEYS:
        raise TypeError(f"{show(form)}: the keys of a dict must be str, int, UUID, date, an Enum or a Literal")
    if kind is Kind.DICT and read(parts[0]).secret:
        raise TypeError(f"{show(form)}: a key cannot be SECRET, it is part of every path; make it a value")
    if kind in (Kind.SET, Kind.FROZENSET) and not _hashable(parts[0]):
        raise TypeError(f"{show(form)}: the items of a set must be hashable; use a list, or say what the items are")
    return Reading(form, kind, parts, limits, metas, secret)


def _unwrap(annotation: Any) -> tuple[Any, tuple[Meta, ...], bool]:
    """Peel off all that only decorates a type; the metas come inner first, so that an outer one wins."""
    metas: tuple[Meta, ...] = ()
    secret = False
    while True:
        if get_origin(annotation) is Annotated:
            metas = (*(mark for mark in annotation.__metadata__ if isinstance(mark, Meta)), *metas)
            secret = secret or SECRET in annotation.__metadata__
            annotation = annotation.__origin__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # of typing since 3.12, and of typing_extensions
            annotation = annotation.__value__
        elif get_origin(annotation) in _WRAPPERS:
            (annotation,) = get_args(annotation)
        else:
            return annotation, metas, secret


def _members(union: Any, limits: Mapping[str, Any], *, secret: bool) -> tuple[Any, ...]:
    """The members of a union, each with those limits of the union that fit it: `Annotated[int | None, Meta(ge=1)]`."""
    members = []
    used: set[str] = set()
    for member in _flat(union):
        kind = read(member).kind
        if secret and kind not in (Kind.STR, Kind.NONE):
            raise TypeError(f"{show(union)}: only a str can be SECRET; take {show(member)} out, or mark the str alone")
        own = {name: value for name, value in limits.items() if name in _LIMITS.get(kind, ())}
        used |= own.keys()
        hidden = secret and kind is Kind.STR
        limited = Annotated[member, Meta(**own)] if own else member
        members.append(Annotated[limited, SECRET] if hidden else limited)
    if unused := [name for name in limits if name not in used]:
        raise TypeError(f"{show(union)}: {unused[0]} fits none of its types; take it out of Meta")
    return tuple(members)


def _flat(union: Any) -> list[Any]:
    """The members, with those of an inner union (in an alias, or `Annotated`) in its place."""
    flat: list[Any] = []
    for member in get_args(union):
        reading = read(member)
        flat += reading.parts if reading.kind is Kind.UNION else [member]
    return flat


def _kind(form: Any) -> tuple[Kind, tuple[Any, ...]]:
    origin, parts = get_origin(form) or form, get_args(form)
    if _is_hashable_key(form) and form in SCALARS:
        return SCALARS[form], ()
    if origin is Literal:
        return Kind.LITERAL, parts
    if origin is tuple:
        return _tuple_kind(form, parts)
    if _is_hashable_key(origin) and origin in COLLECTIONS:
        kind = COLLECTIONS[origin]
        return kind, parts or ((str, Any) if kind is Kind.DICT else (Any,))
    if isinstance(form, type):
        return _class_kind(form)
    raise _cannot_describe(form)


def _is_hashable_key(form: Any) -> bool:
    return isinstance(form, collections.abc.Hashable)


def _tuple_kind(form: Any, parts: tuple[Any, ...]) -> tuple[Kind, tuple[Any, ...]]:
    if form is tuple:
        return Kind.VARIADIC, (Any,)
    if parts[1:] == (Ellipsis,):
        return Kind.VARIADIC, parts[:1]
    return Kind.TUPLE, parts


def _class_kind(form: type) -> tuple[Kind, tuple[Any, ...]]:
    if issubclass(form, enum.Enum):
        return Kind.ENUM, ()
    if issubclass(form, tuple) and hasattr(form, "_fields"):
        hints = _hints(form)
        return Kind.NAMED_TUPLE, tuple(hints[name] for name in form._fields)
    if attrs.has(form) or dataclasses.is_dataclass(form) or typing.is_typeddict(form) or _is_struct(form):
        return Kind.CLASS, ()
    raise _cannot_describe(form)


def _cannot_describe(form: Any) -> TypeError:
    return TypeError(
        f"{show(form)} cannot be described in JSON; use a plain type, an attrs class or a dataclass (Any for any JSON)"
    )


def _check_fit(form: Any, kind: Kind, limits: Mapping[str, Any], *, secret: bool) -> None:
    for name in limits:
        if name not in _LIMITS.get(kind, ()):
            raise TypeError(f"{show(form)}: {name} does not fit this type; take it out of Meta")
    if secret and kind is not Kind.STR:
        raise TypeError(f"{show(form)}: only a str can be SECRET")


def _hashable(item: Any) -> bool:
    reading = read(item)
    match reading.kind:
        case Kind.UNION | Kind.TUPLE | Kind.VARIADIC | Kind.NAMED_TUPLE:
            return all(_hashable(part) for part in reading.parts)
        case Kind.CLASS:
            return reading.form.__hash__ is not None
        case Kind.LIST | Kind.SET | Kind.DICT | Kind.ANY:
            return False
    return True


def show(form: Any) -> str:
    """A type as its author wrote it, nearly."""
    return form.__name__ if isinstance(form, type) and not get_args(form) else str(form).replace("typing.", "")


def choices(reading: Reading) -> list[tuple[Any, Any]]:
    """What a Literal or Enum allows, as pairs: the JSON form and the value it stands for."""
    values = reading.parts if reading.kind is Kind.LITERAL else tuple(reading.form)
    pairs = [(value.value if isinstance(value, enum.Enum) else value, value) for value in values]
    for form, _ in pairs:
        if not isinstance(form, str | int | float | None):
            raise TypeError(f"{show(reading.form)}: {form!r} has no JSON form; use str, int, float, bool or None")
    return pairs


@attrs.frozen
class Field:
    """One field of a class: `key` in JSON, `argument` for its constructor, `name` as an attribute.

    `default` is NOTHING for a required field, and an `attrs.Factory` where a function makes it.
    """

    key: str
    argument: str
    name: str
    annotation: Any
    default: Any = attrs.NOTHING

    @property
    def required(self) -> bool:
        """Whether the field must be given."""
        return self.default is attrs.NOTHING


class _Absent(enum.Enum):
    ABSENT = "absent"


ABSENT: Final = _Absent.ABSENT
"""The default of a TypedDict's key that need not be there: without it the key is left out."""


def fields_of(form: type) -> list[Field]:
    """The fields that the constructor of a class takes, in their order."""
    hints = _hints(form)
    if attrs.has(form):
        found = [(a.alias, a.alias, a.name, a.default) for a in attrs.fields(form) if a.init]
    elif dataclasses.is_dataclass(form):
        found = [(f.name, f.name, f.name, _default(f, dataclasses.MISSING)) for f in dataclasses.fields(form) if f.init]
    elif _is_struct(form):
        found = [(f.encode_name, f.name, f.name, _default(f, msgspec.NODEFAULT)) for f in msgspec.structs.fields(form)]
    else:
        found = [(key, key, key, _key_default(form, key, hint)) for key, hint in hints.items()]
    for _, _, name, _ in found:
        if name not in hints:
            raise TypeError(f"{show(form)}.{name} has no annotation; say of which type it is")
    return [Field(key, argument, name, hints[name], default) for key, argument, name, default in found]


def _default(field: Any, missing: object) -> Any:
    """The default of a dataclass's or Struct's field, told as attrs tells it."""
    if field.default_factory is not missing:
        return attrs.Factory(field.default_factory)
    return attrs.NOTHING if field.default is missing else field.default


def _key_default(form: Any, key: str, hint: Any) -> Any:
    # The mark comes first: with postponed annotations `__required_keys__` does not know of it.
    if get_origin(hint) in (typing.Required, typing.NotRequired):
        return attrs.NOTHING if get_origin(hint) is typing.Required else ABSENT
    return attrs.NOTHING if key in form.__required_keys__ else ABSENT


def _is_struct(form: type) -> bool:
    return issubclass(form, msgspec.Struct)


def _hints(form: type) -> dict[str, Any]:
    """The annotations of a class; its own name is known in them, also where the class is local to a function."""
    try:
        return typing.get_type_hints(form, localns={form.__name__: form}, include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation in quotes is code, which may raise anything
        raise TypeError(f"{show(form)}: {error}; its annotations must be resolvable at run time") from None


def readings(annotation: Any) -> Iterator[Reading]:
    """The readings of a type and of everything in it, depth first; a class that contains itself comes once.

    Raises:
        TypeError: inputs cannot have some type in it; for that of a field the message names the field.
    """
    seen: set[type] = set()
    waiting = [(annotation, 0, "")]
    while waiting:
        current, depth, where = waiting.pop()
        if depth > _MAX_DEPTH:
            raise TypeError(f"{where}an alias that contains itself cannot be described; use a class")
        try:
            reading = read(current)
        except TypeError as error:
            raise TypeError(f"{where}{error}") from None
        yield reading
        if reading.kind is Kind.CLASS and reading.form not in seen:
            seen.add(reading.form)
            fields = fields_of(reading.form)
            waiting += [(field.annotation, 0, f"{show(reading.form)}.{field.name}: ") for field in fields]
        if reading.kind is not Kind.LITERAL:  # whose parts are values
            waiting += [(part, depth + 1, where) for part in reading.parts]
