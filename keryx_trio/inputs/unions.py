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
from .faults import MAX_FAULTS, NOUNS, REQUIRED, Fault, at, brief, expected, flatten
from .scalars import NULLS, Take, choice_key, must_be_one_of, single

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
class Work:
    """What bounds the work of one call: the faults it has room for, and what attempts at unions have found out.

    Classes that nest in each other, untagged, would take exponential time if what one attempt makes of a value inside
    were made again by the next. So each value is structured once for each class, as long as the outermost attempt
    lasts; with a result is kept its value, since the id of one that is gone may be that of another.
    """

    _room: int = MAX_FAULTS
    _attempts: int = 0
    _found: dict[tuple[int, type], tuple[object, Any, Fault | None]] = attrs.field(factory=dict, repr=False)

    def start(self) -> None:
        """Start a call."""
        self._room = MAX_FAULTS

    def has_room(self, error: Exception) -> bool:
        """Whether faults after this one are still told; a group's have been counted."""
        if not isinstance(error, BaseValidationError):
            self._room -= 1
        return self._room > 0

    def first(self, members: Sequence[Member], value: Any) -> Any:
        """What is made of the value by the first member that it fits; of the others, the first fault is enough."""
        faults: list[Fault] = []
        room = self._room
        self._attempts += 1
        try:
            for member in members:
                self._room = 1
                try:
                    return member.take(value)
                except (Fault, BaseValidationError) as error:
                    faults.append(brief(error))
        finally:
            self._room = room
            self._attempts -= 1
            if not self._attempts:
                self._found.clear()
        raise _none_fits(members, faults, value)

    def once(self, form: type, take: Take, value: Any) -> Any:
        """What a class makes of the value; within attempts, that is found out once."""
        if not self._attempts:
            return take(value)
        key = id(value), form
        if key not in self._found:
            self._found[key] = (value, *_outcome(take, value))
        _, made, fault = self._found[key]
        if fault is not None:
            raise Fault(fault.message, quoted=fault.quoted, path=fault.path)
        return made


def _outcome(take: Take, value: Any) -> tuple[Any, Fault | None]:
    """What is made of the value, or the first fault; anew, without the frames that an exception holds on to."""
    try:
        return take(value), None
    except (Fault, BaseValidationError) as error:
        path, fault = next(flatten(error, ()))
        return None, Fault(fault.message, quoted=fault.quoted, path=path)


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


def union_from_json(members: Sequence[Member], work: Work) -> Take:
    """What takes a JSON value for a union: its JSON type rules most members out."""
    by_type = {kind: [m for m in members if m.reading.kind in takers] for kind, takers in _TAKERS.items()}
    tag = _tag(by_type[dict])

    def take(value: Any) -> Any:
        candidates = by_type.get(type(value), members)
        if tag is not None and isinstance(value, dict):
            return _take_tagged(tag, candidates, value, work)
        return _take_first(candidates, value, work) if candidates else _reject(members, value)

    return take


def union_from_text(members: Sequence[Member], work: Work) -> Take:
    """What takes text for a union: an empty text, or `null`, is None unless it may be a str."""
    kinds = {member.reading.kind for member in members}
    valued = [member for member in members if member.reading.kind is not Kind.NONE]
    lists = [member for member in valued if member.reading.kind in ITEMS]

    def take(raw: Any) -> Any:
        if Kind.NONE in kinds and (raw is None or (Kind.STR not in kinds and _is_empty(raw))):
            return None
        if not isinstance(raw, list) or len(raw) == 1:
            return _take_first(valued, raw, work)
        return _take_first(lists, raw, work) if lists else single(raw)

    return take


def _is_empty(raw: object) -> bool:
    value = raw[0] if isinstance(raw, list) and len(raw) == 1 else raw
    if isinstance(value, UploadFile):  # what a browser sends for a file field where nothing was chosen
        return not value.filename and not value.size
    return isinstance(value, str) and value.lower() in NULLS


def _reject(members: Sequence[Member], value: object) -> Any:
    raise expected(" or ".join(member.reading.kind.value for member in members), value)


def _take_first(members: Sequence[Member], value: Any, work: Work) -> Any:
    return members[0].take(value) if len(members) == 1 else work.first(members, value)


def _none_fits(members: Sequence[Member], faults: Sequence[Fault], value: object) -> Fault:
    if all(fault.message.startswith("expected ") and not fault.quoted for fault in faults):
        return Fault(f"expected {' or '.join(member.reading.kind.value for member in members)}", value)
    forms = [f"{_name(member)} ({fault.message})" for member, fault in zip(members, faults, strict=True)]
    return Fault(f"fits none of: {'; '.join(forms)}", value, quoted=any(fault.quoted for fault in faults))


def _name(member: Member) -> str:
    return show(member.reading.form) if member.reading.kind is Kind.CLASS else member.reading.kind.value


def _take_tagged(tag: Tag, members: Sequence[Member], value: dict[str, Any], work: Work) -> Any:
    if tag.key in value:
        given = value[tag.key]
        member = tag.members.get(choice_key(given)) if type(given) in NOUNS.keys() - {list, dict} else None
        if member is None:
            raise _in_object(tag.key, Fault(tag.message, given))
        return member.take(value)
    if tag.required:
        raise _in_object(tag.key, Fault(REQUIRED))
    return _take_first(members, value, work)


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
