"""What an agent finds: tools, resources and prompts, each of them an action; and how a request for one becomes a call.

Owns: the names under which actions show, and the handlers that the SDK's server asks. Does not know: HTTP, stdio, or
what a result looks like (`mcp_reply` does).

A handler runs in a task of the SDK, and waits for the answer. Where it is cancelled, as the client has cancelled the
request or is gone, its client has left. The call itself has a task beside it, since it may go on after its answer.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import attrs
import mcp_types as types
import trio
from mcp.server.connection import allowed_log_levels
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from .._version import __version__
from ..call import Call, shutting_down
from ..connection import Connection, ConnectionType, Peer
from ..errors import ErrorType, TypedError
from ..session import Session
from ..wire.ids import new_id
from .mcp_reply import McpReply

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from ..action import Action
    from ..app import Keryx

    Context = ServerRequestContext[Any, Any]

CALLER: Final = "keryx_trio.caller"
"""Where a request's ASGI scope says who asks."""

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
MAX_LEVELS: Final = 10_000
"""Of how many clients the level is remembered: of as many as may have a session."""

RESOURCE_NOT_FOUND: Final = -32002
"""The code of a resource that is not there (MCP, "Resources", error handling)."""


@attrs.frozen(eq=False)
class Caller:
    """Who asks, as the transport knows it.

    Attributes:
        address: of the client.
        correlation_id: of its request; None where each call has its own.
        session: what its session is bound to; None for a session of the call alone.
        given: what is in the session without having been put in.
        calls: those that run for this request.
    """

    address: str
    correlation_id: str | None = None
    session: str | None = None
    given: Mapping[str, Any] = attrs.field(factory=dict)
    calls: set[Call] = attrs.field(factory=set)


class AgentServer:
    """The actions of an application as an MCP server.

    Attributes:
        sdk: the SDK's server, for a transport to run.
    """

    def __init__(self, app: Keryx) -> None:
        self._app = app
        self._config = app.config.mcp
        self._nursery: trio.Nursery
        self._levels: OrderedDict[str, str] = OrderedDict()
        self._alone = Caller("stdio", session=secrets.token_hex())  # where there is but one client
        self.sdk: Server[Any] = Server(
            self._config.name,
            version=__version__,
            instructions=self._config.instructions or None,
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
        )
        # Not by the constructor, which warns that newer protocols have no such request; older ones do.
        self.sdk.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the calls of agents; enter it inside the application's life, and around what runs the SDK's server."""
        async with trio.open_nursery() as self._nursery:
            yield
            self._nursery.cancel_scope.cancel()

    # Tools

    async def _list_tools(self, _: Context, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(name, action) for name, action in self._app.tools.items()])

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        action = self._app.tools.get(name)
        return None if action is None else action.inputs.schema()

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        reply = self._reply(context)
        action = self._app.tools.get(params.name)
        if action is None:
            own = params.name.replace(":", "-")
            hint = f"; it is called {own}" if own in self._app.tools else ""
            said = f"there is no tool {params.name[:100]}{hint}"
            error = TypedError(said, ErrorType.CONNECTION_ACTION_NOT_FOUND)
            reply.failed = error.payload()
        else:
            await self._call(context, action, params.arguments or {}, reply)
            self._see_that_it_fits(action, reply)
        return reply.tool_result(f"{self._config.name}://{params.name}/{context.request_id}")

    def _see_that_it_fits(self, action: Action[..., Any], reply: McpReply) -> None:
        """Where an object was announced and another thing came, clients refuse the result: so they are told why."""
        if reply.failed is None and action.output_schema is not None and not reply.is_object:
            said = f"action {action.name} did not return the object that its annotation announces"
            self._app.log.error(said)
            reply.failed = TypedError(said, ErrorType.CONNECTION_SERVER_ERROR).payload()

    # Resources

    async def _list_resources(self, _: Context, __: Any) -> types.ListResourcesResult:
        found = [
            types.Resource(uri=action.mcp.resource, name=action.tool_name, description=action.description)
            for action in self._app.actions.values()
            if action.mcp.resource and not action.mcp.variables
        ]
        return types.ListResourcesResult(resources=found)

    async def _list_templates(self, _: Context, __: Any) -> types.ListResourceTemplatesResult:
        found = [
            types.ResourceTemplate(
                uri_template=action.mcp.resource, name=action.tool_name, description=action.description
            )
            for action in self._app.actions.values()
            if action.mcp.resource and action.mcp.variables
        ]
        return types.ListResourceTemplatesResult(resource_templates=found)

    async def _read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        # A resource that is there by its name comes before those that a template stands for.
        for action in sorted(self._app.actions.values(), key=lambda each: bool(each.mcp.variables)):
            values = action.mcp.match(uri)
            if values is not None:
                break
        else:
            raise MCPError(code=RESOURCE_NOT_FOUND, message=f"there is no resource {uri[:200]}", data={"uri": uri})
        found = {name: unquote(value) for name, value in values.items()}
        reply = self._reply(context)
        await self._call(context, action, found, reply, text=frozenset(found))
        _raise_failure(reply)
        try:
            return types.ReadResourceResult(contents=[reply.resource(uri)])
        except TypeError as error:
            self._app.log.exception("a resource is malformed", error, action=action.name)
            said = f"the resource of {action.tool_name} is malformed"
            raise MCPError(code=types.INTERNAL_ERROR, message=said) from None

    # Prompts

    async def _list_prompts(self, _: Context, __: Any) -> types.ListPromptsResult:
        found = [_prompt(action) for action in self._app.actions.values() if action.mcp.prompt]
        return types.ListPromptsResult(prompts=found)

    async def _get_prompt(self, context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        for action in self._app.actions.values():
            if action.mcp.prompt and action.tool_name == params.name:
                break
        else:
            raise MCPError(code=types.INVALID_PARAMS, message=f"there is no prompt {params.name[:100]}")
        arguments = params.arguments or {}
        reply = self._reply(context)
        await self._call(context, action, arguments, reply, text=frozenset(arguments))
        _raise_failure(reply)
        try:
            return types.GetPromptResult.model_validate(_with_plain_texts(reply.returned))
        except ValidationError as error:
            # Without what was returned: there may be secrets in it.
            faults = error.errors(include_input=False, include_url=False, include_context=False)
            said = "a prompt must return {'messages': [...]}"
            self._app.log.error(said, action=action.name, faults=faults)  # noqa: TRY400 - as above
            raise MCPError(code=types.INTERNAL_ERROR, message=f"prompt {params.name} is malformed") from None

    # Calls

    async def _call(
        self,
        context: Context,
        action: Action[..., Any],
        params: Mapping[str, Any],
        reply: McpReply,
        *,
        text: frozenset[str] = frozenset(),
    ) -> None:
        app, caller = self._app, self._caller(context)
        if app.drain_deadline is not None:
            reply.failed = shutting_down().payload()
            return
        session = Session(app.store, app.config.session, None, bound_to=caller.session, given=caller.given)
        session.sealed = True  # there is no cookie
        peer = Peer(app=app, type=ConnectionType.MCP, identifier=caller.address, session=session)
        connection = Connection(peer, caller.correlation_id or new_id())
        call = Call(app, action, connection, reply, params, text=text, origin={"method": context.method})
        self._nursery.start_soon(self._run, call, reply, caller, name=f"{action.name} {connection.correlation_id}")
        try:
            await reply.answered.wait()
        except trio.Cancelled:
            call.leave()
            raise

    async def _run(self, call: Call, reply: McpReply, caller: Caller) -> None:
        caller.calls.add(call)
        try:
            with self._app.running(call), self._app.connected(call.connection):
                await call.run()
        finally:
            caller.calls.discard(call)
            reply.answered.set()  # nobody is left to answer, where it is not

    def _caller(self, context: Context) -> Caller:
        """Who asks; where no HTTP request carries it, the one client that there is."""
        scope = getattr(context.request, "scope", {})
        caller: Caller = scope.get(CALLER, self._alone)
        return caller

    def _reply(self, context: Context) -> McpReply:
        config = self._app.config
        logs = self._wants_logs(context)
        return McpReply(context, logs=logs, limit=config.max_collected, timeout=config.write_timeout)

    # Logging messages

    async def _set_level(self, context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        key = self._caller(context).session or ""
        self._levels[key] = params.level
        self._levels.move_to_end(key)
        if len(self._levels) > MAX_LEVELS:
            self._levels.popitem(last=False)
        return types.EmptyResult()

    def _wants_logs(self, context: Context) -> bool:
        """Whether the client wants to hear of level info: newer ones say so with each request, older ones once."""
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return "info" in allowed_log_levels(context.protocol_version, context.meta)
        level = self._levels.get(self._caller(context).session or "", "info")
        return LEVELS.index(level) <= LEVELS.index("info")


def _tool(name: str, action: Action[..., Any]) -> types.Tool:
    hints = None
    if action.mcp.read_only is not None or action.mcp.destructive is not None:
        hints = types.ToolAnnotations(read_only_hint=action.mcp.read_only, destructive_hint=action.mcp.destructive)
    return types.Tool(
        name=name,
        description=action.description,
        input_schema=action.inputs.schema(),
        output_schema=action.output_schema,
        annotations=hints,
    )


def _prompt(action: Action[..., Any]) -> types.Prompt:
    schema = action.inputs.schema()
    required = schema.get("required", [])
    arguments = [
        types.PromptArgument(name=name, description=described.get("description"), required=name in required)
        for name, described in schema["properties"].items()
    ]
    return types.Prompt(name=action.tool_name, description=action.description, arguments=arguments)


def _with_plain_texts(value: Any) -> Any:
    """Messages whose content is a plain text may be written so."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return value
    messages = [
        {**message, "content": {"type": "text", "text": message["content"]}}
        if isinstance(message, dict) and isinstance(message.get("content"), str)
        else message
        for message in value["messages"]
    ]
    return {**value, "messages": messages}


def _raise_failure(reply: McpReply) -> None:
    """Where there is no place for an error in a result, it is the protocol's own."""
    if reply.failed is None:
        return
    invalid = reply.failed["type"] == ErrorType.CONNECTION_ACTION_PARAM_VALIDATION
    code = types.INVALID_PARAMS if invalid else types.INTERNAL_ERROR
    raise MCPError(code=code, message=reply.failed["message"], data={"error": reply.failed})
