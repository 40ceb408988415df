"""What an operation answers: its value, stream or body, and each error that the framework can answer it with.

Owns: statuses, content types, and the header fields of answers. Does not know: inputs, beyond whether there are any.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

import attrs

from ..errors import STATUSES, ErrorType
from ..inputs.schema import Schema
from ..inputs.text_schema import JSON
from ..limits import RateLimit, RequireSession
from ..response import Response
from ..streaming import ByteStream, EventStream, StreamingResponse
from .components import Components
from .streams import event_schema, untyped_event
from .versions import Version

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx
    from .requests import Request

EVENT_STREAM: Final = "text/event-stream"
ANYTHING: Final = "*/*"
BINARY: Final[Schema] = {"type": "string", "format": "binary"}


@attrs.frozen
class Refusal:
    """An error that the framework answers: the name of its answer among the components, and when it comes."""

    name: str
    description: str


REFUSALS: Final[Mapping[ErrorType, Refusal]] = {
    ErrorType.CONNECTION_ACTION_PARAM_FORMATTING: Refusal("Malformed", "The request is malformed."),
    ErrorType.CONNECTION_SESSION_NOT_FOUND: Refusal("NoSession", "Nobody is logged in: this needs a session."),
    ErrorType.CONNECTION_ACTION_TIMEOUT: Refusal("TimedOut", "It took too long, or the request's body did."),
    ErrorType.CONNECTION_PAYLOAD_TOO_LARGE: Refusal("TooLarge", "The request's body is too large."),
    ErrorType.CONNECTION_ACTION_PARAM_VALIDATION: Refusal(
        "Invalid", "Inputs are missing or not valid; `errors` has every fault with its path."
    ),
    ErrorType.CONNECTION_RATE_LIMITED: Refusal("RateLimited", "Too many calls; `Retry-After` tells when to try again."),
    ErrorType.CONNECTION_SERVER_ERROR: Refusal("Failed", "The action failed; the server's log has the details."),
    ErrorType.CONNECTION_UNAVAILABLE: Refusal(
        "Unavailable", "The server is shutting down, or its store is away; try again."
    ),
}

HEADERS: Final[Mapping[str, dict[str, Any]]] = {
    "X-Request-Id": {
        "description": "What the server's log calls this call: the request's own `X-Request-Id` where that is 1 to 128 "
        "letters, digits, `.`, `_` and `-`, or else a new one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Set-Cookie": {"description": "The session's cookie.", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"description": "Calls in a window.", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "Calls that are left in it.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "When there is room again, in seconds since 1970.",
        "schema": {"type": "integer"},
    },
    "Retry-After": {"description": "After how many seconds to try again.", "schema": {"type": "integer"}},
}
ALWAYS: Final = ("X-Request-Id", "Set-Cookie")
LIMITS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class Responses:
    """What operations answer.

    Args:
        app: whose operations.
        version: of OpenAPI.
        components: where shared schemas, headers and answers go.
    """

    def __init__(self, app: Keryx, version: Version, components: Components) -> None:
        self._app = app
        self._version = version
        self._components = components
        self._payload = components.add_schema("ErrorPayload", _payload(debug=app.config.debug))
        error = {"type": "object", "properties": {"error": self._payload}, "required": ["error"]}
        self._error = components.add_schema("Error", error)

    def describe(self, action: Action[..., Any], request: Request) -> dict[str, Any]:
        """The answers to one operation, by status."""
        around = self._app.middleware_of(action)
        limited = any(isinstance(each, RateLimit) for each in around)
        found = _Returned.of(action)
        always = [*ALWAYS, *(LIMITS if limited else ())]
        told = {"200": self._answer(_described(found), self._content(action, found), always)}
        if found.response:
            told["204"] = {"description": "Nothing.", "headers": self._headers(always)}
        refused = [ErrorType.CONNECTION_ACTION_PARAM_FORMATTING]
        if any(isinstance(each, RequireSession) for each in around):
            refused.append(ErrorType.CONNECTION_SESSION_NOT_FOUND)
        if request.has_body or self._app.timeout_of(action) < float("inf"):
            refused.append(ErrorType.CONNECTION_ACTION_TIMEOUT)
        if request.has_body:
            refused.append(ErrorType.CONNECTION_PAYLOAD_TOO_LARGE)
        if not request.is_empty:
            refused.append(ErrorType.CONNECTION_ACTION_PARAM_VALIDATION)
        if limited:
            refused.append(ErrorType.CONNECTION_RATE_LIMITED)
        refused += [ErrorType.CONNECTION_SERVER_ERROR, ErrorType.CONNECTION_UNAVAILABLE]
        told |= {str(STATUSES.get(kind, 500)): self._refusal(kind) for kind in refused}
        return {**told, "default": self._otherwise(found)}

    def security(self, action: Action[..., Any]) -> list[dict[str, list[str]]]:
        """Whether a session is needed. Every action may have one."""
        scheme = {"type": "apiKey", "in": "cookie", "name": self._app.config.session.cookie_name}
        description = "The session, which every answer's `Set-Cookie` names; browsers send it back by themselves."
        self._components.share("securitySchemes", "session", {**scheme, "description": description})
        needed = any(isinstance(each, RequireSession) for each in self._app.middleware_of(action))
        return [{"session": []}] if needed else [{}, {"session": []}]

    def _content(self, action: Action[..., Any], found: _Returned) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if found.values or not (found.events or found.bytes or found.response):
            value = Union[found.values] if found.values else Any  # noqa: UP007 - computed
            content[JSON] = {"schema": self._components.schema_of_sent(value)}
        if found.events:
            content[EVENT_STREAM] = {"itemSchema" if self._version == "3.2" else "schema": self._events(action)}
        if found.bytes:
            content[found.bytes] = {"schema": dict(BINARY)} if found.bytes != ANYTHING else {}
        elif found.response and not content:
            content[ANYTHING] = {}
        return content

    def _events(self, action: Action[..., Any]) -> Schema:
        if action.events is None:
            return self._components.add_schema("ServerSentEvent", untyped_event())
        return event_schema(action.name, action.events, self._payload, self._components)

    def _refusal(self, kind: ErrorType) -> dict[str, str]:
        refusal = REFUSALS[kind]
        headers = list(ALWAYS)
        if kind is ErrorType.CONNECTION_RATE_LIMITED:
            headers += [*LIMITS, "Retry-After"]
        elif kind is ErrorType.CONNECTION_UNAVAILABLE:
            headers.append("Retry-After")
        answer = self._answer(refusal.description, {JSON: {"schema": self._error}}, headers)
        return self._components.share("responses", refusal.name, answer)

    def _otherwise(self, found: _Returned) -> dict[str, Any]:
        if found.response:
            description = "An answer with a status and a body of its own, or an error of the action."
            return self._answer(description, {ANYTHING: {}}, ALWAYS)
        answer = self._answer("An error of the action.", {JSON: {"schema": self._error}}, ALWAYS)
        return self._components.share("responses", "ActionError", answer)

    def _answer(self, description: str, content: dict[str, Any], headers: Sequence[str]) -> dict[str, Any]:
        return {"description": description, "headers": self._headers(headers), "content": content}

    def _headers(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self._components.share("headers", name, HEADERS[name]) for name in names}


@attrs.frozen
class _Returned:
    """What an action may return.

    Attributes:
        values: the types of what is sent as JSON.
        events: whether it may be a stream of events.
        bytes: the content type of the bytes that it may be; empty for none.
        response: whether it may be a `Response`, which says for itself what it is.
    """

    values: tuple[Any, ...]
    events: bool
    bytes: str
    response: bool

    @classmethod
    def of(cls, action: Action[..., Any]) -> _Returned:
        """As its annotation says, and its `Web`, which knows more of streams."""
        members = _members(action.returns)
        kinds = [member for member in members if isinstance(member, type)]
        web = action.web
        events = bool(web and (web.streaming or web.events)) or any(issubclass(kind, EventStream) for kind in kinds)
        produces = web.produces if web and web.produces else ""
        streams = [kind for kind in kinds if issubclass(kind, StreamingResponse)]
        own = [kind for kind in kinds if issubclass(kind, Response)]
        if not produces and any(issubclass(kind, ByteStream) for kind in streams):
            produces = ANYTHING
        if streams and not (events or produces):
            produces = ANYTHING
        values = tuple(member for member in members if member not in streams and member not in own)
        if Any in values and (events or produces):
            values = ()  # nothing is known of it but what its Web says
        return cls(values, events, produces, bool(own))


def _members(annotation: Any) -> list[Any]:
    if type(annotation).__name__ == "TypeAliasType":
        return _members(annotation.__value__)
    if get_origin(annotation) in (Union, types.UnionType):
        return [each for member in get_args(annotation) for each in _members(member)]
    return [annotation]


def _described(found: _Returned) -> str:
    if found.events:
        return "A stream of events."
    return "A stream of bytes." if found.bytes else "What the action answers."


def _payload(*, debug: bool) -> Schema:
    text = {"type": "string"}
    fault = {"type": "object", "properties": {"key": text, "message": text}, "required": ["key", "message"]}
    properties: dict[str, Schema] = {
        "message": {"type": "string", "description": "What was wrong, with what, and what to do."},
        "type": {"type": "string", "enum": [kind.value for kind in ErrorType]},
        "timestamp": {"type": "integer", "description": "In milliseconds since 1970."},
        "key": {"type": "string", "description": "The path of the first input at fault, such as `tags[0]`."},
        "value": {"description": "What was given for it."},
        "errors": {"type": "array", "items": fault, "description": "Every fault of the inputs."},
    }
    if debug:
        properties["stack"] = {"type": "string", "description": "The traceback, in debug mode only."}
    return {
        "type": "object",
        "description": "What went wrong.",
        "properties": properties,
        "required": ["message", "type", "timestamp"],
    }
