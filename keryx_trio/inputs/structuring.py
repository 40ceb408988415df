"""From raw values to typed ones: a converter for JSON and one for text.

Owns: what takes the values of a type in each mode, for containers, classes and unions. Does not know: actions,
secrets' names, or how faults are told.

Invariant: it either returns a value that fits its annotation, limits included, or raises; it never shows or keeps what
it was given. The time it takes is linear in the size of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, is_typeddict

import attrs
import msgspec
from cattrs import BaseConverter
from cattrs.errors import IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from .annotations import ABSENT, ITEMS, Field, Kind, Reading, Secret, fields_of, read, readings
from .faults import INVALID, Check, Fault, at, checks, expected
from .scalars import Take, as_key, from_json, from_text, single
from .unions import Member, Work, ordered, union_from_json, union_from_text

Hook = Callable[[Any, Any], Any]
"""What cattrs calls for a value: with the raw value and its type."""

MAX_ALIKE: Final = 32
"""Different items of a set, or keys of a dict, that may have one hash. By chance there are not even two."""

_SEEDED: Final = frozenset({Kind.STR, Kind.BYTES, Kind.DATE, Kind.ENUM, Kind.LITERAL, Kind.BOOL, Kind.NONE})
"""The kinds whose hashes nobody can choose: Python salts them, or there are few values."""

_CATTRS: Final = BaseConverter()
"""Reads the fields of classes, each with the hook that it is given; of its own dispatch nothing is used, which would
take a str Enum for a str."""

_BUILD: Final[Mapping[Kind, Callable[[Any], Any]]] = {Kind.SET: set, Kind.FROZENSET: frozenset, Kind.VARIADIC: tuple}


class JsonConverter:
    """Structures JSON values, and values that have been structured before (an action calling another)."""

    unique = True
    """Whether a set refuses an item that is given twice, as its schema does."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._classes: dict[type, Take] = {}

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
        return union_from_json(members, self._work)

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
        take_item = self.take(read(reading.parts[0]), nested=True)
        build = _BUILD.get(reading.kind)
        if build is None:
            return lambda raw: self._each(take_item, enumerate(raw))
        if build is tuple:
            return lambda raw: tuple(self._each(take_item, enumerate(raw)))
        is_open = _has_open_hash(reading.parts[0])

        def take(raw: Any) -> Any:
            items = self._each(take_item, enumerate(raw))
            if is_open:
                _refuse_alike(items)
            value = build(items)
            if len(value) != len(raw) and self.unique:
                raise Fault("has the same item twice", raw)
            return value

        return take

    def _tuple(self, reading: Reading) -> Take:
        takes = [self.take(read(part), nested=True) for part in reading.parts]
        build = reading.form._make if reading.kind is Kind.NAMED_TUPLE else tuple

        def take(raw: Any) -> Any:
            if len(raw) != len(takes):
                raise Fault(f"expected a list of {len(takes)}, got one of {len(raw)}", raw)
            return build(self._each(_take_pair, enumerate(zip(takes, raw, strict=True))))

        return take

    def _each(self, take: Take, items: Iterable[tuple[int | str, Any]]) -> list[Any]:
        """What is made of all items, each given with its place; or the faults of all, as many as there is room for."""
        made: list[Any] = []
        errors: list[Exception] = []
        for place, item in items:
            try:
                made.append(take(item))
            except Exception as error:  # noqa: BLE001 - as cattrs does: every item's error is told
                errors.append(at(place, error))
                if not self._work.has_room(error):
                    break
        if errors:
            raise IterableValidationError("", errors, list)
        return made

    def _dict(self, reading: Reading) -> Take:
        key, value = reading.parts
        take_key = self.key(read(key))
        take_value = self.take(read(value), nested=True)
        is_open = _has_open_hash(key)

        def take_item(item: tuple[Any, Any]) -> tuple[Any, Any]:
            return take_key(item[0]), take_value(item[1])

        def take(raw: Any) -> Any:
            if not isinstance(raw, Mapping):
                raise expected("an object", raw)
            items = self._each(take_item, zip(raw, raw.items(), strict=True))
            if is_open:
                _refuse_alike([key for key, _ in items])
            return dict(items)

        return take

    def _class(self, form: type) -> Take:
        classes = self._classes
        if form not in classes:
            classes[form] = _too_early  # a class that contains itself finds its own name here, and looks again later
            classes[form] = self._structure_class(form)
        return lambda raw: self._work.once(form, classes[form], raw)

    def _structure_class(self, form: type) -> Take:
        """By way of an attrs class of the same fields, so that cattrs treats all sorts of classes alike."""
        fields = {f"f{place}": field for place, field in enumerate(fields_of(form))}
        stand_in_fields = {name: _stand_in_field(field) for name, field in fields.items()}
        stand_in = attrs.make_class(form.__name__, stand_in_fields, eq=False, repr=False)  # which takes half the time
        overrides: dict[str, Any] = {
            name: override(rename=field.key, struct_hook=_hook(self.take(read(field.annotation), nested=True)))
            for name, field in fields.items()
        }
        structure: Hook = make_dict_structure_fn(stand_in, _CATTRS, _cattrs_use_linecache=False, **overrides)
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

    unique = False

    def __init__(self, json: JsonConverter, work: Work) -> None:
        super().__init__(work)
        self._json = json

    def _union(self, members: list[Member]) -> Take:
        return union_from_text(members, self._work)

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


def _hook(take: Take) -> Hook:
    return lambda raw, _: take(raw)


def _take_pair(pair: tuple[Take, Any]) -> Any:
    take, item = pair
    return take(item)


def _has_open_hash(annotation: Any) -> bool:
    return any(reading.kind not in _SEEDED for reading in readings(annotation))


def _refuse_alike(items: Collection[Any]) -> None:
    """A fault where too many different items have one hash.

    The hash of a number, and so of a UUID, is its remainder: whoever chooses the numbers chooses it, and a set of
    numbers that all have one takes quadratic time. Here items are compared with few others, whatever they are.
    """
    if max(Counter(map(hash, items)).values(), default=0) <= MAX_ALIKE:
        return
    alike: dict[int, list[Any]] = {}
    for item in items:
        group = alike.setdefault(hash(item), [])
        if item not in group:
            group.append(item)
            if len(group) > MAX_ALIKE:
                raise Fault("has too many items that are alike to a computer: they have one hash")


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
    """Make the object; what its own validators say is quoted where it is a ValueError, uncut until secrets are out."""
    try:
        return form(**values)
    except Exception as error:  # noqa: BLE001 - a validator may raise anything
        text = str(error.args[0]) if isinstance(error, ValueError) and error.args else ""
        raise Fault(text or INVALID, quoted=True) from None
