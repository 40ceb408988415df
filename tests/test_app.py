"""The application: registration, its life, and the servers it refuses."""

from __future__ import annotations

import asyncio
import sys
import types
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel

from keryx_trio import Action, Config, Keryx, Mcp, StreamingResponse, Task, Web, action
from keryx_trio.testing import open_client


def make(name: str, web: Web | None = None) -> Action[..., Any]:
    @action(name, web=web)
    async def it() -> str:
        return name

    return it


# Registration


async def test_an_action_stays_callable_as_the_plain_function():
    app = Keryx(config=Config())

    @app.action("add")
    async def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert await add(1) == 3
    assert (add.name, add.description, add.__name__, add.__doc__) == ("add", "Adds.", "add", "Adds.")
    assert repr(add) == "<Action add>"
    assert app.actions == {"add": add}


def test_without_a_docstring_the_description_is_the_name():
    assert make("a:b").description == "Action a:b"
    assert action("x", description="given")(make("y").function).description == "given"


def test_actions_come_from_the_constructor_from_add_and_from_modules():
    module = types.ModuleType("some.actions")
    module.one, module.same, module.two = (one := make("one")), one, make("two")
    app = Keryx([module, make("three")], config=Config())
    app.add(make("four"))
    assert list(app.actions) == ["one", "two", "three", "four"]


def test_the_framework_registers_no_action_of_its_own():
    assert Keryx(config=Config()).actions == {}


@pytest.mark.parametrize("what", [object(), lambda: None, types.ModuleType("empty")])
def test_what_is_no_action_cannot_be_added(what):
    with pytest.raises(TypeError, match="action"):
        Keryx([what], config=Config())


def test_a_duplicate_name_raises_and_names_the_action():
    app = Keryx([make("twice")], config=Config())
    with pytest.raises(ValueError, match="action twice"):
        app.add(make("twice"))


@pytest.mark.parametrize(
    ("first", "second"),
    [("/x", "/x"), ("/item/{a}", "/item/{b}"), ("/a/{x}/b", "/a/{y}/b")],
)
def test_a_duplicate_route_raises_and_names_both_actions(first, second):
    def with_route(name: str, route: str) -> Action[..., Any]:
        async def it(a: str = "", b: str = "", x: str = "", y: str = "") -> None: ...

        return action(name, web=Web(route, method=("GET", "POST")))(it)

    app = Keryx([with_route("one", first)], config=Config())
    with pytest.raises(ValueError, match="action two: GET /api.* is taken by action one"):
        app.add(with_route("two", second))


def test_one_route_may_serve_one_action_for_each_method():
    Keryx([make("get", Web("/x")), make("post", Web("/x", method="POST"))], config=Config())


def test_a_plain_function_is_refused_with_a_hint():
    def blocking() -> None: ...

    with pytest.raises(TypeError, match=r"action it: .*blocking.*trio\.to_thread\.run_sync"):
        action("it")(blocking)


def test_an_async_generator_is_refused_with_a_hint():
    async def numbers():
        yield 1

    with pytest.raises(TypeError, match=r"action it: .*return StreamingResponse\.sse"):
        action("it")(numbers)


@pytest.mark.parametrize("name", ["", "two words", "new\nline", 3])
def test_a_bad_name_is_refused(name):
    with pytest.raises(ValueError, match="no name for an action"):
        make(name)


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan")])
def test_a_bad_timeout_is_refused(timeout):
    async def it() -> None: ...

    with pytest.raises(ValueError, match="action it: timeout"):
        action("it", timeout=timeout)(it)


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="is an action already"):
        action("it")(make("other"))
    with pytest.raises(TypeError, match="is no function"):
        action("it")(3)


async def test_an_object_with_an_async_call_may_be_an_action():
    class Model:
        async def __call__(self, n: int) -> int:
            return n + 1

    app = Keryx(config=Config())
    app.action("it", web=Web("/it"))(Model())
    async with open_client(app) as client:
        assert (await client.get("/api/it?n=1")).json() == 2


def test_a_route_parameter_must_be_an_input():
    with pytest.raises(TypeError, match=r"action it: its route has \{id\}"):
        make("it", Web("/x/{id}"))


@pytest.mark.parametrize("method", ["FETCH", (), ("GET", "HEAD")])
def test_an_unknown_method_is_refused(method):
    with pytest.raises(ValueError, match="method"):
        Web("/x", method=method)


def test_methods_are_kept_in_upper_case():
    assert Web("/x", method="post").method == ("POST",)


@pytest.mark.parametrize("every", [0, -1, float("inf")])
def test_a_recurring_task_needs_a_time_between_its_runs(every):
    with pytest.raises(ValueError, match="every"):
        Task(every=every)


def test_the_other_options_are_kept():
    it = action("it", mcp=Mcp(tool=False, resource="keryx://x"), task=Task("q", 5))(make("x").function)
    assert it.mcp == Mcp(tool=False, resource="keryx://x")
    assert it.task == Task(queue="q", every=5)
    assert make("y").mcp == Mcp()
    assert make("y").task is None


# Its life


async def test_the_lifespan_is_entered_before_the_first_call_and_left_after_the_last():
    trace = []

    @asynccontextmanager
    async def lifespan(app: Keryx):
        trace.append("entered")
        app.nursery.start_soon(trio.sleep_forever)
        yield {"db": "open"}
        trace.append("left")

    app = Keryx(config=Config(), lifespan=lifespan)

    @app.action("it", web=Web("/it"))
    async def it() -> Any:
        trace.append("call")
        return app.state

    assert app.state is None
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == {"db": "open"}
    assert trace == ["entered", "call", "left"]
    assert app.state is None


async def test_tasks_of_the_apps_nursery_have_ended_before_what_they_use_is_closed():
    trace = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            trace.append("task ended")

    @asynccontextmanager
    async def lifespan(app: Keryx):
        yield
        trace.append("closed")

    app = Keryx(config=Config(), lifespan=lifespan)
    async with app:
        app.nursery.start_soon(background)
        await trio.testing.wait_all_tasks_blocked()
    assert trace == ["task ended", "closed"]


async def test_an_app_runs_once_at_a_time_but_may_run_again():
    app = Keryx(config=Config())
    with pytest.raises(RuntimeError, match="not running"):
        _ = app.nursery
    for _ in range(2):
        async with app:
            with pytest.raises(RuntimeError, match="running already"):
                await app.__aenter__()
            assert app.drain_deadline is None
    with pytest.raises(RuntimeError, match="not running"):
        _ = app.nursery


async def test_an_error_in_the_body_is_raised_as_it_is_and_the_lifespan_is_left():
    left = []

    @asynccontextmanager
    async def lifespan(app: Keryx):
        try:
            yield
        finally:
            left.append(True)

    with pytest.raises(ValueError, match="body"):
        async with Keryx(config=Config(), lifespan=lifespan):
            raise ValueError("body")
    assert left == [True]


async def test_a_background_task_that_fails_stops_the_app():
    async def fail() -> None:
        raise ValueError("background")

    app = Keryx(config=Config())
    with pytest.raises(ExceptionGroup) as raised:
        async with app:
            app.nursery.start_soon(fail)
            await trio.sleep_forever()
    assert raised.group_contains(ValueError, match="background")


# As an ASGI application


async def lifespan_of(app: Keryx, *, stop: bool = True) -> list[dict[str, Any]]:
    """What a server is told when it starts the app and, with `stop`, stops it."""
    told: list[dict[str, Any]] = []
    messages = ["lifespan.startup", "lifespan.shutdown"] if stop else ["lifespan.startup"]

    async def receive():
        await trio.lowlevel.checkpoint()
        if not messages:
            await trio.sleep_forever()
        return {"type": messages.pop(0)}

    async def send(message):
        await trio.lowlevel.checkpoint()
        told.append(message)

    await app({"type": "lifespan"}, receive, send)
    return told


async def test_a_server_is_told_when_the_app_has_started_and_stopped():
    assert [message["type"] for message in await lifespan_of(Keryx(config=Config()))] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_a_lifespan_that_fails_stops_the_start_with_one_clear_line(caplog):
    @asynccontextmanager
    async def lifespan(app: Keryx):
        raise OSError("no database")
        yield

    told = await lifespan_of(Keryx(config=Config(), lifespan=lifespan))
    assert told == [{"type": "lifespan.startup.failed", "message": "OSError: no database"}]
    assert "no database" in caplog.text


async def test_a_background_task_that_fails_stops_the_server(caplog):
    @asynccontextmanager
    async def lifespan(app: Keryx):
        app.nursery.start_soon(fail)
        yield

    async def fail() -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise ValueError("background")

    told = await lifespan_of(Keryx(config=Config(), lifespan=lifespan), stop=False)
    assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert "background" in told[1]["message"]


def test_a_server_that_is_not_on_trio_is_refused_with_the_right_command_and_without_a_traceback(monkeypatch):
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
    app = Keryx(config=Config())
    told = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        told.append(message)

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert told[0]["type"] == "lifespan.startup.failed"
    assert "hypercorn --worker-class trio" in told[0]["message"]
    assert "\n" not in told[0]["message"]
    assert sys.tracebacklimit == 0
    with pytest.raises(RuntimeError, match="hypercorn --worker-class trio"):
        asyncio.run(app({"type": "http"}, receive, send))


async def test_a_server_without_lifespan_support_is_refused():
    with pytest.raises(RuntimeError, match="must support ASGI's lifespan"):
        await Keryx(config=Config())({"type": "http"}, None, None)


def test_the_settings_come_from_the_environment_unless_they_are_given(monkeypatch):
    monkeypatch.setenv("KERYX_ACTION_TIMEOUT", "7")
    assert Keryx().config.action_timeout == 7
    assert Keryx(config=Config()).config.action_timeout == 300


async def test_an_event_stream_keeps_its_own_ping_or_takes_the_configured_one():
    app = Keryx(config=Config(ping=3))
    assert app.ping_of(StreamingResponse.sse()) == 3
    assert app.ping_of(StreamingResponse.sse(ping=9)) == 9
    assert app.ping_of(StreamingResponse.sse(ping=0)) == float("inf")
