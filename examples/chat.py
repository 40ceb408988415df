"""A chat that answers token by token, as a language model does.

It needs no model: it streams the topic of Python's own documentation that fits the prompt best. With OPENAI_BASE_URL
and OPENAI_API_KEY set (and OPENAI_MODEL, if you like) it relays a real model instead. An EventSource that loses the
connection goes on where it was, and one that has everything is told to stay away. Whoever leaves stops the work.

    hypercorn --worker-class trio examples.chat:app
    curl -N '127.0.0.1:8000/api/chat/stream?prompt=how+do+decorators+work'
    keryx-trio run examples.chat:app chat:stream --prompt 'how do decorators work' --follow

Or open http://127.0.0.1:8000/ in a browser: a page that asks over Server-Sent Events or over WebSocket, and shows both.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, NotRequired, TypedDict

import trio
from msgspec import Meta

from keryx_trio import Connection, ErrorType, EventStream, Keryx, Response, StreamingResponse, TypedError, Web


@asynccontextmanager
async def lifespan(_: Keryx) -> AsyncIterator["Library"]:
    """What it yields is `app.state`."""
    yield await trio.to_thread.run_sync(Library, topics)


app = Keryx(lifespan=lifespan)
app.static("/", Path(__file__).parent / "chat_page")


class Done(TypedDict):
    """What the answer was made of."""

    done: bool
    topic: NotRequired[str | None]
    model: NotRequired[str]


STREAM = Web("/chat/stream", method=("GET", "POST"), streaming=True, events={"token": str, "done": Done})


@app.action("chat:stream", web=STREAM, timeout=0)
async def chat_stream(
    connection: Connection,
    prompt: Annotated[
        str, Meta(min_length=1, max_length=4000, description="What to ask", examples=["What is a lambda?"])
    ],
    pace: Annotated[float, Meta(ge=0, le=1, description="Seconds between two words")] = 0.05,
) -> StreamingResponse | Response:
    """Answer token by token."""
    relayed = "OPENAI_BASE_URL" in os.environ and "OPENAI_API_KEY" in os.environ
    last = connection.last_event_id
    if last == "done" or (last and relayed):  # a model can't go on where it was
        return Response(status=204)  # an EventSource reconnects whenever a stream ends; this makes it stop
    if relayed:
        sse = StreamingResponse.sse()
        await connection.nursery.start(relay, sse, prompt)  # raises, as a plain answer, what is wrong before the stream
        return sse
    return StreamingResponse.sse(recite, connection.app.state, prompt, pace, last)


# Without a model


async def recite(sse: EventStream, library: "Library", prompt: str, pace: float, last: str | None) -> None:
    """Say the topic that fits, word by word; after `last`, what is left of it."""
    topic = library.find(prompt)
    text = library.texts[topic] if topic else NOTHING_FITS
    tokens = re.findall(r"\S+\s*|\s+", text)  # joined, they are the text
    said = int(last) if last and re.fullmatch("[0-9]{1,9}", last) else 0
    for number, token in enumerate(tokens[said:], start=said + 1):
        await sse.send(token, event="token", id=str(number))
        await trio.sleep(pace)
    await sse.send({"done": True, "topic": topic}, event="done", id="done")


NOTHING_FITS = (
    "Python's documentation has no topic on that. Ask about lambda, decorators, slices or the with statement."
)
FITS = 0.5  # the least score of a topic that says anything of the prompt
SMALL_WORDS = re.compile("an?|and|about|are|be|can|do|does|explain|how|i|is|it|me|of|on|s|tell|the|to|use|what|work")


class Library:
    """The topics, and which words tell them apart."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.counts = {topic: Counter(words(text)) for topic, text in texts.items()}
        self.length = sum(count.total() for count in self.counts.values()) / len(texts)
        self.in_texts = Counter(word for count in self.counts.values() for word in count)
        self.in_names = Counter(word for topic in texts for word in words(topic))

    def find(self, prompt: str) -> str | None:
        """The topic that fits best, or None where none fits at all."""
        asked = words(prompt)
        score, best = max((self.score(topic, asked), topic) for topic in self.texts)
        return best if score > FITS else None

    def score(self, topic: str, asked: list[str]) -> float:
        """A word counts the more, the fewer topics have it and the more often this one does; most in its name."""
        counts, name = self.counts[topic], words(topic)
        score = 0.0
        for word in asked:
            often = counts[word] / (counts[word] + 0.5 + counts.total() / self.length)
            score += often * math.log(len(self.texts) / max(1, self.in_texts[word]))
            if word in name:
                score += math.log(len(self.texts) / self.in_names[word]) / len(name)
        return score


def words(text: str) -> list[str]:
    """Its telling words, in lower case and without their endings: `slices` and `slicing` are one."""
    found = re.findall(r"[a-z_]+", text.lower())
    return [re.sub("s*(ing|ed|e)?s*$", "", word) or word for word in found if not SMALL_WORDS.fullmatch(word)]


# With a model


async def relay(sse: EventStream, prompt: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Pass on what a model says; when the reader leaves, the request to the model is closed too."""
    import httpx  # noqa: PLC0415 - of the extra `client`, which is needed only here
    from httpx_sse import aconnect_sse  # noqa: PLC0415

    url = os.environ["OPENAI_BASE_URL"].rstrip("/") + "/chat/completions"
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    question = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    number, failed = 0, False
    try:
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as client,
            aconnect_sse(client, "POST", url, json=question) as upstream,
        ):
            if upstream.response.status_code != httpx.codes.OK:
                raise unavailable(f"answered with status {upstream.response.status_code}")
            task_status.started()
            async with aclosing(upstream.aiter_sse()) as events:
                async for event in events:
                    chunk = json.loads(event.data) if event.data != "[DONE]" else {}
                    failed = failed or "error" in chunk
                    for choice in chunk.get("choices", ()):
                        if token := choice["delta"].get("content"):
                            number += 1
                            await sse.send(token, event="token", id=str(number))
    except httpx.HTTPError as error:
        raise unavailable(f"can't be reached, or broke off ({type(error).__name__})") from None
    if failed:
        raise unavailable("broke off")
    await sse.send({"done": True, "model": model}, event="done", id="done")


def unavailable(what: str) -> TypedError:
    """Says no more than that: the upstream's own words may hold the key."""
    return TypedError(f"the model's server {what}", ErrorType.CONNECTION_UNAVAILABLE)
