"""The document and its page, as they are served."""

from __future__ import annotations

import gzip
import json

import attrs
import pytest

from keryx_trio import Config, Keryx, Web
from keryx_trio.config import DocsConfig
from keryx_trio.openapi import document
from keryx_trio.testing import open_client
from keryx_trio.transports import docs

DOCUMENT, PAGE = "/api/openapi.json", "/api/docs"


def application(**settings):
    app = Keryx(config=Config(**settings))

    @app.action("hello", web=Web("/hello"))
    async def hello(name: str = "you") -> str:
        """Greet."""
        return name

    return app


@pytest.fixture
def without_swagger(monkeypatch):
    monkeypatch.setattr(docs, "SWAGGER_PACKAGE", "no_such_package")


@pytest.fixture
def with_swagger(monkeypatch, tmp_path):
    """A package of the same shape, whether or not the real one is installed."""
    folder = tmp_path / "swagger_files" / "dist"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise AssertionError('nobody imports it')")
    for name in (*docs.SWAGGER, "index.html"):
        (folder / name).write_text(f"/* {name} */")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docs, "SWAGGER_PACKAGE", "swagger_files")


@pytest.mark.parametrize(("query", "version"), [("", "3.2"), ("?version=3.2", "3.2"), ("?version=3.1", "3.1")])
async def test_the_document_is_served_in_either_version(query, version):
    app = application()
    async with open_client(app) as client:
        answer = await client.get(DOCUMENT + query)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(document(app, version)))


async def test_another_version_is_refused_with_those_that_there_are():
    async with open_client(application()) as client:
        answer = await client.get(f"{DOCUMENT}?version=2.0")
    assert answer.status == 422
    assert answer.json()["error"]["message"] == "version: must be one of: 3.2, 3.1"


async def test_who_has_the_document_is_not_sent_it_again():
    async with open_client(application()) as client:
        first = await client.get(DOCUMENT)
        tag = first.headers["etag"]
        for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = await client.get(DOCUMENT, headers={"if-none-match": known})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == tag
            assert "content-type" not in again.headers
        for unknown in ('"other"', f'"{tag}"'):
            assert (await client.get(DOCUMENT, headers={"if-none-match": unknown})).status == 200
        assert (await client.get(f"{DOCUMENT}?version=3.1")).headers["etag"] != tag


async def test_the_document_is_made_once_until_there_is_another_action(monkeypatch):
    made = []
    monkeypatch.setattr(docs, "document", lambda *args, **named: made.append(1) or document(*args, **named))
    app = application()
    async with open_client(app) as client:
        tags = {(await client.get(DOCUMENT)).headers["etag"] for _ in range(3)}
        assert (len(made), len(tags)) == (1, 1)

        @app.action("late", web=Web("/late"))
        async def late() -> None: ...

        answer = await client.get(DOCUMENT)
        assert answer.headers["etag"] not in tags
        assert "/api/late" in answer.json()["paths"]


@pytest.mark.parametrize("path", [DOCUMENT, PAGE])
async def test_head_is_answered_with_the_head_of_get(path):
    async with open_client(application()) as client:
        whole, head = await client.get(path), await client.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert head.headers["etag"] == whole.headers["etag"]


async def test_it_has_the_headers_of_any_answer():
    async with open_client(application()) as client:
        answer = await client.get(DOCUMENT, headers={"origin": "https://a.example", "x-request-id": "abc"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["cache-control"] == "no-cache"
    assert "set-cookie" not in answer.headers


async def test_it_is_compressed_for_who_takes_that():
    async with open_client(application()) as client:
        answer = await client.get(DOCUMENT, headers={"accept-encoding": "gzip"})
    assert json.loads(gzip.decompress(answer.body))["openapi"] == "3.2.0"
    assert answer.headers["etag"].startswith("W/")


@pytest.mark.parametrize("path", [DOCUMENT, PAGE])
async def test_another_method_is_refused_with_those_that_there_are(path):
    async with open_client(application()) as client:
        answer = await client.post(path, json={})
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
        assert (await client.request("OPTIONS", path)).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_both_are_off_with_one_setting_and_a_404_says_so():
    async with open_client(application(docs=DocsConfig(enabled=False))) as client:
        for path in (DOCUMENT, PAGE):
            answer = await client.get(path)
            assert answer.status == 404
            assert "KERYX_DOCS_ENABLED=true" in answer.json()["error"]["message"]
        assert (await client.get(f"{PAGE}/docs.js")).status == 404


def test_the_setting_comes_from_the_environment():
    environ = {"KERYX_DOCS_ENABLED": "false", "KERYX_DOCS_TITLE": "Tea", "KERYX_DOCS_VERSION": "2"}
    assert Config.from_env(environ).docs == DocsConfig(enabled=False, title="Tea", version="2")


async def test_an_action_on_the_same_route_wins():
    app = application()

    @app.action("docs", web=Web("/docs"))
    async def own() -> str:
        return "mine"

    async with open_client(app) as client:
        assert (await client.get(PAGE)).json() == "mine"
        assert (await client.get(DOCUMENT)).status == 200


async def test_a_file_of_the_application_wins(tmp_path):
    (tmp_path / "openapi.json").write_text('"mine"')
    app = application(api_route="/")
    app.static("/", tmp_path)
    async with open_client(app) as client:
        assert (await client.get("/openapi.json")).json() == "mine"
        assert (await client.get("/docs")).status == 200


async def test_it_follows_the_route_of_the_api():
    async with open_client(application(api_route="/v1")) as client:
        assert "/v1/hello" in (await client.get("/v1/openapi.json")).json()["paths"]
        assert (await client.get("/v1/docs")).status == 200
        assert (await client.get(DOCUMENT)).status == 404


async def test_a_slash_too_many_leads_to_the_page():
    async with open_client(application()) as client:
        answer = await client.get(f"{PAGE}/")
    assert (answer.status, answer.headers["location"]) == (307, "../docs")


async def test_the_page_and_what_it_loads_are_ones_own(with_swagger):
    async with open_client(application()) as client:
        page = await client.get(PAGE)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"] == "default-src 'self'; img-src 'self' data:"
        assert "://" not in page.text
        loaded = [part.split('"')[0] for mark in ('src="', 'href="') for part in page.text.split(mark)[1:]]
        assert {"docs/docs.js", "docs/docs.css", "docs/swagger-ui/swagger-ui-bundle.js"} < set(loaded)
        for path in loaded:
            assert (await client.get(f"/api/{path}")).status == 200, path
        again = await client.get(PAGE, headers={"if-none-match": page.headers["etag"]})
        assert again.status == 304
        assert again.headers["content-security-policy"] == page.headers["content-security-policy"]


async def test_of_the_package_only_what_the_page_loads_is_served(with_swagger):
    async with open_client(application()) as client:
        assert (await client.get(f"{PAGE}/swagger-ui/swagger-ui.css")).status == 200
        for name in ("index.html", "", "../__init__.py", "%2e%2e/__init__.py"):
            assert (await client.get(f"{PAGE}/swagger-ui/{name}")).status == 404, name


async def test_without_the_extra_the_page_does_without(without_swagger):
    async with open_client(application()) as client:
        page = await client.get(PAGE)
        assert "swagger-ui-bundle" not in page.text
        assert "pip install 'keryx-trio[docs-page]'" in page.text
        assert (await client.get(f"{PAGE}/swagger-ui/swagger-ui.css")).status == 404


async def test_the_first_request_shows_the_mount_it_came_through():
    app = application()
    async with open_client(app) as client:
        scope = client._scope("/mounted/api/openapi.json", {})
        scope |= {"type": "http", "method": "GET", "scheme": "http", "extensions": {}, "root_path": "/mounted"}
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
    assert json.loads(b"".join(message.get("body", b"") for message in sent))["servers"] == [{"url": "/mounted"}]


def test_a_page_without_a_title_is_refused():
    with pytest.raises(ValueError, match=r"DocsConfig.title must not be empty"):
        DocsConfig(title=" ")
    assert attrs.evolve(DocsConfig(), title="Tea").title == "Tea"
