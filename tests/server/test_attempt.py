"""The attempt to write at once: what it writes, what it leaves, and when there is none."""

from __future__ import annotations

import socket
import struct
from typing import Any

import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web
from tests.e2e.raw import Raw, open_raw
from tests.e2e.raw_http2 import RawHttp2, open_http2
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


async def widen(client: RawHttp2, window: int) -> None:
    """Open the window of each stream so far, and that of the connection far."""
    await client.until(h2.events.SettingsAcknowledged)
    client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.state.increment_flow_control_window(2**24)
    await client.flush()
    await client.until(h2.events.SettingsAcknowledged)


async def attempts(send: Any, attempt: Any, parts: int) -> list[bool | None]:
    """Attempts up to one that is none, or so many."""
    await start(send)
    outcomes: list[bool | None] = []
    while len(outcomes) < parts and (not outcomes or outcomes[-1]):
        outcomes.append(attempt(b"%04d" % len(outcomes) * 250))
    return outcomes


@pytest.mark.parametrize("window", [20_000, 2**24], ids=["the window is shut", "the socket is full"])
async def test_over_http2_what_is_attempted_arrives_before_what_is_sent_next(window: int) -> None:
    outcomes: list[bool | None] = []
    full = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        outcomes.extend(await attempts(send, attempt_of(scope), 20_000))
        full.set()
        await body(send, b"next")
        await body(send, more=False)

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        await widen(client, window)
        number = await client.request("GET", "/")
        await full.wait()
        taken = len(outcomes) - 1
        assert (outcomes[:-1], outcomes[-1]) == ([True] * taken, None)
        assert taken == 20 if window == 20_000 else taken > 20
        data, end = await client.rest(number)
        assert data == b"".join(b"%04d" % part * 250 for part in range(taken)) + b"next"
        assert isinstance(end, h2.events.StreamEnded)


async def test_over_http2_what_the_socket_did_not_take_goes_out_though_nothing_more_is_sent() -> None:
    outcomes: list[bool | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        outcomes.extend(await attempts(send, attempt_of(scope), 20_000))
        await trio.sleep_forever()

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        await widen(client, 2**24)
        number = await client.request("GET", "/")
        await until(lambda: outcomes)
        size, expected = 0, 1000 * outcomes.count(True)
        with trio.fail_after(3):
            while size < expected:
                size += len((await client.until(h2.events.DataReceived, number)).data)
        assert size == expected > 20_000


async def test_over_http2_there_is_none_for_what_has_no_body_or_is_not_open() -> None:
    outcomes: dict[str, list[bool | None]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        attempt = attempt_of(scope)
        found = outcomes[scope["method"] + scope["path"]] = [attempt(b"before the head")]
        await start(send)
        if scope["path"] == "/reset":
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
        elif scope["path"] == "/waits":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body, send, b"x" * 100_000)
                await trio.testing.wait_all_tasks_blocked()
                found.append(attempt(b"behind what waits"))
                nursery.cancel_scope.cancel()
            return
        elif scope["path"] == "/ended":
            await body(send, more=False)
        found.append(attempt(b"x"))

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        for method, path in (("HEAD", "/"), ("GET", "/waits"), ("GET", "/ended"), ("GET", "/reset")):
            number = await client.request(method, path)
            if path == "/reset":
                await client.until(h2.events.ResponseReceived, number)
                await client.reset(number)
            await until(lambda path=method + path: len(outcomes.get(path, ())) == 2)
    assert outcomes == {key: [None, None] for key in ("HEAD/", "GET/waits", "GET/ended", "GET/reset")}


async def test_over_http2_after_the_connection_has_ended_there_is_none_and_the_next_send_says_so() -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        attempt = attempt_of(scope)
        await start(send)
        if scope["path"] == "/broken":
            assert attempt(b"x") is True
            with trio.fail_after(3):
                while attempt(b"x" * 100) is not None:
                    await trio.lowlevel.checkpoint()
        else:
            attempt.func.__self__.connection.close_connection()  # as for a client that is told to calm down
            assert attempt(b"x") is None
        with pytest.raises(OSError, match="left"):
            await body(send, b"x")
            await body(send, more=False)
        ended.append(scope["path"])

    async with serve_bare(app) as bare:
        for path in ("/broken", "/over"):
            async with open_http2(bare.port) as client:
                number = await client.request("GET", path)
                if path == "/broken":
                    await client.until(h2.events.DataReceived, number)
                    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    await client.stream.aclose()
                await until(lambda path=path: path in ended)


async def test_over_http2_lone_parts_and_large_ones_of_many_streams_arrive_each_in_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        for number in range(40):
            part = b"%03d" % number * (10 if number % 4 else 7000)
            if attempt_of(scope)(part) is None:
                await body(send, part)
            await trio.lowlevel.checkpoint()
        await body(send, more=False)

    expected = b"".join(b"%03d" % number * (10 if number % 4 else 7000) for number in range(40))
    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        numbers = {await client.request("GET", "/") for _ in range(10)}
        data = dict.fromkeys(numbers, b"")
        while numbers:
            event: Any = await client.until(h2.events.Event)
            if isinstance(event, h2.events.DataReceived):
                data[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                numbers.remove(event.stream_id)
    assert set(data.values()) == {expected}


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
