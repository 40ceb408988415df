"""What an operation takes: its parameters and its body, as `transports.http_inputs` reads them.

Owns: where each input stands. A method without a body takes its inputs from the query. Does not know: answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ..inputs.annotations import Field, Kind, readings
from ..inputs.schema import Schema
from ..inputs.text_schema import JSON, is_json
from .components import Components

if TYPE_CHECKING:
    from ..action import Action

URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
BODILESS: Final = frozenset({"GET", "DELETE", "OPTIONS"})


class Request:
    """What one operation takes.

    Args:
        action: which takes it.
        method: by which.
        places: the names of the path's parameters as this document has them, in their order.
        components: where shared schemas go.
    """

    def __init__(self, action: Action[..., Any], method: str, places: Sequence[str], components: Components) -> None:
        self._components = components
        fields = {p.name: Field(p.name, p.name, p.name, p.annotation, p.default) for p in action.inputs.parameters}
        own = action.web.parameters if action.web else ()
        self._path = [(place, fields.pop(name)) for place, name in zip(places, own, strict=True)]
        rest = list(fields.values())
        has_body = method not in BODILESS or any(map(_has_file, rest))
        self._query, self._body = ([], rest) if has_body else (rest, [])

    @property
    def is_empty(self) -> bool:
        """Whether it takes nothing at all."""
        return not (self._path or self._query or self._body)

    @property
    def has_body(self) -> bool:
        """Whether it takes a body."""
        return bool(self._body)

    def describe(self) -> dict[str, Any]:
        """Its part of the operation."""
        told: dict[str, Any] = {}
        parameters = [self._in_path(name, field) for name, field in self._path] + list(map(self._in_query, self._query))
        if parameters:
            told["parameters"] = parameters
        if self._body:
            told["requestBody"] = self._request_body()
        return told

    def _in_path(self, name: str, field: Field) -> dict[str, Any]:
        schema = self._components.text.property(field)
        schema.pop("default", None)  # it is always given
        if schema.get("type") == "array":
            schema |= {"maxItems": 1}  # a segment is one value
        elif schema.get("type") == "string" and schema.keys().isdisjoint({"format", "enum", "const", "pattern"}):
            schema["minLength"] = max(1, schema.get("minLength", 1))  # a path without it is another path
        return _parameter("path", name, schema, required=True)

    def _in_query(self, field: Field) -> dict[str, Any]:
        if is_json(field.annotation):
            schema = self._components.taken.property(field)
            return _parameter("query", field.key, schema, required=field.required, is_json=True)
        schema = self._components.text.property(field)
        if field.required and schema.get("type") == "array":
            schema["minItems"] = max(1, schema.get("minItems", 1))  # an empty list is no key at all
        return _parameter("query", field.key, schema, required=field.required)

    def _request_body(self) -> dict[str, Any]:
        files = [field for field in self._body if _has_file(field)]
        content: dict[str, Any] = {}
        if not any(field.required for field in files):
            plain = [field for field in self._body if field not in files]
            content = {JSON: {"schema": self._components.taken.fields(plain)}, URLENCODED: self._form(plain)}
        if files:
            content[MULTIPART] = self._form(self._body)
        body: dict[str, Any] = {"content": content}
        if any(field.required for field in self._body):
            body["required"] = True
        return body

    def _form(self, fields: list[Field]) -> dict[str, Any]:
        properties: dict[str, Schema] = {}
        encoding: dict[str, Any] = {}
        for field in fields:
            if is_json(field.annotation):
                properties[field.key] = self._components.taken.property(field)
                encoding[field.key] = {"contentType": JSON}
            else:
                properties[field.key] = self._components.text.property(field)
            if field.required and properties[field.key].get("type") == "array":
                properties[field.key]["minItems"] = max(1, properties[field.key].get("minItems", 1))
        schema: Schema = {"type": "object", "properties": properties}
        if required := [field.key for field in fields if field.required]:
            schema["required"] = required
        return {"schema": schema, **({"encoding": encoding} if encoding else {})}


def _parameter(place: str, name: str, schema: Schema, *, required: bool, is_json: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "in": place}
    if description := schema.pop("description", None):
        told["description"] = description
    if required:
        told["required"] = True
    return {**told, **({"content": {JSON: {"schema": schema}}} if is_json else {"schema": schema})}


def _has_file(field: Field) -> bool:
    return any(reading.kind is Kind.UPLOAD for reading in readings(field.annotation))
