"""Which parts of an input are secret, found by its annotation, in raw and in structured values.

Owns: the copy without secrets, and the list of what they are. Does not know: logs, errors, whether the value is valid.

Invariant: in doubt it hides. A value that has not the shape of its annotation is hidden as a whole where that
annotation has a secret anywhere. The time it takes is linear in the size of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from .annotations import ITEMS, REDACTED, Field, Kind, Reading, fields_of, read, readings
from .faults import Fault
from .structuring import parse
from .unions import may_take


@attrs.define
class Findings:
    """What one walk over a value finds.

    Inside of a union of which several members walk over the value, which is then hidden whole, each class walks over
    each object once: classes that nest in each other would take exponential time. `walked` keeps the objects, since the
    id of one that is gone may be that of another.
    """

    secrets: list[str] = attrs.field(factory=list)
    unions: int = 0
    walked: dict[tuple[int, type], object] = attrs.field(factory=dict)


Redact = Callable[[Any, Findings], Any]
"""A copy of a value without its secrets, which are added to the findings."""


def redactor(annotation: Any) -> Redact | None:
    """What redacts values of this type; None for a type that holds no secret."""
    return Redactor().of(annotation) if has_secret(annotation) else None


def has_secret(annotation: Any) -> bool:
    """Whether any part of a type is secret."""
    return any(reading.secret for reading in readings(annotation))


def strings(value: object, *, numbers: bool = False) -> Iterator[str]:
    """Every string in a value, keys included; a stack, not recursion, since the value may be of any depth."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield str(current)
        elif numbers and isinstance(current, int | float) and not isinstance(current, bool):
            yield repr(current)
        elif isinstance(current, Mapping):
            waiting += [*current.keys(), *current.values()]
        elif isinstance(current, list | tuple | set | frozenset):
            waiting += current


def _hide(value: Any, found: Findings) -> Any:
    if value is None:
        return None
    found.secrets += strings(value)
    return REDACTED


def _hide_secret(value: Any, found: Findings) -> Any:
    """A secret itself; numbers in its place are secrets too, for all that they will be refused."""
    if value is None:
        return None
    found.secrets += strings(value, numbers=True)
    return REDACTED


def _show(value: Any, found: Findings) -> Any:  # noqa: ARG001 - of the shape of the others
    return value


class Redactor:
    """Makes redactors, one for each class, so that a class may contain itself."""

    def __init__(self) -> None:
        self._classes: dict[type, Redact] = {}

    def of(self, annotation: Any) -> Redact:  # noqa: PLR0911 - one line a kind
        """What redacts values of this type."""
        if not has_secret(annotation):
            return _show
        reading = read(annotation)
        if reading.secret:
            return _hide_secret
        match reading.kind:
            case Kind.UNION:
                return self._union(reading)
            case Kind.CLASS:
                return self._class(reading.form)
            case Kind.DICT:
                return _dict(self.of(reading.parts[1]))
            case Kind.TUPLE | Kind.NAMED_TUPLE:
                return _tuple([self.of(part) for part in reading.parts])
        return _items(self.of(reading.parts[0]))

    def _class(self, form: type) -> Redact:
        classes = self._classes
        if form not in classes:
            classes[form] = _hide
            classes[form] = _object(form, [(field, self.of(field.annotation)) for field in fields_of(form)])

        def redact_once(value: Any, found: Findings) -> Any:
            if found.unions:
                key = id(value), form
                if key in found.walked:
                    return REDACTED
                found.walked[key] = value
            return classes[form](value, found)

        return redact_once

    def _union(self, reading: Reading) -> Redact:
        """All that the value may be meant for take their secrets out; it is shown only if that is one."""
        members = [(read(part), self.of(part)) for part in reading.parts]
        members = [(member, redact) for member, redact in members if member.kind is not Kind.NONE]
        hide = _hide_secret if any(member.secret for member, _ in members) else _hide

        def redact_union(value: Any, found: Findings) -> Any:
            if value is None:
                return None
            redacts = [redact for member, redact in members if _may_be(member, value)]
            if len(redacts) <= 1:
                return (redacts or [hide])[0](value, found)
            found.unions += 1
            for redact in redacts:
                redact(value, found)
            found.unions -= 1
            return REDACTED

        return redact_union


def _may_be(member: Reading, value: object) -> bool:
    # A text may also be the JSON of an object, or the only occurrence of a list.
    composite = member.kind in ITEMS or member.kind in (Kind.CLASS, Kind.DICT)
    return may_take(member.kind, value) or (composite and isinstance(value, str))


def _items(redact: Redact) -> Redact:
    def redact_items(value: Any, found: Findings) -> Any:
        if isinstance(value, list | tuple | set | frozenset):
            return [redact(item, found) for item in value]
        return redact(value, found)  # the only occurrence in a query or form

    return redact_items


def _tuple(redacts: list[Redact]) -> Redact:
    def redact_tuple(value: Any, found: Findings) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(redacts):
            return _hide(value, found)
        return [redact(item, found) for redact, item in zip(redacts, value, strict=True)]

    return redact_tuple


def _dict(redact: Redact) -> Redact:
    def redact_dict(value: Any, found: Findings) -> Any:
        value = _from_text(value)
        if not isinstance(value, Mapping):
            return _hide(value, found)
        return {key: redact(item, found) for key, item in value.items()}

    return redact_dict


def _object(form: type, fields: list[tuple[Field, Redact]]) -> Redact:
    """Of the fields it knows; a key it does not know may be a secret's, misspelt, and is left out."""

    def redact_object(value: Any, found: Findings) -> Any:
        value = _from_text(value)
        if isinstance(value, Mapping):
            return {field.key: redact(value[field.key], found) for field, redact in fields if field.key in value}
        if isinstance(value, form):
            return {field.key: redact(getattr(value, field.name), found) for field, redact in fields}
        return _hide(value, found)

    return redact_object


def _from_text(value: Any) -> Any:
    try:
        return parse(value) if isinstance(value, str) else value
    except Fault:
        return value
