"""Connections: what an action is handed, the registry, and calls from action to action."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import attrs
import pytest
import trio
from msgspec import Meta

from keryx_trio import (
    SECRET,
    Config,
    Connection,
    ConnectionType,
    EventStream,
    Keryx,
    Middleware,
    StreamingResponse,
    TypedError,
    Web,
)
from keryx_trio.connection import Peer
from keryx_trio.session import Session
from keryx_trio.testing import open_client


@pytest.fixture
def app() -> Keryx:
    return Keryx(config=Config())


async def test_an_action_is_handed_who_is_calling(app):
    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        assert connection.app is app
        assert connection.type is ConnectionType.WEB
        assert app.connections[connection.id].id == connection.id
        return [connection.identifier, connection.last_event_id, connection.rate_limit, connection.metadata]

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == ["127.0.0.1", None, None, {}]
        answer = await client.get("/api/it", headers={"Last-Event-ID": "41"})
        assert answer.json()[1] == "41"


async def test_each_connection_has_an_id_of_its_own_whatever_the_cookie_says(app):
    @app.action("stream", web=Web("/stream"))
    async def stream() -> StreamingResponse:
        return StreamingResponse.sse(lambda _: trio.sleep_forever())

    @app.action("plain", web=Web("/plain"))
    async def plain(connection: Connection) -> str:
        return connection.id

    async with open_client(app, headers={"cookie": "__session=same"}) as client:
        async with client.stream("GET", "/api/stream"), client.stream("GET", "/api/stream"):
            assert len(app.connections) == 2
            ids = {(await client.get("/api/plain")).json() for _ in range(3)}
            assert len(ids) == 3
            assert not ids & set(app.connections)
            assert len(app.connections) == 2
        assert not app.connections


async def test_outside_a_call_a_connection_has_no_nursery(app):
    connection = Connection(Peer(app, ConnectionType.WEB, "nobody", Session(app.store, app.config.session, None)), "id")
    with pytest.raises(RuntimeError, match="no call is running"):
        _ = connection.nursery
    assert "web nobody" in repr(connection)


# act


@attrs.define
class Address:
    zip: str


async def test_act_calls_another_action_and_returns_its_value(app):
    @app.action("double")
    async def double(n: int, connection: Connection) -> int:
        return n * 2

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        return await connection.act("double", {"n": 21})

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == 42


async def test_act_takes_values_as_python_has_them(app):
    seen = []

    @app.action("inner")
    async def inner(when: datetime, address: Address, tags: tuple[str, ...] = ()) -> None:
        seen.append((when, address, tags))

    now = datetime.now(UTC)

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> None:
        await connection.act("inner", {"when": now, "address": Address("1"), "tags": ("a",)})

    async with open_client(app) as client:
        assert (await client.get("/api/it")).status == 200
    assert seen == [(now, Address("1"), ("a",))]


async def test_act_runs_the_others_middleware_with_metadata_of_its_own(app):
    class Marks(Middleware):
        async def run_before(self, params, connection):
            connection.metadata["inner"] = True

    @app.action("inner", middleware=[Marks()])
    async def inner(connection: Connection) -> Any:
        return [dict(connection.metadata), connection.correlation_id, connection.id]

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        connection.metadata["outer"] = True
        found = await connection.act("inner")
        return [found[0], connection.metadata, found[1:] == [connection.correlation_id, connection.id]]

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == [{"inner": True}, {"outer": True}, True]


async def test_act_raises_what_the_other_raised_and_reports_what_is_wrong_with_params(app):
    @app.action("fails")
    async def fails(n: Annotated[int, Meta(ge=0)] = 0) -> None:
        raise KeyError("own")

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        with pytest.raises(KeyError, match="own"):
            await connection.act("fails")
        with pytest.raises(TypedError, match="n: must be"):
            await connection.act("fails", {"n": -1})
        with pytest.raises(TypedError, match="action not found: missing") as raised:
            await connection.act("missing")
        return raised.value.status

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == 404


async def test_act_has_the_others_timeout_until_it_returns(app, autojump_clock):
    seen: list[BaseException | None] = []

    class Sees(Middleware):
        async def run_after(self, params, connection, error):
            seen.append(error)

    @app.action("slow", timeout=2, middleware=[Sees()])
    async def slow() -> None:
        await trio.sleep_forever()

    @app.action("it", web=Web("/it"), timeout=50)
    async def it(connection: Connection) -> Any:
        with pytest.raises(TypedError, match="action slow timed out after 2 seconds"):
            await connection.act("slow")
        return trio.current_time()

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == 2
    assert isinstance(seen[0], TypedError)


async def test_the_callers_timeout_reaches_into_act_and_is_told_there(app, autojump_clock):
    seen: list[BaseException | None] = []

    class Sees(Middleware):
        async def run_after(self, params, connection, error):
            seen.append(error)

    @app.action("slow", timeout=100, middleware=[Sees()])
    async def slow() -> None:
        await trio.sleep_forever()

    @app.action("it", web=Web("/it"), timeout=3)
    async def it(connection: Connection) -> None:
        await connection.act("slow")

    async with open_client(app) as client:
        answer = await client.get("/api/it")
    assert answer.json()["error"]["message"] == "action it timed out after 3 seconds"
    assert isinstance(seen[0], TypedError)
    assert "action it" in str(seen[0])


async def test_a_stream_of_another_action_is_for_the_caller_to_return_and_lives_under_its_timeout(app, autojump_clock):
    @app.action("inner", timeout=1)
    async def inner(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await trio.sleep(5)
            await sse.send("after its own timeout")
            await trio.sleep_forever()

        return StreamingResponse.sse(produce)

    @app.action("it", web=Web("/it"), timeout=8)
    async def it(connection: Connection) -> StreamingResponse:
        return await connection.act("inner")

    async with open_client(app) as client:
        first, last = (await client.get("/api/it")).events()
    assert first.data == "after its own timeout"
    assert last.json()["message"] == "action it timed out after 8 seconds"


async def test_a_stream_that_was_returned_too_late_is_let_go(app, autojump_clock):
    class Source:
        closed = False

        def __aiter__(self):
            return self

        async def aclose(self):
            self.closed = True

    source = Source()

    @app.action("inner", timeout=1)
    async def inner() -> StreamingResponse:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return StreamingResponse.sse(source)

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> StreamingResponse:
        return await connection.act("inner")

    async with open_client(app) as client:
        assert (await client.get("/api/it")).status == 408
    assert source.closed


async def test_tasks_of_another_action_live_in_the_callers_nursery(app):
    alive = []

    @app.action("inner")
    async def inner(connection: Connection) -> None:
        async def background() -> None:
            try:
                await trio.sleep_forever()
            finally:
                alive.append("ended")

        connection.nursery.start_soon(background)

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        await connection.act("inner")
        await trio.testing.wait_all_tasks_blocked()
        return list(alive)

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == []
    assert alive == ["ended"]


async def test_a_secret_of_another_action_shows_nowhere_either(app):
    @app.action("inner")
    async def inner(password: Annotated[str, SECRET]) -> None:
        raise TypedError(f"no: {password}")

    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> None:
        await connection.act("inner", {"password": "swordfish"})

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json()["error"]["message"] == "no: [[secret]]"


async def test_start_in_a_calls_nursery_hands_over_what_the_task_started_with(app):
    @app.action("it", web=Web("/it"))
    async def it(connection: Connection) -> Any:
        async def server(*, task_status: trio.TaskStatus[int]) -> None:
            task_status.started(8080)
            await trio.sleep_forever()

        port = await connection.nursery.start(server)
        assert connection.nursery.child_tasks
        assert connection.nursery.parent_task is trio.lowlevel.current_task()
        return port

    async with open_client(app) as client:
        assert (await client.get("/api/it")).json() == 8080
