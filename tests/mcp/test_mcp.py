"""Agents and what they find: tools, resources, prompts, and each answer in its form."""

from __future__ import annotations

import base64
import enum
import json
import math
import sys
import time
from contextlib import AsyncExitStack
from typing import Annotated, Any

import attrs
import pytest
import trio
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from msgspec import Meta

from keryx_trio import (
    SECRET,
    ByteStream,
    Config,
    Connection,
    ConnectionType,
    EventStream,
    Keryx,
    Mcp,
    McpConfig,
    Middleware,
    Response,
    StreamingResponse,
    TypedError,
    Update,
    Web,
    action,
)
from keryx_trio.config import ConfigError
from keryx_trio.transports import mcp_server
from keryx_trio.transports.mcp import McpRequest
from tests.e2e.serving import serve, until
from tests.mcp.agents import LEGACY, MODES, NEWEST, agent

LIMIT = 20.0
modes = pytest.mark.parametrize("mode", MODES)


@attrs.define
class Note:
    """A note."""

    text: Annotated[str, Meta(min_length=1)]
    tags: list[str] = attrs.Factory(list)


def make_app(**settings: Any) -> Keryx:
    app = Keryx(config=Config(**settings), mcp=True)

    @app.action("notes:add", mcp=Mcp(read_only=False, destructive=False))
    async def add(note: Note, times: Annotated[int, Meta(ge=1, description="How often")] = 1) -> Note:
        """Keep a note."""
        return Note(note.text * times, note.tags)

    @app.action("hidden", mcp=Mcp(tool=False))
    async def hidden() -> None: ...

    @app.action("text")
    async def text() -> str:
        return 'a "text"'

    @app.action("numbers")
    async def numbers() -> list[int]:
        return [1, 2]

    @app.action("count", timeout=0)
    async def count(to: int, fail: bool = False) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(to):
                await sse.send(f"{number} ", event="tick", id=str(number))
            await sse.comment("nobody sees this")
            if fail:
                raise TypedError("broke off", key="to")
            await sse.send({"done": True}, event="done")

        return StreamingResponse.sse(produce)

    return app


# Tools


@modes
async def test_every_action_is_a_tool_with_its_schemas_and_hints(mode: str):
    with trio.fail_after(LIMIT):
        async with serve(make_app()) as server, agent(server, mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools.keys() == {"notes-add", "text", "numbers", "count"}
    tool = tools["notes-add"]
    assert tool.description == "Keep a note."
    assert tool.annotations.read_only_hint is False
    assert tool.annotations.destructive_hint is False
    assert tool.input_schema["properties"]["times"] == {
        "type": "integer", "minimum": 1, "description": "How often", "default": 1,
    }  # fmt: skip
    assert tool.input_schema["required"] == ["note"]
    assert tool.output_schema["type"] == "object"
    assert tool.output_schema["properties"]["text"] == {"type": "string"}, "what is sent is not checked"
    assert tools["count"].annotations is None
    assert {name: tools[name].output_schema for name in ("text", "numbers", "count")} == dict.fromkeys(
        ("text", "numbers", "count")
    )


@modes
async def test_a_value_is_text_and_an_object_is_structured_too(mode: str):
    app = make_app()

    @app.action("own")
    async def own() -> Response:
        return Response("by hand", status=201)

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            added = await client.call_tool("notes-add", {"note": {"text": "a", "tags": ["x"]}, "times": 3})
            assert added.structured_content == {"text": "aaa", "tags": ["x"]}
            assert json.loads(added.content[0].text) == added.structured_content
            for name, shown in (("text", 'a "text"'), ("numbers", "[1,2]"), ("own", "by hand")):
                plain = await client.call_tool(name, {})
                assert (plain.content[0].text, plain.structured_content, plain.is_error) == (shown, None, False)


@modes
async def test_every_fault_of_the_arguments_is_told_with_its_path(mode: str):
    with trio.fail_after(LIMIT):
        async with serve(make_app()) as server, agent(server, mode) as client:
            wrong = await client.call_tool("notes-add", {"note": {"text": "", "tags": [1]}, "times": "2"})
            unknown = await client.call_tool("nobody", {})
    assert wrong.is_error
    [content] = wrong.content
    error = json.loads(content.text)["error"]
    assert error["type"] == "CONNECTION_ACTION_PARAM_VALIDATION"
    assert [fault["key"] for fault in error["errors"]] == ["note.text", "note.tags[0]", "times"]
    assert json.loads(unknown.content[0].text)["error"]["type"] == "CONNECTION_ACTION_NOT_FOUND"


@modes
async def test_a_stream_that_fails_is_an_error_after_the_text_so_far(mode: str):
    with trio.fail_after(LIMIT):
        async with serve(make_app()) as server, agent(server, mode) as client:
            failed = await client.call_tool("count", {"to": 3, "fail": True})
    assert failed.is_error
    text, error = failed.content
    assert text.text == "0 1 2 "
    assert json.loads(error.text)["error"]["message"] == "broke off"


@modes
async def test_bytes_are_embedded_with_their_type(mode: str):
    app, data = make_app(), bytes(range(256))

    @app.action("bytes")
    async def some_bytes(content_type: str, fail: bool = False) -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(data if content_type.startswith("image") else "a,é\n".encode()[:3])
            if fail:
                raise TypedError("the disk is gone")
            await out.send(b"" if content_type.startswith("image") else "a,é\n".encode()[3:])

        return StreamingResponse.stream(produce, content_type=content_type)

    logged: list[Any] = []
    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode, logged) as client:
            [image] = (await client.call_tool("bytes", {"content_type": "image/png"})).content
            [table] = (await client.call_tool("bytes", {"content_type": "text/csv"})).content
            failed = await client.call_tool("bytes", {"content_type": "image/png", "fail": True})
    assert (image.resource.mime_type, base64.b64decode(image.resource.blob)) == ("image/png", data)
    assert (table.resource.mime_type, table.resource.text) == ("text/csv", "a,é\n")
    assert "".join(logged) == "a,é\n", "text alone is worth a look"
    assert failed.is_error
    assert base64.b64decode(failed.content[0].resource.blob) == data
    assert "the disk is gone" in failed.content[1].text


@modes
@pytest.mark.parametrize("bytes_too", [False, True], ids=["events", "bytes"])
async def test_a_stream_that_fails_before_it_has_said_anything_is_the_error_alone(mode: str, bytes_too: bool):
    app = make_app()

    @app.action("it")
    async def it() -> StreamingResponse:
        async def produce(_: Any) -> None:
            raise TypedError("never began")

        return StreamingResponse.stream(produce) if bytes_too else StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            [error] = (await client.call_tool("it", {})).content
    assert json.loads(error.text)["error"]["message"] == "never began"


@modes
async def test_what_is_collected_is_bounded(mode: str):
    with trio.fail_after(LIMIT):
        async with serve(make_app(max_collected=20)) as server, agent(server, mode) as client:
            failed = await client.call_tool("count", {"to": 100})
    text, error = failed.content
    assert len(text.text) <= 20
    assert json.loads(error.text)["error"]["type"] == "CONNECTION_PAYLOAD_TOO_LARGE"
    assert "KERYX_MAX_COLLECTED" in error.text


class Colour(enum.Flag):
    RED = 1
    BLUE = 2


@attrs.define
class Measure:
    value: float
    count: Annotated[int, Meta(ge=10)]
    colours: Colour = Colour.RED


class Replaces(Middleware):
    async def run_after(self, params: Any, connection: Connection, error: BaseException | None) -> Update:
        return Update(response="something else")


@modes
async def test_what_is_announced_is_what_comes(mode: str, journal: Any):
    app = make_app()

    @app.action("odd")
    async def odd() -> Measure:
        return Measure(math.nan, 1, Colour.RED | Colour.BLUE)

    @app.action("own")
    async def own() -> dict[str, int]:
        return Response('{"a": 1}', content_type="application/json")

    @app.action("no:json")
    async def no_json() -> dict[str, int]:
        return Response("no JSON", content_type="application/json")

    @app.action("none")
    async def none() -> dict[str, int]:
        return None

    @app.action("stream")
    async def stream() -> dict[str, int]:
        return StreamingResponse.sse(numbers())

    @app.action("replaced", middleware=[Replaces()])
    async def replaced() -> dict[str, int]:
        return {"a": 1}

    async def numbers() -> Any:
        yield 1

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            assert (await client.call_tool("odd", {})).structured_content == {"value": None, "count": 1, "colours": 3}
            assert (await client.call_tool("own", {})).structured_content == {"a": 1}
            for name in ("no-json", "none", "stream", "replaced"):
                failed = await client.call_tool(name, {})
                assert failed.is_error, name
                assert "did not return the object" in failed.content[-1].text
    assert len(journal.take_errors()) == 4


# While it runs


@modes
async def test_an_event_without_data_is_shown_too(mode: str):
    app, logged = make_app(), []

    @app.action("nulls")
    async def nulls() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for value in (None, 0, "", False):
                await sse.send(value)

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode, logged) as client:
            whole = await client.call_tool("nulls", {})
    assert logged == ["null", 0, "", False]
    assert whole.content[0].text == "null\n0\nfalse"


@modes
async def test_events_arrive_as_they_are_made_and_so_does_progress(mode: str):
    app, received = make_app(), [trio.Event() for _ in range(4)]
    logged: list[Any] = []
    progress: list[float] = []

    @app.action("slow", timeout=0)
    async def slow() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number, signal in enumerate(received):
                await sse.send({"n": number} if number % 2 else f"token {number}")
                await signal.wait()

        return StreamingResponse.sse(produce)

    async def report(value: float, total: float | None, text: str | None) -> None:
        progress.append(value)

    async def run() -> None:
        results.append(await client.call_tool("slow", {}, progress_callback=report))

    results: list[Any] = []
    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode, logged) as client, trio.open_nursery() as nursery:
            nursery.start_soon(run)
            for number, signal in enumerate(received, 1):
                await until(lambda number=number: len(logged) == len(progress) == number)
                signal.set()
    assert logged == ["token 0", {"n": 1}, "token 2", {"n": 3}]
    assert progress == [1, 2, 3, 4]
    assert results[0].content[0].text == 'token 0\n{"n":1}\ntoken 2\n{"n":3}'


@pytest.mark.filterwarnings("ignore:.*deprecated:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_level_of_an_older_client_is_respected():
    logged: list[Any] = []
    with trio.fail_after(LIMIT):
        async with serve(make_app()) as server, agent(server, LEGACY, logged) as client:
            await client.set_logging_level("warning")
            assert (await client.call_tool("count", {"to": 2})).content[0].text == '0 1 \n{"done":true}'
            assert logged == []
            await client.set_logging_level("debug")
            await client.call_tool("count", {"to": 2})
            assert logged == ["0 ", "1 ", {"done": True}]
            other: list[Any] = []
            async with agent(server, LEGACY, other) as second:  # whose level is its own
                await second.call_tool("count", {"to": 1})
            assert len(other) == 2


@pytest.mark.parametrize(("level", "count"), [(None, 0), ("warning", 0), ("info", 3), ("debug", 3)])
async def test_a_newer_client_says_with_each_request_what_it_wants_to_hear(level: str | None, count: int):
    logged: list[Any] = []
    with trio.fail_after(LIMIT):
        async with serve(make_app()) as server, agent(server, NEWEST, logged, log_level=level) as client:
            assert (await client.call_tool("count", {"to": 2})).content[0].text == '0 1 \n{"done":true}'
    assert len(logged) == count


# Resources and prompts


@modes
async def test_resources_are_listed_and_read(mode: str, journal: Any):
    app = make_app()

    @app.action("status", mcp=Mcp(resource="keryx://status"))
    async def status() -> dict[str, Any]:
        """How it is."""
        return {"text": "well", "mimeType": "text/markdown"}

    @app.action("item", mcp=Mcp(resource="keryx://item/{id}/{part}", tool=False))
    async def item(id: int, part: str) -> dict[str, Any]:
        return {"blob": f"{id} {part}".encode()}

    @app.action("log", mcp=Mcp(resource="keryx://log"))
    async def log() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(b"line\n")

        return StreamingResponse.stream(produce, content_type="text/plain")

    @app.action("motto", mcp=Mcp(resource="keryx://motto"))
    async def motto() -> str:
        return "as it is"

    @app.action("wrong", mcp=Mcp(resource="keryx://wrong"))
    async def wrong() -> int:
        return 7

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            listed = {each.uri: each for each in (await client.list_resources()).resources}
            assert listed.keys() == {"keryx://status", "keryx://log", "keryx://motto", "keryx://wrong"}
            assert (listed["keryx://status"].name, listed["keryx://status"].description) == ("status", "How it is.")
            [template] = (await client.list_resource_templates()).resource_templates
            assert (template.uri_template, template.name) == ("keryx://item/{id}/{part}", "item")
            [read] = (await client.read_resource("keryx://status")).contents
            assert (read.uri, read.mime_type, read.text) == ("keryx://status", "text/markdown", "well")
            [read] = (await client.read_resource("keryx://item/7/a%20%C3%A9")).contents
            assert base64.b64decode(read.blob).decode() == "7 a é"
            [read] = (await client.read_resource("keryx://log")).contents
            assert (read.mime_type, read.text) == ("text/plain", "line\n")
            [read] = (await client.read_resource("keryx://motto")).contents
            assert (read.mime_type, read.text) == ("text/plain", "as it is")
            with pytest.raises(MCPError, match="id: expected an integer"):
                await client.read_resource("keryx://item/x/y")
            with pytest.raises(MCPError, match="there is no resource keryx://item/7"):
                await client.read_resource("keryx://item/7")
            with pytest.raises(MCPError, match="malformed"):
                await client.read_resource("keryx://wrong")
    assert "a resource returns" in journal.take_errors()[0]


@modes
async def test_prompts_are_listed_and_asked_for(mode: str, journal: Any):
    app = make_app()

    @app.action("explain", mcp=Mcp(prompt=True))
    async def explain(topic: Annotated[str, Meta(description="Of what")], words: int = 100) -> dict[str, Any]:
        """Ask for an explanation."""
        content = {"type": "text", "text": f"at most {words} words"}
        return {
            "messages": [{"role": "user", "content": f"Explain {topic}"}, {"role": "assistant", "content": content}],
            "description": "An explanation",
        }

    @app.action("wrong", mcp=Mcp(prompt=True))
    async def wrong() -> str:
        return "no messages"

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            listed = {each.name: each for each in (await client.list_prompts()).prompts}
            assert [(each.name, each.description, each.required) for each in listed["explain"].arguments] == [
                ("topic", "Of what", True),
                ("words", None, False),
            ]
            prompt = await client.get_prompt("explain", {"topic": "trio", "words": "7"})
            assert prompt.description == "An explanation"
            assert [each.content.text for each in prompt.messages] == ["Explain trio", "at most 7 words"]
            with pytest.raises(MCPError, match="topic: is required"):
                await client.get_prompt("explain", {})
            with pytest.raises(MCPError, match="there is no prompt nobody"):
                await client.get_prompt("nobody", {})
            with pytest.raises(MCPError, match="malformed"):
                await client.get_prompt("wrong", {})
    assert len(journal.take_errors()) == 1


async def test_a_resource_of_its_own_name_comes_before_a_template(journal: Any):
    app = make_app()

    @app.action("any", mcp=Mcp(resource="notes://{id}"))
    async def any_note(id: Annotated[str, SECRET]) -> Any:
        return {"text": f"any {id}"} if id != "wrong" else 7

    @app.action("latest", mcp=Mcp(resource="notes://latest"))
    async def latest() -> Any:
        return {"text": "the latest"}

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, NEWEST) as client:
            assert (await client.read_resource("notes://latest")).contents[0].text == "the latest"
            assert (await client.read_resource("notes://7")).contents[0].text == "any 7"
            with pytest.raises(MCPError, match="the resource of any is malformed"):
                await client.read_resource("notes://wrong")
    assert len(journal.take_errors()) == 1


async def test_a_malformed_prompt_shows_no_secret(journal: Any):
    app = make_app()

    @app.action("ask", mcp=Mcp(prompt=True))
    async def ask(password: Annotated[str, SECRET]) -> Any:
        return {"messages": password}

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, NEWEST) as client:
            with pytest.raises(MCPError, match="malformed"):
                await client.get_prompt("ask", {"password": "swordfish"})
    [error] = journal.take_errors()
    assert "a prompt must return" in error
    assert "swordfish" not in error


@pytest.mark.parametrize(
    ("resource", "uri", "values"),
    [
        ("n://{a}-{b}", "n://1-2-3", {"a": "1", "b": "2-3"}),
        ("n://{a}/x", "n://x/x", {"a": "x"}),
        ("n://{a}/x", "n://1/x/x", None),
        ("n://{a}/x", "n:///x", None),
        ("n://{a}/x", "n://1/xy", None),
        ("n://{a}", "n://", None),
        ("n://{a}", "m://1", None),
        ("n://a", "n://a", {}),
        ("n://a", "n://ab", None),
        ("n://{a}?q={b}", "n://1?q=2", {"a": "1", "b": "2"}),
    ],
)
def test_a_uri_is_read_from_the_left(resource: str, uri: str, values: Any):
    assert Mcp(resource=resource).match(uri) == values
    assert Mcp().match(uri) is None


def test_no_uri_takes_long_to_match():
    template = Mcp(resource="notes://{year}-{month}-{day}/{name}.{kind}")
    start = time.perf_counter()
    for uri in ("notes://" + "-" * 1_000_000 + "/", "notes://" + "a-" * 500_000, "notes://" + "." * 1_000_000):
        template.match(uri)
    assert time.perf_counter() - start < 1


# Registration


def test_two_tools_of_one_name_are_refused_at_registration():
    app = Keryx(config=Config())

    @app.action("a:b")
    async def first() -> None: ...

    with pytest.raises(ValueError, match="action a-b: its name as a tool, a-b, is that of a:b too"):

        @app.action("a-b", web=Web("/x"))
        async def second() -> None: ...

    @app.action("a-b", mcp=Mcp(tool=False), web=Web("/x"))
    async def third() -> None: ...

    assert app.actions.keys() == {"a:b", "a-b"}


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("no uri", "must be a URI"),
        ("x://{a", "nothing else has braces"),
        ("x://{a}{a}", "once"),
        ("x://{+a}", "braces"),
    ],
)
def test_a_resource_that_is_none_is_refused(resource: str, words: str):
    with pytest.raises(ValueError, match=words):
        Mcp(resource=resource)


def test_a_variable_that_is_no_input_is_refused():
    with pytest.raises(TypeError, match=r"action x: its resource has \{id\}, which is no input"):

        @action("x", mcp=Mcp(resource="x://{id}"))
        async def x() -> None: ...


def test_what_an_action_returns_is_described_where_it_is_an_object():
    @action("named")
    async def named() -> dict[str, int]: ...

    @action("unknown")
    async def unknown() -> Nowhere: ...  # noqa: F821

    @action("nothing")
    async def nothing(): ...

    assert named.output_schema == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert unknown.output_schema is None
    assert nothing.output_schema is None


def test_it_is_off_unless_it_is_asked_for():
    with pytest.raises(RuntimeError, match="KERYX_MCP_ENABLED"):
        _ = Keryx(config=Config()).mcp_server
    assert Keryx(config=Config(mcp=McpConfig(enabled=True)), mcp=False)._mcp is None
    assert Keryx(config=Config(mcp=McpConfig(enabled=True)))._mcp is not None
    app = Keryx(config=Config(), mcp=McpConfig(route="/agents"))
    assert (app.config.mcp.enabled, app.config.mcp.route) == (True, "/agents")


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("keryx_trio.transports.mcp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ConfigError, match=r"MCP needs an extra: pip install 'keryx-trio\[mcp\]'") as caught:
        Keryx(config=Config(), mcp=True)
    assert "\n" not in str(caught.value)


# Who calls


@modes
async def test_a_call_has_a_connection_of_its_own_with_the_clients_identity(mode: str):
    app, seen = make_app(), []

    @app.action("who")
    async def who(connection: Connection) -> None:
        seen.append(connection)
        assert app.connections == {connection.id: connection}
        assert connection.type is ConnectionType.MCP
        with pytest.raises(RuntimeError, match="cannot change"):
            await connection.session.regenerate()

    with trio.fail_after(LIMIT):
        async with serve(app) as server, agent(server, mode) as client:
            for _ in range(2):
                await client.call_tool("who", {})
    assert {connection.identifier for connection in seen} == {"127.0.0.1"}
    assert len({connection.id for connection in seen}) == 2
    assert len({connection.correlation_id for connection in seen}) == 2
    assert not app.connections


# In process


async def test_a_client_in_the_same_process_needs_no_server():
    app = make_app()
    with trio.fail_after(LIMIT):
        async with app, Client(app.mcp_server) as client:
            assert (await client.call_tool("text", {})).content[0].text == 'a "text"'
            app.shut_down()
            late = await client.call_tool("text", {})
    assert json.loads(late.content[0].text)["error"]["type"] == "CONNECTION_UNAVAILABLE"


@pytest.mark.filterwarnings("ignore:.*deprecated:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_of_so_many_clients_the_level_is_remembered_and_of_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mcp_server, "MAX_LEVELS", 2)
    app = make_app()
    with trio.fail_after(LIMIT):
        async with serve(app) as server, AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(agent(server, LEGACY))
                await client.set_logging_level("error")
    assert len(app._mcp.server._levels) == 2


async def test_a_request_that_is_left_behind_can_be_named():
    app = make_app()
    scope = {"type": "http", "method": "GET", "path": "/mcp", "headers": [(b"x-request-id", b"mine")]}
    request = McpRequest(app._mcp, scope, trio.sleep_forever, trio.sleep_forever)
    assert request.describe() == {"url": "/mcp", "action": "none", "correlation_id": "mine"}
