"""JSON Schema of what comes as text: in a query, a form or a path.

Owns: how the text forms differ from those in JSON, as `structuring.TextConverter` takes them. Does not know: where a
text stands.
"""

from __future__ import annotations

from typing import Any, Final

from .annotations import ITEMS, Field, Kind, Reading, read
from .schema import Describer, Schema

JSON: Final = "application/json"
_OBJECTS: Final = frozenset({Kind.CLASS, Kind.DICT})


def is_json(annotation: Any) -> bool:
    """Whether the text for this type is JSON, whatever it is: an object, which may be null."""
    reading = read(annotation)
    kinds = {read(part).kind for part in reading.parts} if reading.kind is Kind.UNION else {reading.kind}
    return bool(kinds - {Kind.NONE}) and kinds <= _OBJECTS | {Kind.NONE}


class TextDescriber(Describer):
    """Describes text: a list is a repeated key, an object is JSON, and there is no null.

    Args:
        json: describes what is JSON in a text.
        nested: whether the text is an item of a list, in which another list is JSON.
    """

    def __init__(self, json: Describer, *, nested: bool = False) -> None:
        super().__init__()
        self._json = json
        self._nested = nested

    @property
    def inner(self) -> Describer:
        """What describes the items of a list."""
        return TextDescriber(self._json, nested=True)

    def schema(self, annotation: Any) -> Schema:
        """The schema of the text for a type; of an array for a list, whose items are repeated."""
        reading = read(annotation)
        if reading.kind in _OBJECTS or (self._nested and reading.kind in ITEMS):
            return {"type": "string", "contentMediaType": JSON, "contentSchema": self._json.schema(annotation)}
        schema = super().schema(annotation)
        schema.pop("uniqueItems", None)  # in text an item may come twice, and counts once
        return schema

    def property(self, field: Field) -> Schema:
        """The schema of one field; a default that is no text is left out."""
        schema = super().property(field)
        if schema.get("default", "") is None or isinstance(schema.get("default"), dict):
            del schema["default"]
        return schema

    def _bare(self, reading: Reading) -> Schema:
        if reading.kind is Kind.ANY:
            return {"type": "string"}
        if reading.kind is Kind.UNION:
            members = [part for part in reading.parts if read(part).kind is not Kind.NONE]
            return self.schema(members[0]) if len(members) == 1 else {"anyOf": [self.schema(each) for each in members]}
        return super()._bare(reading)
