"""What holds on every transport: replies, errors, streams, timeouts, cancellation, closing."""

from __future__ import annotations

import contextvars
import logging
import os
from typing import Annotated, Any

import attrs
import pytest
import trio
import trio.lowlevel
from msgspec import Meta

from keryx_trio import (
    SECRET,
    ByteStream,
    Config,
    Connection,
    Event,
    EventStream,
    Keryx,
    Middleware,
    Response,
    StreamingResponse,
    TypedError,
    Update,
    Web,
)
from tests.contract.drivers import CUT, Driver, Item, Outcome
from tests.told import Told

LIMIT = 10.0
"""How long a test may take, in seconds."""


def make_app(**settings: Any) -> Keryx:
    return Keryx(config=Config(**settings), mcp=True)


def action(app: Keryx, name: str, **options: Any) -> Any:
    """An action that every transport reaches."""
    return app.action(name, web=Web(f"/{name}", method="POST"), **options)


@pytest.fixture(autouse=True)
def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error; a test that expects some takes them out."""
    caplog.set_level(logging.DEBUG, "keryx_trio")
    found: list[str] = []
    yield found
    found += [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def ask(driver: Driver, app: Keryx, name: str, params: dict[str, Any] | None = None) -> Outcome:
    """One call, to its end; after it nothing is left."""
    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, door.call(name, params) as call:
            outcome = await call.outcome()
    assert not app.connections
    return outcome


# Replies


@attrs.define
class Address:
    zip: Annotated[str, Meta(min_length=3)]


async def test_a_value_is_the_reply(driver: Driver):
    app = make_app()

    @action(app, "echo")
    async def echo(text: str, number: int = 7, tags: tuple[str, ...] = (), address: Address | None = None) -> Any:
        return {"text": text, "number": number, "tags": tags, "address": address}

    params = {"text": "é 😀\r\n", "tags": ["a"], "address": {"zip": "12345"}, "unknown": 1}
    assert await ask(driver, app, "echo", params) == Outcome(
        {"text": "é 😀\r\n", "number": 7, "tags": ["a"], "address": {"zip": "12345"}}
    )


@pytest.mark.parametrize("value", [None, 0, "", [], "text", {"a": [1, None]}], ids=repr)
async def test_any_json_value_is_a_reply(driver: Driver, value: Any):
    app = make_app()

    @action(app, "it")
    async def it() -> Any:
        return value

    assert await ask(driver, app, "it") == Outcome(value)


# Errors


async def test_every_fault_of_the_inputs_is_told_at_once(driver: Driver):
    app = make_app()

    @action(app, "strict")
    async def strict(text: str, number: int, address: Address) -> None:
        raise AssertionError("never called")

    error = (await ask(driver, app, "strict", {"number": "1", "address": {"zip": "1"}})).error
    assert error["type"] == "CONNECTION_ACTION_PARAM_VALIDATION"
    assert [fault["key"] for fault in error["errors"]] == ["text", "number", "address.zip"]
    assert error["key"] == "text"


async def test_a_typed_error_is_told_as_it_is(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> None:
        raise TypedError("no such chat", key="chat", value=7)

    error = (await ask(driver, app, "it")).error
    assert error.pop("timestamp") > 1_700_000_000_000
    assert error == {"message": "no such chat", "type": "CONNECTION_ACTION_RUN", "key": "chat", "value": 7}


async def test_an_unknown_exception_is_told_in_general_words_and_logged(driver: Driver, caplog: Any):
    app = make_app()

    @action(app, "it")
    async def it() -> None:
        raise LookupError("the password is swordfish")

    error = (await ask(driver, app, "it")).error
    assert "swordfish" not in str(error)
    assert error["type"] == "CONNECTION_ACTION_RUN"
    assert "stack" not in error
    [record] = [record for record in caplog.records if record.exc_info]
    assert "swordfish" in str(record.exc_info[1])


async def test_in_debug_mode_the_error_is_told_with_its_traceback(driver: Driver):
    app = make_app(debug=True)

    @action(app, "it")
    async def it() -> None:
        raise LookupError("nothing here")

    error = (await ask(driver, app, "it")).error
    assert error["message"] == "LookupError: nothing here"
    assert "raise LookupError" in error["stack"]


async def test_an_unknown_action_is_not_found(driver: Driver):
    error = (await ask(driver, make_app(), "nobody")).error
    assert error["type"] == "CONNECTION_ACTION_NOT_FOUND"


async def test_a_value_without_a_json_form_is_an_error(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> Any:
        return object()

    assert (await ask(driver, app, "it")).error["type"] == "CONNECTION_ACTION_RUN"


async def test_a_secret_is_in_no_error_and_in_no_line_of_the_log(driver: Driver, caplog: Any):
    app = make_app(debug=True)

    @action(app, "it")
    async def it(password: Annotated[str, SECRET]) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            raise LookupError(f"bad password {password}")

        return StreamingResponse.sse(produce)

    outcome = await ask(driver, app, "it", {"password": "swordfish"})
    assert "bad password" in str(outcome.error)
    assert "swordfish" not in str(outcome) + caplog.text


# Streams of events


async def test_events_come_in_order_with_their_names_and_ids(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("plain", id="1")
            await sse.comment("nobody reads this")
            await sse.send("é 😀\n\nlines", event="text", id="2", retry=5)
            await sse.send({"n": [1, None, "x"]}, event="json", id="3")
            await sse.send("", event="empty", id="4")

        return StreamingResponse.sse(produce)

    assert await ask(driver, app, "it") == Outcome(
        items=driver.seen(
            Item("plain", None, "1"),
            Item("é 😀\n\nlines", "text", "2"),
            Item('{"n":[1,null,"x"]}', "json", "3"),
            Item("", "empty", "4"),
        )
    )


async def test_an_async_iterable_is_a_source(driver: Driver):
    app = make_app()

    async def numbers() -> Any:
        yield 1
        yield "two"
        yield Event({"n": 3}, event="three", id="c")

    @action(app, "it")
    async def it() -> StreamingResponse:
        return StreamingResponse.sse(numbers())

    items = (await ask(driver, app, "it")).items
    assert items == driver.seen(Item("1"), Item("two"), Item('{"n":3}', "three", "c"))


async def test_a_stream_may_have_nothing_to_say(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.lowlevel.checkpoint()

        return StreamingResponse.sse(produce)

    assert await ask(driver, app, "it") == Outcome()


async def test_a_stream_without_a_source_ends_with_the_tasks_that_feed_it(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        await sse.send("early", event="before")
        for name in ("a", "b"):
            connection.nursery.start_soon(say, sse, name)
        return sse

    async def say(sse: EventStream, name: str) -> None:
        for _ in range(50):
            await sse.send(name)

    outcome = await ask(driver, app, "it")
    assert outcome.error is None
    assert outcome.items[:1] == driver.seen(Item("early", "before"))
    assert sorted(data for _, data in outcome.events[1:]) == ["a"] * 50 + ["b"] * 50


async def test_each_event_arrives_before_the_next_is_sent(driver: Driver):
    app, received = make_app(), [trio.Event() for _ in range(5)]

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number, signal in enumerate(received):
                await sse.send(number)
                await signal.wait()

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, door.call("it") as call:
            for number, signal in enumerate(received):
                assert (await call.item()).data == str(number)
                signal.set()
            assert await call.outcome() == Outcome()


async def test_thousands_of_events_arrive_complete_and_in_order(driver: Driver):
    app, count = make_app(), 2000 if driver.collects else 10_000

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(count):
                await sse.send(number)

        return StreamingResponse.sse(produce)

    outcome = await ask(driver, app, "it")
    assert [int(data) for _, data in outcome.events] == list(range(count))


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"], ids=["LF", "CR", "NUL"])
async def test_no_name_or_id_can_forge_an_event(driver: Driver, field: str, bad: str):
    app, refused = make_app(), []

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before")
            try:
                await sse.send("data", **{field: bad})
            except ValueError as error:
                refused.append(field in str(error))

        return StreamingResponse.sse(produce)

    assert (await ask(driver, app, "it")).events == [(None, "before")]
    assert refused == [True]


# Streams of bytes


async def test_random_bytes_arrive_bit_for_bit(driver: Driver):
    app, data = make_app(), os.urandom(300_001)

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            for start in range(0, 100_000, 777):
                await out.send(data[start : min(start + 777, 100_000)])
            await out.send(data[100_000:])

        return StreamingResponse.stream(produce)

    outcome = await ask(driver, app, "it")
    assert outcome.body == data
    assert outcome.error is None


@pytest.mark.parametrize("content_type", ["text/csv; charset=utf-8", "application/ld+json", "application/octet-stream"])
async def test_a_text_cut_at_every_byte_arrives_as_it_was(driver: Driver, content_type: str):
    app, text = make_app(), "aé€😀\r\n\x00ﬀ漢" * 3
    data = text.encode()

    @action(app, "it")
    async def it(cut: int) -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(data[:cut])
            await out.send(data[cut:])

        return StreamingResponse.stream(produce, content_type=content_type)

    @action(app, "bytewise")
    async def bytewise() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            for byte in data:
                await out.send(bytes([byte]))

        return StreamingResponse.stream(produce, content_type=content_type)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door:
            for cut in range(len(data) + 1):
                async with door.call("it", {"cut": cut}) as call:
                    assert (await call.outcome()).body.decode() == text
            async with door.call("bytewise") as call:
                assert (await call.outcome()).body.decode() == text


async def test_a_file_is_a_source(driver: Driver, tmp_path: Any):
    app, data = make_app(), os.urandom(200_000)
    (tmp_path / "file").write_bytes(data)

    @action(app, "it")
    async def it(name: str) -> StreamingResponse:
        return StreamingResponse.stream(tmp_path / name)

    assert (await ask(driver, app, "it", {"name": "file"})).body == data
    assert (await ask(driver, app, "it", {"name": "none"})).error["type"] == "CONNECTION_ACTION_RUN"


async def test_a_byte_stream_that_fails_can_be_told_from_a_whole_one(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(b"half")
            raise TypedError("the disk is gone")

        return StreamingResponse.stream(produce)

    outcome = await ask(driver, app, "it")
    assert outcome.body == b"half"
    assert outcome.error["message"] in ("the disk is gone", CUT)


# How streams end


async def test_a_producer_that_raises_tells_the_error_after_what_was_sent(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before")
            raise TypedError("out of tokens", key="prompt")

        return StreamingResponse.sse(produce)

    outcome = await ask(driver, app, "it")
    assert outcome.events == [(None, "before")]
    assert outcome.error | {"timestamp": 0} == {
        "message": "out of tokens",
        "type": "CONNECTION_ACTION_RUN",
        "timestamp": 0,
        "key": "prompt",
    }


@pytest.mark.parametrize(
    "error", ["upstream timeout", {"message": "upstream timeout", "more": 1}, TypedError("upstream timeout")], ids=repr
)
async def test_an_error_sent_by_hand_ends_the_stream(driver: Driver, error: Any):
    app = make_app()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before")
            await sse.send_error(error)
            with pytest.raises(trio.ClosedResourceError):
                await sse.send("after")

        return StreamingResponse.sse(produce)

    outcome = await ask(driver, app, "it")
    assert outcome.events == [(None, "before")]
    assert outcome.error["message"] == "upstream timeout"


async def test_a_task_that_fails_ends_the_stream_with_its_error(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(fail, sse)
        connection.nursery.start_soon(trio.sleep_forever)
        return sse

    async def fail(sse: EventStream) -> None:
        await sse.send("before")
        raise TypedError("failed")

    outcome = await ask(driver, app, "it")
    assert (outcome.events, outcome.error["message"]) == ([(None, "before")], "failed")


@pytest.mark.awaited
async def test_close_gives_the_end_at_once_while_the_producer_goes_on(driver: Driver):
    app, go_on, went_on = make_app(), trio.Event(), trio.Event()

    @action(app, "it")
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("all")
            sse.close()
            sse.close()
            with pytest.raises(trio.ClosedResourceError):
                await sse.send("never")
            await go_on.wait()
            went_on.set()

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, door.call("it") as call:
            assert (await call.outcome()).events == [(None, "all")]
            assert not went_on.is_set()
            go_on.set()
            await went_on.wait()


# Timeouts


async def test_a_call_that_takes_too_long_gets_the_timeout(driver: Driver):
    app, cleaned = make_app(), []

    @action(app, "it", timeout=0.05)
    async def it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    error = (await ask(driver, app, "it")).error
    assert error["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert "0.05" in error["message"]
    assert cleaned == [True]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_stream_that_takes_too_long_ends_with_the_timeout(driver: Driver, stubborn: bool):
    app = make_app()

    @action(app, "it", timeout=0.05)
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before")
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if not stubborn:
                    raise

        return StreamingResponse.sse(produce)

    outcome = await ask(driver, app, "it")
    assert outcome.events == [(None, "before")]
    assert outcome.error["type"] == "CONNECTION_ACTION_TIMEOUT"


# A client that leaves


@pytest.mark.awaited
async def test_leaving_a_stream_cancels_its_producer_inside_what_it_awaits(driver: Driver, errors: list[str]):
    app, cleaned = make_app(), trio.Event()

    @action(app, "it", timeout=0)
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
            finally:
                assert len(app.connections) == 1
                cleaned.set()

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door:
            async with door.call("it") as call:
                assert (await call.item()).data == "here"
            await cleaned.wait()
    assert not app.connections


@pytest.mark.awaited
async def test_leaving_a_plain_call_cancels_it(driver: Driver):
    app, told, begun, cleaned = make_app(), Told(), trio.Event(), trio.Event()

    @action(app, "it", timeout=0, middleware=[told])
    async def it() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cleaned.set()

    async def leave_soon(scope: trio.CancelScope) -> None:
        await begun.wait()
        scope.cancel()

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_soon, nursery.cancel_scope)
                async with door.call("it") as call:
                    await call.outcome()
            await cleaned.wait()
    assert [type(error) for error in told.errors] == [trio.Cancelled]


async def test_a_call_that_was_answered_is_never_taken_for_one_whose_client_left(driver: Driver, caplog: Any):
    app = make_app()

    @action(app, "plain")
    async def plain() -> str:
        return "answer"

    @action(app, "stream")
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("answer")

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door:
            for name in ["plain", "stream"] * 10:
                async with door.call(name) as call:
                    await call.outcome()
    assert "client gone" not in caplog.text.lower()
    assert caplog.text.count(":OK]") == 20
    assert caplog.text.count(":DONE]") == 10


# What a call owns


async def test_a_reader_that_takes_nothing_stops_the_producer(driver: Driver):
    app, made = make_app(), 0

    @action(app, "it", timeout=0)
    async def it() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            nonlocal made
            while True:
                await out.send(bytes(64 * 1024))
                made += 1

        return StreamingResponse.stream(produce)

    if driver.collects:  # there is no such reader: what it would be is an answer that grows without end
        app.config = attrs.evolve(app.config, max_collected=400_000)
        error = (await ask(driver, app, "it")).error
        assert error["type"] == "CONNECTION_PAYLOAD_TOO_LARGE"
        assert made < 20
        return
    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, door.call("it"):
            before = -1
            while made != before:  # until nothing moves any more
                before = made
                await trio.sleep(0.1)
    assert made < 200  # 12 MiB, most of it in the buffers of sockets


async def test_calls_at_once_have_metadata_nurseries_and_ids_of_their_own(driver: Driver):
    app, seen = make_app(), {}
    both = trio.Event()

    @action(app, "it", timeout=0)
    async def it(connection: Connection, name: str, fails: bool) -> str:
        connection.metadata["name"] = name
        seen[name] = connection
        if len(seen) == 2:
            both.set()
        await both.wait()
        if fails:
            raise TypedError("failed")
        await trio.sleep(0.02)
        assert connection.metadata == {"name": name}
        return name

    outcomes = {}

    async def run(door: Any, name: str, *, fails: bool) -> None:
        async with door.call("it", {"name": name, "fails": fails}) as call:
            outcomes[name] = await call.outcome()

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run(door, "a", fails=True))
            nursery.start_soon(lambda: run(door, "b", fails=False))
    assert outcomes["a"].error["message"] == "failed"
    assert outcomes["b"] == Outcome("b")
    assert seen["a"].correlation_id != seen["b"].correlation_id


async def test_the_connection_is_in_the_registry_for_the_whole_life_of_a_stream(driver: Driver):
    app, known = make_app(), []

    @action(app, "it")
    async def it(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for _ in range(3):
                await sse.send("x")
                known.append(app.connections[connection.id].id == connection.id != connection.session.id)

        return StreamingResponse.sse(produce)

    await ask(driver, app, "it")
    assert known == [True] * 3


async def test_middleware_runs_around_the_function_and_cannot_replace_a_stream(driver: Driver, caplog: Any):
    steps: list[str] = []

    class Steps(Middleware):
        async def run_before(self, params: dict[str, Any], connection: Connection) -> Update | None:
            steps.append(f"before {connection.metadata.setdefault('n', params['n'])}")
            return Update(params={"n": params["n"] + 1})

        async def run_after(
            self, params: dict[str, Any], connection: Connection, error: BaseException | None
        ) -> Update | None:
            steps.append(f"after {params['n']} {error}")
            return Update(response="replaced")

    app = make_app()

    @action(app, "it", middleware=[Steps()])
    async def it(n: int) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            steps.append("produce")
            await sse.send(n)

        return StreamingResponse.sse(produce)

    assert (await ask(driver, app, "it", {"n": 1})).events == [(None, "2")]
    assert steps == ["before 1", "after 2 None", "produce"]
    assert "cannot replace a stream" in caplog.text


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def test_context_variables_reach_the_producer_and_no_other_call(driver: Driver):
    class Sets(Middleware):
        async def run_before(self, params: dict[str, Any], connection: Connection) -> Update | None:
            found.append(VARIABLE.get())
            VARIABLE.set("by the middleware")
            return None

    app, found = make_app(), []

    @action(app, "it", middleware=[Sets()])
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send(VARIABLE.get())
            VARIABLE.set("by the producer")

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door:
            for _ in range(3):
                async with door.call("it") as call:
                    assert (await call.outcome()).events == [(None, "by the middleware")]
    assert found == ["unset"] * 3


async def test_an_action_calls_another_and_returns_its_stream(driver: Driver):
    app = make_app()

    @action(app, "inner")
    async def inner(n: int) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send(n)

        return StreamingResponse.sse(produce)

    @action(app, "outer")
    async def outer(connection: Connection) -> StreamingResponse:
        return await connection.act("inner", {"n": 5})

    assert (await ask(driver, app, "outer")).events == [(None, "5")]


# The application stops


@pytest.mark.awaited
async def test_a_stop_ends_streams_and_lets_plain_calls_finish(driver: Driver, caplog: Any):
    app, begun, proceed, cleaned = make_app(drain_timeout=2), trio.Event(), trio.Event(), trio.Event()
    outcomes = []

    @action(app, "stream", timeout=0)
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                cleaned.set()

        return StreamingResponse.sse(produce)

    @action(app, "plain")
    async def plain() -> str:
        begun.set()
        await proceed.wait()
        return "finished"

    async def run_plain(door: Any) -> None:
        async with door.call("plain") as call:
            outcomes.append(await call.outcome())

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, trio.open_nursery() as nursery:
            nursery.start_soon(run_plain, door)
            await begun.wait()
            async with door.call("stream") as call:
                await call.item()
                app.shut_down()
                await cleaned.wait()
                outcome = await call.outcome()
            proceed.set()
    assert outcome.items == []
    assert outcomes == [Outcome("finished")]
    assert ":SHUTDOWN]" in caplog.text


@pytest.mark.awaited
async def test_a_call_that_outlasts_the_stop_is_told_so(driver: Driver):
    app, begun = make_app(drain_timeout=0.1), trio.Event()

    @action(app, "plain", timeout=0)
    async def plain() -> None:
        begun.set()
        await trio.sleep_forever()

    async def stop() -> None:
        await begun.wait()
        app.shut_down()

    with trio.fail_after(LIMIT):
        async with driver.open(app) as door, trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            async with door.call("plain") as call:
                assert (await call.outcome()).error["type"] == "CONNECTION_UNAVAILABLE"


async def test_a_response_is_its_body(driver: Driver):
    app = make_app()

    @action(app, "it")
    async def it() -> Response:
        return Response('{"made": "by hand"}', content_type="application/json")

    outcome = await ask(driver, app, "it")
    assert outcome.value in ('{"made": "by hand"}', {"made": "by hand"})
