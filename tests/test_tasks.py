"""Jobs as a user has them: enqueued by an application, run as calls, waited for."""

from __future__ import annotations

import itertools
import logging
from datetime import date
from typing import Annotated, Any

import attrs
import pytest
import trio
from msgspec import Meta
from trio.testing import MockClock

from keryx_trio import (
    SECRET,
    Config,
    Connection,
    ConnectionType,
    ErrorType,
    EventStream,
    Job,
    Keryx,
    Response,
    StreamingResponse,
    Task,
    TypedError,
    Web,
)
from keryx_trio.config import ConfigError, TasksConfig
from keryx_trio.store.jobs import Order
from keryx_trio.testing import open_client
from keryx_trio.transports.worker import MOST_LOSSES, Workers
from tests.e2e.serving import until


def make_app(*, debug: bool = False, drain_timeout: float = 10.0, max_collected: int = 1000, **tasks: Any) -> Keryx:
    config = Config(debug=debug, drain_timeout=drain_timeout, max_collected=max_collected, tasks=TasksConfig(**tasks))
    return Keryx(config=config)


@pytest.fixture
def app() -> Keryx:
    app = make_app()

    @app.action("add")
    async def add(a: int, b: Annotated[int, Meta(ge=0)] = 1) -> int:
        return a + b

    return app


@attrs.define
class Place:
    name: str


# Enqueueing, and what comes of it


async def test_a_job_is_a_call_in_the_background_and_its_value_the_result(app: Keryx, autojump_clock: MockClock):
    async with app:
        job = await app.enqueue("add", {"a": 3})
        assert (job.action, job.queue, job.status) == ("add", "default", "queued")
        assert await job.result() == 4
        assert (job.status, job.attempts) == ("done", 1)
        again = await app.job(job.id)
        assert await again.result() == 4
        assert isinstance(again, Job)
        assert repr(again) == f"<Job {job.id} add done>"


async def test_inputs_may_be_anything_that_has_a_form_in_json(autojump_clock: MockClock):
    app = make_app()

    @app.action("it")
    async def it(day: date, place: Place) -> Any:
        return {"day": day, "place": place}

    async with app:
        job = await app.enqueue("it", {"day": date(2026, 1, 2), "place": Place("here")})
        assert await job.result() == {"day": "2026-01-02", "place": {"name": "here"}}


async def test_what_cannot_run_is_refused_where_it_is_enqueued(app: Keryx, autojump_clock: MockClock):
    async with app:
        with pytest.raises(TypedError, match="action not found: nobody"):
            await app.enqueue("nobody")
        with pytest.raises(TypedError) as raised:
            await app.enqueue("add", {"a": "1", "b": -1})
        assert [key for key, _ in raised.value.errors] == ["a", "b"]
        with pytest.raises(TypeError, match="no JSON form"):
            await app.enqueue("add", {"a": object()})
        for wrong in ({"delay": -1}, {"delay": float("inf")}, {"retries": -1}, {"retries": True}, {"queue": "a b"}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                await app.enqueue("add", {"a": 1}, **wrong)
        assert (await app.store.jobs.overview(10)).counts == {}


async def test_an_application_that_does_not_run_cannot_enqueue(tmp_path: Any):
    app = Keryx(store=f"sqlite:///{tmp_path}/state.db", config=Config())

    @app.action("it")
    async def it() -> None: ...

    with pytest.raises(TypedError, match="store cannot be reached"):
        await app.enqueue("it")


async def test_an_unknown_job_is_not_found(app: Keryx, autojump_clock: MockClock):
    async with app:
        for unknown in ("nothing", "", "\ud800"):
            with pytest.raises(TypedError, match="no job") as raised:
                await app.job(unknown)
            assert raised.value.status == 404


async def test_a_failed_job_raises_the_error_of_its_action(app: Keryx, autojump_clock: MockClock):
    @app.action("fail")
    async def fail() -> None:
        raise TypedError("no such chat", ErrorType.CONNECTION_CHANNEL_VALIDATION, key="chat", value=7)

    async with app:
        job = await app.enqueue("fail", retries=5)
        with pytest.raises(TypedError, match="no such chat") as raised:
            await job.result()
        error = raised.value
        assert (error.type, error.key, error.value) == (ErrorType.CONNECTION_CHANNEL_VALIDATION, "chat", 7)
        assert job.error.payload() == error.payload()
        assert (job.status, job.attempts) == ("failed", 1)  # to try again would not help


async def test_an_unknown_exception_is_told_in_general_words(
    app: Keryx, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
):
    @app.action("fail")
    async def fail() -> None:
        raise LookupError("swordfish")

    async with app:
        job = await app.enqueue("fail")
        with pytest.raises(TypedError) as raised:
            await job.result()
        assert "swordfish" not in str(raised.value.payload())
        assert "swordfish" in caplog.text


async def test_an_action_that_is_gone_by_then_fails_its_job_which_is_kept(app: Keryx, autojump_clock: MockClock):
    async with app:
        job = await app.enqueue("add", {"a": 1}, delay=5, retries=3)
        del app._actions["add"]
        with pytest.raises(TypedError, match="action not found: add"):
            await job.result()


async def test_a_job_whose_worker_is_lost_again_and_again_fails_and_is_kept(tmp_path: Any):
    app = Keryx(store=f"sqlite:///{tmp_path}/state.db", config=Config())
    store: Any = app.store
    calls = 0

    @app.action("deadly")
    async def deadly() -> None:
        nonlocal calls
        calls += 1

    async with store.open():
        workers, app.workers = app.workers, None
        job = await app.enqueue("deadly", retries=5)
        for _ in range(MOST_LOSSES):
            assert (await store.jobs.claim("default", 1, 0.001))[0]
            await trio.sleep(0.002)
    app.workers = workers
    with trio.fail_after(10):
        async with app:
            with pytest.raises(TypedError, match="its worker was lost 10 times while it ran"):
                await (await app.job(job.id)).result()
    assert calls == 0


async def test_an_order_that_is_none_ends_alone(
    app: Keryx, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
):
    async with app:
        await app.store.jobs.put(Order("broken", "add", b"[", "default", "c"))
        job = await app.job("broken")
        with pytest.raises(TypedError, match="The action failed"):
            await job.result()
        assert await (await app.enqueue("add", {"a": 1})).result() == 2
    assert "a job cannot be attempted" in caplog.text


async def test_a_delay_passes_before_a_job_begins(app: Keryx, autojump_clock: MockClock):
    async with app:
        start = trio.current_time()
        job = await app.enqueue("add", {"a": 1}, delay=600)
        assert job.status == "delayed"
        await job.result()
        assert trio.current_time() - start == pytest.approx(600)


# Retries


async def test_a_failure_that_may_pass_is_tried_again_with_longer_and_longer_pauses(
    app: Keryx, autojump_clock: MockClock
):
    times = []

    @app.action("flaky")
    async def flaky(good: int) -> int:
        times.append(trio.current_time())
        if len(times) < good:
            raise LookupError("not yet")
        return len(times)

    async with app:
        job = await app.enqueue("flaky", {"good": 4}, retries=3)
        assert await job.result() == 4
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert [1 <= pauses[0] <= 1.25, 2 <= pauses[1] <= 2.5, 4 <= pauses[2] <= 5] == [True] * 3, pauses
        times.clear()
        job = await app.enqueue("flaky", {"good": 4}, retries=2)
        with pytest.raises(TypedError):
            await job.result()
        assert job.attempts == len(times) == 3


async def test_an_error_may_say_when_to_try_again(app: Keryx, autojump_clock: MockClock):
    times = []

    @app.action("busy")
    async def busy() -> None:
        times.append(trio.current_time())
        if len(times) == 1:
            raise TypedError("busy", ErrorType.CONNECTION_RATE_LIMITED, retry_after=100)

    async with app:
        await (await app.enqueue("busy", retries=1)).result()
    assert times[1] - times[0] == pytest.approx(100)


# What a job's call is like


async def test_a_job_has_a_connection_of_its_own_and_the_request_id_of_who_ordered_it(
    app: Keryx, autojump_clock: MockClock
):
    seen: dict[str, Any] = {}

    @app.action("order", web=Web("/order"))
    async def order() -> str:
        return (await app.enqueue("it")).id

    @app.action("it")
    async def it(connection: Connection) -> list[Any]:
        seen["open"] = connection.id in app.connections
        await connection.session.update(x=1)
        return [connection.type, connection.identifier, connection.correlation_id, dict(connection.session.data)]

    async with open_client(app) as client:
        answer = await client.get("/api/order", headers={"X-Request-Id": "from-the-client"})
        job = await app.job(answer.json())
        assert await job.result() == [ConnectionType.TASK, f"job:{job.id}", "from-the-client", {"x": 1}]
        assert job.correlation_id == "from-the-client"
        assert seen == {"open": True}
        await until(lambda: not app.connections)


async def test_the_log_has_a_line_of_a_job_without_its_secrets(
    app: Keryx, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "keryx_trio")

    @app.action("login")
    async def login(password: Annotated[str, SECRET]) -> None:
        raise TypedError(f"wrong: {password}")

    async with app:
        with pytest.raises(TypedError) as raised:
            await (await app.enqueue("login", {"password": "swordfish"})).result()
    assert "wrong" in str(raised.value)
    assert "[ACTION:TASK:ERROR] login" in caplog.text
    assert "a job failed, and is kept" in caplog.text
    assert "swordfish" not in caplog.text + str(raised.value)


async def test_a_stream_is_collected_without_a_reader(app: Keryx, autojump_clock: MockClock):
    @app.action("events")
    async def events() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("é\n", event="token")
            await sse.comment("nobody reads this")
            await sse.send({"n": [1]}, id="7")

        return StreamingResponse.sse(produce)

    @app.action("bytes")
    async def pieces(kind: str) -> StreamingResponse:
        async def chunks() -> Any:
            yield "é".encode()[:1]
            yield "é".encode()[1:] + b"!"

        return StreamingResponse.stream(chunks(), content_type=kind)

    @app.action("response")
    async def response() -> Response:
        return Response(b"\xff", status=201)

    async with app:
        job = await app.enqueue("events")
        assert await job.result() == [{"data": "é\n", "event": "token"}, {"data": {"n": [1]}, "id": "7"}]
        assert await (await app.enqueue("bytes", {"kind": "text/plain"})).result() == "é!"
        assert await (await app.enqueue("bytes", {"kind": "image/png"})).result() == "w6kh"
        assert await (await app.enqueue("response")).result() == "/w=="


async def test_a_stream_that_is_too_large_ends_where_it_is_sent_and_fails_its_job(
    app: Keryx, autojump_clock: MockClock
):
    raised_in: list[str] = []

    @app.action("much")
    async def much() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                for _ in range(100):
                    await sse.send("x" * 100)
            except TypedError as error:
                raised_in.append(error.message)
                raise

        return StreamingResponse.sse(produce)

    async with app:
        job = await app.enqueue("much", retries=3)
        with pytest.raises(TypedError, match="larger than 1000 bytes.*KERYX_MAX_COLLECTED") as raised:
            await job.result()
        assert raised.value.type is ErrorType.CONNECTION_PAYLOAD_TOO_LARGE
        assert (len(raised_in), job.attempts) == (1, 1)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_job_that_takes_too_long_keeps_its_error_and_not_half_a_result(
    app: Keryx, autojump_clock: MockClock, streams: bool
):
    cleaned = []

    @app.action("slow", timeout=5)
    async def slow() -> Any:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("half")
                await trio.sleep_forever()
            finally:
                cleaned.append(True)

        if streams:
            return StreamingResponse.sse(produce)
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    async with app:
        job = await app.enqueue("slow")
        with pytest.raises(TypedError, match="timed out after 5 seconds") as raised:
            await job.result()
        assert raised.value.type is ErrorType.CONNECTION_ACTION_TIMEOUT
        assert cleaned == [True]


async def test_a_stream_that_fails_halfway_keeps_its_error(app: Keryx, autojump_clock: MockClock):
    @app.action("half")
    async def half() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("half")
            raise TypedError("the other half is missing")

        return StreamingResponse.sse(produce)

    async with app:
        with pytest.raises(TypedError, match="the other half is missing"):
            await (await app.enqueue("half")).result()


# Workers


async def test_the_settings_say_how_many_run_at_once_in_each_queue(autojump_clock: MockClock):
    app = make_app(workers=2, queues=["mail:3", "default"])
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    @app.action("it")
    async def it(queue: str) -> None:
        running[queue] = running.get(queue, 0) + 1
        most[queue] = max(most.get(queue, 0), running[queue])
        await trio.sleep(1)
        running[queue] -= 1

    async with app:
        jobs = [await app.enqueue("it", {"queue": name}, queue=name) for name in ("mail", "default") for _ in range(8)]
        nobodys = await app.enqueue("it", {"queue": "other"}, queue="other")
        for job in jobs:
            await job.result()
        assert most == {"mail": 3, "default": 2}
        await nobodys.refresh()
        assert nobodys.status == "queued"


async def test_a_queue_that_nobody_has_named_is_served_at_once(app: Keryx, autojump_clock: MockClock):
    async with app:
        await trio.sleep(5)
        start = trio.current_time()
        assert await (await app.enqueue("add", {"a": 1}, queue="new")).result() == 2
        assert trio.current_time() == start


async def test_a_second_life_of_an_application_serves_what_the_first_did(app: Keryx, autojump_clock: MockClock):
    with trio.CancelScope() as scope:
        async with app:
            await (await app.enqueue("add", {"a": 1})).result()
            scope.cancel()
    async with app:
        with trio.fail_after(60):
            assert await (await app.enqueue("add", {"a": 2})).result() == 3


async def test_an_order_is_served_though_whoever_gave_it_has_left(app: Keryx, autojump_clock: MockClock):
    done = trio.Event()

    @app.action("tell")
    async def tell() -> None:
        done.set()

    async with app:
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            await app.enqueue("tell", queue="new")
            scope.cancel()
            await trio.sleep_forever()
        with trio.fail_after(60):
            await done.wait()


async def test_many_failures_and_long_times_are_bounded(autojump_clock: MockClock):
    app = make_app(retry_delay=0, failed_ttl=1e300, result_ttl=1e300)
    calls = 0

    @app.action("flaky")
    async def flaky() -> None:
        nonlocal calls
        calls += 1
        if calls <= 1100:
            raise TypedError("no", retry_after=1e300 if calls == 1100 else None)

    async with app:
        job = await app.enqueue("flaky", retries=5000)
        await job.result()
        assert job.attempts == 1101
        with pytest.raises(ValueError, match="at most ten years"):
            await app.enqueue("flaky", delay=1e15)


async def test_the_queue_of_a_task_is_that_of_its_jobs(app: Keryx, autojump_clock: MockClock):
    @app.action("mail", task=Task(queue="mail"))
    async def mail() -> None: ...

    async with app:
        assert (await app.enqueue("mail")).queue == "mail"
        assert (await app.enqueue("mail", queue="slow")).queue == "slow"


async def test_where_nothing_runs_jobs_and_nobody_else_can_the_log_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
):
    app = make_app(workers=0)

    @app.action("it")
    async def it() -> None: ...

    assert app.workers is None
    async with app:
        assert (await app.enqueue("it")).status == "queued"
    assert "no worker can take this job" in caplog.text
    assert "jobs are lost with this process: KERYX_STORE names a store that keeps them jobs=1" in caplog.text


async def test_an_application_that_runs_for_one_call_leaves_the_jobs_of_a_shared_store_alone(tmp_path: Any):
    app = Keryx(store=f"sqlite:///{tmp_path}/state.db", config=Config())
    app.serving = False
    assert app.workers is None


@pytest.mark.parametrize("queues", ["mail:0", "a b", "mail:x", ":3"])
def test_a_malformed_queue_is_refused(queues: str):
    with pytest.raises(ConfigError, match="KERYX_TASKS_QUEUES must be queues, such as default or mail:4"):
        Config.from_env({"KERYX_TASKS_QUEUES": queues})
    with pytest.raises(ValueError, match="is no name for a queue"):
        Task(queue=queues)


def test_workers_are_what_is_asked_for():
    app = make_app(workers=2, queues=["a", "b:3"])
    assert Workers.of(app)._queues == {"a": 2, "b": 3}
    assert Workers.of(app, ["c", "d:1"], 5)._queues == {"c": 5, "d": 1}
    assert Workers.of(make_app(workers=0)) is None
    assert Workers.of(make_app(workers=0), workers=1)._others == 1


# Recurring tasks


async def test_a_recurring_task_runs_once_a_period(autojump_clock: MockClock):
    app = make_app()
    times = []

    @app.action("tick", task=Task(every=100))
    async def tick(greeting: str = "hello") -> None:
        times.append(trio.current_time())

    async with app:
        start = trio.current_time()
        await trio.sleep(1000)
    assert len(times) in (10, 11)
    assert times[0] == start
    assert all(after - before == pytest.approx(100, abs=0.01) for before, after in itertools.pairwise(times[1:]))


async def test_a_recurring_task_does_not_pile_up_while_it_runs(autojump_clock: MockClock):
    app = make_app(workers=5)
    running = 0

    @app.action("slow", task=Task(every=10))
    async def slow() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(25)
        running -= 1

    async with app:
        await trio.sleep(300)
        counts = (await app.store.jobs.overview(10)).counts["default"]
        assert counts.get("queued", 0) == 0
        assert counts["done"] >= 8


def test_a_recurring_task_with_an_input_that_nobody_gives_is_refused():
    app = make_app()
    with pytest.raises(TypeError, match="action it: a recurring task is given no inputs, and 'name' has no default"):

        @app.action("it", task=Task(every=10))
        async def it(name: str) -> None: ...


# Stopping


@pytest.mark.parametrize("streams", [False, True])
async def test_a_stop_lets_jobs_that_run_finish_streams_too(autojump_clock: MockClock, streams: bool):
    app = make_app(drain_timeout=10)
    done = []

    @app.action("it")
    async def it() -> Any:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await trio.sleep(8)
            await sse.send("two")
            done.append(True)

        if streams:
            return StreamingResponse.sse(produce)
        await trio.sleep(8)
        return done.append(True)

    async with app:
        job = await app.enqueue("it")
        await trio.sleep(1)
        app.shut_down()
        if streams:
            assert await job.result() == [{"data": "one"}, {"data": "two"}]
        else:
            assert await job.result() is None
    assert done == [True]


@pytest.mark.parametrize("streams", [False, True])
async def test_what_does_not_end_in_time_is_cancelled_and_goes_back_to_its_queue(
    streams: bool, tmp_path: Any, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "keryx_trio")
    config = Config(drain_timeout=0.3)
    app = Keryx(store=f"sqlite:///{tmp_path}/state.db", config=config)
    begun, ended = trio.Event(), []
    hang = True

    @app.action("it")
    async def it() -> Any:
        async def work() -> None:
            try:
                begun.set()
                if hang:
                    await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await work()

        if streams:
            return StreamingResponse.sse(produce)
        return await work()

    with trio.fail_after(10):
        async with app:
            job = await app.enqueue("it", retries=0)
            await begun.wait()
            start = trio.current_time()
        assert 0.25 < ended[0] - start < 1
        hang = False
        async with app:
            again = await app.job(job.id)
            assert await again.result() == ([{"data": "one"}] if streams else None)
    assert "a job goes back to its queue" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
