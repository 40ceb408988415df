"""WebSocket: who may open a socket, what may be asked on one, whose turn it is, and how it ends."""

from __future__ import annotations

import contextvars
import json
import logging
from collections.abc import AsyncIterator
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
    ConnectionType,
    EventStream,
    Keryx,
    RequireSession,
    StreamingResponse,
    TypedError,
    Web,
)
from keryx_trio.config import CorsConfig, WebSocketConfig
from keryx_trio.store import StoreUnavailable
from keryx_trio.testing import Client, Denied, Socket, open_client
from keryx_trio.transports.conversation import REFUSALS
from keryx_trio.transports.socket_reply import SHARE
from tests.told import Told


def make_app(config: Config | None = None, **settings: Any) -> Keryx:
    """An application with a bit of everything; `settings` are the WebSocket's."""
    app = Keryx(config=config or Config(websocket=WebSocketConfig(**settings)))

    @app.action("echo", web=Web("/echo"))
    async def echo(text: str = "") -> str:
        return text

    @app.action("wait", timeout=0)
    async def wait() -> None:
        await trio.sleep_forever()

    @app.action("sleep", timeout=10)
    async def sleep(seconds: float) -> str:
        await trio.sleep(seconds)
        return "slept"

    @app.action("endless", timeout=0)
    async def endless(pause: float = 1) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            number = 0
            while True:
                await sse.send(number)
                number += 1
                await trio.sleep(pause)

        return StreamingResponse.sse(produce)

    return app


def last(message: dict[str, Any]) -> bool:
    """Whether a message is the last one of its call."""
    return not message.get("streaming")


@pytest.fixture
def lines(caplog):
    """The lines of the log, by now."""
    caplog.set_level(logging.DEBUG, "keryx_trio")
    return lambda: [record.getMessage() for record in caplog.records]


# The handshake


async def test_a_socket_opens_on_any_path_with_a_request_id_and_a_session():
    async with open_client(make_app()) as client, client.websocket("/any/where?x=1") as socket:
        assert len(socket.headers["x-request-id"]) == 32
        assert socket.headers["set-cookie"].startswith("__session=")
        [connection] = client.app.connections.values()
        assert (connection.type, connection.identifier) == (ConnectionType.WEBSOCKET, "127.0.0.1")
        with pytest.raises(RuntimeError, match="no call is running"):
            _ = connection.nursery
    assert not client.app.connections


async def test_a_request_id_is_passed_on_with_a_number_for_each_call(lines):
    async with (
        open_client(make_app()) as client,
        client.websocket(headers={"X-Request-Id": "from.outside"}) as socket,
    ):
        assert socket.headers["x-request-id"] == "from.outside"
        for number in range(2):
            await socket.ask("echo", id=number)
            await socket.receive()
    calls = [line for line in lines() if "[ACTION:WEBSOCKET:OK] echo" in line]
    assert ["[cor:from.outside.1]" in calls[0], "[cor:from.outside.2]" in calls[1]] == [True, True]


FRIEND = CorsConfig(allowed_origins=("https://friend.example",))


@pytest.mark.parametrize(
    ("origin", "host", "config"),
    [
        (None, "testserver", Config()),
        ("http://testserver", "testserver", Config()),
        ("http://testserver:80", "testserver", Config()),
        ("HTTP://TestServer", "testserver:80", Config()),
        ("http://localhost:8000", "localhost:8000", Config()),
        ("https://app.example", "app.example", Config()),  # TLS ended at a proxy
        ("https://app.example", "app.example:443", Config()),
        ("https://friend.example", "testserver", Config(cors=FRIEND)),
        ("https://friend.example", "testserver", Config(websocket=WebSocketConfig(allowed_origins=FRIEND.allowed_origins))),
        ("http://[::1]:8000", "[::1]:8000", Config()),
    ],
)  # fmt: skip
async def test_pages_of_its_own_origin_and_of_friends_may_open_a_socket(origin, host, config):
    headers = {"Host": host, **({"Origin": origin} if origin else {})}
    async with open_client(make_app(config)) as client, client.websocket(headers=headers) as socket:
        await socket.ask("echo", {"text": "hi"}, id=1)
        assert await socket.receive() == {"messageId": 1, "response": "hi"}
        assert "set-cookie" in socket.headers


@pytest.mark.parametrize(
    ("origin", "host", "config"),
    [
        ("https://evil.example", "testserver", Config()),
        ("https://evil.example", "testserver", Config(cors=FRIEND)),
        ("http://friend.example", "testserver", Config(cors=FRIEND)),
        ("http://testserver:81", "testserver", Config()),
        ("http://testserver:80", "testserver:8000", Config()),
        ("http://sub.testserver", "testserver", Config()),
        ("http://testserver.evil.example", "testserver", Config()),
        ("http://eviltestserver", "testserver", Config()),
        ("null", "testserver", Config()),
        ("", "", Config()),
        ("chrome-extension://testserver", "testserver", Config()),
        ("http://testserver, http://evil.example", "testserver", Config()),
    ],
)
async def test_a_foreign_page_is_refused_at_the_handshake(origin, host, config, lines):
    async with open_client(make_app(config)) as client:
        with pytest.raises(Denied, match="403") as denied:
            async with client.websocket(headers={"Origin": origin, "Host": host}):
                pass
        assert not client.app.connections
    answer = denied.value.answer
    assert answer.json()["error"]["type"] == "CONNECTION_CHANNEL_AUTHORIZATION"
    assert "KERYX_WEBSOCKET_ALLOWED_ORIGINS" in answer.json()["error"]["message"]
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert len(answer.body) == int(answer.headers["content-length"])
    assert "set-cookie" not in answer.headers
    assert any("refused a WebSocket" in line and "status=403" in line for line in lines())


async def test_over_tls_a_page_that_came_without_it_is_foreign():
    async with open_client(make_app()) as client:
        socket = client.websocket(headers={"Origin": "http://testserver"})
        socket._scope["scheme"] = "wss"
        with pytest.raises(Denied, match="403"):
            await socket.__aenter__()


async def test_behind_a_proxy_that_ends_tls_a_page_that_came_without_it_is_foreign():
    app = make_app(Config(trusted_proxies=("127.0.0.1",)))
    headers = {"X-Forwarded-Proto": "https", "Host": "app.example"}
    async with open_client(app) as client:
        async with client.websocket(headers={**headers, "Origin": "https://app.example"}) as socket:
            assert "Secure" in socket.headers["set-cookie"]
        with pytest.raises(Denied, match="403"):
            await client.websocket(headers={**headers, "Origin": "http://app.example"}).__aenter__()


async def test_where_any_page_may_come_it_comes_without_the_session():
    app = make_app(allowed_origins=("*",))

    @app.action("who")
    async def who(connection: Connection) -> Any:
        return dict(connection.session.data)

    async with open_client(app) as client:
        await log_in(client)
        async with client.websocket(headers={"Origin": "https://evil.example"}) as socket:
            assert "set-cookie" not in socket.headers
            await socket.ask("who", id=1)
            assert (await socket.receive())["response"] == {}
        async with client.websocket(headers={"Origin": "http://testserver"}) as socket:
            await socket.ask("who", id=1)
            assert (await socket.receive())["response"] == {"user_id": 7}


async def test_a_refusal_without_an_answer_of_its_own_closes_by_policy():
    async with open_client(make_app()) as client:
        socket = client.websocket(headers={"Origin": "https://evil.example"})
        socket._scope["extensions"] = {}
        with pytest.raises(Denied, match="403"):
            await socket.__aenter__()
        await socket.over.wait()


async def test_sockets_can_be_switched_off():
    async with open_client(make_app(enabled=False)) as client:
        with pytest.raises(Denied, match="404"):
            await client.websocket().__aenter__()


async def test_no_socket_opens_while_the_application_stops():
    async with open_client(make_app()) as client:
        client.shut_down()
        with pytest.raises(Denied, match="503") as denied:
            await client.websocket().__aenter__()
    assert denied.value.answer.json()["error"]["type"] == "CONNECTION_UNAVAILABLE"


# The session


async def log_in(client: Client) -> None:
    if "login" not in client.app.actions:

        @client.app.action("login", web=Web("/login"))
        async def login(connection: Connection) -> None:
            await connection.session.update(user_id=7)

        @client.app.action("logout", web=Web("/logout"))
        async def logout(connection: Connection) -> None:
            await connection.session.destroy()

    await client.get("/api/login")


async def test_the_session_of_the_handshake_is_that_of_its_calls_until_it_ends():
    app = make_app()

    @app.action("secret", middleware=[RequireSession()])
    async def secret(connection: Connection) -> Any:
        return connection.session.data["user_id"]

    async with open_client(app) as client:
        await log_in(client)
        async with client.websocket() as socket:
            await socket.ask("secret", id=1)
            assert await socket.receive() == {"messageId": 1, "response": 7}
            await client.get("/api/logout")
            await socket.ask("secret", id=2)
            assert (await socket.receive())["error"]["type"] == "CONNECTION_SESSION_NOT_FOUND"


async def test_what_a_call_puts_into_the_session_is_there_for_the_next_one_and_over_http():
    app = make_app()

    @app.action("put")
    async def put(connection: Connection, key: str) -> None:
        await connection.session.update(**{key: True})

    @app.action("get", web=Web("/get"))
    async def get(connection: Connection) -> Any:
        return sorted(connection.session.data)

    async with open_client(app) as client, client.websocket() as socket:
        for number, key in enumerate("abc"):  # at once, and the first of them makes the session
            await socket.ask("put", {"key": key}, id=number)
        for _ in range(3):
            await socket.receive()
        await socket.ask("get", id="get")
        assert (await socket.receive())["response"] == ["a", "b", "c"]
        assert (await client.get("/api/get")).json() == ["a", "b", "c"]


class Held:
    """A store that keeps its next answer to the question back until it may proceed."""

    def __init__(self, store: Any) -> None:
        self.store, self.question = store, ""
        self.asked, self.proceed = trio.Event(), trio.Event()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name != self.question or self.asked.is_set():
            return real

        async def late(*args: Any, **options: Any) -> Any:
            answer = await real(*args, **options)
            self.asked.set()
            await self.proceed.wait()
            return answer

        return late


@asynccontextmanager
async def open_held(question: str) -> AsyncIterator[tuple[Held, Socket]]:
    """A socket with a session in it, whose store keeps its next answer to the question back."""
    app = make_app()

    @app.action("put")
    async def put(connection: Connection) -> Any:
        await connection.session.update(put=True)
        return dict(connection.session.data)

    @app.action("get")
    async def get(connection: Connection) -> Any:
        return dict(connection.session.data)

    @app.action("end")
    async def end(connection: Connection) -> None:
        await connection.session.destroy()

    async with open_client(app) as client:
        await log_in(client)
        app.store = held = Held(app.store)
        async with client.websocket() as socket:
            held.question = question
            yield held, socket


async def test_a_call_that_reads_the_session_late_does_not_undo_what_another_has_put_in():
    async with open_held("load_session") as (held, socket):
        await socket.ask("get", id="get")
        await held.asked.wait()
        await socket.ask("put", id="put")
        assert (await socket.receive())["messageId"] == "put"
        held.proceed.set()
        assert (await socket.receive())["response"] == {"user_id": 7, "put": True}


async def test_what_is_put_into_a_session_that_another_call_ends_meanwhile_ends_with_it():
    async with open_held("update_session") as (held, socket):
        await socket.ask("put", id="put")
        await held.asked.wait()
        await socket.ask("end", id="end")
        assert (await socket.receive())["messageId"] == "end"
        held.proceed.set()
        assert await socket.receive() == {"messageId": "put", "response": {}}


async def test_the_id_of_the_session_cannot_change_any_more(caplog):
    app = make_app()

    @app.action("renew")
    async def renew(connection: Connection) -> None:
        await connection.session.regenerate()

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("renew", id=1)
        assert "error" in await socket.receive()
    record = next(record for record in caplog.records if record.levelno >= logging.ERROR)
    assert "the session's id cannot change any more" in record.getMessage()


async def test_a_socket_opens_although_the_store_is_away(monkeypatch):
    app = make_app()

    @app.action("data")
    async def data(connection: Connection) -> Any:
        return dict(connection.session.data)

    async with open_client(app) as client:
        await log_in(client)

        async def away(*_: Any) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(app.store, "load_session", away)
            async with client.websocket() as socket:
                assert "set-cookie" not in socket.headers
                await socket.ask("echo", {"text": "hi"}, id=1)
                assert (await socket.receive())["response"] == "hi"
                await socket.ask("data", id=1)
                assert (await socket.receive())["error"]["type"] == "CONNECTION_UNAVAILABLE"
                patch.undo()
                await socket.ask("data", id=1)
                assert (await socket.receive())["response"] == {"user_id": 7}


# Mistakes


@pytest.mark.parametrize(
    ("said", "type", "answered"),
    [
        ("no json", "CONNECTION_ACTION_PARAM_FORMATTING", None),
        ("[]", "CONNECTION_ACTION_PARAM_FORMATTING", None),
        (b"\xff", "CONNECTION_ACTION_PARAM_FORMATTING", None),
        ({"messageType": "subscribe", "messageId": 5}, "CONNECTION_TYPE_NOT_FOUND", 5),
        ({"messageType": "action", "messageId": 5}, "CONNECTION_ACTION_PARAM_FORMATTING", 5),
        ({"messageType": "action", "action": "nobody", "messageId": 5}, "CONNECTION_ACTION_NOT_FOUND", 5),
        ({"messageType": "action", "action": "nobody" * 99, "messageId": 5}, "CONNECTION_ACTION_NOT_FOUND", 5),
        ({"messageType": "action", "action": "sleep", "messageId": 5}, "CONNECTION_ACTION_PARAM_VALIDATION", 5),
        ({"messageType": "cancel"}, "CONNECTION_ACTION_PARAM_FORMATTING", None),
    ],
)
async def test_a_mistake_is_told_and_the_socket_lives_on(said, type, answered):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.send(said)
        told = await socket.receive()
        assert told["error"]["type"] == type
        assert told.get("messageId") == answered
        assert len(told["error"]["message"]) < 200
        await socket.ask("echo", {"text": "alive"})
        assert await socket.receive() == {"response": "alive"}


async def test_json_may_come_in_a_binary_message():
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.send(b'{"messageType":"action","action":"echo","params":{"text":"hi"},"messageId":1}')
        assert await socket.receive() == {"messageId": 1, "response": "hi"}


@pytest.mark.parametrize(
    "id", ["1", "1.0", "-0", "1e5", "123456789012345678901234567890", '"1"', '""', '"\\u00e9 \\n"', '"é😀"']
)
async def test_an_id_comes_back_as_it_was(id):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.send(f'{{"messageType":"action","action":"echo","messageId":{id}}}')
        assert await socket.receive_text() == f'{{"messageId":{id},"response":""}}'


async def test_a_number_and_its_text_are_two_ids():
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.ask("wait", id=1)
        await socket.ask("wait", id="1")
        await socket.cancel("1")
        assert (await socket.receive())["messageId"] == "1"


@pytest.mark.parametrize("text", ["x" * 200, "é" * 100, b"x" * 200], ids=["ascii", "utf-8", "bytes"])
async def test_a_message_that_is_too_large_ends_the_socket_and_its_calls(text, lines):
    app = make_app(max_message_size=199)
    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("wait", id=1)
        await socket.send("x" * 199)
        assert "error" in await socket.receive()
        await socket.send(text)
        with pytest.raises(EOFError, match="1009: a message has at most 199 bytes"):
            await socket.receive()
        with pytest.raises(EOFError, match="1009"):
            await socket.receive()
        with pytest.raises(EOFError):
            await socket.send("more")
        await socket.over.wait()
        assert not app.connections
    assert any("[ACTION:WEBSOCKET:CLIENT GONE] wait" in line for line in lines())


async def test_more_messages_than_the_rate_are_refused_and_the_next_second_is_another(autojump_clock):
    async with open_client(make_app(max_messages_per_second=3)) as client, client.websocket() as socket:
        for second in range(2):
            for number in range(5):
                await socket.ask("echo", id=number)
            answers = [await socket.receive() for _ in range(5)]
            refused = {answer["messageId"]: answer["error"] for answer in answers if "error" in answer}
            assert refused.keys() == {3, 4}, second
            assert {error["type"] for error in refused.values()} == {"CONNECTION_RATE_LIMITED"}
            await trio.sleep(1)


async def test_a_cancel_is_never_above_the_rate_and_takes_nobodys_place(autojump_clock):
    async with open_client(make_app(max_messages_per_second=1)) as client, client.websocket() as socket:
        await socket.cancel("nobody")
        await socket.ask("wait", id=1)
        await socket.ask("echo", id=2)
        assert (await socket.receive())["error"]["type"] == "CONNECTION_RATE_LIMITED"
        await socket.cancel(1)
        assert "cancelled" in (await socket.receive())["error"]["message"]


async def test_a_second_call_under_an_id_in_flight_is_refused_and_the_first_goes_on():
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.ask("endless", {"pause": 0}, id="a")
        assert (await socket.receive())["chunk"] == 0
        await socket.ask("echo", id="a")
        while "chunk" in (message := await socket.receive()):
            pass
        assert message["messageId"] == "a"
        assert message["error"]["key"] == "messageId"
        assert "in flight" in message["error"]["message"]
        before = (await socket.receive())["chunk"]
        assert (await socket.receive())["chunk"] == before + 1


async def test_an_id_is_free_as_soon_as_its_call_is_answered_although_its_producer_goes_on():
    app, go_on = make_app(), trio.Event()

    @app.action("early")
    async def early() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            sse.close()
            await go_on.wait()

        return StreamingResponse.sse(produce)

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("early", id=1)
        assert await socket.receive() == {"messageId": 1, "streaming": False}
        await socket.ask("echo", {"text": "next"}, id=1)
        assert await socket.receive() == {"messageId": 1, "response": "next"}
        go_on.set()


# Many calls


async def test_as_many_as_may_run_do_as_many_wait_and_the_next_is_refused(autojump_clock):
    async with open_client(make_app(max_calls=2)) as client, client.websocket() as socket:
        for number in range(5):
            await socket.ask("sleep", {"seconds": 4}, id=number)
        refused = await socket.receive()
        assert (refused["messageId"], refused["error"]["type"]) == (4, "CONNECTION_RATE_LIMITED")
        start = trio.current_time()
        ended = {(await socket.receive())["messageId"]: trio.current_time() - start for _ in range(4)}
        assert ended == {0: 4, 1: 4, 2: 8, 3: 8}


async def test_the_timeout_of_a_call_that_waits_starts_when_it_does(autojump_clock):
    async with open_client(make_app(max_calls=1)) as client, client.websocket() as socket:
        start = trio.current_time()
        for number, seconds in enumerate((9, 11)):  # of 10 that each of them has
            await socket.ask("sleep", {"seconds": seconds}, id=number)
        assert (await socket.receive())["response"] == "slept"
        assert (await socket.receive())["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"
        assert trio.current_time() - start == 19


async def test_forty_endless_streams_and_a_cancel_that_frees_a_slot(autojump_clock):
    async with open_client(make_app()) as client, client.websocket() as socket:
        for number in range(40):
            await socket.ask("endless", {"pause": 100}, id=number)
        begun = {(await socket.receive())["messageId"] for _ in range(32)}
        assert begun == set(range(32))
        await socket.cancel(7)
        assert await socket.receive() == {"messageId": 7, "streaming": False}
        assert await socket.receive() == {"messageId": 32, "streaming": True, "chunk": 0}


async def test_a_call_that_waits_can_be_cancelled(autojump_clock, lines):
    async with open_client(make_app(max_calls=1)) as client, client.websocket() as socket:
        await socket.ask("sleep", {"seconds": 5}, id=1)
        await socket.ask("echo", {"text": "never"}, id=2)
        await socket.cancel(2)
        told = await socket.receive()
        assert told["messageId"] == 2
        assert "cancelled" in told["error"]["message"]
        await socket.ask("echo", {"text": "in its place"}, id=2)
        assert [(await socket.receive())["messageId"] for _ in range(2)] == [1, 2]
    assert not [line for line in lines() if "never" in line]


async def test_what_waits_for_a_client_that_left_never_runs():
    app, ran = make_app(max_calls=1), []

    @app.action("run")
    async def run() -> None:
        ran.append(True)

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("wait", id=1)
        await socket.ask("run", id=2)
        await wait_all_tasks_blocked()
    assert ran == []


async def test_calls_see_their_own_metadata_and_not_what_others_do(autojump_clock):
    app, seen = make_app(), {}

    @app.action("own", timeout=2)
    async def own(connection: Connection, name: str, ends: str) -> str:
        connection.metadata["name"] = name
        seen[name] = connection
        await trio.sleep(1)
        if ends == "fails":
            raise TypedError("failed")
        if ends == "times out":
            await trio.sleep_forever()
        await trio.sleep(5 if ends == "goes on" else 0)
        assert connection.metadata == {"name": name}
        return name

    app.action("patient", timeout=0)(own.function)
    async with open_client(app) as client, client.websocket() as socket:
        for name, action, ends in [("a", "own", "fails"), ("b", "own", "times out"), ("c", "patient", "goes on")]:
            await socket.ask(action, {"name": name, "ends": ends}, id=name)
        answers = {(message := await socket.receive())["messageId"]: message for _ in range(3)}
    assert answers["a"]["error"]["message"] == "failed"
    assert answers["b"]["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert answers["c"]["response"] == "c"
    assert len({id(connection.metadata) for connection in seen.values()}) == 3
    assert len({connection.id for connection in seen.values()}) == 1
    assert len({connection.correlation_id for connection in seen.values()}) == 3


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def test_a_call_that_waited_finds_none_of_the_context_of_the_one_before():
    app, found = make_app(max_calls=1), []

    @app.action("set")
    async def set_it() -> None:
        found.append(VARIABLE.get())
        VARIABLE.set("by a call")
        await trio.lowlevel.checkpoint()

    VARIABLE.set("by the server")
    async with open_client(app) as client, client.websocket() as socket:
        for number in range(2):
            await socket.ask("set", id=number)
        for _ in range(2):
            await socket.receive()
    assert found == ["by the server"] * 2


# Cancelling


async def test_cancelling_a_stream_gives_its_final_message_at_once_and_cancels_its_producer(autojump_clock, lines):
    app, cleaned = make_app(), []

    @app.action("slow", timeout=0)
    async def slow() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)
                cleaned.append(trio.current_time())

        return StreamingResponse.sse(produce)

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("slow", id=1)
        await socket.receive()
        start = trio.current_time()
        await socket.cancel(1)
        assert await socket.receive() == {"messageId": 1, "streaming": False}
        assert trio.current_time() == start
        await socket.cancel(1)  # which has been answered
        await trio.sleep(4)
        assert cleaned == [start + 3]
    assert "[STREAM:WEBSOCKET:CANCELLED] slow" in lines()[-1]


async def test_cancelling_a_plain_call_ends_it_with_an_error_and_its_middleware_sees_a_client_that_left(lines):
    app, told, cleaned = make_app(), Told(), []

    @app.action("plain", timeout=0, middleware=[told])
    async def plain() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("plain", id=1)
        await wait_all_tasks_blocked()
        await socket.cancel(1)
        message = await socket.receive()
        assert message["messageId"] == 1
        assert message["error"]["message"] == "the call was cancelled by its client"
    assert cleaned == [True]
    assert [type(error) for error in told.errors] == [trio.Cancelled]
    [line] = [line for line in lines() if "ACTION" in line]
    assert line.startswith("[ACTION:WEBSOCKET:CANCELLED] plain")
    assert not [line for line in lines() if "error=" in line]


@pytest.mark.parametrize("does", ["returns", "raises", "streams"])
async def test_a_cancelled_call_is_over_whatever_it_does_with_the_cancellation(does, lines):
    app = make_app()

    @app.action("stubborn", timeout=0)
    async def stubborn() -> Any:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if does == "raises":
                raise LookupError("while it was cancelled") from None
            return "value" if does == "returns" else StreamingResponse.sse(never)

    async def never(sse: EventStream) -> None:
        raise AssertionError("a cancelled call produces nothing")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("stubborn", id=1)
        await wait_all_tasks_blocked()
        await socket.cancel(1)
        assert "cancelled" in (await socket.receive())["error"]["message"]
    assert len([line for line in lines() if "while it was cancelled" in line]) == (does == "raises")


async def test_a_cancel_before_the_call_has_begun_finds_it():
    async with open_client(make_app()) as client, client.websocket() as socket:
        for _ in range(50):  # both messages may be read before the call's task has run
            await socket.ask("wait", id=1)
            await socket.cancel(1)
            assert "cancelled" in (await socket.receive())["error"]["message"]


async def test_a_cancel_of_what_nobody_asked_for_is_nothing():
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.cancel("nobody")
        await socket.ask("echo", {"text": "alive"}, id=1)
        assert await socket.receive() == {"messageId": 1, "response": "alive"}


async def test_a_cancel_that_crosses_the_last_message_changes_nothing(lines):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.ask("echo", {"text": "hi"}, id=1)
        await wait_all_tasks_blocked()  # its answer waits to be read
        await socket.cancel(1)
        assert await socket.receive() == {"messageId": 1, "response": "hi"}
    assert any("[ACTION:WEBSOCKET:OK] echo" in line for line in lines())


# Whose turn it is


async def test_a_stream_that_is_never_done_leaves_the_others_their_turn():
    app = make_app()

    @app.action("firehose", timeout=0)
    async def firehose() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 100)

        return StreamingResponse.sse(produce)

    async with open_client(app) as client, client.websocket() as socket:
        for number in range(5):
            await socket.ask("firehose", id=number)
        for _ in range(500):
            await socket.receive()
        await socket.ask("echo", id="plain")
        await socket.send("no json")
        answered, read = set(), 0
        while answered != {"plain", None}:
            message = await socket.receive()
            read += 1
            if last(message):
                answered.add(message.get("messageId"))
        assert read < 5 * 64 * 2


async def test_a_socket_that_does_not_read_holds_little_and_not_for_long(autojump_clock, lines):
    app, sent, cleaned = make_app(), 0, 0

    @app.action("firehose", timeout=0)
    async def firehose() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            nonlocal sent, cleaned
            try:
                while True:
                    await out.send(bytes(10_000))
                    sent += 10_000
            finally:
                cleaned += 1

        return StreamingResponse.stream(produce)

    async with open_client(app) as client, client.websocket() as socket:
        for number in range(32):
            await socket.ask("firehose", id=number)
        await wait_all_tasks_blocked()
        assert 0 < sent <= 32 * SHARE
        await trio.sleep(app.config.write_timeout + 0.1)
        assert cleaned == 32
        await socket.over.wait()
        assert not app.connections
    assert len([line for line in lines() if "[STREAM:WEBSOCKET:CLIENT GONE] firehose" in line]) == 32


async def test_a_socket_that_does_not_read_cannot_hold_the_shutdown(autojump_clock):
    app = make_app(Config(drain_timeout=2))
    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("endless", {"pause": 0}, id=1)
        await socket.ask("wait", id=2)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        client.shut_down()
        await socket.over.wait()
        assert trio.current_time() - start < 3
    assert not app.connections


async def test_mistakes_that_nobody_reads_the_answers_to_are_not_piled_up(autojump_clock):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.ask("wait", id=1)
        sent = 0
        with trio.move_on_after(5):
            while True:
                await socket.send("no json")
                sent += 1
        assert REFUSALS < sent < 3 * REFUSALS
        with pytest.raises(EOFError, match="1008"), trio.fail_after(5):
            while True:
                assert "error" in await socket.receive()
        await socket.over.wait()
    assert not client.app.connections


async def test_a_client_that_leaves_with_answers_unread_has_left():
    app, cleaned = make_app(), []

    @app.action("held", timeout=0)
    async def held() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(trio.current_time())

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("held", id=1)
        for number in range(200):
            await socket.ask("nobody", id=number)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        socket.leave()
        await socket.over.wait()
        assert cleaned
        assert trio.current_time() - start < 1


async def test_a_large_piece_of_bytes_comes_in_messages_that_clients_take():
    app, data = make_app(), bytes(range(256)) * 4096  # 1 MiB

    @app.action("large")
    async def large() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(data)

        return StreamingResponse.stream(produce, content_type="text/plain; charset=latin-1")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("large", id=1)
        pieces = []
        while not last(message := json.loads(text := await socket.receive_text())):
            assert len(text.encode()) < 1024 * 1024
            pieces.append(message["chunk"])
    assert "".join(pieces).encode("latin-1") == data


async def test_a_text_that_breaks_off_in_a_character_says_so():
    app = make_app()

    @app.action("broken")
    async def broken() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send("é".encode()[:1])

        return StreamingResponse.stream(produce, content_type="text/plain")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("broken", id=1)
        assert [(await socket.receive()).get("chunk") for _ in range(2)] == ["\ufffd", None]


async def test_a_text_that_is_cancelled_in_a_character_does_not(autojump_clock):
    app = make_app()

    @app.action("text", timeout=0)
    async def text() -> StreamingResponse:
        async def produce(out: ByteStream) -> None:
            await out.send(b"a" + "é".encode()[:1])
            await trio.sleep_forever()

        return StreamingResponse.stream(produce, content_type="text/plain")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("text", id=1)
        assert (await socket.receive())["chunk"] == "a"
        await socket.cancel(1)
        assert await socket.receive() == {"messageId": 1, "streaming": False}


async def test_comments_have_no_place_and_are_no_events(autojump_clock, lines):
    app = make_app()

    @app.action("talkative")
    async def talkative(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse(ping=1)
        await sse.comment("before there is a reader")
        await sse.send("early")
        connection.nursery.start_soon(produce, sse)
        return sse

    async def produce(sse: EventStream) -> None:
        await sse.comment("after")
        await trio.sleep(10)
        await sse.send("late")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("talkative", id=1)
        assert [(await socket.receive()).get("chunk") for _ in range(3)] == ["early", "late", None]
    assert "events=2" in lines()[-1]


# The end


async def test_a_source_that_can_not_be_closed_is_its_own_calls_matter(lines):
    class Upstream:
        def __init__(self, token: str) -> None:
            self.token = token

        def __aiter__(self) -> Any:
            raise AssertionError("never asked")

        async def aclose(self) -> None:
            raise OSError(f"could not close https://api/?key={self.token}")

    app = make_app()

    @app.action("open")
    async def open_it(token: Annotated[str, SECRET]) -> None:
        StreamingResponse.stream(Upstream(token))
        raise TypedError("quota exceeded")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("sleep", {"seconds": 0}, id="other")
        await socket.ask("open", {"token": "swordfish"}, id=1)
        told = {(message := await socket.receive())["messageId"]: message for _ in range(2)}
        assert told[1]["error"]["message"] == "quota exceeded"
        assert told["other"]["response"] == "slept"
    assert any("a source could not be closed" in line for line in lines())
    assert not any("swordfish" in line for line in lines())


async def test_what_waits_to_be_sent_before_there_is_a_reader_takes_its_form_then(lines):
    app = make_app()

    @app.action("early")
    async def early(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        connection.nursery.start_soon(fill, sse)
        await wait_all_tasks_blocked()
        return sse

    async def fill(sse: EventStream) -> None:
        for number in range(64):
            await sse.send(number)
        await sse.comment("waits for room, and has no place")
        await sse.send("last")

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("early", id=1)
        chunks = [(await socket.receive()).get("chunk") for _ in range(66)]
    assert chunks == [*range(64), "last", None]


async def test_a_client_that_leaves_before_it_is_told_to_is_no_error(lines):
    app = make_app(max_message_size=10)
    async with open_client(app) as client, client.websocket() as socket:
        await socket.send("x" * 11)
        await wait_all_tasks_blocked()  # the close waits to be read
        socket.leave()
        await socket.over.wait()
    assert not [line for line in lines() if "failed" in line or "error" in line]


async def test_an_idle_socket_is_closed_as_soon_as_the_application_stops(autojump_clock):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await wait_all_tasks_blocked()
        start = trio.current_time()
        client.shut_down()
        with pytest.raises(EOFError, match="1001: the server is shutting down"):
            await socket.receive()
        assert trio.current_time() == start


async def test_a_stop_ends_streams_refuses_what_comes_and_closes_when_the_last_call_is_done(autojump_clock):
    app = make_app(Config(websocket=WebSocketConfig(max_calls=2)))
    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("sleep", {"seconds": 5}, id="plain")
        await socket.ask("endless", {"pause": 100}, id="stream")
        await socket.ask("echo", id="waits")
        assert (await socket.receive())["chunk"] == 0
        start = trio.current_time()
        client.shut_down()
        ended = {(message := await socket.receive())["messageId"]: message for _ in range(2)}
        assert trio.current_time() == start
        await socket.ask("echo", id="late")
        ended["late"] = await socket.receive()
        assert {name: message["error"]["type"] for name, message in ended.items()} == dict.fromkeys(
            ("stream", "waits", "late"), "CONNECTION_UNAVAILABLE"
        )
        assert await socket.receive() == {"messageId": "plain", "response": "slept"}
        assert trio.current_time() == start + 5
        with pytest.raises(EOFError, match="1001"):
            await socket.receive()
        assert trio.current_time() == start + 5


async def test_at_a_stop_everything_that_was_asked_for_has_its_last_word(autojump_clock):
    app = make_app(Config(websocket=WebSocketConfig(max_calls=100)))
    async with open_client(app) as client, client.websocket() as socket:
        for number in range(200):
            await socket.ask("sleep", {"seconds": 5}, id=number)
        await wait_all_tasks_blocked()
        client.shut_down()
        ended = [(await socket.receive())["messageId"] for _ in range(200)]
        assert sorted(ended) == list(range(200))
        with pytest.raises(EOFError, match="1001"):
            await socket.receive()


async def test_a_cancel_of_what_a_stop_has_refused_is_nothing(autojump_clock):
    async with open_client(make_app(max_calls=1)) as client, client.websocket() as socket:
        await socket.ask("sleep", {"seconds": 5}, id="plain")
        await socket.ask("echo", id="waits")
        await wait_all_tasks_blocked()
        client.shut_down()
        assert (await socket.receive())["messageId"] == "waits"
        await socket.cancel("waits")
        assert await socket.receive() == {"messageId": "plain", "response": "slept"}


async def test_a_call_that_outlasts_the_stop_gets_its_error_and_then_the_close(autojump_clock):
    app = make_app(Config(drain_timeout=2))
    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("wait", id=1)
        await wait_all_tasks_blocked()
        client.shut_down()
        assert (await socket.receive())["error"]["type"] == "CONNECTION_UNAVAILABLE"
        with pytest.raises(EOFError, match="1001"):
            await socket.receive()


async def test_cleanup_that_takes_longer_than_the_stop_holds_up_no_close_and_is_named(autojump_clock, lines):
    app = make_app(Config(drain_timeout=2))

    @app.action("slow", timeout=0)
    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

    async with open_client(app) as client, client.websocket() as socket:
        await socket.ask("slow", id=1)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        client.shut_down()
        with pytest.raises(EOFError, match="1001"):
            await socket.receive()
        assert trio.current_time() - start < 2.5
        await app.drain()
        [line] = [line for line in lines() if "left behind" in line]
        assert "action=slow" in line
        assert trio.current_time() - start < 3


class Server:
    """A server that a test leads by hand: it says `messages`, then waits, and can be told to get stuck."""

    def __init__(self, client: Client, *messages: dict[str, Any]) -> None:
        self.scope = {**client._scope("/", {}), "type": "websocket", "scheme": "ws", "extensions": {}}
        self.messages = [{"type": "websocket.connect"}, *messages]
        self.sent: list[tuple[str, float]] = []
        self.texts: list[str] = []
        self.stuck = self.fails = False
        self.more = trio.Event()
        self.app = client.app

    async def run(self) -> None:
        await self.app(self.scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        while not self.messages:
            self.more = trio.Event()
            await self.more.wait()
        return self.messages.pop(0)

    def say(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.more.set()

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise OSError
        if self.stuck:
            await trio.sleep_forever()
        self.sent.append((message["type"], trio.current_time()))
        self.texts += [message["text"]] if "text" in message else []

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.sent]


def asking(action: str, id: Any = None) -> dict[str, Any]:
    message = {"messageType": "action", "action": action, "messageId": id}
    return {"type": "websocket.receive", "text": json.dumps(message)}


async def test_a_socket_whose_server_gives_it_up_gets_its_close_at_once_and_starts_nothing_more(autojump_clock):
    app, ran = make_app(max_calls=1), []

    @app.action("slow", timeout=0)
    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    @app.action("run")
    async def run() -> None:
        ran.append(True)

    async with open_client(app) as client:
        server = Server(client, asking("slow"), asking("run"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            nursery.cancel_scope.cancel()
            client.shut_down()  # while it dies
        assert server.sent[1:] == [("websocket.send", start), ("websocket.close", start)]
        assert trio.current_time() == start + 3
        assert ran == []
        assert not app.connections


async def test_what_a_server_gives_up_has_its_last_words_and_is_no_client_that_left(lines):
    async with open_client(make_app(max_calls=2)) as client:
        server = Server(client, asking("wait", 1), asking("endless"), asking("wait", 3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert server.kinds == ["websocket.accept", *["websocket.send"] * 4, "websocket.close"]
    told = [json.loads(text) for text in server.texts[1:]]
    assert {message["error"]["type"] for message in told} == {"CONNECTION_UNAVAILABLE"}
    assert sorted(message.get("messageId", 0) for message in told) == [0, 1, 3]
    assert sorted(line.split()[0] for line in lines() if ":SHUTDOWN]" in line) == [
        "[ACTION:WEBSOCKET:SHUTDOWN]",
        "[STREAM:WEBSOCKET:SHUTDOWN]",
    ]


async def test_a_client_that_is_known_to_have_left_is_not_written_to_until_the_write_gives_up(autojump_clock):
    app, cleaned = make_app(), []

    @app.action("stream", timeout=0)
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                cleaned.append(trio.current_time())

        return StreamingResponse.sse(produce)

    async with open_client(app) as client, trio.open_nursery() as nursery:
        server = Server(client)
        nursery.start_soon(server.run)
        await wait_all_tasks_blocked()
        server.stuck = True
        server.say(asking("stream"))
        await wait_all_tasks_blocked()
        start = trio.current_time()
        server.say({"type": "websocket.disconnect"})
        await wait_all_tasks_blocked()
        assert cleaned == [start]
        assert not app.connections


async def test_a_call_that_was_cancelled_before_it_began_does_nothing():
    app, ran = make_app(), []

    @app.action("pay")
    async def pay() -> None:
        ran.append(True)

    async with open_client(app) as client:
        cancel = json.dumps({"messageType": "cancel", "messageId": 1})
        server = Server(client, asking("pay", 1), {"type": "websocket.receive", "text": cancel})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await wait_all_tasks_blocked()
            server.say({"type": "websocket.disconnect"})
    assert (server.kinds, ran) == (["websocket.accept", "websocket.send"], [])


async def test_nothing_follows_a_message_that_was_cut(autojump_clock):
    async with open_client(make_app()) as client:
        server = Server(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await wait_all_tasks_blocked()
            server.stuck = True
            server.say(asking("echo"))
            await wait_all_tasks_blocked()
            server.stuck = False
            nursery.cancel_scope.cancel()
        assert server.kinds == ["websocket.accept"]


async def test_what_goes_wrong_in_a_handshake_does_not_reach_the_server(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "keryx_trio")
    async with open_client(make_app()) as client:
        server = Server(client)
        server.fails = True
        await server.run()
        assert "the client left during the handshake" in caplog.text

        async def broken(*_: Any) -> None:
            raise ValueError("the store is broken")

        await log_in(client)
        monkeypatch.setattr(client.app.store, "load_session", broken)
        server = Server(client)
        server.scope["headers"].append((b"cookie", f"__session={client.cookies['__session']}".encode()))
        await server.run()
        assert server.kinds == []
    assert "a socket failed" in caplog.text


async def test_a_fault_of_ours_closes_with_1011_and_is_logged(monkeypatch, caplog):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await wait_all_tasks_blocked()

        def broken(_: str) -> Any:
            raise LookupError("a bug")

        monkeypatch.setattr(client.app, "find_action", broken)
        await socket.ask("echo", id=1)
        with pytest.raises(EOFError, match="1011"):
            await socket.receive()
    assert "a bug" in caplog.text


async def test_leaving_cancels_every_call_inside_what_it_awaits(lines):
    app, begun, cleaned = make_app(), [], []

    @app.action("deep", timeout=0)
    async def deep(number: int) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                begun.append(number)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
            finally:
                cleaned.append(number)

        return StreamingResponse.sse(produce)

    async with open_client(app) as client:
        async with client.websocket() as socket:
            for number in range(20):
                await socket.ask("deep", {"number": number}, id=number)
            for _ in range(20):
                await socket.receive()
            await wait_all_tasks_blocked()
            assert (len(begun), cleaned) == (20, [])
        assert sorted(cleaned) == list(range(20))
        assert not app.connections
    assert len([line for line in lines() if "STREAM:WEBSOCKET:CLIENT GONE" in line]) == 20
    assert not [line for line in lines() if "error=" in line]


async def test_a_client_that_leaves_while_it_is_told_of_a_mistake_is_no_error(lines):
    async with open_client(make_app()) as client, client.websocket() as socket:
        await socket.send("no json")
        await wait_all_tasks_blocked()
    assert not [line for line in lines() if "failed" in line]


async def test_a_client_that_does_not_answer_the_close_is_not_waited_for(autojump_clock):
    app = make_app(max_message_size=10)
    async with open_client(app) as client:
        said = []

        async def receive() -> dict[str, Any]:
            match len(said):
                case 0:
                    return {"type": "websocket.connect"}
                case 1:
                    return {"type": "websocket.receive", "text": "x" * 11}
            await trio.sleep(0.3)
            return {"type": "websocket.receive", "text": "still talking"}

        async def send(message: dict[str, Any]) -> None:
            said.append(message["type"])

        socket_scope = {**client._scope("/", {}), "type": "websocket", "scheme": "ws", "extensions": {}}
        start = trio.current_time()
        await app(socket_scope, receive, send)
        assert trio.current_time() - start == pytest.approx(1, abs=0.3)
    assert said == ["websocket.accept", "websocket.close"]


def test_the_settings_of_sockets_are_checked():
    for name in ("max_calls", "max_message_size"):
        with pytest.raises(SystemExit, match=f"WebSocketConfig.{name} must be above zero"):
            WebSocketConfig(**{name: 0})
    assert Config.from_env({"KERYX_WEBSOCKET_MAX_CALLS": "7"}).websocket.max_calls == 7
    assert (WebSocketConfig().max_calls, WebSocketConfig().max_message_size) == (32, 65_536)
    assert WebSocketConfig().max_messages_per_second == 0
