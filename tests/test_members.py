"""The example with a login, on real passwords and the real machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from examples import members
from keryx_trio.store.memory import MemoryStore
from keryx_trio.testing import Answer, Client, open_client

pytestmark = pytest.mark.usefixtures("far_from_an_edge")

PASSWORD = "analytical-engine"


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(members.app, "store", MemoryStore(members.app.log))  # no test uses up the tries of the next one
    async with open_client(members.app) as client:
        yield client


async def log_in(client: Client, name: str = "ada", password: str = PASSWORD) -> Answer:
    return await client.post("/api/login", form={"name": name, "password": password})


async def whoami(client: Client) -> Any:
    answer = await client.get("/api/whoami")
    return answer.json()["user_id"] if answer.status == 200 else answer.status


async def test_who_logs_in_is_known_under_another_id_and_the_old_one_is_worth_nothing(client: Client, caplog):
    caplog.set_level("DEBUG")
    assert await whoami(client) == 401
    before = client.cookies["__session"]
    answer = await log_in(client)
    assert (answer.status, answer.json()) == (200, {"user_id": "ada"})
    assert answer.headers["x-ratelimit-limit"] == "5"
    first = client.cookies["__session"]
    assert first != before
    assert await whoami(client) == "ada"

    await log_in(client)  # once more: the id moves, and takes the login along
    second = client.cookies["__session"]
    assert second != first
    assert await whoami(client) == "ada"
    client.cookies["__session"] = first
    assert await whoami(client) == 401
    client.cookies["__session"] = second
    assert await whoami(client) == "ada"
    assert "login" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_wrong_password_and_an_unknown_name_get_one_answer(client: Client, caplog):
    caplog.set_level("DEBUG")
    wrong = await log_in(client, password="difference-engine")
    unknown = await log_in(client, name="charles", password="difference-engine")
    errors = [answer.json()["error"] for answer in (wrong, unknown)]
    assert [answer.status for answer in (wrong, unknown)] == [401, 401]
    assert errors[0] | {"timestamp": 0} == errors[1] | {"timestamp": 0}
    assert await whoami(client) == 401
    assert "no member has this name" in caplog.text
    assert "difference-engine" not in caplog.text


@pytest.mark.parametrize("inputs", [{}, {"name": "ada"}, {"name": "ada", "password": "x" * 101}])
async def test_what_can_be_no_password_is_not_tried(client: Client, caplog, inputs: dict[str, str]):
    answer = await client.post("/api/login", json=inputs)
    assert answer.status == 422
    assert "xxx" not in answer.text + caplog.text


async def test_five_tries_a_minute_are_all_that_an_address_has(
    client: Client, mock_clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(members, "is_password", lambda *_: False)
    assert [(await log_in(client, name=f"user{number}")).status for number in range(5)] == [401] * 5
    client.cookies.clear()
    refused = await log_in(client)
    assert refused.status == 429
    mock_clock.jump(120)
    assert (await log_in(client)).status == 401


async def test_the_stream_is_for_members_and_tells_how_busy_the_machine_is(client: Client, mock_clock):
    assert (await client.get("/api/load")).status == 401
    await log_in(client)
    async with client.stream("GET", "/api/load") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        events = [await stream.receive_event()]
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(members.INTERVAL)
            events.append(await stream.receive_event())
    for event in events:
        told = event.json()
        assert event.event == "load"
        assert len(told["load"]) == 3
        assert min(told["load"]) >= 0
        assert told["open"] == 1
    assert not members.app.connections
    used = [event.json()["server_cpu_seconds"] for event in events]
    assert 0 < used[0] <= used[-1]


async def test_who_logged_out_is_refused(client: Client):
    await log_in(client)
    before = client.cookies["__session"]
    assert (await client.post("/api/logout")).status == 200
    assert client.cookies["__session"] != before
    for cookie in (client.cookies["__session"], before):
        client.cookies["__session"] = cookie
        assert await whoami(client) == 401
        assert (await client.get("/api/load")).status == 401
        assert (await client.post("/api/logout")).status == 200
