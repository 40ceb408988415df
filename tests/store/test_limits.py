"""The limiter and the guard."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from keryx_trio import Config, Connection, EventStream, Keryx, RateLimit, RequireSession, StreamingResponse, Web
from keryx_trio.config import RateLimitConfig
from keryx_trio.testing import Answer, open_client

pytestmark = pytest.mark.usefixtures("far_from_an_edge")

LIMIT = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def make_app(*middleware: Any, config: Config | None = None, url: str = "memory://") -> Keryx:
    app = Keryx(config=config or Config(), store=url)

    @app.action("it", web=Web("/it"), middleware=middleware)
    async def it(kind: str = "plain", who: str = "") -> Any:
        async def produce(sse: EventStream) -> None:
            await sse.send("x")

        if kind == "fail":
            raise ValueError
        return StreamingResponse.sse(produce) if kind == "stream" else "ok"

    @app.action("login", web=Web("/login", method="POST"))
    async def login(connection: Connection, user_id: int) -> None:
        await connection.session.update(user_id=user_id)

    @app.action("outer", web=Web("/outer"))
    async def outer(connection: Connection) -> Any:
        return [await connection.act("it") for _ in range(5)]

    return app


def remaining(answer: Answer) -> int:
    return int(answer.headers["x-ratelimit-remaining"])


async def test_calls_above_the_limit_are_refused_and_told_when_to_come_back(url):
    async with open_client(make_app(RateLimit(limit=3, window=60), url=url)) as client:
        assert [remaining(await client.get("/api/it")) for _ in range(3)] == [2, 1, 0]
        answer = await client.get("/api/it")
    assert answer.status == 429
    error = answer.json()["error"]
    assert error["type"] == "CONNECTION_RATE_LIMITED"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-limit"] == "3"
    assert "3 calls in 60 seconds" in error["message"]


@pytest.mark.parametrize("kind", ["plain", "stream", "fail"])
async def test_the_header_fields_are_on_every_answer_of_a_limited_action(url, kind):
    async with open_client(make_app(RateLimit(), url=url)) as client:
        answer = await client.get(f"/api/it?kind={kind}")
        assert [answer.headers[name] for name in LIMIT[:2]] == ["20", "19"]
        assert int(answer.headers["x-ratelimit-reset"]) > 1_700_000_000
        assert "retry-after" not in answer.headers


async def test_an_action_without_a_limiter_has_no_such_fields(url):
    async with open_client(make_app(url=url)) as client:
        assert not set(LIMIT) & set((await client.get("/api/it")).headers)


async def test_a_user_is_counted_as_such_and_may_call_more_often_than_an_address(url):
    async with open_client(make_app(RateLimit(), url=url)) as client:
        await client.get("/api/it")
        await client.post("/api/login", json={"user_id": 1})
        answer = await client.get("/api/it")
        assert (answer.headers["x-ratelimit-limit"], remaining(answer)) == ("200", 199)
        await client.post("/api/login", json={"user_id": 2})
        assert remaining(await client.get("/api/it")) == 199


async def test_what_is_counted_can_be_chosen(url):
    by_input = RateLimit(limit=1, key=lambda params, connection: params["who"])
    async with open_client(make_app(by_input, url=url)) as client:
        assert (await client.get("/api/it?who=a")).status == 200
        assert (await client.get("/api/it?who=b")).status == 200
        assert (await client.get("/api/it?who=a")).status == 429
    async with open_client(make_app(RateLimit(limit=1, key="all"), url=url)) as client:
        await client.get("/api/it?who=a")
        assert (await client.get("/api/it?who=b")).status == 429


async def test_calls_from_action_to_action_are_not_counted(url):
    async with open_client(make_app(RateLimit(limit=1), url=url)) as client:
        assert (await client.get("/api/outer")).json() == ["ok"] * 5
        assert (await client.get("/api/it")).status == 200


async def test_the_window_slides(autojump_clock):
    async with open_client(make_app(RateLimit(limit=10, window=10))) as client:
        await trio.sleep(10 - client.app.store._epoch % 10)  # to the start of a bucket
        assert [(await client.get("/api/it")).status for _ in range(11)] == [200] * 10 + [429]
        await trio.sleep(10)
        assert (await client.get("/api/it")).status == 429
        await trio.sleep(5)
        assert [(await client.get("/api/it")).status for _ in range(6)] == [200] * 5 + [429]
        await trio.sleep(20)
        assert remaining(await client.get("/api/it")) == 9


async def test_of_200_calls_at_once_at_a_limit_of_100_exactly_100_get_through(url):
    statuses: list[int] = []
    async with open_client(make_app(RateLimit(limit=100), url=url)) as client:

        async def call() -> None:
            statuses.append((await client.get("/api/it")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(call)
    assert sorted(statuses) == [200] * 100 + [429] * 100


async def test_the_defaults_come_from_the_settings(url):
    config = Config(rate_limit=RateLimitConfig(limit=2, window=30))
    async with open_client(make_app(RateLimit(), config=config, url=url)) as client:
        assert [(await client.get("/api/it")).status for _ in range(3)] == [200, 200, 429]


async def test_behind_a_trusted_proxy_each_client_is_counted_apart(url):
    app = make_app(RateLimit(limit=1), config=Config(trusted_proxies=("127.0.0.1",)), url=url)
    async with open_client(app) as client:
        for address in ("1.1.1.1", "2.2.2.2"):
            assert (await client.get("/api/it", headers={"x-forwarded-for": address})).status == 200
        assert (await client.get("/api/it", headers={"x-forwarded-for": "9.9.9.9, 1.1.1.1"})).status == 429


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -1}, {"window": 0}, {"window": float("inf")}])
def test_a_limit_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match="above zero"):
        RateLimit(**options)


async def test_only_who_has_logged_in_gets_past_the_guard(url):
    async with open_client(make_app(RequireSession(), url=url)) as client:
        answer = await client.get("/api/it")
        assert (answer.status, answer.json()["error"]["type"]) == (401, "CONNECTION_SESSION_NOT_FOUND")
        await client.post("/api/login", json={"user_id": 1})
        assert (await client.get("/api/it")).status == 200
        assert (await client.get("/api/it?kind=stream")).events()[0].data == "x"


async def test_the_guard_may_look_for_another_key(url):
    async with open_client(make_app(RequireSession(key="admin"), url=url)) as client:
        await client.post("/api/login", json={"user_id": 1})
        assert (await client.get("/api/it")).status == 401
