"""Files of a folder: which are served, how, and which are not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from keryx_trio import Config, Keryx, Web
from keryx_trio.testing import open_client
from tests.transports.test_http import SECURITY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "sub dir").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / ".git").mkdir()
    (site / ".well-known").mkdir()
    (site / "index.html").write_text("<title>home</title>")
    (site / "style.css").write_text("body {}")
    (site / "app.js").write_text("0")
    (site / "data.bin").write_bytes(bytes(range(256)) * 1000)
    (site / "sub dir" / "index.html").write_text("<title>sub</title>")
    (site / "é.txt").write_text("unicode")
    (site / ".git" / "config").write_text("secret")
    (site / ".env").write_text("secret")
    (site / ".well-known" / "security.txt").write_text("contact")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "site-outside").mkdir()
    (tmp_path / "site-outside" / "file.txt").write_text("secret")
    (site / "link.txt").symlink_to(tmp_path / "outside.txt")
    (site / "linked").symlink_to(tmp_path / "site-outside")
    (site / "inner.css").symlink_to(site / "style.css")
    (site / "env").symlink_to(site / ".env")
    (site / "git").symlink_to(site / ".git")
    (site / "loop").symlink_to(site)
    (site / "linked index").mkdir()
    (site / "linked index" / "index.html").symlink_to(site / "style.css")
    os.mkfifo(site / "pipe")
    return site


def serve(folder: Path, prefix: str = "/", **settings: Any) -> Keryx:
    app = Keryx(config=Config(**settings))

    @app.action("echo", web=Web("/echo"))
    async def echo() -> str:
        return "from the action"

    app.static(prefix, folder)
    return app


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/", "<title>home</title>", "text/html; charset=utf-8"),
        ("/index.html", "<title>home</title>", "text/html; charset=utf-8"),
        ("/style.css", "body {}", "text/css; charset=utf-8"),
        ("/app.js", "0", "text/javascript; charset=utf-8"),
        ("/sub%20dir/", "<title>sub</title>", "text/html; charset=utf-8"),
        ("/sub%20dir/index.html?x=1", "<title>sub</title>", "text/html; charset=utf-8"),
        ("/%C3%A9.txt", "unicode", "text/plain; charset=utf-8"),
        ("/inner.css", "body {}", "text/css; charset=utf-8"),
        ("/.well-known/security.txt", "contact", "text/plain; charset=utf-8"),
    ],
)
async def test_a_file_is_served_with_its_type_and_the_standard_headers(folder, path, body, content_type):
    async with open_client(serve(folder)) as client:
        answer = await client.get(path, headers={"X-Request-Id": "mine"})
        assert (answer.status, answer.text) == (200, body)
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-length"] == str(len(body))
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY
        assert "set-cookie" not in answer.headers
        head = await client.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/none.html",
        "/none/index.html",
        "/empty",
        "/empty/",
        "/style.css/",
        "/style.css/more",
        "/../outside.txt",
        "/..%2Foutside.txt",
        "/%2e%2e/outside.txt",
        "/sub%20dir/../../outside.txt",
        "/../site-outside/file.txt",
        "/link.txt",
        "/linked/file.txt",
        "/env",
        "/git/config",
        "/" + "loop/" * 500 + "style.css",
        "/.env",
        "/.git/config",
        "/sub%20dir/../.env",
        "/%2Eenv",
        "/pipe",
        "/nul%00.txt",
        "/" + "x" * 300,
        "//etc/passwd",
        "/%2Fetc/passwd",
        "/%5C..%5Coutside.txt",
        "/%ff",
    ],
)
async def test_what_is_no_file_of_the_folder_is_not_found(folder, path):
    async with open_client(serve(folder)) as client:
        answer = await client.get(path)
    assert answer.status == 404, answer
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_NOT_FOUND"
    assert "secret" not in answer.text


async def test_a_folder_has_a_slash_at_its_end(folder):
    async with open_client(serve(folder, "/site")) as client:
        answer = await client.get("/site/sub%20dir?x=%20")
        assert (answer.status, answer.headers["location"]) == (307, "./sub%20dir/?x=%20")
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY
        answer = await client.get("/site")
        assert (answer.status, answer.headers["location"]) == (307, "./site/")
        assert (await client.get("/site/linked%20index")).status == 307
        assert (await client.get("/site/linked%20index/")).text == "body {}"
        assert (await client.get("/site/")).text == "<title>home</title>"
        assert (await client.get("/sites")).status == 404
        assert (await client.get("/")).status == 404


async def test_a_redirect_leads_to_no_other_host(folder):
    (folder / "evil.example").mkdir()
    (folder / "evil.example" / "index.html").write_text("here")
    async with open_client(serve(folder)) as client:
        assert (await client.get("//evil.example")).status == 404
        answer = await client.get("/evil.example")
    assert answer.headers["location"] == "./evil.example/"


async def test_a_file_that_is_the_same_is_not_sent_again(folder):
    async with open_client(serve(folder)) as client:
        first = await client.get("/style.css")
        again = await client.get("/style.css", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        since = await client.get("/style.css", headers={"If-Modified-Since": first.headers["last-modified"]})
        assert since.status == 304
        (folder / "style.css").write_text("body { color: red }")
        changed = await client.get("/style.css", headers={"If-None-Match": first.headers["etag"]})
        assert (changed.status, changed.text) == (200, "body { color: red }")


async def test_a_part_of_a_file_is_served(folder):
    data = (folder / "data.bin").read_bytes()
    async with open_client(serve(folder)) as client:
        part = await client.get("/data.bin", headers={"Range": "bytes=1000-100000"})
        assert (part.status, part.body) == (206, data[1000:100_001])
        assert part.headers["content-range"] == f"bytes 1000-100000/{len(data)}"
        end = await client.get("/data.bin", headers={"Range": "bytes=-10"})
        assert (end.status, end.body) == (206, data[-10:])
        beyond = await client.get("/data.bin", headers={"Range": "bytes=999999-"})
        assert beyond.status == 416
        assert beyond.headers["x-frame-options"] == "DENY"
        several = await client.get("/data.bin", headers={"Range": "bytes=0-1,5-6"})
        assert several.status == 206
        assert data[5:7] in several.body
        whole = await client.get("/data.bin")
        assert whole.body == data


async def test_actions_win_over_files_and_only_get_and_head_are_answered(folder):
    (folder / "api").mkdir()
    (folder / "api" / "echo").write_text("from the file")
    (folder / "api" / "other").write_text("from the file")
    async with open_client(serve(folder)) as client:
        assert (await client.get("/api/echo")).json() == "from the action"
        assert (await client.get("/api/other")).text == "from the file"
        assert (await client.post("/api/echo")).status == 405
        posted = await client.post("/style.css", content=b"x")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        asked = await client.request("OPTIONS", "/style.css")
        assert (asked.status, asked.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert (await client.post("/none.css")).status == 404


async def test_the_longest_prefix_wins_and_falls_through_to_no_other(folder, tmp_path):
    app = serve(folder)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.css").write_text("other")
    app.static("/assets/", tmp_path / "assets")
    async with open_client(app) as client:
        assert (await client.get("/assets/style.css")).text == "other"
        assert (await client.get("/style.css")).text == "body {}"
        assert (await client.get("/assets/index.html")).status == 404


def test_what_cannot_be_served_is_refused_at_once(folder, tmp_path):
    app = serve(folder)
    with pytest.raises(NotADirectoryError, match="there is no folder .*nowhere"):
        app.static("/x", tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="there is no folder"):
        app.static("/x", folder / "style.css")
    with pytest.raises(ValueError, match="a folder is served at / already"):
        app.static("/", folder)
    for prefix in ("x", "", "/{id}", "/x?y", "/x#y"):
        with pytest.raises(ValueError, match="must be a path that starts with a slash"):
            app.static(prefix, folder)


@pytest.mark.parametrize("change", [1000, -1000], ids=["grows", "shrinks"])
async def test_a_file_that_changes_while_it_is_sent_keeps_to_what_was_announced(folder, change, caplog):
    path = folder / "changing.bin"
    path.write_bytes(b"x" * 300_000)
    async with open_client(serve(folder)) as client, client.stream("GET", "/changing.bin") as stream:
        first = await stream.receive_bytes()
        os.truncate(path, 300_000 + change)
        rest = await stream.read()
    assert len(first) + len(rest) == min(300_000, 300_000 + change)
    assert stream.complete is (change > 0)
    assert "failed" not in caplog.text


async def test_a_reader_that_leaves_stops_the_file_and_one_that_takes_nothing_is_cut_off(folder):
    with (folder / "large.bin").open("wb") as file:
        file.truncate(50_000_000)
    app = serve(folder, write_timeout=0.2)
    async with open_client(app) as client:
        async with client.stream("GET", "/large.bin") as stream:
            assert len(await stream.receive_bytes()) == 64 * 1024
        assert stream.over.is_set()
        async with client.stream("GET", "/large.bin") as stream:
            await stream.receive_bytes()
            with trio.fail_after(2):
                await stream.over.wait()
            await stream.read()
            assert stream.complete is False


async def test_a_stop_bounds_a_file_too(folder, autojump_clock):
    with (folder / "large.bin").open("wb") as file:
        file.truncate(5_000_000)
    async with open_client(serve(folder, drain_timeout=2)) as client, client.stream("GET", "/large.bin") as stream:
        await stream.receive_bytes()
        await wait_all_tasks_blocked(0.05)
        client.shut_down()
        await stream.over.wait()
        await stream.read()
        assert stream.complete is False


async def test_a_body_that_is_too_large_is_refused_for_a_file_too(folder):
    async with open_client(serve(folder, max_body_size=10)) as client:
        answer = await client.request("GET", "/style.css", content=b"x" * 11)
        assert answer.status == 413
        assert (await client.request("GET", "/style.css", content=b"x" * 10)).status == 200


async def test_a_file_that_may_not_be_read_is_not_there(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    async with open_client(serve(folder)) as client:
        assert (await client.get("/style.css")).status == 404


async def test_a_file_that_fails_while_it_is_sent_is_cut_and_logged(folder, monkeypatch, caplog):
    from starlette.responses import FileResponse

    async def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(FileResponse, "_handle_simple", fail)
    async with open_client(serve(folder)) as client:
        answer = await client.get("/style.css")
    assert answer.status == 500
    assert "the disk is gone" in caplog.text
    assert "disk" not in answer.text
