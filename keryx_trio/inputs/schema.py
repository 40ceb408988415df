"""JSON Schema 2020-12 from the annotations that structure inputs.

Owns: how each kind of type is described. Does not know: actions, OpenAPI, transports.

Invariant: a schema accepts the JSON values that structuring accepts, apart from what JSON Schema cannot say: formats
are not checked by most validators, the bounds of a Decimal in text, the length of bytes before base64, `tz`, and what
a class's own validators refuse. It shows no secret.
"""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec

from .annotations import ABSENT, Field, Kind, Reading, choices, fields_of, read
from .redaction import has_secret
from .scalars import INTEGER_KEY, as_text

Schema = dict[str, Any]

_SCALARS: Final[Mapping[Kind, Schema]] = {
    Kind.ANY: {},
    Kind.NONE: {"type": "null"},
    Kind.INT: {"type": "integer"},
    Kind.FLOAT: {"type": "number"},
    Kind.BOOL: {"type": "boolean"},
    Kind.STR: {"type": "string"},
    Kind.UUID: {"type": "string", "format": "uuid"},
    Kind.DATETIME: {"type": "string", "format": "date-time"},
    Kind.DATE: {"type": "string", "format": "date"},
    Kind.TIME: {"type": "string", "format": "time"},
    Kind.DURATION: {"type": "string", "format": "duration"},
    Kind.BYTES: {"type": "string", "contentEncoding": "base64"},
    Kind.UPLOAD: {"type": "string", "format": "binary"},
}
_BOUNDS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_TEXT: Final = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
_ITEMS: Final = {"min_length": "minItems", "max_length": "maxItems"}
_PROPERTIES: Final = {"min_length": "minProperties", "max_length": "maxProperties"}
_LIMITS: Final[Mapping[Kind, Mapping[str, str]]] = {
    Kind.INT: _BOUNDS,
    Kind.FLOAT: _BOUNDS,
    Kind.STR: _TEXT,
    Kind.LIST: _ITEMS,
    Kind.SET: _ITEMS,
    Kind.FROZENSET: _ITEMS,
    Kind.VARIADIC: _ITEMS,
    Kind.DICT: _PROPERTIES,
}
_TYPE_NAMES: Final = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
_FACTORY: Final[Any] = type(attrs.Factory(list))  # attrs.Factory itself, which is typed as a function
_SIMPLE_FACTORIES: Final = (list, dict, set, frozenset, tuple, str, int, float, bool)
"""Called for the default they make; any other factory could make something else each time."""


def inputs_schema(fields: list[Field]) -> Schema:
    """The schema of the object that holds an action's inputs."""
    describer = Describer()
    return describer.finish(describer.fields(fields))


def type_schema(annotation: Any) -> Schema | None:
    """The schema of what is sent as this type: a return annotation's, or an event's; None for what is not JSON."""
    try:
        return describe(annotation, output=True)
    except (TypeError, RecursionError):
        return None


def describe(annotation: Any, *, output: bool = False) -> Schema:
    """The schema of one type, with its classes under `$defs`.

    Args:
        annotation: any type that an input may have.
        output: whether it describes what is sent, which is narrower than what is taken: a Decimal goes out as text.

    Raises:
        TypeError: inputs cannot have this type.
    """
    describer = Describer(output=output)
    return describer.finish(describer.schema(annotation))


class Describer:
    """Walks types and collects the classes on the way.

    Args:
        output: whether it describes what is sent; see `describe`.
        place: where the classes will be found, as the beginning of a `$ref`.
        name: gives each class its name; by default its own, with a number where that is taken.

    Attributes:
        definitions: the classes by their names.
    """

    def __init__(
        self, *, output: bool = False, place: str = "#/$defs/", name: Callable[[type], str] | None = None
    ) -> None:
        self._output = output
        self._place = place
        self._name = name or self._free_name
        self._names: dict[type, str] = {}
        self.definitions: dict[str, Schema] = {}

    def finish(self, schema: Schema) -> Schema:
        """The schema with all classes that it refers to."""
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    @property
    def inner(self) -> Describer:
        """What describes the items of a list."""
        return self

    def schema(self, annotation: Any) -> Schema:
        """The schema of one type; raises as `describe`."""
        reading = read(annotation)
        schema = (_sent(reading) or self._bare(reading)) if self._output else self._bare(reading) | _limits(reading)
        if reading.secret:
            schema |= {"format": "password", "writeOnly": True}
        for meta in reading.metas:
            schema |= _documentation(meta, hide=reading.secret)
        return schema

    def fields(self, fields: list[Field]) -> Schema:
        """An object with these properties; others are allowed, they are ignored."""
        schema: Schema = {"type": "object", "properties": {field.key: self.property(field) for field in fields}}
        if required := [field.key for field in fields if field.required]:
            schema["required"] = required
        return schema

    def property(self, field: Field) -> Schema:
        """The schema of one field, with its default where that has a JSON form."""
        schema = self.schema(field.annotation)
        hidden = field.default is not None and has_secret(field.annotation)
        if field.required or field.default is ABSENT or hidden:
            return schema
        try:
            return schema | {"default": _default(field.default)}
        except (TypeError, ValueError):  # no JSON form, or not known before the call
            return schema

    def _bare(self, reading: Reading) -> Schema:  # noqa: PLR0911 - one line a kind
        parts = reading.parts
        match reading.kind:
            case Kind.CLASS:
                return {"$ref": self._place + self._define(reading.form)}
            case Kind.LITERAL | Kind.ENUM:
                return _choices(reading)
            case Kind.UNION:
                return {"anyOf": [self.schema(part) for part in parts]}
            case Kind.DECIMAL:
                return self._decimal(reading)
            case Kind.DICT:
                return {"type": "object", **_keys(parts[0], self), "additionalProperties": self.schema(parts[1])}
            case Kind.TUPLE | Kind.NAMED_TUPLE:
                return self._tuple(parts)
            case Kind.SET | Kind.FROZENSET:
                return {"type": "array", "items": self.inner.schema(parts[0]), "uniqueItems": True}
            case Kind.LIST | Kind.VARIADIC:
                return {"type": "array", "items": self.inner.schema(parts[0])}
        return dict(_SCALARS[reading.kind])

    def _define(self, form: type) -> str:
        if form in self._names:
            return self._names[form]
        name = self._names[form] = self._name(form)
        definition = self.definitions[name] = {}  # takes its name, and its place, before the classes in it
        if description := _docstring(form):
            definition["description"] = description
        definition |= self.fields(fields_of(form))
        return name

    def _free_name(self, form: type) -> str:
        name, number = form.__name__, 2
        while name in self.definitions:
            name, number = f"{form.__name__}_{number}", number + 1
        return name

    def _decimal(self, reading: Reading) -> Schema:
        text = {"type": "string", "format": "decimal"}
        if self._output:
            return text
        bounds = {_BOUNDS[name]: limit for name, limit in reading.limits.items()}
        return {"anyOf": [text, {"type": "number", **bounds}]}

    def _tuple(self, parts: tuple[Any, ...]) -> Schema:
        if not parts:
            return {"type": "array", "maxItems": 0}
        size = len(parts)
        items = [self.inner.schema(part) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}


def _sent(reading: Reading) -> Schema | None:
    """What is sent in another form than it is taken. None of it has been checked, so limits say nothing of it."""
    if reading.kind is Kind.FLOAT:
        return {"type": ["number", "null"]}  # one that is no number goes out as null
    if reading.kind is Kind.ENUM and issubclass(reading.form, enum.Flag):
        return {"type": "integer"}  # any combination
    return None


def _limits(reading: Reading) -> Schema:
    names = _LIMITS.get(reading.kind, {})
    return {names[name]: limit for name, limit in reading.limits.items() if name in names}


def _choices(reading: Reading) -> Schema:
    forms = [form for form, _ in choices(reading)]
    types = {type(form) for form in forms}
    schema: Schema = {"type": _TYPE_NAMES[types.pop()]} if len(types) == 1 else {}
    return schema | ({"const": forms[0]} if len(forms) == 1 else {"enum": forms})


def _keys(annotation: Any, describer: Describer) -> Schema:
    """Of the keys of a dict, which are text in JSON; nothing where any text will do."""
    reading = read(annotation)
    match reading.kind:
        case Kind.INT:
            names: Schema = {"pattern": INTEGER_KEY}
        case Kind.LITERAL | Kind.ENUM:
            names = {"enum": [as_text(form) for form, _ in choices(reading)]}
        case _:
            names = describer.schema(annotation)
    return {} if names == {"type": "string"} else {"propertyNames": names}


def _documentation(meta: msgspec.Meta, *, hide: bool) -> Schema:
    told: Schema = {"title": meta.title, "description": meta.description, "examples": None if hide else meta.examples}
    return {name: value for name, value in told.items() if value is not None} | (meta.extra_json_schema or {})


def _default(default: Any) -> Any:
    if isinstance(default, _FACTORY):
        if default.factory not in _SIMPLE_FACTORIES:
            raise TypeError("what a factory makes is not known before it is called")
        default = default.factory()
    value = msgspec.to_builtins(default, str_keys=True, order="deterministic")
    return json.loads(json.dumps(value, allow_nan=False))


def _docstring(form: type) -> str:
    """What the author wrote; a dataclass without a docstring gets its signature as one."""
    text = form.__dict__.get("__doc__") or ""
    return "" if text.startswith(f"{form.__name__}(") else inspect.cleandoc(text)
