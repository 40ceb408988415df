"""The events of a stream, as its action describes them: a type for the data of each name.

Owns: what an event's data is on the wire, text or JSON, and whether one that is sent fits. Does not know: streams,
OpenAPI, or who asks.

Invariant: what goes out as text is described as text. A str is sent as it is and everything else as JSON, so a type
whose values are both has two forms.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Union

import attrs
import msgspec
from cattrs.errors import BaseValidationError

from .inputs.annotations import Kind, Reading, choices, read, readings, show
from .inputs.faults import Fault, brief
from .inputs.scalars import Take
from .inputs.structuring import JsonConverter
from .inputs.unions import Work

UNNAMED: Final = "message"
"""What a reader calls an event without a name (the HTML standard, section "Server-sent events")."""


@attrs.frozen
class EventType:
    """One kind of event.

    Attributes:
        name: of the event.
        declared: the type of its data, as its author wrote it.
        text: the types of it that go out as they are.
        json: the type of the rest, which goes out as JSON; NOTHING where there is none.
    """

    name: str
    declared: Any
    text: tuple[Any, ...]
    json: Any


class EventTypes:
    """The events that a stream may send.

    Args:
        types: the type of each event's data by its name; `message` is what has no name.

    Raises:
        TypeError: a type that has no JSON form; it names the event.
    """

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._work = Work()
        self._types: dict[str, EventType] = {}
        for name, declared in types.items():
            try:
                self._types[name] = _event_type(name, declared)
            except TypeError as error:
                raise TypeError(f"event {name!r}: {error}") from None
        converter = _SentConverter(self._work)
        self._takes: dict[str, tuple[list[Take], Take | None]] = {
            each.name: (
                [converter.take(read(text)) for text in each.text],
                None if each.json is attrs.NOTHING else converter.take(read(each.json)),
            )
            for each in self._types.values()
        }

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._types.values())

    def check(self, data: str | bytes, event: str | None) -> None:
        """See that an event is one of these.

        Args:
            data: text, or JSON as bytes: as it goes out.
            event: its name, if it has one.

        Raises:
            ValueError: there is no event of that name.
            TypeError: its data does not fit.
        """
        name = event or UNNAMED
        if name not in self._types:
            what = f"an event {name!r}" if event else "an event without a name"
            raise ValueError(f"{what} is not described: `events` of the action's Web has {', '.join(self._types)}")
        texts, json = self._takes[name]
        takes = texts if isinstance(data, str) else [json] if json is not None else []
        value = data if isinstance(data, str) else msgspec.json.decode(data)
        faults: list[Fault] = []
        for take in takes:
            self._work.start()
            try:
                take(value)
            except (Fault, BaseValidationError) as error:
                faults.append(brief(error))
            else:
                return
        why = "; ".join(fault.message for fault in faults) or f"{'text' if isinstance(data, str) else 'JSON'} was sent"
        raise TypeError(f"the data of event {name!r} does not fit {show(self._types[name].declared)}: {why}")


def _event_type(name: str, declared: Any) -> EventType:
    for _ in readings(declared):
        pass  # whatever cannot be described raises here
    reading = read(declared)
    text: list[Any] = []
    json: list[Any] = []
    for member in reading.parts if reading.kind is Kind.UNION else (declared,):
        own_text, own_json = _forms(member, read(member))
        text += own_text
        json += own_json
    return EventType(name, declared, tuple(text), Union[tuple(json)] if json else attrs.NOTHING)  # noqa: UP007 - computed


def _forms(annotation: Any, reading: Reading) -> tuple[list[Any], list[Any]]:
    """What of a type goes out as text, and what as JSON."""
    match reading.kind:
        case Kind.STR:
            return [annotation], []
        case Kind.ANY:
            return [str], [annotation]
        case Kind.ENUM if issubclass(reading.form, str):
            return [annotation], []
        case Kind.LITERAL:
            forms = [form for form, _ in choices(reading)]
            text = tuple(form for form in forms if isinstance(form, str))
            rest = tuple(form for form in forms if not isinstance(form, str))
            return [Literal[text]] if text else [], [Literal[rest]] if rest else []
    return [], [annotation]


class _SentConverter(JsonConverter):
    """Takes the JSON of what is sent, which differs from what is taken as its schema does."""

    def _scalar(self, reading: Reading) -> Take:
        take = super()._scalar(reading)
        if reading.kind is Kind.FLOAT:
            return _or(take, lambda value: value is None)  # one that is no number goes out as null
        if reading.kind is Kind.ENUM and issubclass(reading.form, enum.Flag):
            return _or(take, lambda value: type(value) is int)  # any combination
        return take


def _or(take: Take, fits: Callable[[Any], bool]) -> Take:
    return lambda value: value if fits(value) else take(value)
