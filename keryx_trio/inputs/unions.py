"""Which member of a union a value is meant for.

Owns: the order in which members are tried, tags, and what is said when none fits. Does not know: how a member takes
its value.

Invariant: the answer does not depend on the order in which scalar types are written (`int | str` is `str | int`, as in
Python itself); a plain str is the last of the scalars. Among classes a Literal field that tells them apart decides, and
without one the first class that fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from cattrs.errors import BaseValidationError, IterableValidationError

from ..uploads import UploadFile
from .annotations import ITEMS, Kind, Reading, choices, fields_of, read, show
from .faults import NOUNS, REQUIRED, Fault, at, brief, expected
from .scalars import NULLS, Take, choice_key, must_be_one_of, single

MAX_TRIES: Final = 100_000
"""Attempts in one call. Classes that nest in each other untagged could otherwise take exponential time."""

_ORDER: Final = {kind: place for place, kind in enumerate(Kind)}
_CHOICES: Final = frozenset({Kind.LITERAL, Kind.ENUM, Kind.ANY})
_TEXTUAL: Final = frozenset(
    {Kind.STR, Kind.BYTES, Kind.UUID, Kind.DATETIME, Kind.DATE, Kind.TIME, Kind.DURATION, Kind.DECIMAL}
)
_NUMERIC: Final = frozenset({Kind.INT, Kind.FLOAT, Kind.DECIMAL})
_TAKERS: Final[Mapping[type, frozenset[Kind]]] = {
    type(None): _CHOICES | {Kind.NONE},
    bool: _CHOICES | {Kind.BOOL},
    int: _CHOICES | _NUMERIC,
    float: _CHOICES | _NUMERIC,
    str: _CHOICES | _TEXTUAL,
    list: ITEMS | {Kind.ANY},
    tuple: ITEMS | {Kind.ANY},
    dict: frozenset({Kind.CLASS, Kind.DICT, Kind.ANY}),
    UploadFile: frozenset({Kind.UPLOAD, Kind.ANY}),
}
"""The kinds that a value of a JSON type may be meant for."""


def may_take(kind: Kind, value: object) -> bool:
    """Whether a value of this JSON type may be meant for this kind."""
    takers = _TAKERS.get(type(value))
    return takers is None or kind in takers


@attrs.define
class Budget:
    """How many more attempts a call has."""

    left: int = MAX_TRIES

    def refill(self) -> None:
        """Start a call."""
        self.left = MAX_TRIES

    def spend(self) -> None:
        """Count one attempt; Fault when there have been too many."""
        self.left -= 1
        if self.left < 0:
            raise Fault("has too many possible readings; tag the classes with a Literal field")


@attrs.frozen
class Member:
    """One type of a union, and what takes a value for it."""

    reading: Reading
    take: Take


@attrs.frozen
class Tag:
    """The Literal field that tells the classes of a union apart."""

    key: str
    required: bool
    message: str
    members: Mapping[tuple[bool, object], Member]


def ordered(members: Iterable[Member]) -> list[Member]:
    """The members in the order in which they are tried."""
    return sorted(members, key=lambda member: _ORDER[member.reading.kind])


def union_from_json(members: Sequence[Member], budget: Budget) -> Take:
    """What takes a JSON value for a union: its JSON type rules most members out."""
    by_type = {kind: [m for m in members if m.reading.kind in takers] for kind, takers in _TAKERS.items()}
    tag = _tag(by_type[dict])

    def take(value: Any) -> Any:
        candidates = by_type.get(type(value), members)
        if tag is not None and isinstance(value, dict):
            return _take_tagged(tag, candidates, value, budget)
        return _take_first(candidates, value, budget) if candidates else _reject(members, value)

    return take


def union_from_text(members: Sequence[Member], budget: Budget) -> Take:
    """What takes text for a union: an empty text, or `null`, is None unless it may be a str."""
    kinds = {member.reading.kind for member in members}
    valued = [member for member in members if member.reading.kind is not Kind.NONE]
    lists = [member for member in valued if member.reading.kind in ITEMS]

    def take(raw: Any) -> Any:
        if Kind.NONE in kinds and (raw is None or (Kind.STR not in kinds and _is_empty(raw))):
            return None
        if not isinstance(raw, list) or len(raw) == 1:
            return _take_first(valued, raw, budget)
        return _take_first(lists, raw, budget) if lists else single(raw)

    return take


def _is_empty(raw: object) -> bool:
    value = raw[0] if isinstance(raw, list) and len(raw) == 1 else raw
    if isinstance(value, UploadFile):  # what a browser sends for a file field where nothing was chosen
        return not value.filename and not value.size
    return isinstance(value, str) and value.lower() in NULLS


def _reject(members: Sequence[Member], value: object) -> Any:
    raise expected(" or ".join(member.reading.kind.value for member in members), value)


def _take_first(members: Sequence[Member], value: Any, budget: Budget) -> Any:
    if len(members) == 1:
        return members[0].take(value)
    errors: list[Exception] = []
    for member in members:
        budget.spend()
        try:
            return member.take(value)
        except (Fault, BaseValidationError) as error:
            errors.append(error)
    raise Fault(_none_fits(members, [brief(error) for error in errors]), value)


def _none_fits(members: Sequence[Member], messages: Sequence[str]) -> str:
    if all(message.startswith("expected ") for message in messages):
        return f"expected {' or '.join(member.reading.kind.value for member in members)}"
    forms = [f"{_name(member)} ({message})" for member, message in zip(members, messages, strict=True)]
    return f"fits none of: {'; '.join(forms)}"


def _name(member: Member) -> str:
    return show(member.reading.form) if member.reading.kind is Kind.CLASS else member.reading.kind.value


def _take_tagged(tag: Tag, members: Sequence[Member], value: dict[str, Any], budget: Budget) -> Any:
    if tag.key in value:
        given = value[tag.key]
        member = tag.members.get(choice_key(given)) if type(given) in NOUNS.keys() - {list, dict} else None
        if member is None:
            raise _in_object(tag.key, Fault(tag.message, given))
        return member.take(value)
    if tag.required:
        raise _in_object(tag.key, Fault(REQUIRED))
    return _take_first(members, value, budget)


def _in_object(key: str, fault: Fault) -> IterableValidationError:
    return IterableValidationError("", [at(key, fault)], dict)


def _tag(members: Sequence[Member]) -> Tag | None:
    """The first field that is a Literal in every class and has no value in common between two."""
    if not members[1:] or any(member.reading.kind is not Kind.CLASS for member in members):
        return None
    for field in fields_of(members[0].reading.form):
        if tag := _tag_by(field.key, members):
            return tag
    return None


def _tag_by(key: str, members: Sequence[Member]) -> Tag | None:
    table: dict[tuple[bool, object], Member] = {}
    required = True
    names: list[tuple[Any, Any]] = []
    for member in members:
        field = next((field for field in fields_of(member.reading.form) if field.key == key), None)
        reading = read(field.annotation) if field else None
        if field is None or reading is None or reading.kind is not Kind.LITERAL:
            return None
        own = choices(reading)
        if any(choice_key(form) in table for form, _ in own):
            return None
        table |= {choice_key(form): member for form, _ in own}
        required = required and field.required
        names += own
    return Tag(key, required, must_be_one_of(names), table)
