"""What runs around an action, in which order, and what it may change."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from keryx_trio import Config, Connection, EventStream, Keryx, Middleware, StreamingResponse, TypedError, Update, Web
from keryx_trio.testing import open_client


class Traced(Middleware):
    """Notes when it runs, and does what it is told."""

    def __init__(self, name: str, trace: list[Any], *, before: Any = None, after: Any = None) -> None:
        self.name, self.trace, self.before, self.after = name, trace, before, after

    async def run_before(self, params, connection):
        self.trace.append((f"before {self.name}", dict(params)))
        if isinstance(self.before, Exception):
            raise self.before
        return self.before

    async def run_after(self, params, connection, error):
        self.trace.append((f"after {self.name}", error))
        if isinstance(self.after, Exception):
            raise self.after
        return self.after


def serve(function: Any, *middleware: Middleware, outer=(), timeout: float | None = None) -> Keryx:
    app = Keryx(config=Config(), middleware=outer)
    app.action("it", web=Web("/it"), middleware=middleware, timeout=timeout)(function)
    return app


async def greet(name: str = "you") -> dict[str, str]:
    return {"hello": name}


async def test_the_apps_middleware_runs_outside_the_actions_own_and_after_runs_in_reverse():
    trace: list[Any] = []
    app = serve(greet, Traced("b", trace), Traced("c", trace), outer=[Traced("a", trace)])
    async with open_client(app) as client:
        await client.get("/api/it")
    assert [step[0] for step in trace] == ["before a", "before b", "before c", "after c", "after b", "after a"]


async def test_params_are_the_structured_inputs_with_their_defaults_and_can_be_replaced():
    trace: list[Any] = []
    app = serve(greet, Traced("a", trace, before=Update(params={"name": "me"})), Traced("b", trace))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == {"hello": "me"}
    assert trace[0] == ("before a", {"name": "you"})
    assert trace[1] == ("before b", {"name": "me"})


async def test_raising_before_stops_the_call_and_every_started_middleware_learns_why():
    trace: list[Any] = []
    error = TypedError("stop")
    app = serve(greet, Traced("a", trace), Traced("b", trace, before=error), Traced("c", trace))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "stop"
    assert [step[0] for step in trace] == ["before a", "before b", "after b", "after a"]
    assert trace[-1] == ("after a", error)


async def test_a_response_before_stands_in_for_the_function():
    trace: list[Any] = []

    async def never() -> None:
        raise AssertionError

    app = serve(never, Traced("a", trace, before=Update(response="cached")), Traced("b", trace))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == "cached"
    assert [step[0] for step in trace] == ["before a", "after a"]


@pytest.mark.parametrize("response", [{"other": 1}, None])
async def test_a_response_after_replaces_the_answer_even_with_nothing(response):
    app = serve(greet, Traced("a", [], after=Update(response=response)))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == response


async def test_a_response_after_replaces_an_error_and_the_outer_ones_see_none():
    trace: list[Any] = []

    async def fail() -> None:
        raise ValueError

    app = serve(fail, Traced("a", trace, after=Update(response="saved")), outer=[Traced("o", trace)])
    async with open_client(app) as client:
        answer = await client.get("/api/it")
    assert (answer.status, answer.json()) == (200, "saved")
    assert trace[-1] == ("after o", None)


async def test_a_stream_cannot_be_replaced_and_the_log_says_so(caplog):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("kept")

        return StreamingResponse.sse(produce)

    app = serve(it, Traced("a", [], after=Update(response="other")))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).events()[0].data == "kept"
    assert "cannot replace a stream" in caplog.text
    assert any(record.levelname == "WARNING" for record in caplog.records)


async def test_after_runs_when_the_function_returned_and_before_the_stream_is_consumed():
    trace: list[Any] = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            trace.append(("produce", None))

        trace.append(("function", None))
        return StreamingResponse.sse(produce)

    async with open_client(serve(it, Traced("a", trace))) as client:
        await client.get("/api/it")
    assert [step[0] for step in trace] == ["before a", "function", "after a", "produce"]


async def test_an_after_that_raises_becomes_the_answer_where_there_was_no_error():
    app = serve(greet, Traced("a", [], after=TypedError("from after")))
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "from after"


async def test_an_after_that_raises_beside_an_error_is_logged(caplog):
    async def fail() -> None:
        raise TypedError("first")

    async with open_client(serve(fail, Traced("a", [], after=ValueError("second")))) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "first"
    assert "second" in caplog.text


async def test_after_is_told_one_exception_and_not_a_group_of_one():
    trace: list[Any] = []

    async def it() -> None:
        async with trio.open_nursery():
            raise TypedError("alone")

    async with open_client(serve(it, Traced("a", trace))) as client:
        await client.get("/api/it")
    assert isinstance(trace[-1][1], TypedError)


async def test_after_is_shielded_for_at_most_five_seconds(autojump_clock, caplog):
    done = []

    class Slow(Middleware):
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def run_after(self, params, connection, error):
            await trio.sleep(self.seconds)
            done.append(self.seconds)

    async def it() -> None:
        await trio.sleep_forever()

    async with open_client(serve(it, Slow(1000), Slow(4), timeout=1)) as client:
        assert (await client.get("/api/it")).status == 408
    assert done == [4]
    assert trio.current_time() == 1 + 4 + 5
    assert "run_after was stopped" in caplog.text


async def test_a_middleware_may_keep_things_of_the_call_in_its_metadata():
    class Keeps(Middleware):
        async def run_before(self, params, connection):
            connection.metadata["user"] = "me"

    async def it(connection: Connection) -> Any:
        return connection.metadata

    async with open_client(serve(it, Keeps())) as client:
        assert (await client.get("/api/it")).json() == {"user": "me"}
        assert (await client.get("/api/it")).json() == {"user": "me"}
