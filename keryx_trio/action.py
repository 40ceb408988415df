"""An action: a trio function, its name, and the places where it can be reached.

Owns: `Action`, the options a user sets on it, and the decorator. Does not know: how any transport serves it.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

import attrs

from . import routing
from .config import checked_queue
from .connection import Connection
from .events import EventTypes
from .inputs import Inputs
from .inputs.schema import type_schema
from .inputs.signatures import read_return
from .wire import sse

if TYPE_CHECKING:
    from .middleware import Middleware

_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RESERVED: Final = re.compile(r"[/?#]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

P = ParamSpec("P")
R = TypeVar("R")


def _methods(method: str | Sequence[str]) -> tuple[str, ...]:
    methods = tuple(name.upper() for name in ((method,) if isinstance(method, str) else method))
    unknown = [name for name in methods if name not in routing.METHODS]
    if unknown or not methods:
        hint = "; HEAD is answered by every GET route" if "HEAD" in unknown else ""
        raise ValueError(f"method {', '.join(unknown) or '()'}: use one or more of {', '.join(routing.METHODS)}{hint}")
    return methods


@attrs.frozen
class Web:
    """Where an action answers over HTTP, and what its answer is.

    Args:
        route: a path below `config.api_route`; `/item/{id}` takes the input `id` from the path.
        method: one method or several.
        streaming: the answer is an event stream (for the description).
        produces: the content type of a byte stream (for the description), such as `text/csv`.
        events: the type of each event's data by the event's name; `message` is an event without one. For the
            description, and in debug mode each event that is sent is held against it.

    Raises:
        ValueError: a malformed route, an unknown method, or a name that no event can have.
    """

    route: str
    method: str | Sequence[str] = attrs.field(default="GET", converter=_methods)
    streaming: bool = False
    produces: str | None = None
    events: Mapping[str, Any] | None = None
    parameters: tuple[str, ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "parameters", routing.parameters(self.route))
        for event in self.events or ():
            if not event:
                raise ValueError("an event without a name is described as 'message'")
            sse.check(event, None, None)


@attrs.frozen
class Mcp:
    """How an action shows over the Model Context Protocol.

    Args:
        tool: False hides it from the list of tools.
        resource: a URI, or a URI template whose variables are inputs; the action then returns
            `{"text" or "blob": ..., "mimeType"?}`.
        prompt: the action is a prompt; it returns `{"messages": [...]}`.
        read_only: a hint to the agent that the action changes nothing.
        destructive: a hint to the agent that the action may destroy something.

    Raises:
        ValueError: a malformed URI or template.
    """

    tool: bool = True
    resource: str | None = None
    prompt: bool = False
    read_only: bool | None = None
    destructive: bool | None = None
    variables: tuple[str, ...] = attrs.field(init=False, repr=False)
    _texts: tuple[str, ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        parts = _VARIABLE.split(self.resource or "")
        texts, names = parts[::2], parts[1::2]
        if any("{" in text or "}" in text for text in texts) or len(set(names)) < len(names) or "" in texts[1:-1]:
            raise ValueError(
                f"resource {self.resource!r}: a variable is {{name}}, once, with text before the next one, "
                "and nothing else has braces"
            )
        if self.resource is not None and not _SCHEME.match(self.resource):
            raise ValueError(f"resource {self.resource!r} must be a URI, such as notes://latest or notes://{{id}}")
        object.__setattr__(self, "variables", tuple(names))
        object.__setattr__(self, "_texts", tuple(texts))

    def match(self, uri: str) -> dict[str, str] | None:
        """The variables of the template in a URI, percent-encoded as they are there; None where it is another's.

        Each goes as far as the text behind it, found from the left: a client's URI costs no more than its length.
        """
        first, *texts = self._texts
        if self.resource is None or not uri.startswith(first):
            return None
        values: list[str] = []
        at = len(first)
        for place, text in enumerate(texts, 1):
            is_last = place == len(texts)
            end = (len(uri) - len(text) if uri.endswith(text) else -1) if is_last else uri.find(text, at + 1)
            value = uri[at : max(end, at)]
            if not value or _RESERVED.search(value):
                return None
            values.append(value)
            at = end + len(text)
        return dict(zip(self.variables, values, strict=True)) if at == len(uri) else None


@attrs.frozen
class Task:
    """How an action runs in the background.

    Args:
        queue: the queue of its jobs.
        every: seconds between two runs of a recurring task, which has no inputs without a default; None runs it only
            when it is enqueued. Periods are counted from 1970 in UTC: 86400 is every midnight.

    Raises:
        ValueError: a name that no queue can have, or no number of seconds.
    """

    queue: str = attrs.field(default="default", converter=checked_queue)
    every: float | None = attrs.field(default=None)

    @every.validator
    def _check(self, _: object, value: float | None) -> None:
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"every is a number of seconds above zero, not {value!r}")


class Action(Generic[P, R]):
    """A trio function with a name. Calling it calls the function itself, as a unit test would."""

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        name: str,
        *,
        description: str | None = None,
        web: Web | None = None,
        mcp: Mcp | None = None,
        task: Task | None = None,
        timeout: float | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        _check(function, name, timeout)
        self.function = function
        self.name = name
        self.description = description or inspect.getdoc(function) or f"Action {name}"
        self.web = web
        self.mcp = mcp or Mcp()
        self.task = task
        self.timeout = timeout
        self.middleware = tuple(middleware)
        self.inputs = Inputs.of(function, action=name, connection_type=Connection)
        for parameter in web.parameters if web else ():
            if parameter not in self.inputs.keys:
                raise TypeError(f"action {name}: its route has {{{parameter}}}, which is no input of the function")
        for variable in self.mcp.variables:
            if variable not in self.inputs.keys:
                raise TypeError(f"action {name}: its resource has {{{variable}}}, which is no input of the function")
        if task is not None and task.every is not None and (required := self.inputs.required):
            raise TypeError(f"action {name}: a recurring task is given no inputs, and {required[0]!r} has no default")
        try:
            self.events = EventTypes(web.events) if web and web.events else None
        except TypeError as error:
            raise TypeError(f"action {name}: {error}") from None
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the plain function: no middleware, no checks of its inputs."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Action {self.name}>"

    @property
    def summary(self) -> str:
        """The first line of its description."""
        return self.description.partition("\n")[0]

    @property
    def tool_name(self) -> str:
        """Its name among the tools of an agent."""
        return self.name.replace(":", "-")

    @functools.cached_property
    def returns(self) -> Any:
        """What its annotation says that it returns; Any where it says nothing that can be known."""
        return read_return(self.function, connection_type=Connection)

    @functools.cached_property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of what it returns, where its annotation says that this is an object; else None."""
        schema = type_schema(self.returns) or {}
        if "$ref" in schema:
            name = schema.pop("$ref").rpartition("/")[2]
            schema = {**schema["$defs"][name], **schema}
        return schema if schema.get("type") == "object" else None


def action(
    name: str,
    *,
    description: str | None = None,
    web: Web | None = None,
    mcp: Mcp | None = None,
    task: Task | None = None,
    timeout: float | None = None,
    middleware: Sequence[Middleware] = (),
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Action[P, R]]:
    """Make an action of a trio function. Its parameters are its inputs, its docstring the description.

    A parameter annotated `Connection` receives the connection. Register the result with `Keryx(actions=[...])` or
    `app.add(...)`; `@app.action(...)` does both.

    Args:
        name: unique in the app; `:` groups names, as in `chat:stream`.
        description: instead of the docstring.
        web: where it answers over HTTP; None = not at all.
        mcp: how it shows over MCP.
        task: its queue, and how often it recurs.
        timeout: seconds for the whole call, its stream included; None = `config.action_timeout`, 0 = no limit.
        middleware: runs around this action, inside the app's own.

    Raises:
        TypeError: a function that cannot be an action, or an input that cannot be described; names the action.
        ValueError: a bad name or timeout.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> Action[P, R]:
        return Action(
            function,
            name,
            description=description,
            web=web,
            mcp=mcp,
            task=task,
            timeout=timeout,
            middleware=middleware,
        )

    return decorate


def _check(function: Any, name: str, timeout: float | None) -> None:
    if not isinstance(name, str) or not name or any(c.isspace() or not c.isprintable() for c in name):
        raise ValueError(f"{name!r} is no name for an action: use text without spaces, such as 'chat:stream'")
    if isinstance(function, Action):
        raise TypeError(f"action {name}: the function is an action already ({function.name})")
    if timeout is not None and not 0 <= timeout < math.inf:
        raise ValueError(f"action {name}: timeout is a number of seconds, 0 for none, not {timeout!r}")
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"action {name}: {_name(function)} is an async generator; "
            "move the loop into a function of its own and return StreamingResponse.sse(it())"
        )
    if not callable(function):
        raise TypeError(f"action {name}: {function!r} is no function")
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ is fine
    ):
        raise TypeError(
            f"action {name}: {_name(function)} is a plain function; write `async def`, "
            "and call what blocks with `await trio.to_thread.run_sync(...)`"
        )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
