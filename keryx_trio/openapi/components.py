"""What operations share: the schemas of classes under names of their own, and the headers and answers that are ours.

Owns: the names under `components`. Does not know: which operations there are.

Invariant: a name does not depend on the order in which classes are found, and two classes never share one. A class is
its own name; where that is taken it is `module.Class`. What is taken differs from what is sent for some (a float may
be sent as null): then the one that is taken is `ClassInput`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ..inputs.annotations import readings
from ..inputs.schema import Describer, Schema
from ..inputs.text_schema import TextDescriber

SCHEMAS: Final = "#/components/schemas/"
_TEMPORARY: Final = f"{SCHEMAS}:"
"""The beginning of a reference to a class until all are known; no name may have a colon in it."""


class Components:
    """Collects what is shared while a document is made.

    Attributes:
        taken: describes JSON that is taken.
        sent: describes JSON that is sent.
        text: describes text that is taken.
        schemas: the schemas that are no classes, by name.
    """

    def __init__(self) -> None:
        self._forms: dict[str, type] = {}  # by temporary names
        self.taken = Describer(place=_TEMPORARY, name=lambda form: self._temporary("taken", form))
        self.sent = Describer(output=True, place=_TEMPORARY, name=lambda form: self._temporary("sent", form))
        self.text = TextDescriber(self.taken)
        self.schemas: dict[str, Schema] = {}
        self.shared: dict[str, dict[str, Any]] = {}

    def schema_of_sent(self, annotation: Any) -> Schema:
        """The schema of a type that is sent; of anything, where it has none."""
        try:
            for _ in readings(annotation):
                pass  # first, so that no half of a class is left where the rest of it cannot be described
            return self.sent.schema(annotation)
        except TypeError:
            return {}

    def add_schema(self, name: str, schema: Schema) -> Schema:
        """Put a schema under a name, and return the reference to it."""
        self.schemas[name] = schema
        return {"$ref": SCHEMAS + name}

    def share(self, kind: str, name: str, value: Any) -> dict[str, str]:
        """Put a header, an answer or the like under a name, and return the reference to it."""
        self.shared.setdefault(kind, {})[name] = value
        return {"$ref": f"#/components/{kind}/{name}"}

    def finish(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document with everything that is shared in it."""
        definitions = {**self.taken.definitions, **self.sent.definitions}
        names = self._names(definitions)
        classes = {names[key]: definition for key, definition in definitions.items()}
        schemas = dict(sorted({**classes, **self.schemas}.items()))
        kinds = {"schemas": schemas, **{kind: dict(sorted(found.items())) for kind, found in self.shared.items()}}
        components = {kind: found for kind, found in sorted(kinds.items()) if found}
        finished: dict[str, Any] = _renamed({**document, "components": components}, names)
        return finished

    def _temporary(self, side: str, form: type) -> str:
        key = f"{side}{len(self._forms)}"
        self._forms[key] = form
        return key

    def _names(self, definitions: Mapping[str, Schema]) -> dict[str, str]:
        """The name of each class by its temporary one."""
        sides: dict[type, list[str]] = {}
        for key, form in self._forms.items():
            sides.setdefault(form, []).append(key)
        differing = _differing(definitions, [keys for keys in sides.values() if len(keys) > 1])
        counts = Counter(form.__name__ for form in sides)
        used = set(self.schemas)
        names: dict[str, str] = {}
        for form, keys in sides.items():
            base = form.__name__
            if counts[base] > 1 or base in self.schemas:
                base = f"{form.__module__}.{form.__qualname__}"
            base = re.sub(r"[^A-Za-z0-9._-]+", "_", base)
            own: dict[str, str] = {}  # so that one side does not stand in the way of the other
            for key in keys:
                own[key] = _free(f"{base}Input" if key in differing and key.startswith("taken") else base, used)
            used |= set(own.values())
            names |= own
        return names


def _free(name: str, used: set[str]) -> str:
    free, number = name, 2
    while free in used:
        free, number = f"{name}_{number}", number + 1
    return free


def _differing(definitions: Mapping[str, Schema], pairs: list[list[str]]) -> set[str]:
    """Of the pairs those that are not the same schema, the classes in them included."""
    differing: set[str] = set()
    while True:
        alike = {key: keys[0] for keys in pairs for key in keys if key not in differing}
        found = {
            key
            for keys in pairs
            if keys[0] not in differing and len({str(_renamed(definitions[key], alike)) for key in keys}) > 1
            for key in keys
        }
        if not found:
            return differing
        differing |= found


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A copy in which each reference to a temporary name is one to the name that it has got."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {key: _renamed(item, names) for key, item in value.items()}
    target = copy.get("$ref")
    if isinstance(target, str) and target.startswith(_TEMPORARY):
        key = target.removeprefix(_TEMPORARY)
        copy["$ref"] = SCHEMAS + names.get(key, key)
    return copy
