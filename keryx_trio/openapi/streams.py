"""The schemas of events, as OpenAPI 3.2 models them: an object of the fields of each (section 4.14.4).

Owns: the union of a stream's events by name. Does not know: which action sends them, or how an event is written.

Comments are no events, and neither is the `retry` with which a stream ends at a shutdown: readers skip both.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from ..events import UNNAMED, EventType, EventTypes
from ..inputs.schema import Schema
from ..inputs.text_schema import JSON
from .components import Components

ERROR: Final = "error"
TEXT: Final[Schema] = {"type": "string"}
REST: Final[dict[str, Schema]] = {
    "id": {"type": "string", "description": "What a reconnecting reader sends back as `Last-Event-ID`."},
    "retry": {"type": "integer", "minimum": 0, "description": "When to reconnect, in milliseconds."},
}


def untyped_event() -> Schema:
    """An event of a stream that describes none."""
    properties = {"event": TEXT, "data": {**TEXT, "description": "Text, or JSON."}, **REST}
    description = "A server-sent event; one named `error` tells that the stream failed."
    return {"type": "object", "description": description, "properties": properties, "required": ["data"]}


def event_schema(action: str, types: EventTypes, payload: Schema, components: Components) -> Schema:
    """A reference to the union of a stream's events.

    Args:
        action: its name, which names the union.
        types: what it may send.
        payload: the schema of what an error is told by, which any stream may send last.
    """
    failed = _json(payload)
    items = [_event(each, [*_data(each, components), *([failed] if each.name == ERROR else ())]) for each in types]
    if all(each.name != ERROR for each in types):
        own = {**TEXT, "description": "What the action says in its place."}
        event = _object(ERROR, {**TEXT, "anyOf": [failed, own]}, "The stream failed, and has ended.")
        items.append(components.add_schema("ErrorEvent", event))
    words = re.findall(r"[A-Za-z0-9]+", action)
    name = "".join(word[0].upper() + word[1:] for word in words) + "Event"
    # One without a name may lack the field that tells them apart, for which linters want the weaker word.
    union = "anyOf" if any(each.name == UNNAMED for each in types) else "oneOf"
    return components.add_schema(name, {"description": f"An event of `{action}`.", union: items})


def _data(event: EventType, components: Components) -> list[Schema]:
    data = [components.sent.schema(text) for text in event.text]
    return data if event.json is attrs.NOTHING else [*data, _json(components.sent.schema(event.json))]


def _json(schema: Schema) -> Schema:
    return {**TEXT, "contentMediaType": JSON, "contentSchema": schema}


def _event(event: EventType, data: list[Schema]) -> Schema:
    return _object(event.name, data[0] if len(data) == 1 else {"anyOf": data})


def _object(name: str, data: Schema, description: str = "") -> Schema:
    properties: dict[str, Any] = {"event": {"type": "string", "const": name}, "data": data, **REST}
    required = ["data"] if name == UNNAMED else ["event", "data"]
    told = {"description": description} if description else {}
    return {"type": "object", **told, "title": name, "properties": properties, "required": required}
