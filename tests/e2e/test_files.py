"""Files from a real server: the connection they come over goes on, or ends, as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from keryx_trio import Config, Keryx
from tests.e2e.raw import open_raw
from tests.e2e.serving import serve


@pytest.fixture
def app(tmp_path: Path) -> Keryx:
    (tmp_path / "small.txt").write_text("small")
    (tmp_path / "large.bin").write_bytes(bytes(3_000_000))
    app = Keryx(config=Config())
    app.static("/", tmp_path)
    return app


@pytest.mark.parametrize("path", ["/small.txt", "/large.bin"])
@pytest.mark.parametrize("fields", [(), ("Range: bytes=1-3",), ("If-None-Match: *",)], ids=["200", "206", "304"])
async def test_a_connection_that_is_to_be_closed_is(app: Keryx, path: str, fields: tuple[str, ...]) -> None:
    async with serve(app) as server, open_raw(server.port) as raw:
        await raw.request("GET", path, "Connection: close", *fields)
        await raw.head()
        await raw.body()
        with trio.fail_after(2):
            assert await raw.is_closed()


async def test_a_connection_that_is_kept_takes_the_next_request_and_is_closed_when_it_is_idle(app: Keryx) -> None:
    async with serve(app, keep_alive_timeout=0.2) as server, open_raw(server.port) as raw:
        for path in ("/small.txt", "/large.bin", "/small.txt"):
            await raw.request("GET", path)
            assert (await raw.head()).status == 200
            body = await raw.body()
        assert body == b"small"
        with trio.fail_after(2):
            assert await raw.is_closed()


async def test_an_idle_connection_does_not_hold_up_a_stop(app: Keryx) -> None:
    async with serve(app) as server, open_raw(server.port) as raw:
        await raw.request("GET", "/small.txt")
        await raw.head()
        await raw.body()
        server.stop()
        with trio.fail_after(1):
            assert await raw.is_closed()


async def test_a_target_that_is_no_address_is_refused(app: Keryx) -> None:
    async with serve(app) as server:
        for target in ("http://[/", "http://[x]/small.txt"):
            async with open_raw(server.port) as raw:
                await raw.request("GET", target)
                assert (await raw.head()).status == 400


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_a_browser_gets_a_page_and_asks_whether_it_is_the_same(app: Keryx, http2: bool) -> None:
    async with serve(app) as server, server.client(http2=http2) as client:
        first = await client.get("/small.txt")
        again = await client.get("/small.txt", headers={"If-None-Match": first.headers["etag"]})
        part = await client.get("/large.bin", headers={"Range": "bytes=-5"})
        whole = await client.get("/large.bin")
    assert (first.text, again.status_code, again.content) == ("small", 304, b"")
    assert (part.status_code, part.content) == (206, bytes(5))
    assert len(whole.content) == 3_000_000
