"""HTTP/2: what one stream does is no other's business."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.events
import h2.settings
import pytest
import trio

from tests.e2e.raw_http2 import RawHttp2, open_http2
from tests.e2e.serving import until
from tests.server.bare import answer, read_body, serve_bare
from tests.server.hostile import text


async def ask(client: RawHttp2, path: str = "/") -> tuple[bytes, Any]:
    return await client.rest(await client.request("GET", path))


async def test_a_body_that_nobody_reads_holds_up_no_other_stream() -> None:
    proceed = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await proceed.wait()
        await answer(send, str(len(await read_body(receive))).encode())

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        await client.until(h2.events.WindowUpdated)  # all of them may send more together than one alone
        numbers = []
        for _ in range(5):
            number = await client.request("POST", "/", end=False)
            numbers.append(number)
            for _ in range(3):
                client.state.send_data(number, b"x" * 16_000)
            await client.flush()
        with trio.fail_after(1):
            assert (await ask(client))[0] == b"0"
        proceed.set()
        for number in numbers:
            client.state.end_stream(number)
            await client.flush()
            assert (await client.rest(number))[0] == b"48000"


async def test_a_body_of_any_size_comes_as_it_is_read() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, str(len(await read_body(receive))).encode())

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        number, left = await client.request("POST", "/", end=False), 3_000_000
        with trio.fail_after(5):
            while left:
                size = min(left, client.state.local_flow_control_window(number), 16_000)
                if size:
                    client.state.send_data(number, b"x" * size, end_stream=size == left)
                    await client.flush()
                    left -= size
                else:
                    await client.until(h2.events.WindowUpdated, number)
        assert (await client.rest(number))[0] == b"3000000"


async def test_a_window_that_stays_shut_ends_its_own_stream() -> None:
    raised: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while scope["path"] == "/flood":
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        except OSError as error:
            raised.append(error)
            raise
        await send({"type": "http.response.body", "body": b"whole"})

    async with serve_bare(app, limits={"write_timeout": 0.3}) as bare, open_http2(bare.port) as client:
        client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3000})
        client.state.increment_flow_control_window(2**20)
        await client.flush()
        number = await client.request("GET", "/flood")
        event: Any = await client.until(h2.events.ResponseReceived, number)
        data = b""
        while not isinstance(event, h2.events.StreamReset):
            event = client._events.pop(0) if client._events else None
            if event is None:
                client._events += client.state.receive_data(await client.stream.receive_some(65536))
            elif isinstance(event, h2.events.DataReceived):
                data += event.data  # and never acknowledged
        assert len(data) == 3000
        assert event.error_code is h2.errors.ErrorCodes.CANCEL
        assert (await ask(client))[0] == b"whole"
    assert len(raised) == 1


async def test_many_requests_end_a_connection_only_when_no_stream_is_open() -> None:
    proceed = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/long":
            await proceed.wait()
        await answer(send, b"whole")

    async with serve_bare(app, keep_alive_max_requests=3) as bare, open_http2(bare.port) as client:
        long = await client.request("GET", "/long")
        for _ in range(6):
            assert (await ask(client))[0] == b"whole"
        proceed.set()
        assert (await client.rest(long))[0] == b"whole"
        await client.until(h2.events.ConnectionTerminated)


async def test_a_connection_without_streams_is_closed_after_a_while() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"whole")

    async with serve_bare(app, keep_alive_timeout=0.2) as bare, open_http2(bare.port) as client:
        await ask(client)
        with trio.fail_after(1):
            await client.until(h2.events.ConnectionTerminated)
            with pytest.raises(EOFError):
                await client.until(h2.events.DataReceived)


async def test_calls_that_outlive_their_streams_do_not_pile_up() -> None:
    proceed, begun = trio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(1)
        await proceed.wait()

    async with serve_bare(app, h2_max_concurrent_streams=5) as bare, open_http2(bare.port) as client:
        for _ in range(12):
            number = await client.request("GET", "/")
            await client.reset(number)
        await until(lambda: len(begun) == 10)
        await client.stream.send_all(b"")
        assert bare.worker.calls == 10
        proceed.set()
        await until(lambda: bare.worker.calls == 0)


async def test_an_upgrade_from_http_1_1_is_answered_as_the_first_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        names = [name for name, _ in scope["headers"]]
        await answer(send, f"{scope['method']} {scope['path']} {b'upgrade' in names}".encode())

    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as stream:
        client = RawHttp2(stream)
        settings = client.state.initiate_upgrade_connection()
        await stream.send_all(
            b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: " + settings + b"\r\n\r\n" + client.state.data_to_send()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(1)
        assert received.startswith(b"HTTP/1.1 101 ")
        assert (await client.rest(1))[0] == b"GET /first False"
        assert (await ask(client, "/second"))[0] == b"GET /second False"


async def test_http2_can_be_switched_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["http_version"].encode())

    async with serve_bare(app, alpn_protocols=["http/1.1"]) as bare, open_http2(bare.port) as client:
        assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 400")


async def test_a_websocket_over_http2_is_a_stream_like_others() -> None:
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        extension = scope["extensions"]["keryx_trio"]
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            heard.append(message["text"])
            await send({"type": "websocket.send", "text": "you said " + message["text"]})
            assert "attempt" not in extension
            await extension["say"]([b"once", b"twice"])
        heard.append(message["code"])

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        await client.until(h2.events.RemoteSettingsChanged)
        number = client.state.get_next_available_stream_id()
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/"), (":scheme", "http")]
        client.state.send_headers(number, [*pseudo, (":authority", "x"), ("sec-websocket-version", "13")])
        client.state.send_data(number, text(b"hi"))
        await client.flush()
        data = b""
        while b"twice" not in data:
            data += (await client.until(h2.events.DataReceived, number)).data
        assert data == b"\x81\x0byou said hi\x81\x04once\x81\x05twice"
        client.state.send_data(number, b"\x88\x82\0\0\0\0\x0b\xb8")
        await client.flush()
        await until(lambda: len(heard) == 2)
    assert heard == ["hi", 3000]


@pytest.mark.parametrize("how", ["reset", "leave", "too late", "unwatched"])
async def test_who_watches_a_stream_is_told_when_its_client_leaves_it(how: str) -> None:
    told: list[str] = []
    over = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        watch = scope["extensions"]["keryx_trio"]["watch"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.request"
        unwatch = None if how == "too late" else watch(lambda: told.append("left"))
        if how == "unwatched":
            unwatch()
        assert (await receive())["type"] == "http.disconnect"
        if how == "too late":
            watch(lambda: told.append("left"))
        over.set()

    async with serve_bare(app) as bare, open_http2(bare.port) as client:
        number = await client.request("GET", "/")
        await client.until(h2.events.ResponseReceived, number)
        if how == "leave":
            await client.stream.aclose()
        else:
            await client.reset(number)
        with trio.fail_after(2):
            await over.wait()
    assert told == ([] if how == "unwatched" else ["left"])
