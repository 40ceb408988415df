"""The document: its paths and what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .components import Components
from .requests import Request
from .responses import Responses
from .versions import VERSIONS, Version

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx

LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was received, from a reader that reconnects.",
    "schema": {"type": "string"},
}


def document(app: Keryx, version: Version = "3.2", *, root: str = "") -> dict[str, Any]:
    """The OpenAPI document of an application: every action that answers over HTTP.

    Args:
        version: 3.2, or 3.1 for tools that do not know it yet; there each event stream has the schema of one event.
        root: the path that the application is mounted at.
    """
    components = Components()
    responses = Responses(app, version, components)
    settings = app.config.docs
    names: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    for action in app.actions.values():
        if action.web is None:
            continue
        path = _same_path(app.config.api_route + action.web.route, paths)
        for method in action.web.method:
            request = Request(action, method, re.findall(r"\{(\w+)\}", path), components)
            operation = _operation(action, method, names) | request.describe()
            if (action.web.streaming or action.web.events) and method == "GET":
                shared = components.share("parameters", "Last-Event-ID", LAST_EVENT_ID)
                operation.setdefault("parameters", []).append(shared)
            operation["responses"] = responses.describe(action, request)
            operation["security"] = responses.security(action)
            paths.setdefault(path, {})[method.lower()] = operation
    info = {"title": settings.title, "version": settings.version}
    return components.finish(
        {
            "openapi": VERSIONS[version],
            "info": {**info, **({"description": settings.description} if settings.description else {})},
            "servers": [{"url": root or "/"}],
            "paths": paths,
        }
    )


def _same_path(route: str, paths: Mapping[str, Any]) -> str:
    """The route, or one that is the same path with other names for its parameters, which may stand here once only."""
    shape = re.sub(r"\{\w+\}", "{}", route)
    return next((path for path in paths if re.sub(r"\{\w+\}", "{}", path) == shape), route)


def _operation(action: Action[..., Any], method: str, names: set[str]) -> dict[str, Any]:
    """Its name, and what its author says of it."""
    several = action.web is not None and len(action.web.method) > 1
    name = re.sub(r"[^A-Za-z0-9_]+", "_", f"{action.name}_{method.lower()}" if several else action.name)
    free, number = name, 2
    while free in names:
        free, number = f"{name}_{number}", number + 1
    names.add(free)
    summary, _, rest = action.description.partition("\n\n")
    told: dict[str, Any] = {"operationId": free, "summary": " ".join(summary.split())}
    if rest.strip():
        told["description"] = action.description
    group, colon, _ = action.name.partition(":")
    return {**told, "tags": [group]} if colon and group else told
