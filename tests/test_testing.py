"""The kit for users' own tests: what it shows, and what it finds."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from keryx_trio import Config, EventStream, Keryx, StreamingResponse, Web
from keryx_trio.testing import EventReader, Headers, Received, open_client
from tests.wire.sse_parser import parse


@pytest.fixture
def app() -> Keryx:
    app = Keryx(config=Config())

    @app.action("tick", web=Web("/tick"))
    async def tick(fail: bool = False) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send({"n": 1}, event="tick", id="1")
            await trio.sleep(10)
            if fail:
                raise ValueError
            await sse.send("end", retry=5)

        return StreamingResponse.sse(produce)

    @app.action("cut", web=Web("/cut"))
    async def cut() -> StreamingResponse:
        async def produce(stream: object) -> None:
            raise ValueError

        return StreamingResponse.stream(produce)

    @app.action("crash", web=Web("/crash"))
    async def crash() -> None:
        raise KeyboardInterrupt

    return app


async def test_a_test_reads_event_by_event_on_its_own_clock(app, autojump_clock):
    async with open_client(app) as client, client.stream("GET", "/api/tick") as stream:
        assert stream.status == 200
        assert repr(stream) == "<Stream GET /api/tick>"
        event = await stream.receive_event()
        assert event == Received('{"n":1}', "tick", "1")
        assert event.json() == {"n": 1}
        assert trio.current_time() == 0
        assert [event.data async for event in stream.events()] == ["end"]
        assert trio.current_time() == 10
        assert stream.complete is True
        assert stream.reader.retry == 5
        with pytest.raises(EOFError, match="has ended"):
            await stream.receive_event()


async def test_an_answer_that_was_cut_is_told_apart(app):
    async with open_client(app) as client:
        with pytest.raises(EOFError, match="cut after 0 bytes"):
            await client.get("/api/cut")
        async with client.stream("GET", "/api/cut") as stream:
            assert await stream.read() == b""
            assert stream.complete is False
            with pytest.raises(EOFError, match="was cut"):
                await stream.receive_bytes()


async def test_an_application_that_crashes_is_what_the_test_gets_to_see(app):
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True):
        async with open_client(app) as client:
            await client.get("/api/crash")


async def test_an_application_that_answers_nothing_is_told():
    class Silent(Keryx):
        async def __call__(self, scope, receive, send):
            await trio.lowlevel.checkpoint()

    async with open_client(Silent(config=Config())) as client:
        with pytest.raises(EOFError, match="without an answer"):
            await client.get("/")


async def test_an_error_of_the_test_itself_comes_out_as_it_was_raised(app, autojump_clock):
    with pytest.raises(KeyError, match="mine"):
        async with open_client(app) as client:
            await client.get("/api/tick?n=x")
            raise KeyError("mine")


async def test_a_send_after_the_disconnect_was_told_fails_the_test():
    class Rude(Keryx):
        async def __call__(self, scope, receive, send):
            await receive()
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})

    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="after it was told"), flatten_subgroups=True):
        async with open_client(Rude(config=Config())) as client:
            client.stream("GET", "/").leave()


async def test_what_is_left_behind_fails_the_test(autojump_clock):
    app = Keryx(config=Config(drain_timeout=1))

    @app.action("stuck", web=Web("/stuck"))
    async def stuck() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    with pytest.raises(AssertionError, match="left behind.*stuck"):
        async with open_client(app) as client:
            client.stream("GET", "/api/stuck")


async def test_a_job_that_runs_is_not_left_behind_and_may_end(autojump_clock):
    app, ended = Keryx(config=Config(drain_timeout=10)), []

    @app.action("work")
    async def work() -> None:
        await trio.sleep(5)
        ended.append(True)

    @app.action("order", web=Web("/order"))
    async def order() -> str:
        return (await app.enqueue("work")).id

    async with open_client(app) as client:
        await client.get("/api/order")
        await trio.testing.wait_all_tasks_blocked()
        assert app.connections
    assert ended == [True]


def test_it_works_on_a_clock_that_the_test_moves_by_hand(app):
    clock = MockClock()

    async def main() -> None:
        async with open_client(app) as client, client.stream("GET", "/api/tick") as stream:
            await stream.receive_event()
            clock.jump(10)
            assert (await stream.receive_event()).data == "end"

    trio.run(main, clock=clock)


async def test_header_fields_are_found_in_any_case():
    headers = Headers([(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X", b"y")])
    assert headers["SET-cookie"] == "a=1, b=2"
    assert headers.all("set-cookie") == ["a=1", "b=2"]
    assert list(headers) == ["set-cookie", "x"]
    assert len(headers) == 2
    assert "X" in repr(headers) or "x" in repr(headers)
    with pytest.raises(KeyError):
        _ = headers["missing"]


async def test_a_socket_tells_of_the_application_that_ends_without_a_close():
    async def crash(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": []})

    async with open_client(Keryx(config=Config())) as client:
        client.app = crash
        async with client.websocket("/x") as socket:
            assert repr(socket) == "<Socket /x>"
            with pytest.raises(EOFError, match="without a close"):
                await socket.receive()
            assert socket.close_code == 1006
        client.app = Keryx(config=Config())


@pytest.mark.parametrize("does", ["read", "send"])
async def test_a_socket_minds_that_nothing_is_done_after_the_disconnect(does):
    async def rude(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(AssertionError, match="after it was told of the disconnect"):
            await (receive() if does == "read" else send({"type": "websocket.send", "text": "x"}))
        checked.append(True)

    checked: list[bool] = []
    app = Keryx(config=Config())
    async with open_client(app) as client:
        client.app = rude
        with pytest.raises(AssertionError, match="after it was told of the disconnect"):
            async with client.websocket():
                pass
        client.app = app
    assert checked == [True]


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: a",
                b"data:b",
                b"data",
                b"event: e",
                b"id: 1",
                b"id",
                b"id: \x00",
                b": c",
                b"retry: 5",
                b"retry: x",
                b"other: x",
                b"\n",
                b"\r",
                b"\r\n",
                b"\n\n",
                b"\xef\xbb\xbf",
                b"\xff",
                "ü".encode(),
                b" ",
            ]
        )
    ),
    st.integers(1, 7),
)
def test_the_reader_agrees_with_a_parser_of_another_make_however_the_bytes_are_cut(parts, size):
    # The end of the text is held back by both where it may be half of a CRLF, so a line end closes it.
    body = b"".join(parts) + b"\n\n"
    reader = EventReader()
    found = [event for at in range(0, len(body), size) for event in reader.feed(body[at : at + size])]
    assert [(event.data, event.event, event.id) for event in found] == [
        (event.data, event.event, event.last_event_id) for event in parse(body).events
    ]
