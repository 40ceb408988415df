"""A real browser's `EventSource` on real streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from keryx_trio import Config, Connection, EventStream, Keryx, Response, StreamingResponse, Web
from tests.e2e.browser import needs_browser, open_browser
from tests.e2e.serving import serve, until

pytestmark = needs_browser

PAGE = "<!doctype html><title>events</title><script src='/api/script.js'></script>"
SCRIPT = """
const seen = [];
const source = new EventSource("/api/events");
for (const name of ["message", "token", "done", "error"]) {
  source.addEventListener(name, event => {
    if (event.data !== undefined) seen.push({name, data: event.data, id: event.lastEventId, at: performance.now()});
    if (name === "done") source.close();
  });
}
"""


def make_app() -> Keryx:
    app = Keryx(config=Config(ping=0.05))

    @app.action("page", web=Web("/page"))
    async def page() -> Response:
        return Response(PAGE, content_type="text/html; charset=utf-8")

    @app.action("script", web=Web("/script.js"))
    async def script() -> Response:
        return Response(SCRIPT, content_type="text/javascript; charset=utf-8")

    return app


def without_times(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(event["name"], event["data"], event["id"]) for event in events]


async def test_a_browser_gets_each_event_before_the_next_is_sent(
    tmp_path: Path, measured: Callable[[str], None]
) -> None:
    app = make_app()
    seen = [trio.Event() for _ in range(4)]

    @app.action("events", web=Web("/events"))
    async def events() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("plain")
            await seen[0].wait()
            await sse.send("two\r\nlines, é 😀", event="token", id="a")
            await seen[1].wait()
            await sse.send({"n": 3}, event="token")
            await seen[2].wait()
            await sse.send("", event="done", id="")

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_browser(tmp_path) as browser:
        await browser.open(f"{server.url}/api/page")
        for number, signal in enumerate(seen, 1):
            assert await browser.until("return seen.length >= arguments[0] && seen.length", number) == number
            signal.set()
        received = await browser.run("return seen")
        assert await browser.run("return source.readyState") == 2
    assert without_times(received) == [
        ("message", "plain", ""),
        ("token", "two\nlines, é 😀", "a"),
        ("token", '{"n":3}', "a"),
        ("done", "", ""),
    ]
    times = [event["at"] for event in received]
    assert times == sorted(times)
    measured("events at " + ", ".join(f"{at:.0f}" for at in times) + " ms of the page's life")


async def test_a_browser_comes_back_with_the_last_id_until_it_is_told_to_stop(tmp_path: Path) -> None:
    app = make_app()
    came_with: list[str | None] = []

    @app.action("events", web=Web("/events"))
    async def events(connection: Connection) -> StreamingResponse | Response:
        came_with.append(connection.last_event_id)
        if len(came_with) > 2:
            return Response(status=204)

        async def produce(sse: EventStream) -> None:
            number = len(came_with)
            await sse.send(f"hello {number}", id=f"é{number}", retry=20)

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_browser(tmp_path) as browser:
        await browser.open(f"{server.url}/api/page")
        await browser.until("return source.readyState === EventSource.CLOSED")
        received = await browser.run("return seen")
    assert came_with == [None, "é1", "é2"]
    assert without_times(received) == [("message", "hello 1", "é1"), ("message", "hello 2", "é2")]


async def test_a_browser_is_told_of_an_error_and_will_come_back(tmp_path: Path, journal: Any) -> None:
    app = make_app()

    @app.action("events", web=Web("/events"))
    async def events() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("before", retry=60_000)
            raise LookupError("the password is swordfish")

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_browser(tmp_path) as browser:
        await browser.open(f"{server.url}/api/page")
        await browser.until("return seen.length === 2")
        name, data, _ = without_times(await browser.run("return seen"))[1]
        assert await browser.run("return source.readyState === EventSource.CONNECTING")
    assert name == "error"
    assert json.loads(data)["type"] == "CONNECTION_ACTION_RUN"
    assert "swordfish" not in data
    assert "swordfish" in "".join(journal.take_errors())


async def test_a_browser_that_closes_its_source_has_left(tmp_path: Path, journal: Any) -> None:
    app = make_app()
    cleaned = trio.Event()

    @app.action("events", web=Web("/events"))
    async def events() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("here")
                await trio.sleep_forever()
            finally:
                cleaned.set()

        return StreamingResponse.sse(produce)

    async with serve(app) as server, open_browser(tmp_path) as browser:
        await browser.open(f"{server.url}/api/page")
        await browser.until("return seen.length")
        await browser.run("source.close()")
        await until(cleaned.is_set)
    assert journal.fields("outcome") == ["client gone"]
