"""Sessions: made late, kept alive, never adopted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from keryx_trio import Config, Connection, EventStream, Keryx, StreamingResponse, Web
from keryx_trio.config import CorsConfig, SessionConfig
from keryx_trio.session import presented_id
from keryx_trio.store import Store, StoreUnavailable
from keryx_trio.testing import Client, open_client


class Counted:
    """Any store, which counts what is asked of it, and can be away."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: list[str] = []
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_session") or name == "hit":
            self.asked.append(name)
            if self.away:
                raise StoreUnavailable
        return getattr(self.store, name)


def make_app(config: Config | None = None, url: str = "memory://") -> Keryx:
    app = Keryx(config=config or Config(), store=url)
    app.store = Counted(app.store)

    @app.action("read", web=Web("/read"))
    async def read(connection: Connection) -> Any:
        return dict(connection.session.data)

    @app.action("plain", web=Web("/plain"))
    async def plain() -> str:
        return "ok"

    @app.action("put", web=Web("/put", method="POST"))
    async def put(connection: Connection, key: str, value: Any) -> Any:
        await connection.session.update(**{key: value})
        return dict(connection.session.data)

    @app.action("login", web=Web("/login", method="POST"))
    async def login(connection: Connection) -> str:
        await connection.session.update(user_id=7)
        await connection.session.regenerate()
        return connection.session.id

    @app.action("logout", web=Web("/logout", method="POST"))
    async def logout(connection: Connection) -> None:
        await connection.session.destroy()

    @app.action("fail", web=Web("/fail"))
    async def fail() -> None:
        raise ValueError

    @app.action("stream", web=Web("/stream"))
    async def stream(connection: Connection, seconds: float = 0, how: str = "") -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("begun")
            await trio.sleep(seconds)
            if how:
                await getattr(connection.session, how)()
            await connection.session.update(last="stream")
            await sse.send(dict(connection.session.data))

        return StreamingResponse.sse(produce)

    return app


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    """A client of an application on each store."""
    async with open_client(make_app(url=url)) as client:
        yield client


async def test_a_visitor_who_stores_nothing_costs_the_store_nothing(client: Client):
    for path in ("/api/read", "/api/plain", "/api/fail"):
        client.cookies.clear()
        assert (await client.get(path)).headers["set-cookie"].startswith("__session=")
    assert client.app.store.asked == []


async def test_the_session_is_asked_for_once_a_call_and_only_where_a_cookie_names_one(client: Client):
    await client.post("/api/put", json={"key": "a", "value": 1})
    client.app.store.asked.clear()
    assert (await client.get("/api/read")).json() == {"a": 1}
    assert client.app.store.asked == ["load_session"]


@pytest.mark.parametrize("path", ["/api/plain", "/api/fail", "/api/stream", "/api/put"])
async def test_the_cookie_is_on_every_answer_of_an_action(client: Client, path):
    answer = await client.get(path) if path != "/api/put" else await client.post(path, json={})
    cookie = answer.headers["set-cookie"]
    assert "; Max-Age=86400; Path=/; HttpOnly; SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert len(cookie.partition(";")[0]) == len("__session=") + 32


async def test_answers_of_no_action_have_no_cookie(client: Client):
    assert "set-cookie" not in (await client.get("/api/nothing")).headers
    preflight = {"origin": "http://a", "access-control-request-method": "GET"}
    assert "set-cookie" not in (await client.request("OPTIONS", "/api/plain", headers=preflight)).headers


async def test_what_is_put_in_is_there_in_the_next_call_as_json_gives_it_back(client: Client):
    assert (await client.post("/api/put", json={"key": "a", "value": [1, {"b": None}]})).json() == {
        "a": [1, {"b": None}]
    }
    await client.post("/api/put", json={"key": "c", "value": "d"})
    assert (await client.get("/api/read")).json() == {"a": [1, {"b": None}], "c": "d"}


async def test_an_id_that_the_store_does_not_know_is_replaced_and_never_adopted(client: Client):
    planted = "A" * 32
    client.cookies["__session"] = planted
    await client.post("/api/put", json={"key": "a", "value": 1})
    assert client.cookies["__session"] != planted
    client.cookies["__session"] = planted
    assert (await client.get("/api/read")).json() == {}


@pytest.mark.parametrize(
    "junk", ["", "short", "x" * 33, "../../etc/passwd", "a b", "ü" * 32, '"' + "A" * 32 + '"; x=1']
)
async def test_a_malformed_id_never_reaches_the_store(client: Client, junk):
    answer = await client.get("/api/read", headers={"cookie": f"__session={junk}"})
    assert answer.status == 200
    assert set(client.app.store.asked) <= {"load_session"}


async def test_a_login_gets_another_id_and_the_old_one_is_worth_nothing(client: Client):
    await client.post("/api/put", json={"key": "cart", "value": 3})
    before = client.cookies["__session"]
    after = (await client.post("/api/login")).json()
    assert client.cookies["__session"] == after != before
    assert (await client.get("/api/read")).json() == {"cart": 3, "user_id": 7}
    client.cookies["__session"] = before
    assert (await client.get("/api/read")).json() == {}


async def test_a_logout_forgets_everything(client: Client):
    await client.post("/api/login")
    before = client.cookies["__session"]
    await client.post("/api/logout")
    assert client.cookies["__session"] != before
    client.cookies["__session"] = before
    assert (await client.get("/api/read")).json() == {}


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/api/put", {"json": {}}, 422),
        ("/api/put", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("/api/put", {"content": b"", "headers": {"content-length": "99999999999"}}, 413),
        ("/api/nothing", {}, 404),
    ],
)
async def test_an_error_does_not_log_anybody_out(client: Client, path, options, status):
    await client.post("/api/login")
    before = client.cookies["__session"]
    assert (await client.post(path, **options)).status == status
    assert client.cookies["__session"] == before
    assert (await client.get("/api/read")).json() == {"user_id": 7}


async def test_a_session_ends_some_time_after_its_last_use(autojump_clock):
    async with open_client(make_app(Config(session=SessionConfig(ttl=100)))) as client:
        await client.post("/api/put", json={"key": "a", "value": 1})
        for _ in range(3):
            await trio.sleep(90)
            assert (await client.get("/api/read")).json() == {"a": 1}
        await trio.sleep(101)
        assert (await client.get("/api/read")).json() == {}


async def test_a_stream_keeps_its_session_alive_however_long_it_lasts(autojump_clock):
    async with open_client(make_app(Config(ping=0, session=SessionConfig(ttl=100)))) as client:
        await client.post("/api/login")
        answer = await client.get("/api/stream?seconds=290")
        assert answer.events()[1].json() == {"user_id": 7, "last": "stream"}
        assert (await client.get("/api/read")).json() == {"user_id": 7, "last": "stream"}


async def test_two_calls_that_update_one_session_at_once_lose_nothing(client: Client):
    await client.post("/api/login")
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(lambda n: client.post("/api/put", json={"key": f"k{n}", "value": n}), number)
    data = (await client.get("/api/read")).json()
    assert data == {"user_id": 7} | {f"k{number}": number for number in range(20)}


async def test_a_stream_may_still_put_in_but_not_change_the_id(client: Client, caplog):
    answer = await client.get("/api/stream")
    assert answer.events()[1].json() == {"last": "stream"}
    assert (await client.get("/api/read")).json() == {"last": "stream"}
    answer = await client.get("/api/stream?seconds=0.01&how=regenerate")
    assert answer.events()[-1].event == "error"
    assert "cannot change any more" in caplog.text
    answer = await client.get("/api/stream?seconds=0.01&how=destroy")
    assert answer.events()[-1].event == "error"
    assert "has ended" in caplog.text
    assert (await client.get("/api/read")).json() == {}


async def test_a_session_that_ended_meanwhile_stays_ended_whatever_a_stream_puts_in(client: Client, caplog):
    await client.post("/api/login")
    before = client.cookies["__session"]
    async with client.stream("GET", "/api/stream?seconds=0.2") as stream:
        await stream.receive_event()
        await client.post("/api/logout")
        assert (await stream.receive_event()).event == "error"
    assert "has ended" in caplog.text
    client.cookies["__session"] = before
    assert (await client.get("/api/read")).json() == {}


async def test_a_plain_call_whose_session_ended_meanwhile_begins_another(client: Client):
    begun, proceed = trio.Event(), trio.Event()

    @client.app.action("slow", web=Web("/slow"))
    async def slow(connection: Connection) -> Any:
        begun.set()
        await proceed.wait()
        await connection.session.update(late=True)
        return dict(connection.session.data)

    await client.post("/api/login")
    before = client.cookies["__session"]
    async with trio.open_nursery() as nursery:
        answers = []

        async def call() -> None:
            answers.append(await client.get("/api/slow"))

        nursery.start_soon(call)
        await begun.wait()
        await client.post("/api/logout")
        proceed.set()
    assert answers[0].json() == {"late": True}
    assert before not in answers[0].headers["set-cookie"]


async def test_what_has_no_json_form_cannot_be_put_in(client: Client):
    @client.app.action("odd", web=Web("/odd"))
    async def odd(connection: Connection) -> None:
        with pytest.raises(TypeError, match="no JSON form"):
            await connection.session.update(a=1, b=object())
        assert not connection.session.stored
        assert repr(connection.session) == "<Session new>"

    assert (await client.get("/api/odd")).status == 200


async def test_the_cookie_is_secure_over_https():
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/api/plain")
        stream._scope["scheme"] = "https"
        async with stream:
            assert stream.headers["set-cookie"].endswith("; Secure")


async def test_the_word_of_a_trusted_proxy_is_taken_and_of_no_other():
    for trusted, secure in ((("127.0.0.0/8",), True), (("10.0.0.1",), False)):
        async with open_client(make_app(Config(trusted_proxies=trusted))) as client:
            answer = await client.get("/api/plain", headers={"x-forwarded-proto": "https"})
            assert ("Secure" in answer.headers["set-cookie"]) is secure


async def test_the_cookie_can_be_named_and_relaxed():
    config = Config(session=SessionConfig(ttl=60, cookie_name="sid", same_site="lax"))
    async with open_client(make_app(config)) as client:
        cookie = (await client.get("/api/plain")).headers["set-cookie"]
    assert cookie.startswith("sid=")
    assert "Max-Age=60" in cookie
    assert "SameSite=Lax" in cookie


# The store is away


async def test_what_needs_no_store_goes_on_while_it_is_away_and_what_does_gets_503(client: Client):
    await client.post("/api/login")
    cookie = client.cookies["__session"]
    client.app.store.away = True
    assert (await client.get("/api/plain")).status == 200
    answer = await client.get("/api/read")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["type"] == "CONNECTION_UNAVAILABLE"
    assert (await client.post("/api/put", json={"key": "a", "value": 1})).status == 503
    assert client.cookies["__session"] == cookie
    client.app.store.away = False
    assert (await client.get("/api/read")).json() == {"user_id": 7}


async def test_an_id_that_could_not_be_looked_up_is_not_adopted_when_the_store_is_back(client: Client):
    store = client.app.store

    @client.app.action("later", web=Web("/later"))
    async def later(connection: Connection) -> Any:
        with pytest.raises(StoreUnavailable):
            await connection.session.update(a=1)
        store.away = False
        await connection.session.update(a=1)
        return connection.session.id

    planted = "A" * 32
    client.cookies["__session"] = planted
    store.away = True
    assert (await client.get("/api/later")).json() != planted
    assert await store.load_session(planted, 10) is None


async def test_a_session_whose_store_was_away_for_a_moment_is_found_when_it_is_changed(client: Client):
    store = client.app.store

    @client.app.action("later", web=Web("/later"))
    async def later(connection: Connection, how: str) -> Any:
        store.away = False
        if how == "update":
            await connection.session.update(a=1)
        else:
            await getattr(connection.session, how)()
        return dict(connection.session.data)

    await client.post("/api/login")
    for how, data in (("update", {"user_id": 7, "a": 1}), ("regenerate", {"user_id": 7, "a": 1}), ("destroy", {})):
        store.away = True
        assert (await client.get(f"/api/later?how={how}")).json() == data
    assert (await client.get("/api/read")).json() == {}


async def test_a_stream_outlives_a_store_that_is_away_for_a_while(autojump_clock):
    app = make_app(Config(ping=0, session=SessionConfig(ttl=90)))
    async with open_client(app) as client:
        await client.post("/api/login")
        async with client.stream("GET", "/api/stream?seconds=100") as stream:
            await stream.receive_event()
            app.store.away = True
            await trio.sleep(35)
            app.store.away = False
            assert (await stream.receive_event()).json() == {"user_id": 7, "last": "stream"}


# Cookies


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (b"", None),
        (b"__session=abc", "abc"),
        (b"a=b; __session=abc;c=d", "abc"),
        (b"__session2=x; __session=abc", "abc"),
        (b'__session="abc"', "abc"),
        (b"__session", ""),
        (b"other=__session=abc", None),
    ],
)
def test_the_cookie_is_found_among_others(field, found):
    assert presented_id(field, "__session") == found


async def test_credentials_go_with_an_allow_list_and_not_with_a_star():
    config = Config(cors=CorsConfig(allowed_origins=("https://a.test",)))
    async with open_client(make_app(config)) as client:
        answer = await client.get("/api/stream", headers={"origin": "https://a.test"})
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "set-cookie" in answer.headers


async def test_the_store_is_open_in_a_script(url: str):
    async with Keryx(config=Config(), store=url) as app:
        await app.store.update_session("A" * 32, {"a": b"1"}, 10)
        assert await app.store.load_session("A" * 32, 10) == {"a": b"1"}
