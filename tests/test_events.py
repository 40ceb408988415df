"""Events that an action describes: in debug mode one that does not fit raises where it is sent."""

from __future__ import annotations

import enum
import math
from decimal import Decimal
from typing import Annotated, Any, Literal

import attrs
import pytest
from msgspec import Meta

from keryx_trio import Config, Connection, Event, EventStream, Keryx, StreamingResponse, Web
from keryx_trio.events import EventTypes
from keryx_trio.testing import open_client
from keryx_trio.wire import json


class Word(enum.StrEnum):
    TEA = "tea"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Done:
    total: int
    mean: float = 0.0


def check(declared: Any, data: Any) -> None:
    EventTypes({"it": declared}).check(data if isinstance(data, str) else json.encode(data), "it")


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        (str, "text"),
        (Word, Word.TEA),
        (Word, "tea"),
        (Literal["a", 1], "a"),
        (Literal["a", 1], 1),
        (str | None, None),
        (str | Done, "text"),
        (str | Done, Done(1)),
        (Any, "text"),
        (Any, [1, None]),
        (Done, Done(1, math.nan)),
        (Done, {"total": 1, "more": 2}),
        (float, math.inf),
        (Rights, Rights.READ | Rights.WRITE),
        (Decimal, Decimal("1.5")),
        (dict[int, Done], {1: Done(1)}),
        (list[set[int]], [{1, 2}]),
        (Annotated[int, Meta(ge=1)], 1),
    ],
    ids=str,
)
def test_what_fits_may_be_sent(declared, data):
    check(declared, data)


@pytest.mark.parametrize(
    ("declared", "data", "why"),
    [
        (str, {"done": True}, "does not fit str: JSON was sent"),
        (Done, '{"total": 1}', "does not fit Done: text was sent"),
        (Done, {"total": "1"}, "total: expected an integer, got a string"),
        (Done, Done("1"), "total: expected an integer"),
        (Done, {}, "total: is required"),
        (Word, "coffee", "must be one of: tea"),
        (Literal["a"], "b", "must be one of: a"),
        (str | int, 1.5, "expected an integer"),
        (list[int], [1, None], r"\[1\]: expected an integer, got null"),
        (Annotated[int, Meta(ge=1)], 0, "must be >= 1"),
        (Annotated[str, Meta(max_length=2)], "abc", "at most 2 characters"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_by_its_place(declared, data, why):
    with pytest.raises(TypeError, match=why):
        check(declared, data)


def test_a_name_that_is_not_described_is_told_with_those_that_are():
    types = EventTypes({"token": str, "done": Done})
    with pytest.raises(ValueError, match=r"an event 'tok' is not described: .* has token, done"):
        types.check("x", "tok")
    with pytest.raises(ValueError, match=r"an event without a name is not described"):
        types.check("x", None)


@pytest.mark.parametrize("name", [None, "", "message"])
def test_an_event_without_a_name_is_a_message(name):
    EventTypes({"message": str}).check("x", name)


# Where it raises


def app_with(source: Any, *, debug: bool = True) -> tuple[Keryx, list[BaseException]]:
    """An application whose producer tells what its send raised."""
    app, raised = Keryx(config=Config(debug=debug)), []

    @app.action("it", web=Web("/it", streaming=True, events={"token": str, "done": Done}))
    async def it(connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                await source(sse)
            except (TypeError, ValueError) as error:
                raised.append(error)
                raise

        return StreamingResponse.sse(produce)

    return app, raised


async def sends_nonsense(sse: EventStream) -> None:
    await sse.send("fine", event="token")
    await sse.send({"total": "many"}, event="done")


async def test_in_debug_mode_it_raises_where_it_was_sent_and_the_stream_fails():
    app, raised = app_with(sends_nonsense)
    async with open_client(app) as client:
        token, error = (await client.get("/api/it")).events()
    assert token.data == "fine"
    assert error.event == "error"
    assert error.json()["message"].startswith("TypeError: the data of event 'done' does not fit Done")
    assert isinstance(raised[0], TypeError)


async def test_on_a_websocket_too():
    app, raised = app_with(sends_nonsense)
    async with open_client(app) as client, client.websocket() as socket:
        await socket.send({"messageType": "action", "action": "it", "messageId": 1})
        assert (await socket.receive())["chunk"] == "fine"
        assert "does not fit Done" in (await socket.receive())["error"]["message"]
    assert len(raised) == 1


async def test_without_debug_mode_nothing_is_looked_at():
    app, raised = app_with(sends_nonsense, debug=False)
    async with open_client(app) as client:
        _, done = (await client.get("/api/it")).events()
    assert done.json() == {"total": "many"}
    assert not raised


async def test_what_a_source_yields_is_looked_at_too():
    async def produce(sse: EventStream) -> None:
        await sse.send("x", event="unheard")

    app, raised = app_with(produce)

    @app.action("yields", web=Web("/yields", events={"token": str}))
    async def yields() -> StreamingResponse:
        async def source():
            yield Event("fine", event="token")
            yield "unnamed"

        return StreamingResponse.sse(source())

    async with open_client(app) as client:
        _, error = (await client.get("/api/yields")).events()
        assert "an event without a name is not described" in error.json()["message"]
        [error] = (await client.get("/api/it")).events()
    assert "an event 'unheard' is not described" in str(raised[0])


async def test_what_an_action_sends_before_it_returns_is_looked_at_too():
    app, caught = Keryx(config=Config(debug=True)), []

    @app.action("it", web=Web("/it", events={"token": str}))
    async def it(connection: Connection) -> StreamingResponse:
        sse = StreamingResponse.sse()
        with pytest.raises(TypeError) as error:
            await sse.send(1, event="token")
        caught.append(error.value)
        await sse.send("fine", event="token")
        sse.close()
        return sse

    async with open_client(app) as client:
        [event] = (await client.get("/api/it")).events()
    assert event.data == "fine"
    assert len(caught) == 1


async def test_the_events_of_an_action_that_describes_none_are_free():
    app = Keryx(config=Config(debug=True))

    @app.action("it", web=Web("/it", streaming=True))
    async def it() -> StreamingResponse:
        async def source():
            yield Event({"a": 1}, event="anything")

        return StreamingResponse.sse(source())

    async with open_client(app) as client:
        assert len((await client.get("/api/it")).events()) == 1
