"""The page that shows the API, as a person uses it: in a browser, while a stream runs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
import trio
from msgspec import Meta

from keryx_trio import Config, Connection, EventStream, Keryx, Response, StreamingResponse, TypedError, UploadFile, Web
from keryx_trio.config import DocsConfig
from keryx_trio.transports import docs
from tests.e2e.browser import Browser, needs_browser, open_browser
from tests.e2e.serving import serve
from tests.e2e.test_chat_page import WATCH

pytestmark = needs_browser
needs_swagger = pytest.mark.skipif(
    importlib.util.find_spec(docs.SWAGGER_PACKAGE) is None, reason="the extra docs-page is not installed"
)


@attrs.define
class Stage:
    """What the stream waits for, and what became of it."""

    go_on: trio.Event = attrs.field(factory=trio.Event)
    ended: list[str] = attrs.field(factory=list)
    calls: list[dict[str, Any]] = attrs.field(factory=list)


def application() -> tuple[Keryx, Stage]:
    app, stage = Keryx(config=Config(docs=DocsConfig(title="Tea house", description="Serves tea."))), Stage()

    @app.action(
        "tea:pour",
        web=Web("/pour/{pot}", method="POST", streaming=True, events={"drop": str, "level": dict[str, int]}),
    )
    async def pour(
        pot: Annotated[str, Meta(examples=["blue"])],
        cups: Annotated[int, Meta(ge=1, description="How many")] = 1,
        kinds: list[str] = [],  # noqa: B006 - a default of an input
    ) -> StreamingResponse:
        """Pour tea, drop by drop."""
        stage.calls.append({"pot": pot, "cups": cups, "kinds": kinds})

        async def produce(sse: EventStream) -> None:
            try:
                await sse.send("two\nlines", event="drop", id="a")
                await stage.go_on.wait()
                await sse.send({"level": 7}, event="level")
                await trio.sleep_forever()
            except trio.Cancelled:
                stage.ended.append("cancelled")
                raise

        return StreamingResponse.sse(produce)

    @app.action("tea:spill", web=Web("/spill", streaming=True))
    async def spill() -> StreamingResponse:
        """Fail."""

        async def produce(_: EventStream) -> None:
            raise TypedError("spilt")

        return StreamingResponse.sse(produce)

    @app.action("tea:list", web=Web("/list"))
    async def tea_list(kind: Literal["green", "black"] = "green", hot: bool | None = None) -> dict[str, Any]:
        """List the tea."""
        return {"kind": kind, "hot": hot}

    @app.action("tea:picture", web=Web("/picture", method="POST"))
    async def picture(file: UploadFile, name: str = "none") -> Response:
        """Look at a picture."""
        return Response(await file.read() + name.encode(), content_type="image/x-tea")

    @app.action("tea:who", web=Web("/who"))
    async def who(connection: Connection) -> str:
        """Who asks."""
        return connection.type.value

    return app, stage


@asynccontextmanager
async def open_page(app: Keryx, profile: Path) -> AsyncIterator[Browser]:
    """The page, which must not break its own policy, nor fail in any other way."""
    async with serve(app) as server, open_browser(profile) as browser:
        await browser.at_start(WATCH)
        await browser.resize(1280, 900)
        await browser.open(f"{server.url}/api/docs")
        await browser.until("return !document.querySelector('#live').hidden")
        yield browser
        assert await browser.run("return faults") == []


async def choose(browser: Browser, operation: str) -> None:
    await browser.run(
        "const box = document.querySelector('#operation'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('change'))",
        operation,
    )


async def rows(browser: Browser, count: int) -> list[list[str]]:
    """The events on the page, once there are so many: the name, and the data, of each."""
    return await browser.until(
        "const rows = [...document.querySelectorAll('#events li')];"
        "return rows.length >= arguments[0] && rows.map(row => [...row.children].slice(1).map(each => each.textContent))",
        count,
    )


async def until_state(browser: Browser, state: str) -> str:
    script = (
        "const {dataset, textContent} = document.querySelector('#state');"
        "return dataset.state === arguments[0] && `${textContent} ${document.querySelector('#figures').textContent}`"
    )
    return await browser.until(script, state)


@pytest.fixture
def without_swagger(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(docs, "SWAGGER_PACKAGE", "no_such_package")


async def test_a_stream_shows_while_it_runs_and_stop_ends_its_producer(tmp_path, without_swagger):
    app, stage = application()
    async with open_page(app, tmp_path) as browser:
        await browser.type("[name=cups]", "2")
        await browser.type("[name=kinds]", '["green", "black"]')
        await browser.click("#send")
        assert await rows(browser, 1) == [["drop #a", "two\nlines"]]  # its producer waits, it has not ended
        assert stage.calls == [{"pot": "blue", "cups": 2, "kinds": ["green", "black"]}]
        assert (await until_state(browser, "streaming")).startswith("Streaming 200, 1 event, ")
        stage.go_on.set()
        assert (await rows(browser, 2))[1] == ["level", '{ "level": 7 }']
        assert not stage.ended
        await browser.click("#stop")
        assert (await until_state(browser, "stopped")).startswith("Stopped 200, 2 events, ")
        with trio.fail_after(5):
            while not stage.ended:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        assert stage.ended == ["cancelled"]
        assert await browser.run("return document.activeElement.id") == "send"


async def test_leaving_the_page_ends_the_producer(tmp_path, without_swagger):
    app, stage = application()
    async with open_page(app, tmp_path) as browser:
        await browser.click("#send")
        await rows(browser, 1)
        await browser.run("location.href = 'openapi.json'")
        with trio.fail_after(5):
            while not stage.ended:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        await browser.run("window.faults = []")  # of a page that watches nothing


async def test_a_stream_that_fails_is_told(tmp_path, without_swagger):
    app, _ = application()
    async with open_page(app, tmp_path) as browser:
        await choose(browser, "tea_spill")
        await browser.click("#send")
        [[name, data]] = await rows(browser, 1)
        assert name == "error"
        assert json.loads(data)["message"] == "spilt"
        assert (await until_state(browser, "failed")).startswith("Failed 200, 1 event")


async def test_without_swagger_ui_every_action_can_be_tried(tmp_path, without_swagger):
    app, _ = application()
    async with open_page(app, tmp_path) as browser:
        assert await browser.run("return document.title") == "Tea house"
        assert await browser.run("return document.querySelector('#described').textContent") == "Serves tea."
        assert await browser.run("return document.querySelector('#plain').hidden") is False
        await choose(browser, "tea_list")
        await browser.run("document.querySelector('[name=hot]').value = 'true'")
        await browser.click("#send")
        assert (await until_state(browser, "done")).startswith("Done 200, ")
        assert json.loads(await browser.run("return document.querySelector('#body').textContent")) == {
            "kind": "green", "hot": True,
        }  # fmt: skip


async def test_a_file_is_sent_and_bytes_can_be_saved(tmp_path, without_swagger):
    app, _ = application()
    path = tmp_path / "tea.txt"
    path.write_text("oolong")
    async with open_page(app, tmp_path / "profile") as browser:
        await choose(browser, "tea_picture")
        await browser.type("[name=file]", str(path))
        await browser.type("[name=name]", "-x")
        await browser.click("#send")
        await until_state(browser, "done")
        assert await browser.run("return document.querySelector('#save').textContent") == "Save 8 bytes of image/x-tea"


async def test_a_field_that_cannot_be_sent_says_why_and_a_refusal_is_shown(tmp_path, without_swagger):
    app, stage = application()
    async with open_page(app, tmp_path) as browser:
        await browser.type("[name=kinds]", "green")
        await browser.click("#send")
        fault = await browser.run("return document.querySelector('.fault:not([hidden])').textContent")
        assert fault.startswith("kinds: is JSON: ")
        assert await browser.run("return document.activeElement.name") == "kinds"
        assert stage.calls == []
        await browser.run("document.querySelector('[name=kinds]').value = ''")
        await browser.type("[name=cups]", "0")
        await browser.click("#send")
        assert (await until_state(browser, "failed")).startswith("Failed 422, ")
        assert "must be >= 1" in await browser.run("return document.querySelector('#body').textContent")


@needs_swagger
async def test_swagger_ui_shows_the_rest_and_leads_streams_to_the_live_part(tmp_path):
    app, stage = application()
    async with open_page(app, tmp_path) as browser:
        await browser.until("return document.querySelectorAll('.opblock').length === 5")
        options = await browser.run("return [...document.querySelector('#operation').options].map(each => each.value)")
        assert options == ["tea_pour", "tea_spill"]
        await browser.click("#operations-tea-tea_list .opblock-summary-control")
        await browser.until("return document.querySelector('#operations-tea-tea_list .try-out__btn')")
        await browser.click("#operations-tea-tea_list .try-out__btn")
        await browser.click("#operations-tea-tea_list .execute")
        shown = await browser.until(
            "return document.querySelector('#operations-tea-tea_list .highlight-code')?.textContent"
        )
        assert "green" in shown
        await browser.click("#operations-tea-tea_spill .opblock-summary-control")
        await browser.until("return document.querySelector('#operations-tea-tea_spill .try-out__btn')")
        await browser.click("#operations-tea-tea_spill .try-out__btn")
        await browser.click("#operations-tea-tea_spill .execute")
        assert await browser.run("return document.querySelector('#operation').value") == "tea_spill"
        assert await browser.run("return document.activeElement.id") == "send"
        await browser.click("#send")
        await until_state(browser, "failed")
    assert stage.calls == []
