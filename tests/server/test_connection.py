"""Requests on one connection, from its first byte to its last."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trustme

from keryx_trio import server
from keryx_trio.server import watching
from tests.e2e.raw import Raw, open_raw
from tests.e2e.serving import until
from tests.server.bare import answer, read_body, serve_bare

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await answer(send, b"hello")


async def test_requests_that_do_not_wait_are_answered_in_their_order() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(f"{scope['path']} begins")
        await trio.sleep(0.01)
        order.append(f"{scope['path']} ends")
        await answer(send, scope["path"].encode())

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.send(b"".join(GET.replace(b"/", b"/%d" % n, 1) for n in range(3)))
        for number in range(3):
            raw.expect("GET")
            await raw.head()
            assert await raw.body() == b"/%d" % number
    assert order == [f"/{number} {what}" for number in range(3) for what in ("begins", "ends")]


@pytest.mark.parametrize("reads", [True, False])
async def test_a_client_that_waits_is_told_to_go_on_only_where_its_body_is_wanted(reads: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_body(receive) if reads else b"no")

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("POST", "/", "Expect: 100-continue", "Content-Length: 4")
        if reads:
            while not raw.informational:
                raw._parser.receive_data(await raw.stream.receive_some(1000))
                raw.informational.append((await raw.event()).status_code)
            await raw.send(b"body")
        assert (await raw.head()).status == 200
        assert await raw.body() == (b"body" if reads else b"no")
        assert raw.informational == ([100] if reads else [])


async def test_a_head_that_does_not_come_is_told_so() -> None:
    async with serve_bare(hello, limits={"read_timeout": 0.2}) as bare, open_raw(bare.port) as raw:
        raw.expect("GET")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, raw, GET)
            assert (await raw.head()).status == 408
            assert 0.15 < trio.current_time() - began < 0.5
            assert await raw.body()
            assert await raw.is_closed()
            nursery.cancel_scope.cancel()


async def drip(raw: Raw, data: bytes) -> None:
    """A byte now and then: no single one is late."""
    for number in range(len(data) - 1):
        await raw.send(data[number : number + 1])
        await trio.sleep(0.05)


async def test_a_body_that_stops_coming_is_told_so(journal: Any) -> None:
    async with serve_bare(hello, limits={"read_timeout": 0.0}) as bare, open_raw(bare.port) as raw:
        await raw.request("POST", "/", "Content-Length: 4")
        await raw.send(b"bo")
        assert (await raw.head()).status == 408
        await raw.body()
        assert await raw.is_closed()
    assert "the client left" in journal.take_errors()[0]


@pytest.mark.parametrize("first", [b"", GET], ids=["new", "kept"])
async def test_a_connection_that_asks_for_nothing_is_closed(first: bytes) -> None:
    async with serve_bare(hello, keep_alive_timeout=0.1) as bare, open_raw(bare.port) as raw:
        if first:
            raw.expect("GET")
            await raw.send(first)
            await raw.head()
            await raw.body()
        with trio.fail_after(0.5):
            assert await raw.is_closed()


async def test_an_answer_of_http_1_0_ends_with_its_connection_and_a_cut_is_no_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/whole":
            await send({"type": "http.response.body", "body": b" and half"})

    async with serve_bare(app) as bare:
        async with await trio.open_tcp_stream("127.0.0.1", bare.port) as client:
            await client.send_all(b"GET /whole HTTP/1.0\r\n\r\n")
            received = b"".join([data async for data in client])
            assert received.endswith(b"\r\n\r\nhalf and half")
            assert b"transfer-encoding" not in received
        async with await trio.open_tcp_stream("127.0.0.1", bare.port) as client:
            await client.send_all(b"GET /half HTTP/1.0\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                async for _ in client:
                    pass


@pytest.mark.parametrize("said", [b"4", b"6", b"x"])
async def test_an_answer_of_another_length_than_it_says_is_no_answer(said: bytes, journal: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", said)]})
        await send({"type": "http.response.body", "body": b"hello"})

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/")
        received = b"".join([data async for data in raw.stream])
        assert b"hello" not in received
        assert received.startswith(b"HTTP/1.1 500" if said == b"x" else b"HTTP/1.1 200")
    (error,) = journal.take_errors()
    assert "Content-Length" in error


@pytest.mark.parametrize(
    "field", [(b"a", b"b\r\nc: d"), (b"a", b"b\nc: d"), (b"a", b"\0"), (b"a b", b"c"), (b"", b"c")]
)
async def test_an_application_can_not_be_made_to_send_other_fields(field: tuple[bytes, bytes], journal: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello", 200, field)

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.request("GET", "/")
        assert (await raw.head()).status == 500
    assert len(journal.take_errors()) == 1


async def test_a_call_that_goes_on_after_its_answer_holds_up_no_other() -> None:
    proceed, ended = trio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello")
        if scope["path"] == "/long":
            assert (await receive())["type"] == "http.disconnect"
            await proceed.wait()
        ended.append(scope["path"])

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        for path in ("/long", "/", "/long", "/"):
            await raw.request("GET", path)
            with trio.fail_after(1):
                await raw.head()
                assert await raw.body() == b"hello"
        await until(lambda: ended == ["/", "/"])
        proceed.set()
        await until(lambda: len(ended) == 4)
        await raw.request("GET", "/long", "Connection: close")
        await raw.head()
        assert await raw.body() == b"hello"
        assert await raw.is_closed()


async def test_a_connection_is_closed_after_as_many_requests_as_it_may_make() -> None:
    async with serve_bare(hello, keep_alive_max_requests=2) as bare, open_raw(bare.port) as raw:
        said = []
        for _ in range(3):
            await raw.request("GET", "/")
            said.append((await raw.head()).headers.get("connection"))
            await raw.body()
        assert said == [None, None, "close"]
        assert await raw.is_closed()


async def test_a_site_that_is_not_served_here_is_not_found() -> None:
    async with serve_bare(hello, server_names=["x"]) as bare:
        for host, status in ((b"x", b"200"), (b"y", b"404")):
            async with await trio.open_tcp_stream("127.0.0.1", bare.port) as client:
                await client.send_all(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host)
                assert b"".join([data async for data in client]).startswith(b"HTTP/1.1 " + status)


async def test_an_application_that_fails_is_told_as_hypercorn_does(journal: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/nothing":
            return
        raise (SystemExit if scope["path"] == "/exit" else LookupError)(scope["path"])

    async with serve_bare(app) as bare:
        for path, start in (
            ("/", b"HTTP/1.1 500"),
            ("/exit", b"HTTP/1.1 500"),
            ("/nothing", b"HTTP/1.1 500"),
            ("/later", b"HTTP/1.1 200"),
        ):
            async with open_raw(bare.port) as raw:
                await raw.request("GET", path)
                received = b"".join([data async for data in raw.stream])
                assert received.startswith(start)
                assert not received.endswith(b"0\r\n\r\n")
    assert len(journal.take_errors()) == 3


async def test_a_send_to_a_client_that_left_is_an_oserror_and_no_error_in_the_log() -> None:
    raised: list[type[Exception]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        except OSError as error:
            raised.append(type(error))
            raise

    async with serve_bare(app) as bare:
        async with open_raw(bare.port) as raw:
            await raw.request("GET", "/")
            await raw.head()
        await until(lambda: raised and not bare.worker.connections)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_tls_is_spoken_and_a_reader_who_takes_nothing_is_cut_off(http2: bool, tmp_path: Path) -> None:
    authority, gone = trustme.CA(), trio.Event()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await answer(send, scope["scheme"].encode() + scope["http_version"].encode() + b"x" * 200_000)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        finally:
            gone.set()

    files = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    async with serve_bare(app, limits={"write_timeout": 0.3}, **files) as bare:
        url = bare.url.replace("127.0.0.1", "localhost")
        async with httpx.AsyncClient(verify=context, http1=not http2, http2=http2, trust_env=False) as client:
            text = (await client.get(url)).text
            assert text.rstrip("x") == ("https2" if http2 else "https1.1")
            assert len(text) > 200_000
        if not http2:
            async with await trio.open_ssl_over_tcp_stream("localhost", bare.port, ssl_context=context) as stream:
                await stream.send_all(GET.replace(b"/", b"/flood", 1))
                with trio.fail_after(2):
                    await gone.wait()


async def test_who_does_not_speak_tls_where_it_is_spoken_disturbs_nobody(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    async with serve_bare(hello, ssl_handshake_timeout=0.2, **files) as bare:
        for sent in (GET, b"\0" * 100, b""):
            async with await trio.open_tcp_stream("127.0.0.1", bare.port) as client:
                if sent:
                    await client.send_all(sent)
                with trio.fail_after(1):
                    async for _ in client:
                        pass
        await until(lambda: not bare.worker.connections)


async def test_a_unix_socket_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve_bare(hello, bind=[f"unix:{path}"]), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"".join([data async for data in client]).endswith(b"\r\n\r\nhello")


async def test_hypercorns_access_log_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    log = logging.getLogger("tests.access")
    log.setLevel(logging.INFO)
    async with serve_bare(hello, accesslog=log, access_log_format="%(m)s %(U)s %(s)s") as bare:
        async with open_raw(bare.port) as raw:
            await raw.request("GET", "/here")
            await raw.head()
            await raw.body()
        await until(lambda: [record.getMessage() for record in caplog.records if record.name == log.name])
    assert [record.getMessage() for record in caplog.records if record.name == log.name] == ["GET /here 200"]


@pytest.mark.skipif(not watching.IS_THERE, reason="the system has no poll that can be waited for")
@pytest.mark.parametrize("ahead", [0, 10, 400], ids=["", "some requests ahead", "many requests ahead"])
@pytest.mark.parametrize("how", ["close", "half", "reset", "cut"])
async def test_a_client_that_leaves_is_noticed_without_a_task_that_waits(ahead: int, how: str) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left = trio.Event()
        await read_body(receive)
        scope["extensions"][server.EXTENSION]["watch"](left.set)
        told.append("begun")
        await left.wait()
        told.append("left")

    async with serve_bare(app) as bare, await trio.open_tcp_stream("127.0.0.1", bare.port) as client:
        await client.send_all(GET)
        await until(lambda: told == ["begun"])
        with trio.move_on_after(0.3):
            for _ in range(ahead):
                await client.send_all(GET * 10)
        await trio.sleep(0.05)
        assert told == ["begun"]
        if how == "cut":
            for connection in bare.worker.connections:
                connection.cut()
        elif how == "half":
            await client.send_eof()
        else:
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await client.aclose()
        await until(lambda: told == ["begun", "left"])
        await until(lambda: not bare.worker.connections)


@pytest.mark.skipif(not watching.IS_THERE, reason="the system has no poll that can be waited for")
async def test_what_is_sent_while_a_client_is_watched_is_its_next_request() -> None:
    proceed, left = trio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        unwatch = scope["extensions"][server.EXTENSION]["watch"](lambda: left.append(1))
        if scope["path"] == "/first":
            await proceed.wait()
        unwatch()
        await answer(send, scope["path"].encode())

    async with serve_bare(app) as bare, open_raw(bare.port) as raw:
        await raw.send(GET.replace(b"/", b"/first", 1))
        await trio.sleep(0.05)
        await raw.send(GET.replace(b"/", b"/second", 1))
        await trio.sleep(0.05)
        proceed.set()
        for path in (b"/first", b"/second"):
            raw.expect("GET")
            await raw.head()
            assert await raw.body() == path
    assert left == []


# Many of them


def count_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell open files")


@needs_proc
async def test_three_hundred_slow_heads_hold_up_nobody_and_end_in_time() -> None:
    async with serve_bare(hello, limits={"read_timeout": 2.0}, backlog=1000) as bare:
        before = count_files()

        async def loris() -> None:
            async with open_raw(bare.port) as raw:
                with trio.move_on_after(15):
                    try:
                        await drip(raw, b"GET / HTTP/1.1\r\nSlow: " + b"x" * 1000)
                    except trio.BrokenResourceError:
                        return

        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(loris)
            await until(lambda: len(bare.worker.connections) == 300, 5)
            began = trio.current_time()
            async with open_raw(bare.port) as raw:
                await raw.request("GET", "/")
                assert (await raw.head()).status == 200
            assert trio.current_time() - began < 0.5
            await until(lambda: not bare.worker.connections, 8)
            nursery.cancel_scope.cancel()
        assert count_files() <= before


async def test_a_head_has_its_whole_time_also_where_the_wait_for_it_may_take_as_long() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    limits = {"read_timeout": 0.4, "drain_timeout": 0.2}
    async with serve_bare(app, limits=limits, keep_alive_timeout=0.4) as bare, open_raw(bare.port) as raw:
        raw.expect("GET")
        await trio.sleep(0.3)
        await raw.send(b"GET / HTTP/1.1\r\n")
        await trio.sleep(0.2)
        await raw.send(b"Host: testserver\r\n\r\n")
        assert (await raw.head()).status == 204
