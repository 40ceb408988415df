"""Calls whose ends come together: who wins, who is told what, and that nobody is left waiting."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from keryx_trio import (
    SECRET,
    ByteStream,
    Config,
    Connection,
    EventStream,
    Keryx,
    Middleware,
    StreamingResponse,
    TypedError,
    Update,
    Web,
)
from keryx_trio.testing import open_client


def serve(function: Any, *, timeout: float | None = None, middleware=(), config: Config | None = None) -> Keryx:
    app = Keryx(config=config or Config())
    app.action("it", web=Web("/it", method=("GET", "POST")), timeout=timeout, middleware=middleware)(function)
    return app


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.DEBUG, "keryx_trio")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Source:
    """An async iterable that knows whether it was closed; its iterator is another object."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.closed: list[str] = []

    def __aiter__(self):
        return self.iterate()

    async def iterate(self):
        try:
            for item in self.items:
                yield item
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.closed.append("iterator")

    async def aclose(self) -> None:
        self.closed.append("source")


async def shielded(seconds: float) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


# A sender that waits for room


@pytest.mark.parametrize("how", ["left", "shutdown", "timeout"])
@pytest.mark.parametrize("tasks", [0, 2])
async def test_a_sender_that_waits_for_room_is_cancelled_there(how, tasks, errors, autojump_clock):
    seen: list[BaseException] = []

    async def produce(sse: EventStream) -> None:
        try:
            while True:
                await sse.send("x" * 1000)
        except BaseException as error:
            seen.append(error)
            raise

    async def it(connection: Connection) -> StreamingResponse:
        if not tasks:
            return StreamingResponse.sse(produce)
        sse = StreamingResponse.sse()
        for _ in range(tasks):
            connection.nursery.start_soon(produce, sse)
        return sse

    async with open_client(serve(it, timeout=5)) as client, client.stream("GET", "/api/it") as stream:
        await wait_all_tasks_blocked()
        if how == "shutdown":
            client.shut_down()
        elif how == "timeout":
            await trio.sleep(6)
        if how != "left":
            await stream.read()
    assert [type(error) for error in seen] == [trio.Cancelled] * max(1, tasks)
    assert errors() == []


# What is closed


async def test_the_iterator_that_an_iterable_makes_is_closed_within_the_call(autojump_clock):
    source = Source("a")

    async def it() -> StreamingResponse:
        return StreamingResponse.sse(source)

    app = serve(it)
    async with open_client(app) as client:
        async with client.stream("GET", "/api/it") as stream:
            await stream.receive_event()
        assert source.closed == ["iterator", "source"]
        assert not app.connections


async def test_an_item_without_a_json_form_lets_the_iterator_clean_up(autojump_clock):
    source = Source("a", object())

    async def it() -> StreamingResponse:
        return StreamingResponse.sse(source)

    async with open_client(serve(it)) as client:
        assert [event.event for event in (await client.get("/api/it")).events()] == ["message", "error"]
    assert source.closed == ["iterator", "source"]


async def test_a_stream_that_was_made_and_not_returned_is_closed(autojump_clock):
    sources = [Source(), Source(), Source()]

    class Replaces(Middleware):
        async def run_after(self, params, connection, error):
            return Update(response=StreamingResponse.sse(sources[0]))

    async def inner() -> StreamingResponse:
        return StreamingResponse.sse(sources[1])

    async def it(connection: Connection, fail: bool = False) -> StreamingResponse:
        await connection.act("inner")
        if fail:
            raise TypedError("no")
        return StreamingResponse.sse(sources[2])

    app = serve(it, middleware=[Replaces()])
    app.action("inner")(inner)
    async with open_client(app) as client:
        async with client.stream("GET", "/api/it"):
            await wait_all_tasks_blocked()
        assert [source.closed for source in sources] == [["source"], ["source"], ["iterator", "source"]]


@pytest.mark.parametrize("how", ["head", "raise", "outside"])
async def test_who_sends_to_a_stream_that_nobody_reads_is_let_go(how):
    """A hub in the app's nursery must not freeze for one subscriber that never came to read."""
    streams: list[EventStream] = []
    alive = []

    async def hub() -> None:
        while True:
            for stream in list(streams):
                try:
                    await stream.send("beat")
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    streams.remove(stream)
                    alive.append(True)
            await trio.lowlevel.checkpoint()

    async def it() -> StreamingResponse:
        streams.append(StreamingResponse.sse(lambda _: trio.sleep_forever()))
        if how == "raise":
            raise TypedError("after all")
        return streams[-1]

    app = serve(it)
    with trio.fail_after(5):
        async with open_client(app) as client:
            app.nursery.start_soon(hub)
            if how == "outside":
                async with trio.open_nursery() as nursery:
                    stream = client.stream("GET", "/api/it")
                    nursery.start_soon(stream.__aenter__)
                    while not streams:
                        await trio.lowlevel.checkpoint()
                stream.leave()
            else:
                await client.request("HEAD" if how == "head" else "GET", "/api/it")
            while not alive:
                await trio.lowlevel.checkpoint()
    assert streams == []


# The first cause


async def test_an_error_that_came_before_the_timeout_is_what_the_client_is_told(autojump_clock):
    async def it(connection: Connection) -> None:
        connection.nursery.start_soon(clean_up_slowly)
        await wait_all_tasks_blocked()
        raise TypedError("who are you?")

    async def clean_up_slowly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            await shielded(2)

    async with open_client(serve(it, timeout=1)) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "who are you?"


@pytest.mark.parametrize("who", ["source", "sibling"])
async def test_a_failure_is_told_at_once_however_long_others_clean_up(who, autojump_clock):
    async def it(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await part(fails=who == "source")

        connection.nursery.start_soon(sibling)
        return StreamingResponse.sse(produce)

    async def sibling() -> None:
        await part(fails=who == "sibling")

    async def part(*, fails: bool) -> None:
        if fails:
            await trio.sleep(1)
            raise TypedError("broke")
        try:
            await trio.sleep_forever()
        finally:
            await shielded(5)

    async with open_client(serve(it, timeout=2)) as client, client.stream("GET", "/api/it") as stream:
        event = await stream.receive_event()
        assert (event.event, event.json()["message"]) == ("error", "broke")
        assert trio.current_time() == 1


async def test_a_failing_task_is_told_though_its_siblings_close_the_stream_when_they_are_cancelled():
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(wait, sse)
        connection.nursery.start_soon(fail, sse)
        return sse

    async def wait(sse: EventStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            sse.close()

    async def fail(sse: EventStream) -> None:
        await sse.send("a")
        raise TypedError("broke")

    async with open_client(serve(it)) as client:
        assert [event.event for event in (await client.get("/api/it")).events()] == ["message", "error"]


async def test_closing_in_a_finally_does_not_hide_the_failure_that_passes_through_it():
    async def it(kind: str) -> StreamingResponse:
        async def produce(stream: Any) -> None:
            try:
                await stream.send(b"half" if kind == "bytes" else "half")
                raise TypedError("broke")
            finally:
                stream.close()

        return StreamingResponse.stream(produce) if kind == "bytes" else StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        events = (await client.get("/api/it?kind=sse")).events()
        assert [event.event for event in events] == ["message", "error"]
        with pytest.raises(EOFError, match="cut after 4 bytes"):
            await client.get("/api/it?kind=bytes")


async def test_an_exception_that_is_dealt_with_after_a_close_leaves_the_clean_end():
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                raise KeyError("dealt with")
            except KeyError:
                sse.close()
            await trio.lowlevel.checkpoint()

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body == b""


async def test_a_typed_error_after_the_end_is_not_lost(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            sse.close()
            await wait_all_tasks_blocked()
            raise TypedError("late and typed")

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body == b""
    assert "late and typed" in errors()[0]


async def test_with_around_a_byte_stream_does_not_make_a_clean_end_of_a_cancelled_one():
    async def it() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                with stream:
                    await stream.send(b"half")
                    await trio.sleep_forever()

        async def fail() -> None:
            await wait_all_tasks_blocked()
            raise TypedError("sibling")

        return StreamingResponse.stream(produce)

    async with open_client(serve(it)) as client:
        with pytest.raises(EOFError, match="cut after 4 bytes"):
            await client.get("/api/it")


async def test_a_stream_whose_nursery_the_application_cancelled_is_no_clean_end():
    async def it(connection: Connection) -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b"half")
            connection.nursery.cancel_scope.cancel()
            await trio.sleep_forever()

        return StreamingResponse.stream(produce)

    async with open_client(serve(it)) as client:
        with pytest.raises(EOFError, match="cut after 4 bytes"):
            await client.get("/api/it")


async def test_a_shutdown_before_the_timeout_came_first_though_both_had_passed_when_anybody_looked(autojump_clock):
    async def it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            await shielded(0.3)

    async with open_client(serve(it, timeout=2.1, config=Config(drain_timeout=1))) as client:
        stream = client.stream("GET", "/api/it")
        await trio.sleep(1)
        client.shut_down()
        async with stream:
            assert stream.status == 503


# What middleware is told


@pytest.mark.parametrize("children", [0, 1, 2])
@pytest.mark.parametrize("how", ["timeout", "left"])
async def test_run_after_is_told_one_plain_reason_however_the_action_waited(children, how, autojump_clock):
    told: list[BaseException | None] = []

    class Sees(Middleware):
        async def run_after(self, params, connection, error):
            told.append(error)

    async def it() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(children):
                nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    async with open_client(serve(it, timeout=1, middleware=[Sees()])) as client:
        stream = client.stream("GET", "/api/it")
        await wait_all_tasks_blocked(0.001)
        if how == "left":
            stream.leave()
        else:
            async with stream:
                assert stream.status == 408
    (error,) = told
    assert type(error) is (TypedError if how == "timeout" else trio.Cancelled)


async def test_an_error_beside_a_cancellation_is_told_alone(autojump_clock):
    told: list[BaseException | None] = []

    class Sees(Middleware):
        async def run_after(self, params, connection, error):
            told.append(error)

    async def fails_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async def it() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_late)
            await trio.sleep_forever()

    async with open_client(serve(it, middleware=[Sees()])) as client:
        stream = client.stream("GET", "/api/it")
        await wait_all_tasks_blocked(0.001)
        stream.leave()
    assert isinstance(told[0], ValueError)


@pytest.mark.parametrize("odd", [True, {"response": 1}, GeneratorExit])
async def test_the_outer_run_after_runs_whatever_an_inner_one_does(odd, errors):
    ran = []

    class Outer(Middleware):
        async def run_after(self, params, connection, error):
            ran.append(error)

    class Odd(Middleware):
        async def run_after(self, params, connection, error):
            if isinstance(odd, type):
                raise odd
            return odd

    async def it() -> str:
        return "fine"

    async with open_client(serve(it, middleware=[Outer(), Odd()])) as client:
        assert (await client.get("/api/it")).status == 500
    assert len(ran) == 1
    assert ran[0] is not None


async def test_a_run_before_that_returns_something_odd_is_told_what_to_return(caplog):
    class Odd(Middleware):
        async def run_before(self, params, connection):
            return params

    async def it() -> None: ...

    async with open_client(serve(it, middleware=[Odd()])) as client:
        assert (await client.get("/api/it")).status == 500
    assert "Odd.run_before returned dict: return an Update, or None" in caplog.text


# act


async def test_a_timeout_of_another_action_wins_over_what_its_tasks_raise_in_their_cleanup(autojump_clock, errors):
    async def inner() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            await trio.sleep_forever()

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    async def it(connection: Connection) -> str:
        with pytest.raises(TypedError, match="action inner timed out"):
            await connection.act("inner")
        return "told"

    app = serve(it)
    app.action("inner", timeout=1)(inner)
    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == "told"
    assert "cleanup" in errors()[0]


async def test_act_on_a_kept_connection_says_that_the_call_is_over():
    kept: list[Connection] = []

    async def it(connection: Connection) -> None:
        kept.append(connection)

    async with open_client(serve(it)) as client:
        await client.get("/api/it")
        with pytest.raises(RuntimeError, match="is over"):
            await kept[0].act("it")


# Whose task sends


async def test_a_task_that_made_the_stream_may_wait_for_room_before_it_was_returned():
    async def it(connection: Connection) -> StreamingResponse:
        sse = await connection.nursery.start(produce)
        await wait_all_tasks_blocked()
        return sse

    async def produce(*, task_status: trio.TaskStatus[EventStream]) -> None:
        sse = StreamingResponse.sse()
        task_status.started(sse)
        for number in range(200):
            await sse.send(number)

    async with open_client(serve(it)) as client:
        assert len((await client.get("/api/it")).events()) == 200


async def test_the_actions_own_task_must_not_fill_a_stream_that_another_made(caplog):
    async def it(connection: Connection) -> StreamingResponse:
        sse = await connection.nursery.start(make)
        for number in range(100):
            await sse.send(number)
        return sse

    async def make(*, task_status: trio.TaskStatus[EventStream]) -> None:
        task_status.started(StreamingResponse.sse())
        await trio.sleep_forever()

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).status == 500
    assert "send from a task" in caplog.text


# Beyond the call


@pytest.mark.parametrize("error", [SystemExit("exit"), GeneratorExit(), BaseException("own")])
@pytest.mark.parametrize("where", ["action", "producer", "task"])
async def test_what_would_end_the_server_ends_the_call_alone(error, where, errors):
    async def it(connection: Connection) -> Any:
        async def produce(sse: EventStream) -> None:
            await sse.send("a")
            raise error

        async def task() -> None:
            raise error

        if where == "action":
            raise error
        if where == "task":
            connection.nursery.start_soon(task)
            await trio.sleep_forever()
        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        answer = await client.get("/api/it")
    if where == "producer":
        assert [event.event for event in answer.events()] == ["message", "error"]
    else:
        assert answer.status == 500
    assert any("would end the whole server" in line for line in errors())


async def test_a_call_that_is_cancelled_from_outside_goes_quietly_and_reports_what_its_cleanup_raised(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("a")
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup")

        return StreamingResponse.sse(produce)

    app = serve(it)
    async with app, trio.open_nursery() as nursery:
        started = trio.Event()

        async def send(message):
            await trio.lowlevel.checkpoint()
            started.set()

        async def receive():
            await trio.lowlevel.checkpoint()
            if started.is_set():
                await trio.sleep_forever()
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": "/api/it", "http_version": "1.1", "headers": []}
        nursery.start_soon(app, scope, receive, send)
        await started.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not app.connections
    assert "cleanup" in errors()[0]


@pytest.mark.parametrize(
    "error",
    [OSError(), trio.BrokenResourceError(), trio.ClosedResourceError(), trio.BusyResourceError(), KeyError("bug")],
)
async def test_what_a_servers_send_raises_never_starts_a_second_answer(error, errors):
    sent: list[str] = []

    async def send(message):
        await trio.lowlevel.checkpoint()
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise error

    async def receive():
        await trio.lowlevel.checkpoint()
        if sent:
            await trio.sleep_forever()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def it() -> str:
        return "x" * 200_000

    app = serve(it)
    async with app:
        scope = {"type": "http", "method": "GET", "path": "/api/it", "http_version": "1.1", "headers": []}
        await app(scope, receive, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert len(errors()) == isinstance(error, KeyError)


# The shutdown


async def raw_request(app: Keryx, messages: list[dict[str, Any]], sent: list[Any], path: str = "/api/it") -> None:
    """A request whose body comes as `messages`, and then no more."""

    async def receive():
        await trio.lowlevel.checkpoint()
        if not messages:
            await trio.sleep_forever()
        return messages.pop(0)

    async def send(message):
        await trio.lowlevel.checkpoint()
        sent.append(message.get("status", message["type"]))

    scope = {"type": "http", "method": "POST", "path": path, "http_version": "1.1", "headers": []}
    await app(scope, receive, send)


async def test_a_request_whose_body_is_on_its_way_is_a_connection_and_a_shutdown_waits_for_it_no_longer(autojump_clock):
    async def it(n: int = 0) -> None:
        raise AssertionError

    app = serve(it, config=Config(drain_timeout=5))
    sent: list[Any] = []
    async with trio.open_nursery() as nursery:
        async with app:
            nursery.start_soon(raw_request, app, [{"type": "http.request", "body": b"{", "more_body": True}], sent)
            await trio.sleep(1)
            assert len(app.connections) == 1
        assert sent[0] == 503
        assert trio.current_time() <= 6.5
        nursery.cancel_scope.cancel()


async def test_a_body_that_stops_coming_is_given_up(autojump_clock):
    async def it(n: int = 0) -> None:
        raise AssertionError

    app = serve(it, config=Config(read_timeout=7))
    sent: list[Any] = []
    async with app:
        await raw_request(app, [{"type": "http.request", "body": b"{", "more_body": True}], sent)
        assert not app.connections
    assert sent[0] == 408
    assert trio.current_time() <= 10


async def test_a_refusal_to_a_reader_that_takes_nothing_is_bounded_by_the_drain(autojump_clock):
    async def it() -> None: ...

    app = serve(it, config=Config(drain_timeout=2, write_timeout=1000))
    async with trio.open_nursery() as nursery:

        async def frozen(message):
            await trio.sleep_forever()

        async def receive():
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": b"", "more_body": False}

        async with app:
            scope = {"type": "http", "method": "GET", "path": "/no", "http_version": "1.1", "headers": []}
            nursery.start_soon(app, scope, receive, frozen)
            await wait_all_tasks_blocked()
        assert trio.current_time() <= 2.5


async def test_calls_that_end_as_the_drain_asks_are_not_named_as_left_behind(autojump_clock, caplog):
    async def it(stream: bool = False) -> Any:
        async def produce(sse: ByteStream) -> None:
            while True:
                await sse.send(bytes(50_000))

        if not stream:
            await trio.sleep_forever()
        return StreamingResponse.stream(produce)

    app = serve(it, config=Config(drain_timeout=2, write_timeout=1000))
    async with open_client(app) as client:
        client.stream("GET", "/api/it")
        client.stream("GET", "/api/it?stream=true")
        await wait_all_tasks_blocked()
        client.shut_down()
    assert "left behind" not in caplog.text


async def test_an_app_whose_lifespan_failed_may_be_started_again_but_not_while_it_stops(autojump_clock):
    attempts = []

    @asynccontextmanager
    async def lifespan(app: Keryx):
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        yield
        await trio.sleep(5)

    app = Keryx(config=Config(), lifespan=lifespan)
    with pytest.RaisesGroup(ConnectionError, allow_unwrapped=True, flatten_subgroups=True):
        async with app:
            raise AssertionError
    async with trio.open_nursery() as nursery:
        running = trio.Event()

        async def run() -> None:
            async with app:
                running.set()

        nursery.start_soon(run)
        await running.wait()
        await trio.sleep(1)
        with pytest.raises(RuntimeError, match="running already"):
            await app.__aenter__()


async def test_leaving_an_app_that_is_not_running_says_so():
    with pytest.raises(RuntimeError, match="not running"):
        await Keryx(config=Config()).__aexit__(None, None, None)


# Before the call


async def test_what_fails_before_the_call_is_answered_as_every_error_is(errors, monkeypatch):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", broken)

    async def it(file: Any = None) -> None: ...

    content = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--B--\r\n'
    async with open_client(serve(it)) as client:
        answer = await client.post(
            "/api/it", content=content, headers={"content-type": "multipart/form-data; boundary=B"}
        )
    assert answer.status == 500
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_RUN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "disk full" in errors()[0]


async def test_a_run_after_that_fails_beside_an_error_shows_no_secret(caplog):
    class Audits(Middleware):
        async def run_after(self, params, connection, error):
            raise ValueError(f"cannot audit {params['password']}")

    async def it(password: Annotated[str, SECRET]) -> None:
        raise TypedError("no")

    async with open_client(serve(it, middleware=[Audits()])) as client:
        await client.get("/api/it?password=swordfish")
    assert "cannot audit" in caplog.text
    assert "swordfish" not in caplog.text


async def test_a_call_whose_body_came_in_the_drain_may_still_finish(autojump_clock):
    async def it(n: int = 0) -> str:
        await trio.sleep(1)
        return "in time"

    app = serve(it, config=Config(drain_timeout=10))
    sent: list[Any] = []
    send_rest = trio.Event()

    async def receive():
        if send_rest.is_set():
            await trio.sleep_forever()
        await send_rest.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        await trio.lowlevel.checkpoint()
        sent.append(message.get("status", message["type"]))

    scope = {"type": "http", "method": "POST", "path": "/api/it", "http_version": "1.1", "headers": []}
    async with trio.open_nursery() as nursery, app:
        nursery.start_soon(app, scope, receive, send)
        await wait_all_tasks_blocked()
        app.shut_down()
        send_rest.set()
        await trio.sleep(2)
        assert sent[0] == 200


async def test_bytes_may_be_sent_before_the_stream_was_returned():
    async def it() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b" world")

        stream = StreamingResponse.stream(produce)
        await stream.send(b"hello")
        return stream

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body == b"hello world"


async def test_a_response_cannot_stand_in_for_a_cancellation():
    class Replaces(Middleware):
        async def run_after(self, params, connection, error):
            return Update(response="instead")

    async def it() -> None:
        await trio.sleep_forever()

    app = serve(it, timeout=0, middleware=[Replaces()])
    async with open_client(app) as client:
        stream = client.stream("GET", "/api/it")
        await wait_all_tasks_blocked()
        stream.leave()
        await stream.over.wait()
        assert stream.status == 0


async def test_a_close_that_the_client_has_been_told_stands_though_its_exception_goes_on(errors):
    async def it() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                raise TypedError("passes through")
            finally:
                sse.close()
                await wait_all_tasks_blocked()

        return StreamingResponse.sse(produce)

    async with open_client(serve(it)) as client:
        assert (await client.get("/api/it")).body == b""
    assert "passes through" in errors()[0]
