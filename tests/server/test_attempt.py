"""The attempt to write at once: what it writes, what it leaves, and when there is none."""

from __future__ import annotations

from typing import Any

import h2.events
import pytest
import trio

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import Raw, open_raw
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import serve, until
from tests.server.bare import serve_bare


def attempt_of(scope: Any) -> Any:
    return scope["extensions"]["keryx_trio"]["attempt"]


async def start(send: Any, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def body(send: Any, data: bytes = b"", *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


@pytest.mark.parametrize("then", [b"", b"next", None])
async def test_what_the_socket_does_not_take_goes_out_before_what_is_sent_next(then: bytes | None) -> None:
    taken: list[bytes] = []
    full = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"first")
        whole: bool | None = True
        while whole:
            part = b"%08d" % len(taken) * 100
            if (whole := attempt_of(scope)(part)) is not None:
                taken.append(part)
        if whole is False:
            assert attempt_of(scope)(b"nothing is written while something is left") is None
        full.set()
        if then is not None:
            await body(send, then)
        await body(send, more=False)

    async with serve_bare(app) as bare:
        raw = await Raw.connect(bare.port, receive_buffer=4096)
        await raw.request("GET", "/")
        await full.wait()
        assert len(taken) > 10
        await raw.head()
        assert await raw.body() == b"first" + b"".join(taken) + (then or b"")
        await raw.leave()


async def test_there_is_none_before_the_head_after_the_end_and_where_the_length_was_said() -> None:
    outcomes: list[bool | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        attempt = attempt_of(scope)
        outcomes.append(attempt(b"x"))
        await start(send, *([(b"content-length", b"2")] if scope["path"] == "/length" else []))
        if scope["path"] == "/length":
            outcomes.append(attempt(b"x"))
        await body(send, b"xy", more=False)
        outcomes.append(attempt(b"x"))

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        for path in ("/", "/length"):
            await raw.request("GET", path)
            await raw.head()
            assert await raw.body() == b"xy"
    assert outcomes == [None] * 5


async def test_after_a_client_has_left_there_is_none_and_the_next_send_says_so() -> None:
    ended: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"x")
        with trio.fail_after(3):
            while attempt_of(scope)(b"x" * 100) is not None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            with pytest.raises(OSError, match="left"):
                await body(send, b"x")
        ended.append(1)

    async with serve_bare(app) as bare:
        raw = await Raw.connect(bare.port)
        await raw.request("GET", "/")
        await raw.head()
        await raw.abort()
        await until(lambda: ended)


async def test_over_http2_there_is_none() -> None:
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append("attempt" in scope["extensions"]["keryx_trio"])
        await start(send)
        await body(send, more=False)

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        number = await client.request("GET", "/")
        await client.until(h2.events.StreamEnded, number)
    assert found == [False]


def streaming(**settings: float) -> Keryx:
    app = Keryx(config=Config(**settings))

    @app.action("mixed", web=Web("/mixed"))
    async def mixed(lone: int = 20, pause: float = 0.005) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            for number in range(lone):
                await sse.send(str(number))
                await trio.sleep(pause)
            for number in range(200):
                await sse.send(f"burst {number}")

        return StreamingResponse.sse(produce)

    return app


async def test_lone_events_and_bursts_arrive_in_order_and_are_counted_in_the_log(journal: Any) -> None:
    expected = "".join(f"data: {n}\n\n" for n in range(20)) + "".join(f"data: burst {n}\n\n" for n in range(200))
    async with serve(streaming()) as server, server.client() as client:
        assert (await client.get("/api/mixed")).text == expected
    (line,) = [record.getMessage() for record in journal.records if "STREAM" in record.getMessage()]
    assert f"events=220 bytes={len(expected)} " in line


async def test_a_lone_event_begins_the_silence_anew_before_a_ping() -> None:
    async with serve(streaming(ping=0.4)) as server, server.client() as client:
        assert ":" not in (await client.get("/api/mixed?lone=8&pause=0.1")).text.replace("data:", "")
        assert "\n:" in (await client.get("/api/mixed?lone=1&pause=0.9")).text
