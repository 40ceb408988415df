"""The workload's own application answers what the harness asks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest

from benchmarks.app import app
from keryx_trio.testing import Client, open_client


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with open_client(app) as client:
        yield client


async def test_hello_greets(client):
    answer = await client.get("/api/hello?name=x")
    assert (answer.status, answer.json()) == (200, {"message": "Hello, x!"})


async def test_the_firehose_brings_so_many_events_of_such_a_size_in_order(client):
    answer = await client.get("/api/firehose?n=3&size=5")
    events = [(event.event, event.id, json.loads(event.data)) for event in answer.events()]
    assert events == [("token", str(i), {"i": i, "t": "xxxxx"}) for i in range(3)]


async def test_ticks_come_when_they_are_due_and_say_so(client):
    start = time.time() * 1000
    events = [json.loads(event.data) for event in (await client.get("/api/ticks?n=3&ms=20")).events()]
    assert [event["i"] for event in events] == [0, 1, 2]
    assert [round(event["due"] - events[0]["due"]) for event in events] == [0, 20, 40]
    assert all(event["due"] >= start + 20 and event["ts"] >= event["due"] - 1 for event in events)


@pytest.mark.parametrize("silent", [0, 1])
async def test_the_gauge_counts_endless_streams_until_their_readers_leave(client, silent, autojump_clock):
    async with client.stream("GET", f"/api/endless?silent={silent}") as answer:
        assert [json.loads((await answer.receive_event()).data)["i"] for _ in range(3)] == [0, 1, 2]
        assert (await client.get("/api/live")).json() == {"live": 1}
    assert (await client.get("/api/live")).json() == {"live": 0}
