"""Every kind of source, and what a stream refuses."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from keryx_trio import ByteStream, Config, Event, EventStream, Keryx, StreamingResponse, Web
from keryx_trio.testing import Answer, open_client


async def answer_with(make: Any, method: str = "GET", config: Config | None = None) -> Answer:
    """The answer of an action that returns what `make` makes."""
    app = Keryx(config=config or Config())

    @app.action("it", web=Web("/it"))
    async def it() -> StreamingResponse:
        return make()

    async with open_client(app) as client:
        return await client.request(method, "/api/it")


class Watched:
    """An async iterable that remembers whether it was closed."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.closed = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop(0)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


# Sources of events


async def test_a_producer_gets_the_arguments_after_it():
    async def produce(sse: EventStream, first: str, second: int) -> None:
        await sse.send([first, second])

    answer = await answer_with(lambda: StreamingResponse.sse(produce, "a", 2))
    assert answer.events()[0].json() == ["a", 2]


async def test_a_partial_or_a_lambda_may_be_a_producer():
    async def produce(sse: EventStream, word: str) -> None:
        await sse.send(word)

    partial = functools.partial(produce, word="partial")
    assert (await answer_with(lambda: StreamingResponse.sse(partial))).events()[0].data == "partial"
    assert (await answer_with(lambda: StreamingResponse.sse(lambda s: produce(s, "x")))).events()[0].data == "x"


async def test_an_async_iterable_may_yield_events_texts_and_values():
    @attrs.define
    class Point:
        x: int

    async def items():
        yield "text"
        yield {"a": 1}
        yield Point(3)
        yield Event("named", event="e", id="1", retry=5)
        yield None

    answer = await answer_with(lambda: StreamingResponse.sse(items()))
    assert [(event.event, event.data, event.id) for event in answer.events()] == [
        ("message", "text", ""),
        ("message", '{"a":1}', ""),
        ("message", '{"x":3}', ""),
        ("e", "named", "1"),
        ("message", "null", "1"),
    ]


async def test_an_async_generator_is_closed_in_the_middle_when_its_reader_leaves():
    ended = []

    async def items():
        try:
            while True:
                yield "x"
        finally:
            ended.append(True)

    app = Keryx(config=Config())

    @app.action("it", web=Web("/it"))
    async def it() -> StreamingResponse:
        return StreamingResponse.sse(items())

    async with open_client(app) as client:
        async with client.stream("GET", "/api/it") as stream:
            await stream.receive_event()
            await wait_all_tasks_blocked()
        assert ended == [True]


async def test_an_iterable_that_can_be_closed_is_closed_at_its_end():
    source = Watched("a")
    await answer_with(lambda: StreamingResponse.sse(source))
    assert source.closed


async def test_a_memory_channel_may_be_the_source_and_is_closed():
    send, receive = trio.open_memory_channel[str](5)
    await send.send("a")
    await send.send("b")
    send.close()
    answer = await answer_with(lambda: StreamingResponse.sse(receive))
    assert [event.data for event in answer.events()] == ["a", "b"]
    with pytest.raises(trio.ClosedResourceError):
        receive.receive_nowait()


@pytest.mark.parametrize(
    ("source", "args", "hint"),
    [
        (lambda: "text", (), "async iterable, not a text"),
        (lambda: b"text", (), "async iterable, not a text"),
        (lambda: ["a"], (), "pass an async producer function"),
        (Watched, ("argument",), "this source takes none"),
        (lambda: 3, (), "int is no source"),
    ],
)
async def test_what_is_no_source_is_refused_with_a_hint(source, args, hint):
    with pytest.raises(TypeError, match=hint):
        StreamingResponse.sse(source(), *args)


async def test_a_generator_function_that_was_not_called_is_refused_with_a_hint():
    async def agen():
        yield 1

    def gen():
        yield 1

    async def produce(sse: EventStream) -> None:
        await sse.send(1)

    with pytest.raises(TypeError, match="call it"):
        StreamingResponse.sse(agen)
    with pytest.raises(TypeError, match="no source"):
        StreamingResponse.sse(gen)
    with pytest.raises(TypeError, match="pass the producer function itself"):
        StreamingResponse.sse(produce(None))


async def test_a_producer_that_is_no_async_function_fails_with_a_hint(caplog):
    def produce(sse: EventStream) -> None:
        sse.close()

    await answer_with(lambda: StreamingResponse.sse(produce))
    assert "write it with `async def`" in caplog.text


# What an event stream refuses


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("field", ["event", "id"])
async def test_a_line_end_or_nul_in_event_or_id_raises_where_it_is_sent(bad, field):
    sse = StreamingResponse.sse()
    with pytest.raises(ValueError, match=field):
        await sse.send("x", **{field: bad})
    raised = []

    async def produce(sse: EventStream) -> None:
        try:
            await sse.send("x", **{field: bad})
        except ValueError as error:
            raised.append(error)

    assert (await answer_with(lambda: StreamingResponse.sse(produce))).body == b""
    assert len(raised) == 1


async def test_data_without_a_json_form_raises_where_it_is_sent():
    sse = StreamingResponse.sse()
    with pytest.raises(TypeError, match="no JSON form"):
        await sse.send(object())
    with pytest.raises(TypeError, match="no JSON form"):
        await sse.send_error({"a": object()})
    assert sse.outbox.end is None


async def test_what_was_sent_is_what_it_was_when_it_was_sent():
    async def it() -> StreamingResponse:
        sse = StreamingResponse.sse()
        value = {"n": 1}
        await sse.send(value)
        value["n"] = 2
        return sse

    app = Keryx(config=Config())
    app.action("it", web=Web("/it"))(it)
    async with open_client(app) as client:
        assert (await client.get("/api/it")).events()[0].json() == {"n": 1}


def test_a_ping_is_a_number_of_seconds():
    for bad in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="ping"):
            StreamingResponse.sse(ping=bad)


async def test_a_stream_says_what_it_is():
    sse = StreamingResponse.sse()
    assert repr(sse) == "<EventStream text/event-stream open>"
    sse.close()
    assert repr(sse) == "<EventStream text/event-stream done>"


# Header fields


async def test_headers_of_a_stream_win_over_the_standard_ones_and_the_content_type_stays():
    answer = await answer_with(
        lambda: StreamingResponse.sse(
            Watched(), headers={"Cache-Control": "no-store", "content-type": "text/plain", "X-Own": "1"}
        )
    )
    assert answer.headers.all("cache-control") == ["no-store"]
    assert answer.headers.all("content-type") == ["text/event-stream"]
    assert answer.headers["x-own"] == "1"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"x": "a\r\nb: c"}, {"x": "a\0"}, {"Connection": "close"}])
def test_a_malformed_header_is_refused_where_it_is_written(headers):
    with pytest.raises(ValueError, match="header"):
        StreamingResponse.sse(headers=headers)


# Sources of bytes


class Pipe(trio.abc.ReceiveStream):
    """A receive stream of some pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.closed = False

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""

    async def aclose(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_bytes_come_as_they_were_sent_with_their_content_type():
    async def produce(stream: ByteStream, end: bytes) -> None:
        await stream.send(b"\x00\xff")
        await stream.send(b"")
        await stream.send(bytearray(b"ab"))
        await stream.send(memoryview(end))

    answer = await answer_with(
        lambda: StreamingResponse.stream(
            produce, b"end", content_type="text/csv", headers={"Content-Disposition": 'attachment; filename="x.csv"'}
        )
    )
    assert answer.body == b"\x00\xffabend"
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["content-disposition"] == 'attachment; filename="x.csv"'
    assert "cache-control" not in answer.headers


async def test_an_async_iterable_of_bytes_may_be_the_source():
    answer = await answer_with(lambda: StreamingResponse.stream(Watched(b"a", b"b")))
    assert answer.body == b"ab"
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_receive_stream_may_be_the_source_and_is_closed():
    pipe = Pipe(b"a", b"b")
    assert (await answer_with(lambda: StreamingResponse.stream(pipe))).body == b"ab"
    assert pipe.closed


@pytest.mark.parametrize("kind", [str, lambda path: path])
async def test_a_file_may_be_the_source(tmp_path, kind):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 1000)
    assert (await answer_with(lambda: StreamingResponse.stream(kind(path)))).body == path.read_bytes()


async def test_a_missing_file_is_a_plain_error(tmp_path, caplog):
    answer = await answer_with(lambda: StreamingResponse.stream(tmp_path / "missing"))
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/json"
    assert "FileNotFoundError" in caplog.text


async def test_a_byte_stream_sends_only_bytes():
    stream = StreamingResponse.stream(Watched())
    with pytest.raises(TypeError, match="encode it first"):
        await stream.send("text")


@pytest.mark.parametrize("how", ["raise", "timeout", "shutdown"])
async def test_a_byte_stream_that_does_not_end_well_is_cut_so_that_its_reader_can_tell(how, autojump_clock):
    app = Keryx(config=Config())

    @app.action("it", web=Web("/it"), timeout=5)
    async def it() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b"half")
            if how == "raise":
                raise ValueError
            await trio.sleep_forever()

        return StreamingResponse.stream(produce)

    async with open_client(app) as client, client.stream("GET", "/api/it") as stream:
        assert await stream.receive_bytes() == b"half"
        if how == "shutdown":
            client.shut_down()
        assert await stream.read() == b""
        assert stream.complete is False


async def test_what_a_bytes_sender_changes_later_does_not_change_what_was_sent():
    async def produce(stream: ByteStream) -> None:
        buffer = bytearray(b"one")
        await stream.send(buffer)
        buffer[:] = b"two"

    assert (await answer_with(lambda: StreamingResponse.stream(produce))).body == b"one"


async def test_bytes_held_for_a_slow_reader_stay_within_256_kib():
    sent = []
    app = Keryx(config=Config())

    @app.action("it", web=Web("/it"))
    async def it() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            for _ in range(100):
                await stream.send(bytes(50_000))
                sent.append(50_000)

        return StreamingResponse.stream(produce)

    async with open_client(app) as client, client.stream("GET", "/api/it") as stream:
        await wait_all_tasks_blocked()
        assert sum(sent) <= 256 * 1024
        assert len(await stream.read()) == 5_000_000


# HEAD


@pytest.mark.parametrize(
    ("make", "closed"),
    [
        (StreamingResponse.sse, True),
        (lambda source: StreamingResponse.stream(source, content_type="text/csv"), True),
    ],
)
async def test_head_answers_the_head_and_never_starts_the_source(make, closed):
    source = Watched("never")
    answer = await answer_with(lambda: make(source), method="HEAD")
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers["content-type"] in ("text/event-stream", "text/csv")
    assert source.items == ["never"]
    assert source.closed is closed


async def test_head_of_a_producer_never_calls_it(tmp_path):
    called = []

    async def produce(sse: EventStream) -> None:
        called.append(True)

    await answer_with(lambda: StreamingResponse.sse(produce), method="HEAD")
    assert called == []
    answer = await answer_with(lambda: StreamingResponse.stream(tmp_path / "missing"), method="HEAD")
    assert answer.status == 500


async def test_a_source_that_never_ran_because_its_call_failed_is_closed():
    from keryx_trio import Middleware

    source = Watched("never")

    class Fails(Middleware):
        async def run_after(self, params, connection, error):
            raise ValueError

    app = Keryx(config=Config(), middleware=[Fails()])

    @app.action("it", web=Web("/it"))
    async def it() -> StreamingResponse:
        return StreamingResponse.sse(source)

    async with open_client(app) as client:
        assert (await client.get("/api/it")).status == 500
    assert source.closed
