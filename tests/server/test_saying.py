"""Messages that are sent together, and at once: what of them goes out, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from wsproto.events import CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from keryx_trio.server.wire import Wire
from tests.e2e.serving import until
from tests.server.bare import serve_bare
from tests.server.test_websocket import Client, open_client

DEFLATED = pytest.mark.parametrize("deflated", [False, True])


def offers(deflated: bool) -> list[PerMessageDeflate]:
    return [PerMessageDeflate()] if deflated else []


def application(talk: Callable[..., Awaitable[None]]) -> Any:
    """An application that accepts, and talks: `talk(say, attempt, send, receive)`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extension = scope["extensions"]["keryx_trio"]
        await receive()
        await send({"type": "websocket.accept"})
        await talk(extension["say"], extension["attempt"], send, receive)

    return app


async def texts(client: Client) -> list[str]:
    """All messages up to the close."""
    read, whole = [], ""
    while isinstance(event := await client.event(), TextMessage):
        whole += event.data
        if event.message_finished:
            read.append(whole)
            whole = ""
    assert (whole, type(event)) == ("", CloseConnection)
    return read


@DEFLATED
async def test_messages_that_are_said_together_go_out_in_one_write(deflated: bool, monkeypatch: Any) -> None:
    writes: list[int] = []
    real = Wire._send
    monkeypatch.setattr(Wire, "_send", lambda wire, data: writes.append(len(data)) or real(wire, data))

    async def talk(say: Any, attempt: Any, send: Any, receive: Any) -> None:
        before = len(writes)
        await say([b"one", "zwei → drei".encode(), b"", b"x" * 70_000])
        assert len(writes) == before + 1
        assert attempt(b"alone") is True
        assert len(writes) == before + 2
        await send({"type": "websocket.send", "text": "as ever"})
        await send({"type": "websocket.close"})

    async with serve_bare(application(talk)) as bare, open_client(bare.port, extensions=offers(deflated)) as client:
        assert await texts(client) == ["one", "zwei → drei", "", "x" * 70_000, "alone", "as ever"]


@DEFLATED
@pytest.mark.parametrize("then", ["nothing", "say", "send", "close"])
async def test_what_the_socket_does_not_take_goes_out_before_what_is_said_next(deflated: bool, then: str) -> None:
    tried: list[str] = []
    torn = trio.Event()

    async def talk(say: Any, attempt: Any, send: Any, receive: Any) -> None:
        whole: bool | None = True
        while whole:
            text = f"{len(tried):08}" * 100
            if (whole := attempt(text.encode())) is not None:
                tried.append(text)
        assert whole is False
        assert attempt(b"nothing is written while something is left") is None
        torn.set()
        if then == "say":
            await say([b"next"])
        elif then == "send":
            await send({"type": "websocket.send", "text": "next"})
        elif then == "nothing":
            await say([])
            assert attempt(b"next") is not None
        await send({"type": "websocket.close"})

    async with serve_bare(application(talk)) as bare, open_client(bare.port, extensions=offers(deflated)) as client:
        await torn.wait()
        assert len(tried) > 10
        assert await texts(client) == [*tried, *(["next"] if then != "close" else [])]


async def test_a_client_that_stops_reading_ends_what_is_said_to_it_and_nothing_is_attempted_after() -> None:
    ended: list[Any] = []

    async def talk(say: Any, attempt: Any, send: Any, receive: Any) -> None:
        with pytest.raises(OSError, match=r"took nothing for 0\.2 seconds"):
            while True:
                await say([b"x" * 10_000] * 10)
        assert attempt(b"x") is None
        with pytest.raises(OSError, match=r"."):
            await say([b"x"])
        ended.append(await receive())

    limits = {"write_timeout": 0.2, "drain_timeout": 0.2}
    async with serve_bare(application(talk), limits=limits) as bare, open_client(bare.port):
        await until(lambda: ended)
    assert ended[0]["code"] == 1006


async def test_a_pong_comes_between_messages_and_never_into_one() -> None:
    async def talk(say: Any, attempt: Any, send: Any, receive: Any) -> None:
        for number in range(300):
            await say([b"%05d" % number * 1000] * 3)
            attempt(b"-")
        await send({"type": "websocket.close"})

    async with serve_bare(application(talk)) as bare, open_client(bare.port) as client:
        for number in range(50):
            await client.send(Ping(payload=b"%d" % number))
        whole, pongs, said = "", [], []
        while not isinstance(event := await client.event(), CloseConnection):
            if isinstance(event, Pong):
                pongs.append(int(event.payload))
            else:
                whole += event.data
                if event.message_finished:
                    said.append(whole)
                    whole = ""
    assert pongs == list(range(50))
    assert [text for text in said if text != "-"] == [f"{n:05}" * 1000 for n in range(300) for _ in range(3)]


async def test_nothing_is_said_before_a_socket_is_accepted_or_once_either_side_has_closed_it() -> None:
    outcomes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extension = scope["extensions"]["keryx_trio"]
        await receive()
        with pytest.raises(RuntimeError, match="accepted"):
            await extension["say"]([b"x"])
        outcomes.append(extension["attempt"](b"x"))
        await send({"type": "websocket.accept"})
        if scope["path"] == "/ours":
            await send({"type": "websocket.close"})
        else:
            assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(OSError, match="left"):
            await extension["say"]([b"x"])
        outcomes.append(extension["attempt"](b"x"))

    async with serve_bare(app) as bare:
        async with open_client(bare.port, target="/ours") as client:
            assert await texts(client) == []
        async with open_client(bare.port, target="/theirs") as client:
            await client.send(CloseConnection(code=1000))
            assert await texts(client) == []
        await until(lambda: len(outcomes) == 4)
    assert outcomes == [None] * 4
