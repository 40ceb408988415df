"""The life of a call: who ends it, what its client is told, and what is left of it (nothing)."""

from __future__ import annotations

import base64
import contextvars
import json
import logging
from typing import Annotated, Any

import attrs
import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from keryx_trio import (
    SECRET,
    Config,
    Connection,
    EventStream,
    Keryx,
    Middleware,
    StreamingResponse,
    TypedError,
    Web,
    secrecy,
)
from keryx_trio.testing import Client, open_client
from tests.told import Told


def serve(function: Any, *, timeout: float | None = None, middleware=(), config: Config | None = None) -> Keryx:
    """An application with one action, at /api/it."""
    app = Keryx(config=config or Config())
    app.action("it", web=Web("/it"), timeout=timeout, middleware=middleware)(function)
    return app


@pytest.fixture
def fields(caplog):
    """The structured fields of every line logged so far."""
    caplog.set_level(logging.DEBUG, "keryx_trio")
    return lambda: [
        record.keryx_fields
        for record in caplog.records
        if record.name == "keryx_trio" and "store" not in record.keryx_fields
    ]


@pytest.fixture
def outcomes(fields):
    """How streams ended, and calls, by the log."""
    return lambda: [line.get("outcome") or line["status"] for line in fields() if "outcome" in line or "status" in line]


@pytest.fixture
def errors(caplog):
    """The lines that were logged as errors."""
    caplog.set_level(logging.DEBUG, "keryx_trio")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# The stream ends when its producer does


async def test_the_stream_ends_when_the_producer_returns():
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("a")
            await sse.send({"b": [1]}, event="named", id="7", retry=10)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    assert answer.body == b'data: a\n\nevent: named\nid: 7\nretry: 10\ndata: {"b":[1]}\n\n'


async def test_a_producer_that_raises_sends_one_error_event_and_the_stream_ends_cleanly(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before")
            raise TypedError("out of tokens")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    first, last = answer.events()
    assert first.data == "before"
    assert last.event == "error"
    assert last.json() | {"timestamp": 0} == {
        "message": "out of tokens",
        "type": "CONNECTION_ACTION_RUN",
        "timestamp": 0,
    }
    assert errors() == []


async def test_an_unknown_exception_is_told_in_general_words_and_logged_with_its_traceback(caplog):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            raise ValueError("the database password is swordfish")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    assert b"swordfish" not in answer.body
    assert "The action failed" in answer.events()[0].json()["message"]
    record = next(record for record in caplog.records if record.exc_info)
    assert isinstance(record.exc_info[1], ValueError)


async def test_in_debug_mode_the_client_is_told_what_was_raised_and_where():
    async def it() -> None:
        raise ValueError("oh no")

    async with open_client(serve(it, config=Config(debug=True))) as client:
        error = (await client.get("/api/it")).json()["error"]
    assert error["message"] == "ValueError: oh no"
    assert "raise ValueError" in error["stack"]


async def test_close_ends_the_stream_for_the_client_at_once_while_the_producer_goes_on(autojump_clock):
    went_on = trio.Event()

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("a")
            sse.close()
            sse.close()
            with pytest.raises(trio.ClosedResourceError):
                await sse.send("never")
            await trio.sleep(10)
            went_on.set()

        return StreamingResponse.sse(produce)

    app = serve(it)
    async with open_client(app) as client:
        async with client.stream("GET", "/api/it") as stream:
            assert [event.data async for event in stream.events()] == ["a"]
            assert trio.current_time() == 0
            assert stream.complete is True
            assert app.connections
            with trio.fail_after(20):
                await went_on.wait()
        assert not app.connections


async def test_after_close_the_producer_is_still_under_the_timeout(autojump_clock, outcomes, errors):
    ended = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            sse.close()
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=3)) as client:
        assert (await client.get("/api/it")).body == b""
    assert ended == [3]
    assert outcomes() == ["ok", "done"]
    assert errors() == []


async def test_close_works_in_a_finally_under_cancellation():
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            finally:
                sse.close()

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await stream.receive_event()


async def test_an_error_after_the_end_is_logged_and_told_to_nobody(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            sse.close()
            raise ValueError("late")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).events() == []
    assert len(errors()) == 1
    assert "late" in errors()[0]


async def test_sending_after_another_task_closed_the_stream_is_no_error_of_the_application(errors):
    async def it(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x")

        async def close_soon() -> None:
            await trio.lowlevel.checkpoint()
            sse.close()

        sse = StreamingResponse.sse(produce)
        connection.nursery.start_soon(close_soon)
        return sse

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).events()
    assert errors() == []


async def test_with_closes_and_an_exception_that_passes_through_it_is_told():
    async def it(fail: bool = False) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            with sse:
                await sse.send("a")
                if fail:
                    raise TypedError("inside")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert [event.event for event in (await client.get("/api/it")).events()] == ["message"]
        answer = await client.get("/api/it?fail=true")
        assert [event.event for event in answer.events()] == ["message", "error"]
        assert answer.events()[1].json()["message"] == "inside"


@pytest.mark.parametrize(
    ("error", "data"),
    [("upstream timeout", "upstream timeout"), ({"code": 7}, '{"code":7}')],
)
async def test_send_error_tells_a_text_or_a_mapping_as_it_is_and_ends_the_stream(error, data):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("queued first")
            await sse.send_error(error)
            await sse.send_error("the first end wins")
            with pytest.raises(trio.ClosedResourceError):
                await sse.send("x")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        events = (await client.get("/api/it")).events()
    assert [(event.event, event.data) for event in events] == [("message", "queued first"), ("error", data)]


async def test_send_error_tells_an_exception_by_its_payload(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send_error(ExceptionGroup("", [ValueError("hidden")]))

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        (event,) = (await client.get("/api/it")).events()
    assert event.json()["type"] == "CONNECTION_ACTION_RUN"
    assert "hidden" not in event.data
    assert "hidden" in errors()[0]


async def test_senders_still_blocked_at_the_end_are_let_go_silently(nursery):
    returned = []

    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()

        async def flood(name: str) -> None:
            for _ in range(1000):
                try:
                    await sse.send("x")
                except trio.ClosedResourceError:
                    returned.append(name)
                    return

        connection.nursery.start_soon(flood, "a")
        connection.nursery.start_soon(flood, "b")
        connection.metadata["sse"] = sse
        streams.append(sse)
        return sse

    streams: list[EventStream] = []
    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await wait_all_tasks_blocked()
        streams[0].close()
        await stream.read()
        assert stream.complete
    assert sorted(returned) == ["a", "b"]


# The reader leaves


@pytest.mark.parametrize("sending", [False, True])
async def test_the_client_leaving_cancels_the_producer_inside_its_await(sending, errors, outcomes):
    ended = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                while sending:
                    await sse.send("more" * 1000)
                await trio.sleep_forever()
            finally:
                ended.append(True)

        return StreamingResponse.sse(produce)

    app = serve(it)
    async with open_client(app) as client:
        async with client.stream("GET", "/api/it") as stream:
            await stream.receive_event()
            await wait_all_tasks_blocked()
            assert ended == []
            assert len(app.connections) == 1
        assert ended == [True]
        assert not app.connections
    assert errors() == []
    assert outcomes() == ["ok", "client gone"]


async def test_the_client_leaving_cancels_a_plain_action_and_its_middleware_learns_it(errors, outcomes):
    recorder = Told()
    ended = []

    async def it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    app = serve(it, middleware=[recorder])
    async with open_client(app) as client:
        stream = client.stream("GET", "/api/it")
        await wait_all_tasks_blocked()
        stream.leave()
        await stream.over.wait()
        assert not app.connections
    assert ended == [True]
    assert isinstance(recorder.errors[0], trio.Cancelled)
    assert errors() == []
    assert outcomes() == ["client gone"]


async def test_what_a_cleanup_raises_is_logged_though_nobody_is_left_to_tell(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup broke")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await stream.receive_event()
    assert len(errors()) == 1
    assert "cleanup broke" in errors()[0]


async def test_a_last_send_to_a_client_that_left_is_told_so_and_is_no_error(errors):
    seen = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    try:
                        await sse.send("bye")
                    except trio.BrokenResourceError as error:
                        seen.append(str(error))
                        raise

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await stream.receive_event()
    assert seen == ["the client has left"]
    assert errors() == []


async def test_calls_that_were_answered_in_full_are_never_taken_for_ones_whose_client_left(outcomes):
    recorder = Told()

    async def it(stream: bool = False) -> Any:
        async def produce(sse: EventStream) -> None:
            await sse.send("x")

        return StreamingResponse.sse(produce) if stream else {"ok": True}

    async with open_client(serve(it, middleware=[recorder])) as client:
        for _ in range(25):
            await client.get("/api/it")
            await client.get("/api/it?stream=true")
    assert recorder.errors == [None] * 50
    assert set(outcomes()) == {"ok", "done"}


# Errors


async def test_a_group_with_one_leaf_counts_as_that_leaf():
    async def it() -> None:
        async with trio.open_nursery() as nursery, trio.open_nursery():
            nursery.start_soon(fail)

    async def fail() -> None:
        raise TypedError("one", key="k", value=3)

    async with open_client(serve(it)) as client:
        error = (await client.get("/api/it")).json()["error"]
    assert (error["message"], error["key"], error["value"]) == ("one", "k", 3)


async def test_a_group_with_several_leaves_is_logged_whole_and_told_in_general_words(caplog):
    async def it() -> None:
        raise ExceptionGroup("both", [TypedError("one"), TypedError("two")])

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    assert answer.status == 500
    assert "The action failed" in answer.json()["error"]["message"]
    assert any(record.exc_info and isinstance(record.exc_info[1], ExceptionGroup) for record in caplog.records)


async def test_a_task_of_the_call_that_fails_ends_the_call_with_its_error():
    async def it(connection: Connection) -> None:
        connection.nursery.start_soon(fail)
        await trio.sleep_forever()

    async def fail() -> None:
        raise TypedError("from a task")

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "from a task"


async def test_the_actions_own_error_wins_over_those_of_its_tasks_and_they_are_logged(errors):
    async def it(connection: Connection) -> None:
        connection.nursery.start_soon(fail_when_cancelled)
        await wait_all_tasks_blocked()
        raise TypedError("own")

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in a task")

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "own"
    assert "in a task" in errors()[0]


async def test_an_error_whose_value_has_no_json_form_is_told_all_the_same():
    async def it() -> None:
        raise TypedError("odd", key="k", value=object())

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).json()["error"]["value"].startswith("<object")


async def test_a_value_without_a_json_form_is_an_error_and_not_a_broken_answer(errors):
    async def it() -> Any:
        return {"it": object()}

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).status == 500
    assert "has no JSON form" in errors()[0]


async def test_a_call_whose_own_nursery_was_cancelled_says_so():
    async def it(connection: Connection) -> None:
        connection.nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    assert (answer.status, answer.json()["error"]["message"]) == (
        500,
        "the call of action it was cancelled by the application",
    )


async def test_a_keyboard_interrupt_is_not_taken_for_an_error_of_the_action():
    async def it() -> None:
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True):
        async with open_client(serve(it)) as client:
            await client.get("/api/it")


# The timeout


async def test_a_timeout_before_the_stream_says_which_action_and_how_long(autojump_clock):
    async def it() -> None:
        await trio.sleep_forever()

    async with open_client(serve(it, timeout=2.5)) as client:
        answer = await client.get("/api/it")
    assert answer.status == 408
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert answer.json()["error"]["message"] == "action it timed out after 2.5 seconds"
    assert trio.current_time() == 2.5


async def test_without_a_timeout_of_its_own_an_action_has_the_configured_one(autojump_clock):
    async def it() -> None:
        await trio.sleep_forever()

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).status == 408
    assert trio.current_time() == Config().action_timeout == 300


async def test_a_timeout_in_the_stream_is_an_error_event_and_then_the_end(autojump_clock, outcomes):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("a")
            await trio.sleep_forever()

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=5)) as client:
        first, last = (await client.get("/api/it")).events()
    assert (first.data, last.event, last.json()["type"]) == ("a", "error", "CONNECTION_ACTION_TIMEOUT")
    assert outcomes() == ["ok", "timeout"]


async def test_zero_means_no_timeout(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(20 * 3600)
            await sse.send("at last")

        return StreamingResponse.sse(produce, ping=0)

    async with open_client(serve(it, timeout=0)) as client:
        assert [event.data for event in (await client.get("/api/it")).events()] == ["at last"]


async def test_the_timeout_covers_the_middleware_too(autojump_clock):
    class Slow(Middleware):
        async def run_before(self, params, connection):
            await trio.sleep(10)

    async def it() -> None:
        await trio.sleep_forever()

    recorder = Told()
    async with open_client(serve(it, timeout=4, middleware=[recorder, Slow()])) as client:
        assert (await client.get("/api/it")).status == 408
    assert trio.current_time() == 4
    assert isinstance(recorder.errors[0], TypedError)
    assert recorder.errors[0].type == "CONNECTION_ACTION_TIMEOUT"


async def test_the_timeout_never_fires_after_the_end(autojump_clock, outcomes):
    """A reader slower than the timeout still gets all of what was produced in time."""

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(10):
                await sse.send(str(number))

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=3)) as client, client.stream("GET", "/api/it") as stream:
        await trio.sleep(20)
        assert [event.data async for event in stream.events()] == [str(number) for number in range(10)]
    assert outcomes() == ["ok", "done"]


@pytest.mark.parametrize("how", ["close", "send", "raise", "return"])
async def test_once_the_timeout_fired_the_stream_ends_with_it_whatever_the_producer_does(how, autojump_clock, errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            except trio.Cancelled:
                if how == "close":
                    sse.close()
                elif how == "raise":
                    raise ValueError("instead") from None
                elif how == "send":
                    with trio.CancelScope(shield=True), pytest.raises(trio.ClosedResourceError, match="timeout"):
                        await trio.sleep(1)
                        await sse.send("after the timeout")
                else:
                    return
                raise

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=1)) as client:
        events = (await client.get("/api/it")).events()
    assert [event.event for event in events] == ["message", "error"]
    assert events[1].json()["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert len(errors()) == (how == "raise")


async def test_a_plain_action_that_swallows_its_timeout_has_timed_out_all_the_same(autojump_clock):
    async def it() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "half"

    async with open_client(serve(it, timeout=1)) as client:
        assert (await client.get("/api/it")).status == 408


async def test_the_client_is_told_of_the_timeout_at_once_however_long_the_producer_cleans_up(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(60)

        return StreamingResponse.sse(produce)

    app = serve(it, timeout=2)
    async with open_client(app) as client:
        async with client.stream("GET", "/api/it") as stream:
            (event,) = [event async for event in stream.events()]
            assert event.event == "error"
            assert trio.current_time() == 2
            assert app.connections
        assert trio.current_time() == 62
        assert not app.connections


async def test_a_client_that_left_before_the_timeout_did_not_time_out_though_its_cleanup_outlasts_it(
    autojump_clock, outcomes
):
    recorder = Told()

    async def it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    async with open_client(serve(it, timeout=3, middleware=[recorder])) as client:
        stream = client.stream("GET", "/api/it")
        await trio.sleep(1)
        stream.leave()
        await stream.over.wait()
    assert isinstance(recorder.errors[0], trio.Cancelled)
    assert outcomes() == ["client gone"]


async def test_a_timeout_comes_first_where_the_client_leaves_during_the_cleanup(autojump_clock, outcomes):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=3)) as client, client.stream("GET", "/api/it") as stream:
        await trio.sleep(5)
        stream.leave()
    assert outcomes() == ["ok", "timeout"]


async def test_two_deadlines_at_the_same_moment_are_told_as_our_timeout(autojump_clock):
    recorder = Told()

    async def it() -> None:
        with trio.fail_after(2):
            await trio.sleep_forever()

    async with open_client(serve(it, timeout=2, middleware=[recorder])) as client:
        assert (await client.get("/api/it")).status == 408
    assert isinstance(recorder.errors[0], TypedError)


# What a call owns


async def test_what_runs_in_the_calls_nursery_dies_when_the_call_has_been_answered():
    ended = []

    async def it(connection: Connection) -> str:
        connection.nursery.start_soon(run_for_ever)
        await wait_all_tasks_blocked()
        return "answer"

    async def run_for_ever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).json() == "answer"
    assert ended == [True]


async def test_a_task_that_fails_while_its_call_is_answered_does_not_cut_the_answer(errors):
    failing = trio.Event()

    async def it(connection: Connection) -> str:
        connection.nursery.start_soon(fail_later)
        return "x" * 1_000_000

    async def fail_later() -> None:
        await failing.wait()
        raise ValueError("late task")

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        head = await stream.receive_bytes()
        failing.set()
        await wait_all_tasks_blocked()
        rest = await stream.read()
        assert len(head + rest) == 1_000_003
        assert stream.complete
    assert "late task" in errors()[0]


async def test_what_runs_in_the_calls_nursery_dies_when_its_source_has_ended():
    ended = []

    async def it(connection: Connection) -> StreamingResponse:
        async def run_for_ever() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

        async def produce(sse: EventStream) -> None:
            await sse.send("a")

        connection.nursery.start_soon(run_for_ever)
        await wait_all_tasks_blocked()
        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        await client.get("/api/it")
    assert ended == [True]


async def test_a_kept_nursery_says_after_the_call_that_the_call_is_over():
    kept = []

    async def it(connection: Connection) -> None:
        kept.append(connection)

    async with open_client(serve(it)) as client:
        await client.get("/api/it")
        with pytest.raises(RuntimeError, match="the call that owned this nursery is over"):
            kept[0].nursery.start_soon(trio.sleep, 0)
        with pytest.raises(RuntimeError, match=r"app\.nursery"):
            await kept[0].nursery.start(trio.sleep, 0)


async def test_context_variables_set_before_the_call_or_in_it_are_there_in_its_producer():
    outer: contextvars.ContextVar[str] = contextvars.ContextVar("outer")
    inner: contextvars.ContextVar[str] = contextvars.ContextVar("inner")

    class Sets(Middleware):
        async def run_before(self, params, connection):
            inner.set("by middleware")

    async def it(own: bool, connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send([outer.get(), inner.get()])

        if not own:
            return StreamingResponse.sse(produce)
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse)
        return sse

    outer.set("before")
    async with open_client(serve(it, middleware=[Sets()])) as client:
        for own in ("true", "false"):
            (event,) = (await client.get(f"/api/it?own={own}")).events()
            assert event.json() == ["before", "by middleware"]


# The guide's own shape


async def test_a_stream_without_a_source_ends_when_no_task_of_the_nursery_is_left():
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse, "a")
        connection.nursery.start_soon(produce, sse, "b")
        return sse

    async def produce(sse: EventStream, name: str) -> None:
        await sse.send(name)
        await trio.sleep(0.001)
        await sse.send(name)

    async with open_client(serve(it)) as client:
        events = (await client.get("/api/it")).events()
    assert sorted(event.data for event in events) == ["a", "a", "b", "b"]


async def test_a_stream_without_a_source_and_without_tasks_ends_at_once():
    async def it() -> StreamingResponse:
        sse = StreamingResponse.sse()
        await sse.send("all there is")
        return sse

    async with open_client(serve(it)) as client:
        assert [event.data for event in (await client.get("/api/it")).events()] == ["all there is"]


async def test_a_failing_task_of_a_stream_without_a_source_is_told_as_an_error_event():
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse)
        return sse

    async def produce(sse: EventStream) -> None:
        await sse.send("a")
        raise TypedError("task failed")

    async with open_client(serve(it)) as client:
        events = (await client.get("/api/it")).events()
    assert events[1].json()["message"] == "task failed"


async def test_the_actions_own_task_cannot_fill_the_buffer_before_it_returned_the_stream(fields):
    async def it() -> StreamingResponse:
        sse = StreamingResponse.sse()
        for number in range(65):
            await sse.send(number)
        return sse

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).status == 500
    assert any("return the stream; send from a task" in str(line.get("error")) for line in fields())


async def test_a_task_may_wait_for_room_before_the_stream_was_returned():
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse)
        await wait_all_tasks_blocked()
        return sse

    async def produce(sse: EventStream) -> None:
        await sse.comment("hello")
        for number in range(100):
            await sse.send(number)

    async with open_client(serve(it)) as client:
        events = (await client.get("/api/it")).events()
    assert [event.json() for event in events] == list(range(100))


async def test_one_stream_cannot_answer_two_calls(fields):
    shared: list[StreamingResponse] = []

    async def it() -> StreamingResponse:
        if not shared:
            shared.append(StreamingResponse.sse())
        return shared[0]

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).status == 200
        assert (await client.get("/api/it")).status == 500
    assert any("make a new StreamingResponse" in str(line.get("error")) for line in fields())


# Flow


async def test_a_reader_that_does_not_read_holds_at_most_64_events():
    sent = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(1000):
                await sse.send(str(number))
                sent.append(number)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await wait_all_tasks_blocked()
        assert len(sent) <= 64
        await stream.receive_event()
        await wait_all_tasks_blocked()
        assert len(sent) < 200


async def test_an_event_reaches_the_client_at_once_and_what_piles_up_goes_out_together(autojump_clock, monkeypatch):
    monkeypatch.setattr("keryx_trio.outbox.perf_counter", lambda: 0.0)  # on a busy machine 50 sends take a while

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("alone")
            await trio.sleep(1)
            for number in range(50):
                await sse.send(str(number))
            await trio.sleep(1)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        assert await stream.receive_bytes() == b"data: alone\n\n"
        assert trio.current_time() == 0
        together = await stream.receive_bytes()
        assert trio.current_time() == 1
        assert together.count(b"data:") == 50


async def test_the_head_goes_out_before_the_first_event(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(100)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        assert stream.status == 200
        assert trio.current_time() == 0


async def test_a_quiet_stream_carries_a_comment_so_that_proxies_keep_it(autojump_clock):
    async def it(ping: float | None = None) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(30.5)

        return StreamingResponse.sse(produce, ping=ping)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body.count(b":") == 2
        assert (await client.get("/api/it?ping=1")).body.count(b":") == 30
        assert (await client.get("/api/it?ping=0")).body == b""


async def test_events_keep_the_comments_away(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for _ in range(5):
                await trio.sleep(10)
                await sse.send("x")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body == b"data: x\n\n" * 5


async def test_a_reader_that_takes_nothing_is_dropped_after_the_write_timeout(autojump_clock, outcomes):
    ended = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                while True:
                    await sse.send("x" * 1000)
            finally:
                ended.append(trio.current_time())

        return StreamingResponse.sse(produce)

    app = serve(it, config=Config(write_timeout=30))
    async with open_client(app) as client, client.stream("GET", "/api/it") as stream:
        await trio.sleep(29)
        assert ended == []
        await trio.sleep(2)
        assert ended == [30]
        assert not app.connections
        assert await stream.read() == b""
        assert stream.complete is False
    assert outcomes() == ["ok", "client gone"]


async def test_a_large_answer_to_a_reader_that_takes_nothing_is_given_up(autojump_clock, outcomes):
    async def it() -> str:
        return "x" * 1_000_000

    async with open_client(serve(it, config=Config(write_timeout=5))) as client, client.stream("GET", "/api/it"):
        await trio.sleep(6)
        assert outcomes() == ["client gone"]


async def test_a_large_answer_to_a_slow_reader_arrives_whole(autojump_clock):
    async def it() -> str:
        return "x" * 300_000

    app = serve(it, config=Config(write_timeout=5))
    async with open_client(app) as client, client.stream("GET", "/api/it") as stream:
        size = 0
        while stream.complete is None:
            await trio.sleep(4)
            size += len(await stream.receive_bytes())
        assert size == 300_003


# The shutdown


async def test_a_shutdown_ends_streams_with_a_time_to_come_back_and_cancels_their_producers(autojump_clock, outcomes):
    ended = []

    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
                ended.append(trio.current_time())

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        await stream.receive_event()
        client.shut_down()
        await stream.read()
        assert stream.complete
        assert trio.current_time() == 0
    assert ended == [2]
    assert outcomes() == ["ok", "shutdown"]


@pytest.mark.parametrize("how", ["shutdown", "timeout"])
async def test_a_producer_that_was_sending_when_its_stream_was_ended_is_no_error(how, autojump_clock, errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 1000)
                await trio.sleep(0.1)

        return StreamingResponse.sse(produce)

    async with open_client(serve(it, timeout=5)) as client, client.stream("GET", "/api/it") as stream:
        await stream.receive_event()
        if how == "shutdown":
            client.shut_down()
        await stream.read()
    assert errors() == []


async def test_the_last_words_of_a_shutdown_are_a_retry_between_one_and_five_seconds():
    async def it() -> StreamingResponse:
        return StreamingResponse.sse(lambda _: trio.sleep_forever())

    async with open_client(serve(it)) as client, client.stream("GET", "/api/it") as stream:
        client.shut_down()
        body = await stream.read()
    name, _, value = body.decode().strip().partition(": ")
    assert name == "retry"
    assert 1000 <= int(value) <= 5000
    assert body.endswith(b"\n\n")


async def test_a_plain_call_may_finish_within_the_drain_and_then_gets_503(autojump_clock, outcomes):
    async def it(seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"

    app = serve(it, config=Config(drain_timeout=10))
    async with open_client(app) as client:
        quick = client.stream("GET", "/api/it?seconds=5")
        slow = client.stream("GET", "/api/it?seconds=50")
        await trio.sleep(1)
        client.shut_down()
        client.shut_down()
        async with quick, slow:
            assert quick.status == 200
            assert slow.status == 503
            assert slow.headers["retry-after"]
        assert trio.current_time() == 11
        refused = await client.get("/api/it?seconds=0")
        assert refused.status == 503
        assert refused.json()["error"]["type"] == "CONNECTION_UNAVAILABLE"
        assert refused.headers["connection"] == "close"
    assert sorted(map(str, outcomes())) == ["503", "ok", "shutdown"]


async def test_a_stream_that_starts_during_the_drain_ends_at_once(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("never")

        await trio.sleep(3)
        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        stream = client.stream("GET", "/api/it")
        await trio.sleep(1)
        client.shut_down()
        async with stream:
            assert stream.status == 200
            assert b"retry: " in await stream.read()


async def test_a_frozen_reader_cannot_hold_the_shutdown_beyond_the_drain(autojump_clock):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 10_000)

        return StreamingResponse.sse(produce)

    app = serve(it, config=Config(drain_timeout=10, write_timeout=1000))
    async with open_client(app) as client, client.stream("GET", "/api/it"):
        await wait_all_tasks_blocked()
        client.shut_down()
        await trio.sleep(11)
        assert not app.connections


async def test_cleanup_that_outlasts_the_drain_is_named_in_the_log_and_left_behind(autojump_clock, caplog):
    async def it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    app = serve(it, config=Config(drain_timeout=5))
    async with trio.open_nursery() as nursery:
        async with app:
            Client(app, nursery, None).stream("GET", "/api/it")
            await trio.sleep(1)
        assert trio.current_time() == 6.6
    assert any("left behind" in record.getMessage() for record in caplog.records)


# Secrets


async def test_a_secret_shows_nowhere(caplog):
    secret = "correct horse battery"

    async def it(name: str, password: Annotated[str, SECRET], connection: Connection, how: str = "typed") -> Any:
        assert repr(password) == "[[secret]]"
        assert password == secret
        kept.append(repr(connection) + repr(connection.metadata))
        if how == "typed":
            raise TypedError(f"wrong password {password}", key="password", value=password)
        if how == "unknown":
            raise ValueError(f"cannot use {password!s} for {name}")
        sse = StreamingResponse.sse()
        await sse.send_error({"why": [f"refused {password}"]})
        return sse

    kept: list[str] = []
    app = serve(it)
    async with open_client(app) as client:
        for how in ("typed", "unknown", "stream"):
            answer = await client.get("/api/it", params={"name": "me", "password": secret, "how": how})
            assert secret.encode() not in answer.body
        answer = await client.get("/api/it", params={"password": secret})
        assert answer.status == 422
        assert secret.encode() not in answer.body
    said = "\n".join(
        record.getMessage() + str(record.__dict__) + str(getattr(record, "keryx_fields", ""))
        for record in caplog.records
    )
    assert secret not in said
    assert "correct+horse" not in said
    assert "[[secret]]" in said
    assert not any(secret in text for text in kept)


@attrs.define
class Creds:
    user: str
    password: Annotated[str, SECRET] = attrs.field(converter=str.strip)


class MuteError(Exception):
    def __init__(self, password: str) -> None:
        super().__init__(password)

    def __str__(self):
        raise ValueError(f"cannot show {self.args}")

    __repr__ = __str__


@pytest.fixture
def said(caplog):
    """All that handlers of any kind could say of the records so far."""
    caplog.set_level(logging.DEBUG, "keryx_trio")
    return lambda: "".join(f"{logging.Formatter().format(record)} {record.__dict__}" for record in caplog.records)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "fail",
    [
        lambda creds: TypedError("bad login", value=creds),
        lambda creds: TypedError("bad login", value={creds.password: 1}),
        lambda creds: TypedError("bad login", value={creds.password}),
        lambda creds: TypedError("bad login", value=creds.password.encode()),
        lambda creds: TypedError("bad login", value=[creds.password, object()]),
        lambda creds: TypedError("bad login", value=[MuteError(creds.password)]),
        lambda creds: TypedError("bad login", errors=[(creds.password, creds.password)]),
        lambda creds: KeyError(creds.password),
        lambda creds: ExceptionGroup("several", [ValueError(creds.password), MuteError(creds.password)]),
        lambda creds: MuteError(creds.password),
        lambda creds: LookupError(base64.b64encode(f"me:{creds.password}".encode())),
    ],
)
@pytest.mark.parametrize("how", ["raise", "stream", "act", "run_after"])
async def test_a_secret_shows_in_no_error_of_any_kind(fail, how, debug, said, capsys):
    class After(Middleware):
        async def run_after(self, params, connection, error):
            if how == "run_after":
                raise fail(params["creds"])

    async def it(creds: Creds, connection: Connection) -> Any:
        if how == "act":
            return await connection.act("inner", {"creds": {"user": "b", "password": "inner1\nb2\nc3 "}})
        if how == "stream":

            async def produce(sse: EventStream) -> None:
                raise fail(creds)

            return StreamingResponse.sse(produce)
        raise fail(creds)

    async def inner(creds: Creds) -> None:
        raise fail(creds)

    app = serve(it, middleware=[After()], config=Config(debug=debug))
    app.action("inner")(inner)
    async with open_client(app) as client:
        raw = json.dumps({"user": "a", "password": " outer1\nb2\nc3"})
        answer = await client.get("/api/it", params={"creds": raw})
    assert b"CONNECTION_ACTION_RUN" in answer.body
    shown = answer.text + said() + capsys.readouterr().err
    for line in ("inner1", "outer1", "b2\\nc3", "b2\nc3", "b3V0ZXIx", "aW5uZXIx", "| b2", "| c3"):
        assert line not in shown


async def test_a_mapping_that_a_stream_fails_with_shows_no_secret():
    async def it(password: Annotated[str, SECRET]) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send_error({"message": "no", password: Creds("me", password), "type": password})

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        (event,) = (await client.get("/api/it?password=swordfish")).events()
    assert event.json() == {
        "message": "no",
        "[[secret]]": {"user": "me", "password": "[[secret]]"},
        "type": "[[secret]]",
    }


@pytest.mark.parametrize("password", ["A", "CONNECTION_ACTION_RUN", "key", "1"])
async def test_a_short_secret_does_not_give_itself_away(password, fields):
    async def it(password: Annotated[str, SECRET]) -> None:
        raise TypedError("no", key=password, errors=[("x", "y")])

    async with open_client(serve(it)) as client:
        error = (await client.get("/api/it", params={"password": password})).json()["error"]
    assert isinstance(error.pop("timestamp"), int)
    assert error == {
        "message": "no",
        "type": "CONNECTION_ACTION_RUN",
        "key": "[[secret]]",
        "errors": [{"key": "x", "message": "y"}],
    }
    assert fields()[-1]["error_type"] == "CONNECTION_ACTION_RUN"


@pytest.mark.parametrize("debug", [False, True])
async def test_an_error_without_a_text_is_told_and_logged_all_the_same(debug, errors):
    async def it() -> None:
        raise MuteError("x")

    async with open_client(serve(it, config=Config(debug=debug))) as client:
        error = (await client.get("/api/it")).json()["error"]
    assert (error["message"] == "MuteError: <a MuteError that has no text>") is debug
    assert "error_type=MuteError" in errors()[0]


async def test_a_value_that_has_no_json_form_of_its_own_does_not_keep_the_error_from_the_client():
    async def it(deep: bool, password: Annotated[str, SECRET] = "") -> None:
        value: Any = []
        for _ in range(600 if deep else 100_000):
            value = [value]
        raise TypedError("no", value=value)

    async with open_client(serve(it)) as client:
        for params in ({"deep": "1"}, {"deep": "1", "password": "x"}, {"deep": "0"}):
            assert (await client.get("/api/it", params=params)).json()["error"]["message"] == "no"


async def test_what_is_secret_is_looked_for_only_where_something_is_told(monkeypatch):
    async def it(password: Annotated[str, SECRET], fail: bool = False) -> str:
        if fail:
            raise ValueError(password)
        return "ok"

    made = []
    forms = secrecy._forms
    monkeypatch.setattr(secrecy, "_forms", lambda text: made.append(text) or forms(text))
    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it?password=swordfish")).status == 200
        assert made == []
        assert (await client.get("/api/it?password=swordfish&fail=true")).status == 500
        assert made == ["swordfish"]


# The log


async def test_a_call_has_one_line_and_a_stream_a_second_one_when_it_ends(fields, autojump_clock):
    async def it(n: int) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(1)
            await sse.comment("not an event")
            for _ in range(n):
                await sse.send("x")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        await client.get("/api/it?n=3", headers={"x-request-id": "abc"})
    first, second = fields()
    assert first["action"] == "it"
    assert first["transport"] == "web"
    assert first["status"] == "ok"
    assert first["correlation_id"] == second["correlation_id"] == "abc"
    assert first["params"] == {"n": "3"}
    assert second["outcome"] == "done"
    assert second["events"] == 3
    assert second["bytes"] == len(b": not an event\n\n") + 3 * len(b"data: x\n\n")
    assert second["time_to_first_event"] is not None
