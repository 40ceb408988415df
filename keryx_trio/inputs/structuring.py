"""From raw values to typed ones: a cattrs converter for JSON and one for text.

Owns: which hook a type gets in each mode, for containers, classes and unions. Does not know: actions, secrets' names,
or how faults are told.

Invariant: a hook either returns a value that fits its annotation, limits included, or raises; it never shows or keeps
what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, Final, cast, is_typeddict

import attrs
import msgspec
from cattrs import BaseConverter
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from .annotations import ABSENT, ITEMS, Field, Kind, Reading, Secret, fields_of, read
from .faults import Check, Fault, at, checks, expected
from .scalars import Take, as_key, from_json, from_text, single
from .unions import Budget, Member, ordered, union_from_json, union_from_text

Hook = Callable[[Any, Any], Any]
"""What cattrs calls for a value: with the raw value and its type."""

_MAX_QUOTED: Final = 200
_BUILD: Final[Mapping[Kind, Callable[[Any], Any]]] = {Kind.SET: set, Kind.FROZENSET: frozenset, Kind.VARIADIC: tuple}


@attrs.frozen
class Key:
    """The type of a dict's keys, so told apart from the same type as a value."""

    annotation: Any


class JsonConverter(BaseConverter):
    """Structures JSON values, and values that have been structured before (an action calling another).

    Every type gets its hook here. Of cattrs' own dispatch nothing is used: it would take a str Enum for a str.
    """

    __slots__ = ("_classes", "budget")

    unique = True
    """Whether a set refuses an item that is given twice, as its schema does."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()
        self._classes: dict[type, Take] = {}

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Hook:  # noqa: A002, ARG002, FBT001, FBT002 - cattrs' own
        """The hook of a type, made anew; TypeError for a type that inputs cannot have."""
        take = self.key(read(type.annotation)) if isinstance(type, Key) else self.take(read(type), nested=True)
        return lambda value, _: take(value)

    def take(self, reading: Reading, *, nested: bool = False) -> Take:
        """What takes a raw value for an annotation, limits and secrecy included."""
        take = _limited(self._take(reading, nested=nested), checks(reading))
        return _hidden(take) if reading.secret else take

    def key(self, reading: Reading) -> Take:
        """What takes an object's key for a dict's key."""
        return _limited(as_key(reading), checks(reading))

    def _take(self, reading: Reading, *, nested: bool) -> Take:
        match reading.kind:
            case Kind.UNION:
                return self._union(self._members(reading, nested=nested))
            case Kind.CLASS:
                return self._class(reading.form)
            case Kind.DICT:
                return self._dict(reading)
            case kind if kind in ITEMS:
                return self._items(reading, nested=nested)
        return self._scalar(reading)

    def _members(self, reading: Reading, *, nested: bool) -> list[Member]:
        readings = [read(part) for part in reading.parts]
        return ordered(Member(member, self.take(member, nested=nested)) for member in readings)

    def _union(self, members: list[Member]) -> Take:
        return union_from_json(members, self.budget)

    def _scalar(self, reading: Reading) -> Take:
        return from_json(reading)

    def _items(self, reading: Reading, *, nested: bool) -> Take:  # noqa: ARG002 - text needs to know, JSON does not
        take = self._item_taker(reading)

        def take_items(value: Any) -> Any:
            if not isinstance(value, list | tuple | set | frozenset):
                raise expected("a list", value)
            return take(value)

        return take_items

    def _item_taker(self, reading: Reading) -> Take:
        if reading.kind in (Kind.TUPLE, Kind.NAMED_TUPLE):
            return self._tuple(reading)
        (item,) = reading.parts
        structure = _alone(list_structure_factory(cast("type", GenericAlias(list, item)), self))
        build = _BUILD.get(reading.kind)
        if build is None:
            return structure

        def take(raw: Any) -> Any:
            value = build(structure(raw))
            if len(value) != len(raw) and self.unique:
                raise Fault("has the same item twice", raw)
            return value

        return take

    def _tuple(self, reading: Reading) -> Take:
        hooks = [self.get_structure_hook(part) for part in reading.parts]
        build = reading.form._make if reading.kind is Kind.NAMED_TUPLE else tuple

        def take(raw: Any) -> Any:
            if len(raw) != len(hooks):
                raise Fault(f"expected a list of {len(hooks)}, got one of {len(raw)}", raw)
            items: list[Any] = []
            errors: list[Exception] = []
            for place, (hook, item) in enumerate(zip(hooks, raw, strict=True)):
                try:
                    items.append(hook(item, None))
                except Exception as error:  # noqa: BLE001 - as cattrs does: every item's error is told
                    errors.append(at(place, error))
            if errors:
                raise IterableValidationError("", errors, tuple)
            return build(items)

        return take

    def _dict(self, reading: Reading) -> Take:
        key, value = reading.parts
        structure = _alone(mapping_structure_factory(dict[str, Any], self, key_type=Key(key), val_type=value))

        def take(raw: Any) -> Any:
            if not isinstance(raw, Mapping):
                raise expected("an object", raw)
            return structure(raw)

        return take

    def _class(self, form: type) -> Take:
        classes = self._classes
        if form not in classes:
            classes[form] = _too_early  # a class that contains itself finds its own name here, and looks again later
            classes[form] = self._structure_class(form)
        return lambda raw: classes[form](raw)  # noqa: PLW0108 - looked up when it is called

    def _structure_class(self, form: type) -> Take:
        """By way of an attrs class of the same fields, so that cattrs treats all sorts of classes alike."""
        fields = {f"f{place}": field for place, field in enumerate(fields_of(form))}
        stand_in = attrs.make_class(form.__name__, {name: _stand_in_field(field) for name, field in fields.items()})
        overrides: dict[str, Any] = {
            name: override(rename=field.key, struct_hook=self.get_structure_hook(field.annotation))
            for name, field in fields.items()
        }
        structure: Hook = make_dict_structure_fn(stand_in, self, _cattrs_use_linecache=False, **overrides)
        is_instance = _instance_test(form)

        def take(raw: Any) -> Any:
            if is_instance(raw):
                return raw
            if not isinstance(raw, Mapping):
                raise expected("an object", raw)
            found = structure(raw, stand_in)
            values = {field.argument: getattr(found, name) for name, field in fields.items()}
            return _construct(form, {name: value for name, value in values.items() if value is not ABSENT})

        return take


class TextConverter(JsonConverter):
    """Structures what came as text: of a query, a form, a path or a shell.

    A list is the occurrences of a key; a class, a dict, and a list in a list, are JSON in one text, where nothing is
    coerced any more.
    """

    __slots__ = ("_json",)

    unique = False

    def __init__(self, json: JsonConverter) -> None:
        super().__init__()
        self._json = json
        self.budget = json.budget

    def _union(self, members: list[Member]) -> Take:
        return union_from_text(members, self.budget)

    def _scalar(self, reading: Reading) -> Take:
        return from_text(reading)

    def _items(self, reading: Reading, *, nested: bool) -> Take:
        if nested:
            return _parsed(self._json._take(reading, nested=True))  # noqa: SLF001 - of its own base class
        take = self._item_taker(reading)
        return lambda raw: take(raw if isinstance(raw, list) else [raw])

    def _class(self, form: type) -> Take:
        return _parsed(self._json._class(form))  # noqa: SLF001 - of its own base class

    def _dict(self, reading: Reading) -> Take:
        return _parsed(self._json._dict(reading))  # noqa: SLF001 - of its own base class


def _alone(hook: Hook) -> Take:
    """A hook that knows its type already."""
    return lambda raw: hook(raw, None)


def _limited(take: Take, limits: tuple[Check, ...]) -> Take:
    if not limits:
        return take

    def take_limited(raw: Any) -> Any:
        value = take(raw)
        for test, message in limits:
            if not test(value):
                raise Fault(message, raw)
        return value

    return take_limited


def _hidden(take: Take) -> Take:
    def take_hidden(raw: Any) -> Secret:
        try:
            return Secret(take(raw))
        except Fault as fault:
            raise Fault(fault.message) from None  # without the value

    return take_hidden


def _parsed(take: Take) -> Take:
    def take_parsed(raw: Any) -> Any:
        value = single(raw)
        return take(parse(value) if isinstance(value, str) else value)

    return take_parsed


def parse(text: str) -> Any:
    """The value of a JSON text; Fault when it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Fault("is not valid JSON", text) from None


def _too_early(_: Any) -> Any:
    raise AssertionError("a class was used before it was read")  # pragma: no cover - no value comes before the end


def _stand_in_field(field: Field) -> Any:
    default = attrs.NOTHING if field.required else ABSENT
    return attrs.field(default=default, metadata={"key": field.key})


def _instance_test(form: type) -> Callable[[Any], bool]:
    if is_typeddict(form):  # which has no instances of its own
        return lambda _: False
    return lambda raw: isinstance(raw, form)


def _construct(form: type, values: dict[str, Any]) -> Any:
    """Make the object; what its own validators say reaches the client where it is a ValueError, one line of it."""
    try:
        return form(**values)
    except Exception as error:  # noqa: BLE001 - a validator may raise anything
        text = str(error.args[0]) if isinstance(error, ValueError) and error.args else ""
        raise Fault(text.partition("\n")[0][:_MAX_QUOTED] or "is not valid", quoted=True) from None
