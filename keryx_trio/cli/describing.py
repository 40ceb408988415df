"""What the help says of an input, out of its JSON Schema.

Owns: the words for types and constraints. Does not know: options, or how a value is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

MAX_SHOWN: Final = 60
"""Characters of a choice or a default that the help shows."""

_FORMATS: Final = {
    "uuid": "UUID",
    "date-time": "DATETIME",
    "date": "DATE",
    "time": "TIME",
    "duration": "DURATION",
    "binary": "FILE",
    "decimal": "NUMBER",
}
_TYPES: Final = {"integer": "INTEGER", "number": "NUMBER", "boolean": "true|false", "object": "JSON", "null": ""}
_EXAMPLES: Final = {
    "DATETIME": "such as 2026-01-31T12:00:00Z",
    "DATE": "such as 2026-01-31",
    "TIME": "such as 12:00:00",
    "DURATION": "such as PT30S",
}


def metavar(schema: Schema, classes: Schema) -> str:
    """The word that stands for a value: `TEXT`, `INTEGER`, `[asc|desc]`."""
    if "$ref" in schema:
        return "JSON"
    if "anyOf" in schema:
        words = dict.fromkeys(metavar(each, classes) for each in schema["anyOf"])
        return "|".join(word for word in words if word)
    if "enum" in schema or "const" in schema:
        names = "|".join(_plain(value) for value in schema.get("enum", [schema.get("const")]))
        return f"[{names}]" if len(names) <= MAX_SHOWN else "CHOICE"
    if schema.get("type") == "array":
        of = [schema["items"]] if "items" in schema else schema.get("prefixItems", [])
        words = dict.fromkeys(metavar(each, classes) if each.get("type") != "array" else "JSON" for each in of)
        return "|".join(words) or "TEXT"
    if "contentEncoding" in schema:
        return "BASE64"
    return _FORMATS.get(schema.get("format", ""), _TYPES.get(schema.get("type", ""), "TEXT"))


def constraints(schema: Schema, classes: Schema) -> list[str]:
    """What holds for a value, in words: `1 to 4000 characters`, `0 or more`, `default: 7`."""
    return [*dict.fromkeys(_limits(schema, classes)), *_default(schema)]


def _limits(schema: Schema, classes: Schema) -> Iterator[str]:
    for each in schema.get("anyOf", ()):
        yield from _limits(each, classes)
    if "$ref" in schema:
        yield from _keys(classes[schema["$ref"].rpartition("/")[2]])
    if len(names := "|".join(map(_plain, schema.get("enum", ())))) > MAX_SHOWN:
        yield f"one of {names.replace('|', ', ')}"
    if (word := metavar(schema, classes)) in _EXAMPLES:
        yield _EXAMPLES[word]
    yield from _bounds(schema)
    yield from _span(schema, "minLength", "maxLength", "character")
    yield from _span(schema, "minProperties", "maxProperties", "key")
    if "pattern" in schema:
        yield f"matches {schema['pattern']}"
    if schema.get("type") == "array":
        yield "may be repeated"
        if schema.get("uniqueItems"):
            yield "no item counts twice"
        yield from _span(schema, "minItems", "maxItems", "item")
        for each in [schema["items"]] if "items" in schema else schema.get("prefixItems", []):
            yield from _limits(each, classes)


def _keys(definition: Schema) -> Iterator[str]:
    """The keys of an object."""
    required = definition.get("required", [])
    names = [name if name in required else f"{name}?" for name in definition.get("properties", {})]
    if names:
        yield f"keys: {', '.join(names)}"


def _bounds(schema: Schema) -> Iterator[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        yield f"{least} to {most}"
    elif least is not None:
        yield f"{least} or more"
    elif most is not None:
        yield f"{most} or less"
    if (bound := schema.get("exclusiveMinimum")) is not None:
        yield f"more than {bound}"
    if (bound := schema.get("exclusiveMaximum")) is not None:
        yield f"less than {bound}"
    if "multipleOf" in schema:
        yield f"a multiple of {schema['multipleOf']}"


def _span(schema: Schema, least: str, most: str, what: str) -> Iterator[str]:
    low, high = schema.get(least), schema.get(most)
    if low is not None and low == high:
        yield f"{low} {what}{'s' if low != 1 else ''}"
    elif low is not None and high is not None:
        yield f"{low} to {high} {what}s"
    elif low:
        yield f"{low} {what}{'s' if low != 1 else ''} or more"
    elif high is not None:
        yield f"{high} {what}{'s' if high != 1 else ''} or less"


def _default(schema: Schema) -> Iterator[str]:
    if schema.get("default") in (None, "", []):
        return
    text = _plain(schema["default"])
    yield f"default: {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}"


def _plain(value: object) -> str:
    """A text as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
