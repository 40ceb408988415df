"""What clients are told when something goes wrong, before a stream and inside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import h2.errors
import h2.events
import httpx
import pytest
import trio
from httpx_sse import ServerSentEvent, aconnect_sse

from keryx_trio import ByteStream, Config, Connection, ErrorType, EventStream, Keryx, StreamingResponse, TypedError, Web
from tests.e2e.raw_http2 import open_http2
from tests.e2e.serving import Server, serve

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
GENERIC = "The action failed. The server's log has the details."


class SecretError(Exception):
    """One whose text is not for clients."""


def make_app(config: Config | None = None) -> Keryx:  # noqa: C901 - a way to fail each
    app = Keryx(config=config or Config())

    def fail(kind: str) -> None:
        if kind == "known":
            raise TypedError("out of luck", ErrorType.CONNECTION_CHANNEL_VALIDATION, key="luck", value=0)
        if kind == "group":
            raise ExceptionGroup("one", [TypedError("out of luck", ErrorType.CONNECTION_CHANNEL_VALIDATION)])
        raise SecretError("the password is swordfish")

    @app.action("plain", web=Web("/plain"))
    async def plain(kind: str) -> None:
        fail(kind)

    @app.action("stream", web=Web("/stream"))
    async def stream(kind: str) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await sse.send("two")
            fail(kind)

        return StreamingResponse.sse(produce)

    @app.action("task", web=Web("/task"))
    async def task(kind: str, connection: Connection) -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            fail(kind)

        sse = StreamingResponse.sse()
        connection.nursery.start_soon(produce, sse)
        return sse

    @app.action("by-hand", web=Web("/by-hand"))
    async def by_hand() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await sse.send_error("that was all")
            await sse.send_error("not again")

        return StreamingResponse.sse(produce)

    @app.action("bytes", web=Web("/bytes"))
    async def some_bytes(kind: str) -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b"half of")
            await trio.sleep(0.02)
            fail(kind)

        return StreamingResponse.stream(produce)

    @app.action("slow", web=Web("/slow"), timeout=0.05)
    async def slow() -> None:
        await trio.sleep_forever()

    @app.action("slow-stream", web=Web("/slow-stream"), timeout=0.05)
    async def slow_stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("one")
            await trio.sleep_forever()

        return StreamingResponse.sse(produce)

    @app.action("slow-bytes", web=Web("/slow-bytes"), timeout=0.05)
    async def slow_bytes() -> StreamingResponse:
        async def produce(stream: ByteStream) -> None:
            await stream.send(b"half of")
            await trio.sleep_forever()

        return StreamingResponse.stream(produce)

    @app.action("missing", web=Web("/missing"))
    async def missing() -> StreamingResponse:
        return StreamingResponse.stream("/nowhere/at/all")

    return app


async def events_of(client: httpx.AsyncClient, path: str) -> list[ServerSentEvent]:
    """All events, up to a clean end."""
    async with aconnect_sse(client, "GET", path) as source:
        return [event async for event in source.aiter_sse()]


@VERSIONS
@pytest.mark.parametrize(
    ("kind", "status", "type_"),
    [
        ("known", 403, "CONNECTION_CHANNEL_VALIDATION"),
        ("group", 403, "CONNECTION_CHANNEL_VALIDATION"),
        ("unknown", 500, "CONNECTION_ACTION_RUN"),
    ],
)
async def test_a_failed_action_answers_with_its_status_and_payload(
    http2: bool, kind: str, status: int, type_: str, journal: Any
) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        answer = await client.get("/api/plain", params={"kind": kind})
    assert answer.status_code == status
    payload = answer.json()["error"]
    assert payload["type"] == type_
    assert payload["message"] == (GENERIC if kind == "unknown" else "out of luck")
    assert isinstance(payload["timestamp"], int)
    assert ("key" in payload, "stack" in payload) == (kind == "known", False)
    check_log(journal, kind)


@VERSIONS
@pytest.mark.parametrize("kind", ["known", "group", "unknown"])
@pytest.mark.parametrize("path", ["stream", "task"])
async def test_a_producer_that_raises_sends_one_error_event_and_ends_cleanly(
    http2: bool, kind: str, path: str, journal: Any
) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        events = await events_of(client, f"/api/{path}?kind={kind}")
    assert [event.event for event in events] == ["message"] * (2 if path == "stream" else 1) + ["error"]
    payload = json.loads(events[-1].data)
    assert payload["message"] == (GENERIC if kind == "unknown" else "out of luck")
    assert "swordfish" not in events[-1].data
    assert journal.fields("outcome") == ["error"]
    check_log(journal, kind)


def check_log(journal: Any, kind: str) -> None:
    errors = "\n".join(journal.take_errors())
    assert ("SecretError: the password is swordfish" in errors) == (kind == "unknown")
    assert bool(errors) == (kind == "unknown")


async def test_an_error_may_be_sent_by_hand_and_only_the_first_counts() -> None:
    async with serve(make_app()) as server, server.client() as client:
        assert (await client.get("/api/by-hand")).text == "data: one\n\nevent: error\ndata: that was all\n\n"


async def test_debug_tells_clients_what_happened(journal: Any) -> None:
    async with serve(make_app(Config(debug=True))) as server, server.client() as client:
        payload = (await client.get("/api/plain?kind=unknown")).json()["error"]
    assert "swordfish" in payload["message"]
    assert "SecretError" in str(payload["stack"])
    journal.take_errors()


@VERSIONS
async def test_a_timeout_before_the_stream_is_a_plain_error(http2: bool) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        answer = await client.get("/api/slow")
    assert answer.status_code == 408
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_TIMEOUT"


@VERSIONS
async def test_a_timeout_inside_a_stream_is_an_error_event_and_a_clean_end(http2: bool, journal: Any) -> None:
    async with serve(make_app()) as server, server.client(http2=http2) as client:
        events = await events_of(client, "/api/slow-stream")
    assert [event.event for event in events] == ["message", "error"]
    assert json.loads(events[1].data)["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert journal.fields("outcome") == ["timeout"]


@VERSIONS
async def test_a_timeout_while_a_producer_is_sending_is_no_error_of_the_producer(http2: bool, journal: Any) -> None:
    app = make_app()

    @app.action("busy", web=Web("/busy"), timeout=0.05)
    async def busy() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            while True:
                await sse.send("x" * 1000)

        return StreamingResponse.sse(produce)

    async with serve(app) as server, server.client(http2=http2) as client:
        for _ in range(5):
            events = await events_of(client, "/api/busy")
            assert json.loads(events[-1].data)["type"] == "CONNECTION_ACTION_TIMEOUT"
    assert journal.fields("outcome") == ["timeout"] * 5


async def test_a_file_that_is_not_there_is_a_plain_error(journal: Any) -> None:
    async with serve(make_app()) as server, server.client() as client:
        answer = await client.get("/api/missing")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == GENERIC
    assert "FileNotFoundError" in "".join(journal.take_errors())


async def read_into(received: list[bytes], client: httpx.AsyncClient, path: str) -> None:
    """Read up to the end, and keep what came before it."""
    async with client.stream("GET", path) as answer:
        async for chunk in answer.aiter_bytes():
            received.append(chunk)  # noqa: PERF401 - what came before the cut counts


CUT = pytest.mark.parametrize(
    ("path", "outcome"),
    [("/api/bytes?kind=known", "error"), ("/api/bytes?kind=unknown", "error"), ("/api/slow-bytes", "timeout")],
)


@CUT
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_a_byte_stream_that_fails_is_cut_so_that_its_reader_can_tell(
    http2: bool, path: str, outcome: str, journal: Any
) -> None:
    received: list[bytes] = []
    journal.errors_expected = True
    async with serve(make_app()) as server, server.client(http2=http2, timeout=1) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read_into(received, client, path)
    assert b"".join(received) == b"half of"
    assert journal.fields("outcome") == [outcome]


@CUT
async def test_over_http2_only_the_failed_stream_is_reset(path: str, outcome: str, journal: Any) -> None:
    journal.errors_expected = True
    async with serve(make_app()) as server, open_http2(server.port) as client:
        number = await client.request("GET", path)
        with trio.fail_after(1):
            data, end = await client.rest(number)
        assert (data, type(end)) == (b"half of", h2.events.StreamReset)
        assert end.error_code is h2.errors.ErrorCodes.INTERNAL_ERROR
        number = await client.request("GET", "/api/by-hand")
        data, end = await client.rest(number)
        assert (data[:9], type(end)) == (b"data: one", h2.events.StreamEnded)


async def test_an_error_of_one_call_leaves_the_others_alone(journal: Any) -> None:
    app = make_app()
    failed = trio.Event()

    @app.action("good", web=Web("/good"))
    async def good() -> StreamingResponse:
        async def source() -> AsyncIterator[str]:
            yield "one"
            await failed.wait()
            yield "two"

        return StreamingResponse.sse(source())

    async with (
        serve(app) as server,
        server.client() as client,
        aconnect_sse(client, "GET", "/api/good") as source,
    ):
        events = source.aiter_sse()
        assert (await anext(events)).data == "one"
        await fail_in_every_way(server)
        failed.set()
        assert [event.data async for event in events] == ["two"]
    journal.take_errors()


async def fail_in_every_way(server: Server) -> None:
    async with server.client() as client:
        for path in (
            "plain?kind=unknown",
            "stream?kind=unknown",
            "task?kind=unknown",
            "slow",
            "slow-stream",
            "missing",
        ):
            await client.get(f"/api/{path}")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/api/bytes?kind=unknown")
