"""The chat's page as a person uses it: keys and clicks in a browser, over both of its transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import attrs
import pytest
import trio

from examples import chat
from tests.e2e.browser import Browser, needs_browser, open_browser
from tests.e2e.serving import serve, serve_process, until

pytestmark = needs_browser
over_both = pytest.mark.parametrize("transport", ["events", "socket"])

ENTER, SHIFT, ESCAPE, HOME, TAB = "\ue007", "\ue008", "\ue00c", "\ue011", "\ue004"
EXAMPLES = ["What is a lambda?", "How do decorators work?", "Explain the with statement"]
ENDS = {"events": "client gone", "socket": "cancelled"}
WATCH = """
window.faults = [];
addEventListener("error", event => faults.push(event.message ?? "not loaded: " + event.target.outerHTML), true);
addEventListener("unhandledrejection", event => faults.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => faults.push(event.violatedDirective + ": " + event.blockedURI));
"""


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


@attrs.frozen
class Page:
    browser: Browser

    async def choose(self, transport: str) -> None:
        await self.browser.click(f"label:has([value={transport}])")
        assert await self.browser.run("return document.querySelector(':checked').value") == transport

    async def hurry(self) -> None:
        """The slider, all the way to the left: a pace of 0."""
        await self.browser.type("#pace", HOME)
        assert await self.text("#seconds") == "0.00 s/word"

    async def ask(self, question: str) -> None:
        await self.browser.run("document.querySelector('#prompt').value = ''")
        await self.browser.type("#prompt", question + ENTER)

    async def text(self, selector: str) -> str:
        text: str = await self.browser.run("return document.querySelector(arguments[0]).textContent", selector)
        return text

    async def answer(self) -> str:
        return await self.text("article:last-of-type .answer")

    async def outcome(self) -> str:
        return await self.text("article:last-of-type .outcome")

    async def wire(self) -> list[list[str]]:
        """Of each row its kind, and its text, once what has come is painted."""
        await self.browser.run("return new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        found: list[list[str]] = await self.browser.run(
            "return [...document.querySelectorAll('#log li')].map(row => [row.classList[0], row.lastChild.textContent])"
        )
        return found

    async def until_state(self, word: str) -> None:
        script = "return document.querySelector('#state').textContent"
        with trio.move_on_after(10):
            while (state := await self.browser.run(script)) != word:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            return
        raise AssertionError(f"it is {state}, not {word}: {await self.outcome()}")

    async def until_longer_than(self, length: int) -> int:
        script = (
            "const {length} = document.querySelector('article:last-of-type .answer').textContent;"
            "return length > arguments[0] && length"
        )
        longer: int = await self.browser.until(script, length)
        return longer

    async def is_ready_for_the_next(self) -> bool:
        """The question has the keyboard, may be sent, and there is nothing to stop."""
        ready: bool = await self.browser.run(
            "const [prompt, ask, stop] = ['prompt', 'ask', 'stop'].map(id => document.getElementById(id));"
            "return document.activeElement === prompt && !ask.disabled && stop.disabled"
        )
        return ready


@asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[Page]:
    """The page, which must not break its own policy, nor fail in any other way."""
    async with open_browser(profile) as browser:
        await browser.at_start(WATCH)
        await browser.open(f"{url}/")
        page = Page(browser)
        await page.until_state("Ready")
        yield page
        assert await browser.run("return faults") == []


@over_both
@pytest.mark.parametrize("how", ["keys", "clicks"])
async def test_tokens_appear_one_after_another_until_stop_ends_the_producer(
    tmp_path: Path, journal: Any, measured: Callable[[str], None], transport: str, how: str
) -> None:
    async with serve(chat.app) as server, open_page(server.url, tmp_path) as page:
        await page.choose(transport)
        if how == "keys":
            await page.ask("Explain the with statement")
        else:
            await page.browser.click("#examples button:last-of-type")
        lengths = [0]
        for _ in range(5):
            lengths.append(await page.until_longer_than(lengths[-1]))
        assert await page.text("#state") == "Streaming"
        assert len(chat.app.connections) == 1
        assert journal.fields("outcome") == []
        stopped_at = trio.current_time()
        if how == "keys":
            await page.browser.press(ESCAPE)
        else:
            await page.browser.click("#stop")
        await until(lambda: journal.fields("outcome"))
        took = trio.current_time() - stopped_at
        await page.until_state("Stopped")
        assert journal.fields("outcome") == [ENDS[transport]]
        assert len(chat.app.connections) == (1 if transport == "socket" else 0)
        answer = await page.answer()
        assert 0 < len(answer) < len(topics["with"])
        assert topics["with"].startswith(answer)
        assert (await page.outcome()).startswith("Stopped after ")
        assert await page.is_ready_for_the_next()
        if transport == "socket":
            told = await page.wire()
            stopped = told.index(["sent", '{"messageType":"cancel","messageId":1}'])
            assert all('"chunk"' in text for _, text in told[stopped + 1 : -1])  # which were on their way
            assert told[-1] == ["received", '{"messageId":1,"streaming":false}']
        else:
            assert (await page.wire())[-1] == ["note", "request aborted"]
        await trio.sleep(0.2)
        assert await page.answer() == answer
    measured(f"the answer grew {lengths}; {took * 1000:.0f} ms from the stop, WebDriver and all, to the producer's end")


@over_both
async def test_a_whole_answer_is_the_text_of_its_topic(tmp_path: Path, transport: str) -> None:
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.choose(transport)
        await page.hurry()
        for topic, question in [("with", "Explain the with statement"), ("lambda", "What is a lambda?")]:
            await page.ask(question)
            await page.until_state("Done")
            assert await page.answer() == topics[topic]
            assert (await page.outcome()).endswith(f"tokens from the topic “{topic}”.")
            assert await page.is_ready_for_the_next()
        wire = await page.wire()
        if transport == "socket":  # the second question went over the socket of the first
            assert await page.browser.run("return document.querySelectorAll('#log .first').length") == 1
            assert wire[-1] == ["received", '{"messageId":2,"streaming":false}']
            assert sum(text.startswith('{"messageType":"action"') for _, text in wire) == 1
            assert ["note", "socket open"] not in wire
        else:
            done = ["received", 'event: done\nid: done\ndata: {"done":true,"topic":"lambda"}']
            assert wire[-1] == done


@over_both
async def test_the_wire_keeps_its_newest_lines_and_stays_where_its_reader_is(tmp_path: Path, transport: str) -> None:
    at_end = (
        "const panel = document.getElementById('wire');"
        "return panel.scrollHeight - panel.clientHeight - panel.scrollTop < 8"
    )
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.choose(transport)
        await page.hurry()
        await page.ask("How do decorators work?")
        await page.until_state("Done")
        await page.browser.until(at_end)
        lines = [line for _, text in await page.wire() for line in text.split("\n")]
        assert 390 < len(lines) <= 400
        assert "done" in lines[-1] or transport == "socket"
        await page.browser.run("document.getElementById('wire').scrollTop = 0")
        await page.ask("What is a lambda?")
        await page.until_state("Done")
        assert not await page.browser.run(at_end)


@over_both
async def test_an_empty_question_is_answered_by_the_servers_words(tmp_path: Path, transport: str) -> None:
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.choose(transport)
        await page.browser.click("#ask")
        await page.until_state("Failed")
        assert await page.outcome() == "Prompt must be at least 1 character long."
        assert '"type":"CONNECTION_ACTION_PARAM_VALIDATION"' in (await page.wire())[-1][1]
        assert await page.is_ready_for_the_next()
        await page.hurry()
        await page.ask("What is a lambda?")
        await page.until_state("Done")


@over_both
async def test_the_page_says_that_the_connection_broke_off_and_that_the_server_is_away(
    tmp_path: Path, transport: str
) -> None:
    async with serve_process("examples.chat:app", "--workers", "0") as server, open_page(server.url, tmp_path) as page:
        await page.choose(transport)
        await page.ask("Explain the with statement")
        length = await page.until_longer_than(0)
        server.process.kill()
        await page.until_state("Failed")
        assert await page.outcome() == "The connection broke off before the end of the answer."
        assert len(await page.answer()) >= length
        await page.ask("What is a lambda?")
        await page.until_state("Failed")
        assert await page.outcome() == "The server can't be reached. Is it running?"
        assert await page.is_ready_for_the_next()


async def test_a_question_may_have_lines_and_what_is_typed_meanwhile_is_kept(tmp_path: Path) -> None:
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.ask(f"What is{SHIFT}{ENTER}{SHIFT}a lambda?")
        await page.until_longer_than(0)
        assert await page.text("h3") == "What is\na lambda?"
        await page.browser.type("#prompt", " And pass?")
        await page.until_state("Done")
        await page.browser.type("#prompt", "!")
        value = await page.browser.run("return document.getElementById('prompt').value")
        assert value == "What is\na lambda? And pass?!"


async def test_in_a_low_window_the_page_begins_at_its_top_and_shows_the_answer_while_it_comes(tmp_path: Path) -> None:
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.browser.resize(844, 480)
        await page.browser.open(server.url)
        at = "return [scrollY, document.activeElement.id]"
        assert await page.browser.run(at) == [0, "prompt"]
        await page.browser.run("scrollTo(0, document.documentElement.scrollHeight)")
        await page.ask("What is a lambda?")
        await page.until_state("Streaming")
        seen = (
            "const {top, bottom} = document.querySelector('#transcript').getBoundingClientRect();"
            "return top >= 0 && bottom <= innerHeight"
        )
        assert await page.browser.run(seen)


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_the_page_fits_its_window_and_every_control_has_a_name_and_shows_its_focus(
    tmp_path: Path, width: int
) -> None:
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        await page.browser.resize(width, 740)
        for transport in ("events", "socket"):
            await page.choose(transport)
            await page.hurry()
            await page.ask("Explain the with statement")
            await page.until_state("Done")
        too_wide = "const {scrollWidth, clientWidth} = document.documentElement; return scrollWidth - clientWidth"
        assert await page.browser.run(too_wide) == 0
        side_by_side = (
            "const [a, b] = ['.talk', '.wire'].map(at => document.querySelector(at).getBoundingClientRect());"
            "return a.top === b.top"
        )
        assert await page.browser.run(side_by_side) == (width == 1280)
        nameless = (
            "return [...document.querySelectorAll('button, input, textarea')]"
            ".filter(at => !at.textContent.trim() && !at.labels?.length).map(at => at.outerHTML)"
        )
        assert await page.browser.run(nameless) == []
        for control in ["ask", "transport", "pace", "wire", "", "transcript", *EXAMPLES, "prompt"]:  # "" is the window
            await page.browser.press(TAB)
            name, ring = await page.browser.run(
                "const at = document.activeElement, shown = at.type === 'radio' ? at.nextElementSibling : at;"
                "if (at === document.body) return ['', 'solid'];"
                "return [at.id || at.name || at.textContent, getComputedStyle(shown).outlineStyle]"
            )
            assert (name, ring) == (control, "solid")


# Each as it comes, and what of it is an event.
BLOCKS = [
    (": a comment\n\n", []),
    ("event: token\nid: 1\ndata: The \n\n", [["token", "The "]]),
    ("event: token\r\ndata: two\r\ndata:lines\r\n\r\n", [["token", "two\nlines"]]),
    ("event:token\rdata\rdata:  é 😀\r\r", [["token", "\n é 😀"]]),
    ("data: a: b\n\n\n\n", [["message", "a: b"]]),
    ("event: lost\nid: 7\n\n", []),
    ("\r\n\ndata:\n\n", [["message", ""]]),
    ("data: cut off", []),
]
PARSE = """
const [text, size] = arguments;
return import("/chat.js").then(({ EventParser }) => {
  const [parser, decoder, bytes, seen] = [new EventParser(), new TextDecoder(), new TextEncoder().encode(text), []];
  for (let at = 0; at < bytes.length; at += size) {
    for (const { event, data } of parser.feed(decoder.decode(bytes.subarray(at, at + size), { stream: true }))) {
      if (data !== null) seen.push([event, data]);
    }
  }
  return seen;
});
"""


async def test_events_are_read_alike_wherever_they_are_cut(tmp_path: Path) -> None:
    text = "".join(block for block, _ in BLOCKS)
    expected = [event for _, events in BLOCKS for event in events]
    async with serve_process("examples.chat:app") as server, open_page(server.url, tmp_path) as page:
        for size in (1, 2, 3, 5, 7, 1000):
            assert await page.browser.run(PARSE, text, size) == expected, size
