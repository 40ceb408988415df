"""A machine that reads the document: what it says can be asked, and whether an answer is as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs
import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012

METHODS: Final = ("get", "post", "put", "patch", "delete", "options")
HERE: Final = "urn:document"
SAMPLES: Final = {
    "uuid": "7b0f6a0e-6d3c-4a5e-8f5c-1f1f6f0c9a11",
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00",
    "duration": "PT30S",
    "decimal": "1.50",
    "password": "secret",
}


def _content(validator: Any, inner: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Text that holds JSON is read, which JSON Schema leaves to who wants it."""
    assert schema["contentMediaType"] == "application/json"
    try:
        value = json.loads(instance)
    except (TypeError, ValueError) as error:
        yield jsonschema.ValidationError(f"{instance!r} is no JSON: {error}")
    else:
        yield from validator.descend(value, inner)


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"contentSchema": _content})


@attrs.frozen
class Operation:
    path: str
    method: str
    told: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@attrs.frozen
class Request:
    """What to send."""

    target: str
    headers: Mapping[str, str]
    kind: str = ""
    body: Any = None


@attrs.frozen
class Document:
    whole: Mapping[str, Any]
    _registry: Any = attrs.field(init=False, repr=False)

    @_registry.default
    def _make_registry(self) -> Any:
        resource = referencing.Resource.from_contents(self.whole, default_specification=DRAFT202012)
        return referencing.Registry().with_resource(HERE, resource)

    def operations(self) -> list[Operation]:
        items = self.whole["paths"].items()
        return [Operation(path, method, item[method]) for path, item in items for method in METHODS if method in item]

    def resolve(self, value: Any) -> Any:
        while "$ref" in value:
            found: Any = self.whole
            for key in value["$ref"].removeprefix("#/").split("/"):
                found = found[key]
            value = {**found, **{key: inner for key, inner in value.items() if key != "$ref"}}
        return value

    def check(self, schema: Mapping[str, Any], value: Any) -> None:
        """Raises jsonschema.ValidationError where a value does not fit."""
        absolute = json.loads(json.dumps(schema).replace('"$ref": "#/', f'"$ref": "{HERE}#/'))
        Validator(absolute, registry=self._registry).validate(value)

    # Asking

    def sample(self, schema: Any, *, whole: bool = True) -> Any:
        """A value of a schema; `whole` has what may be left out, too."""
        schema = self.resolve(schema)
        told = [schema[key][0] for key in ("examples", "enum") if key in schema]
        told += [schema[key] for key in ("const", "default") if key in schema]
        if told and not (whole and told[0] in (None, [])):
            return told[0]
        if "anyOf" in schema:
            return self.sample(schema["anyOf"][0], whole=whole)
        if "contentSchema" in schema:
            return json.dumps(self.sample(schema["contentSchema"], whole=whole))
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            return self._object(schema, whole=whole)
        return self._array(schema, whole=whole) if kind == "array" else _scalar(kind, schema)

    def _array(self, schema: Any, *, whole: bool) -> list[Any]:
        if "prefixItems" in schema:
            return [self.sample(item, whole=whole) for item in schema["prefixItems"]]
        return [self.sample(schema["items"], whole=False)] if whole else []

    def _object(self, schema: Any, *, whole: bool) -> dict[str, Any]:
        if isinstance(schema.get("additionalProperties"), dict):
            return {"key": self.sample(schema["additionalProperties"])}
        names = schema["properties"] if whole else schema.get("required", [])
        return {name: self.sample(schema["properties"][name], whole=False) for name in names}

    def requests(self, operation: Operation, *, whole: bool) -> Iterator[Request]:
        """One for each content type of the body, or one."""
        target, headers, query = operation.path, {}, []
        for each in map(self.resolve, operation.told.get("parameters", [])):
            if not (whole or each.get("required")):
                continue
            schema = each["schema"] if "schema" in each else each["content"]["application/json"]["schema"]
            value = self.sample(schema, whole=whole)
            if each["in"] == "path":
                target = target.replace(f"{{{each['name']}}}", text(value))
            elif each["in"] == "header":
                headers[each["name"]] = value
            else:
                values = value if isinstance(value, list) and "schema" in each else [value]
                query += [f"{quote(each['name'])}={quote(text(item))}" for item in values]
        target += f"?{'&'.join(query)}" if query else ""
        content = operation.told.get("requestBody", {}).get("content", {})
        for kind, media in content.items():
            schema = {key: value for key, value in media["schema"].items() if key != "examples"}
            body = self.sample(schema, whole=whole)
            encoding = media.get("encoding", {})
            if kind != "application/json":
                body = {key: text(value) if key in encoding else value for key, value in body.items()}
            yield Request(target, headers, kind, body)
        if not content:
            yield Request(target, headers)

    # What is answered

    def response(self, operation: Operation, status: int) -> Any:
        told = operation.told["responses"]
        return self.resolve(told.get(str(status), told["default"]))

    def check_answer(self, operation: Operation, answer: Any) -> None:
        """Whether an answer of `keryx_trio.testing` is one that is told."""
        told = self.response(operation, answer.status)
        for name, reference in told["headers"].items():
            header = self.resolve(reference)
            assert name in answer.headers or not header.get("required"), f"{operation}: no {name}"
            if name in answer.headers:
                value: Any = answer.headers[name]
                self.check(header["schema"], int(value) if header["schema"]["type"] == "integer" else value)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        content = told.get("content", {})
        if not content:
            assert answer.body == b""
            return
        assert kind in content or "*/*" in content, f"{operation}: {answer.status} with {kind}"
        media = content.get(kind, {})
        if kind == "text/event-stream":
            for event in answer.events():
                self.check(media.get("itemSchema", media.get("schema")), event_object(event))
        elif kind == "application/json" and "schema" in media:
            self.check(media["schema"], answer.json())


def _scalar(kind: str | None, schema: Mapping[str, Any]) -> Any:
    match kind:
        case "string":
            return SAMPLES.get(schema.get("format", ""), "") or "x" * max(1, schema.get("minLength", 0))
        case "integer" | "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return True
    return {"any": ["value"]} if kind is None else None


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def event_object(event: Any) -> dict[str, Any]:
    """An event as OpenAPI models it."""
    told = {"event": event.event, "data": event.data, "id": event.id, "retry": getattr(event, "retry", None)}
    return {name: value for name, value in told.items() if value is not None}
