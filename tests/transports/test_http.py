"""HTTP: the way of a request to its action, and every field of the answer."""

from __future__ import annotations

import gzip
import logging
from typing import Annotated, Any

import attrs
import pytest
import trio
from msgspec import Meta

from keryx_trio import (
    SECRET,
    Config,
    EventStream,
    Keryx,
    Response,
    StreamingResponse,
    TypedError,
    UploadFile,
    Web,
)
from keryx_trio.config import CompressionConfig, CorsConfig, SecurityConfig
from keryx_trio.testing import Answer, Client, open_client

SECURITY = {
    "content-security-policy": "default-src 'self'",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
}


@attrs.define
class Address:
    zip: Annotated[str, Meta(min_length=3)]


def make_app(config: Config | None = None) -> Keryx:
    app = Keryx(config=config or Config())

    @app.action("echo", web=Web("/echo", method=("GET", "POST")))
    async def echo(
        text: str = "", n: int = 0, tags: list[str] | None = None, address: Address | None = None
    ) -> dict[str, Any]:
        return {"text": text, "n": n, "tags": tags, "address": address}

    @app.action("item", web=Web("/item/{id}", method=("GET", "PUT", "POST")))
    async def item(id: str, n: int = 0) -> Any:
        return {"id": id, "n": n}

    @app.action("new", web=Web("/item/new"))
    async def new() -> str:
        return "fixed"

    @app.action("stream", web=Web("/stream", streaming=True))
    async def stream() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            await sse.send("x")

        return StreamingResponse.sse(produce)

    @app.action("fail", web=Web("/fail"))
    async def fail() -> None:
        raise TypedError("no")

    @app.action("large", web=Web("/large"))
    async def large(size: int = 5000) -> str:
        return "x" * size

    return app


@pytest.fixture
async def client():
    async with open_client(make_app()) as client:
        yield client


# Routing


async def test_a_fixed_route_wins_over_a_parameter_and_other_methods_still_reach_the_parameter(client: Client):
    assert (await client.get("/api/item/new")).json() == "fixed"
    assert (await client.get("/api/item/7")).json() == {"id": "7", "n": 0}
    assert (await client.request("PUT", "/api/item/new")).json() == {"id": "new", "n": 0}


async def test_segments_are_decoded_after_the_path_was_split():
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/api/item/x")
        stream._scope["raw_path"] = b"/api/item/a%2Fb%20%C3%BC"
        async with stream:
            assert await stream.read() == b'{"id":"a/b \xc3\xbc","n":0}\n'


async def test_an_unknown_path_is_404_and_a_wrong_method_405_with_what_is_allowed(client: Client):
    answer = await client.get("/api/nothing")
    assert (answer.status, answer.json()["error"]["type"]) == (404, "CONNECTION_ACTION_NOT_FOUND")
    answer = await client.request("DELETE", "/api/echo")
    assert (answer.status, answer.json()["error"]["type"]) == (405, "CONNECTION_METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert (await client.request("HEAD", "/api/nothing")).status == 404


@pytest.mark.parametrize("path", ["/api/item/", "/api/item", "/api/echo/", "/echo", "/api", "/", "/api//echo"])
async def test_paths_that_are_almost_right_are_not_found(client: Client, path: str):
    assert (await client.get(path)).status == 404


async def test_head_answers_what_get_would_without_the_body(client: Client):
    get, head = await client.get("/api/echo"), await client.request("HEAD", "/api/echo")
    assert head.body == b""
    assert head.status == 200
    assert head.headers["content-length"] == str(len(get.body))


async def test_head_is_405_where_there_is_no_get():
    app = Keryx(config=Config())
    app.action("post", web=Web("/post", method="POST"))(trio.sleep_forever)
    async with open_client(app) as client:
        answer = await client.request("HEAD", "/api/post")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST, OPTIONS"


async def test_options_tells_what_is_allowed(client: Client):
    answer = await client.request("OPTIONS", "/api/item/3")
    assert (answer.status, answer.body, answer.headers["allow"]) == (204, b"", "GET, HEAD, POST, PUT, OPTIONS")
    assert (await client.request("OPTIONS", "/api/nothing")).status == 404


async def test_an_action_may_answer_options_itself():
    app = Keryx(config=Config())

    @app.action("o", web=Web("/o", method="OPTIONS"))
    async def o() -> str:
        return "mine"

    async with open_client(app) as client:
        assert (await client.request("OPTIONS", "/api/o")).json() == "mine"
        assert (await client.request("PUT", "/api/o")).headers["allow"] == "OPTIONS"


async def test_the_route_below_which_actions_live_can_be_set():
    async with open_client(make_app(Config(api_route=""))) as client:
        assert (await client.get("/echo")).status == 200
        assert (await client.get("/api/echo")).status == 404


async def test_an_application_mounted_below_a_path_is_asked_for_the_rest_of_it():
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/mounted/api/echo")
        stream._scope["root_path"] = "/mounted"
        async with stream:
            assert stream.status == 200


async def test_a_whole_url_may_stand_in_place_of_the_path():
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/api/echo")
        stream._scope["raw_path"] = b"http://somewhere.example/api/echo?x=1"
        async with stream:
            assert stream.status == 200


# Inputs


async def test_text_is_coerced_and_json_is_not(client: Client):
    assert (await client.get("/api/echo?n=3&text=4")).json()["n"] == 3
    assert (await client.post("/api/echo", json={"n": 3.0})).json()["n"] == 3
    assert (await client.post("/api/echo", json={"n": "3"})).status == 422
    assert (await client.post("/api/echo", form={"n": "3"})).json()["n"] == 3


async def test_the_path_wins_over_the_body_and_the_body_over_the_query(client: Client):
    answer = await client.post("/api/item/path?id=query&n=1", json={"id": "body", "n": 2})
    assert answer.json() == {"id": "path", "n": 2}
    assert (await client.post("/api/echo?text=query&n=1", form={"text": "form"})).json()["text"] == "form"
    answer = await client.post("/api/echo?n=1", json={"n": "1"})
    assert answer.status == 422


async def test_repeated_keys_make_a_list(client: Client):
    assert (await client.get("/api/echo?tags=a&tags=b")).json()["tags"] == ["a", "b"]
    assert (await client.get("/api/echo?tags=a")).json()["tags"] == ["a"]


async def test_every_fault_is_reported_at_once_with_its_path(client: Client):
    answer = await client.post("/api/echo", json={"n": "x", "tags": ["a", 1], "address": {"zip": "1"}})
    error = answer.json()["error"]
    assert answer.status == 422
    assert error["type"] == "CONNECTION_ACTION_PARAM_VALIDATION"
    assert error["key"] == "n"
    assert [fault["key"] for fault in error["errors"]] == ["n", "tags[1]", "address.zip"]


async def test_unknown_keys_are_ignored(client: Client):
    assert (await client.post("/api/echo?what=1", json={"ever": 2})).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/ld+json", None],
)
async def test_json_is_json_whatever_else_its_content_type_says(client: Client, content_type):
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/api/echo", content=b'{"text": "\xc3\xbc"}', headers=headers)
    assert answer.json()["text"] == "ü"


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b"[1]", "not an array"),
        (b'"x"', "not a string"),
        (b"3", "not a number"),
        (b"true", "not a boolean"),
        (b"null", "not null"),
        (b'{"text": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_malformed_body_is_400_and_says_what_is_wrong(client: Client, body, hint):
    answer = await client.post("/api/echo", content=body, headers={"content-type": "application/json"})
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "CONNECTION_ACTION_PARAM_FORMATTING"
    assert hint in answer.json()["error"]["message"]


async def test_json_sent_as_a_form_is_recognised(client: Client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post("/api/echo", content=b'{"text": "x"}', headers=headers)
    assert answer.status == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


async def test_a_body_of_a_type_that_gives_no_inputs_is_400(client: Client):
    answer = await client.post("/api/echo", content=b"<x/>", headers={"content-type": "text/xml"})
    assert answer.status == 400
    assert "text/xml" in answer.json()["error"]["message"]


async def test_an_action_without_inputs_does_not_look_at_the_body():
    app = Keryx(config=Config())

    @app.action("it", web=Web("/it", method="POST"))
    async def it() -> str:
        return "ok"

    async with open_client(app) as client:
        answer = await client.post("/api/it", content=b"<x/>", headers={"content-type": "text/xml"})
    assert answer.json() == "ok"


async def test_an_empty_body_is_no_input(client: Client):
    answer = await client.post("/api/echo", content=b"", headers={"content-type": "application/json"})
    assert answer.status == 200


async def test_too_many_fields_are_refused(client: Client):
    answer = await client.get("/api/echo?" + "&".join(f"k{n}=1" for n in range(1001)))
    assert (answer.status, "more than 1000 fields" in answer.json()["error"]["message"]) == (400, True)


# Multipart forms


def multipart(*parts: tuple[str, bytes]) -> dict[str, Any]:
    body = b"".join(
        b"--B\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (h.encode(), data) for h, data in parts
    )
    return {"content": body + b"--B--\r\n", "headers": {"content-type": "multipart/form-data; boundary=B"}}


@pytest.fixture
def uploads():
    app = Keryx(config=Config(max_body_size=5_000_000))
    kept: list[UploadFile] = []

    @app.action("up", web=Web("/up", method="POST"))
    async def up(file: UploadFile, note: str = "", n: int = 0, more: list[UploadFile] | None = None) -> Any:
        kept.append(file)
        data = await file.read()
        return [file.filename, file.content_type, file.size, len(data), data[:3].decode(), note, n, len(more or [])]

    app.kept = kept
    return app


async def test_a_multipart_form_gives_files_and_fields(uploads):
    async with open_client(uploads) as client:
        answer = await client.post(
            "/api/up",
            **multipart(
                ('name="file"; filename="a.txt"\r\nContent-Type: text/plain', b"abcdef"),
                ('name="note"', "grüß".encode()),
                ('name="n"', b"7"),
                ('name="more"; filename="1"', b"1"),
                ('name="more"; filename="2"', b"2"),
            ),
        )
    assert answer.json() == ["a.txt", "text/plain", 6, 6, "abc", "grüß", 7, 2]


async def test_a_large_file_spools_to_disk_and_is_closed_after_the_call(uploads):
    async with open_client(uploads) as client:
        data = b"abc" + bytes(3_000_000)
        answer = await client.post("/api/up", **multipart(('name="file"; filename="large"', data)))
        assert answer.json()[2:5] == [3_000_003, 3_000_003, "abc"]
    with pytest.raises(trio.ClosedResourceError):
        await uploads.kept[0].read()


async def test_a_missing_file_is_a_fault_of_its_input(uploads):
    async with open_client(uploads) as client:
        answer = await client.post("/api/up", **multipart(('name="note"', b"x")))
    assert answer.status == 422
    assert answer.json()["error"]["key"] == "file"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"--B\r\nContent-Disposition: form-data; name=x\r\n\r\nnever ends", "multipart/form-data; boundary=B"),
        (b"--B\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--B--\r\n", "multipart/form-data; boundary=B"),
        (b"anything", "multipart/form-data"),
        (b"anything", "multipart/form-data; boundary=" + "B" * 300),
        (b"garbage", "multipart/form-data; boundary=B"),
    ],
)
async def test_a_malformed_multipart_form_is_400(uploads, content, content_type):
    async with open_client(uploads) as client:
        answer = await client.post("/api/up", content=content, headers={"content-type": content_type})
    assert answer.status == 400
    assert "multipart form is malformed" in answer.json()["error"]["message"]


@pytest.mark.parametrize("configured", [False, True])
async def test_what_the_parser_of_forms_logs_is_for_logging_that_the_application_has(
    uploads, configured, capsys, monkeypatch
):
    own: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: own.append(record.name))
    monkeypatch.setattr(logging.root, "handlers", [handler] if configured else [])
    content = {"content": b"garbage", "headers": {"content-type": "multipart/form-data; boundary=B"}}
    async with open_client(uploads) as client:
        assert (await client.post("/api/up", **content)).status == 400
    assert ("python_multipart.multipart" in own) is configured
    assert "boundary" not in capsys.readouterr().err.replace("multipart form is malformed", "")


async def test_a_multipart_form_above_the_limit_is_413(uploads):
    async with open_client(uploads) as client:
        answer = await client.post("/api/up", **multipart(('name="file"; filename="x"', bytes(6_000_000))))
    assert answer.status == 413


@pytest.mark.parametrize("charset", ["punycode", "undefined", '"a\\0b"', "utf-7"])
async def test_the_client_does_not_choose_the_codec_of_a_form(uploads, charset):
    form = multipart(('name="file"; filename="x"', b"1"), ('name="note"', "ü".encode()))
    form["headers"]["content-type"] += f"; charset={charset}"
    async with open_client(uploads) as client:
        answer = await client.post("/api/up", **form)
    assert answer.status == 200
    assert answer.json()[5] == "ü"


@pytest.mark.parametrize("bad", ["text/html\nX-Evil: 1", "a\0b", ""])
async def test_the_type_of_an_upload_is_one_that_a_header_can_carry(uploads, bad):
    async with open_client(uploads) as client:
        answer = await client.post(
            "/api/up", **multipart((f'name="file"; filename="x"\r\nContent-Type: {bad}', b"abc"))
        )
    assert answer.status == 400 or answer.json()[1] == "application/octet-stream"


# The body's limit


async def send_in_pieces(app: Keryx, pieces: list[bytes], headers: list[tuple[bytes, bytes]]) -> Answer:
    """A request whose body comes in pieces, as a server hands them over."""
    sent: list[dict[str, Any]] = []
    queue = list(pieces)

    async def receive():
        await trio.lowlevel.checkpoint()
        if not queue:
            await trio.sleep_forever()
        return {"type": "http.request", "body": queue.pop(0), "more_body": bool(queue)}

    async def send(message):
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/echo",
        "raw_path": b"/api/echo",
        "query_string": b"",
        "http_version": "1.1",
        "headers": headers,
        "client": None,
    }
    async with app:
        await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert sent[-1]["more_body"] is False
    return Answer(sent[0]["status"], sent[0]["headers"], body)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_above_the_limit_is_413_and_is_read_on_so_that_the_answer_gets_through(announced, autojump_clock):
    app = make_app(Config(max_body_size=1000))
    headers = [(b"content-type", b"application/json")] + ([(b"content-length", b"2000")] if announced else [])
    answer = await send_in_pieces(app, [bytes(500)] * 4, headers)
    assert answer.status == 413
    assert answer.json()["error"]["type"] == "CONNECTION_PAYLOAD_TOO_LARGE"
    assert "1000 bytes" in answer.json()["error"]["message"]


async def test_a_refused_body_that_never_ends_is_not_waited_for_for_long(autojump_clock):
    app = make_app(Config(max_body_size=10))
    answer = await send_in_pieces(app, [*[bytes(500), b"x", b""][:2], b""], [(b"content-length", b"100000")])
    assert answer.status == 413
    assert trio.current_time() <= 2


async def test_a_length_of_thousands_of_digits_is_too_large(autojump_clock):
    answer = await send_in_pieces(make_app(), [b""], [(b"content-length", b"9" * 5000)])
    assert answer.status == 413


async def test_a_body_at_the_limit_is_taken_piece_by_piece():
    body = b'{"text": "' + b"x" * 980 + b'"}'
    answer = await send_in_pieces(make_app(Config(max_body_size=len(body))), [body[:100], body[100:], b""], [])
    assert answer.status == 200


async def test_a_client_that_leaves_while_it_sends_its_body_is_nobodys_error(caplog):
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        await trio.lowlevel.checkpoint()
        return messages.pop(0)

    async def send(message):
        raise AssertionError

    app = make_app()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/echo",
        "http_version": "1.1",
        "headers": [],
        "client": None,
    }
    async with app:
        await app(scope, receive, send)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_server_that_raises_for_a_send_after_a_disconnect_is_understood(caplog):
    async def receive():
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        raise OSError("gone")

    app = make_app()
    scope = {"type": "http", "method": "GET", "path": "/api/echo", "http_version": "1.1", "headers": [], "client": None}
    async with app:
        await app(scope, receive, send)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Header fields


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/echo", 200),
        ("GET", "/api/stream", 200),
        ("GET", "/api/fail", 500),
        ("GET", "/api/echo?n=x", 422),
        ("GET", "/api/nothing", 404),
        ("DELETE", "/api/echo", 405),
        ("OPTIONS", "/api/echo", 204),
        ("HEAD", "/api/stream", 200),
    ],
)
async def test_every_free_header_is_on_every_answer(client: Client, method, path, status):
    answer = await client.request(method, path, headers={"origin": "http://a.example"})
    assert answer.status == status
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    assert len(answer.headers["x-request-id"]) == 32


async def test_an_event_stream_has_the_header_fields_that_proxies_need(client: Client):
    answer = await client.get("/api/stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "connection" not in answer.headers


async def test_an_empty_security_setting_leaves_its_field_out():
    config = Config(security=SecurityConfig(strict_transport_security="", frame_options="SAMEORIGIN"))
    async with open_client(make_app(config)) as client:
        answer = await client.get("/api/echo")
    assert "strict-transport-security" not in answer.headers
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_X", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a\tb", False), ("", False)],
)
async def test_an_incoming_request_id_is_passed_on_where_it_is_safe(client: Client, given, kept):
    answer = await client.get("/api/echo", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is kept
    assert answer.headers["x-request-id"]


async def test_a_request_id_given_twice_is_replaced():
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/api/echo")
        stream._scope["headers"] += [(b"x-request-id", b"one"), (b"X-Request-ID", b"two")]
        async with stream:
            assert len(stream.headers["x-request-id"]) == 32


# Cross-origin


PREFLIGHT = {"origin": "https://ok.example", "access-control-request-method": "POST"}


async def test_a_preflight_is_answered_on_any_path(client: Client):
    for path in ("/api/echo", "/api/nothing"):
        answer = await client.request("OPTIONS", path, headers=PREFLIGHT)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "Content-Type" in answer.headers["access-control-allow-headers"]
        assert int(answer.headers["access-control-max-age"]) > 0
        assert "set-cookie" not in answer.headers
        assert len(answer.headers.all("access-control-allow-origin")) == 1


async def test_an_allow_list_reflects_its_origins_with_credentials_and_no_others():
    config = Config(cors=CorsConfig(allowed_origins=("https://ok.example", "https://other.example")))
    async with open_client(make_app(config)) as client:
        for method, path in (("GET", "/api/echo"), ("GET", "/api/fail"), ("GET", "/api/stream"), ("OPTIONS", "/api/x")):
            answer = await client.request(method, path, headers=PREFLIGHT)
            assert answer.headers["access-control-allow-origin"] == "https://ok.example"
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "Origin" in answer.headers["vary"]
        for origin in ({"origin": "https://evil.example"}, {}):
            answer = await client.get("/api/echo", headers=origin)
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "Origin"
        answer = await client.request("OPTIONS", "/api/echo", headers=PREFLIGHT | {"origin": "https://evil.example"})
        assert answer.status == 204
        assert "access-control-allow-methods" not in answer.headers


# Compression


async def test_a_large_answer_is_compressed_for_who_accepts_it(client: Client):
    answer = await client.get("/api/large", headers={"accept-encoding": "gzip, br"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert len(answer.body) < 200
    assert gzip.decompress(answer.body) == b'"' + b"x" * 5000 + b'"\n'


@pytest.mark.parametrize("size", [5000, 200_000])
async def test_head_has_the_header_fields_of_the_compressed_answer(client: Client, size):
    headers = {"accept-encoding": "gzip"}
    get = await client.get(f"/api/large?size={size}", headers=headers)
    head = await client.request("HEAD", f"/api/large?size={size}", headers=headers)
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/api/large", "gzip;q=0"), ("/api/large", "br"), ("/api/large?size=100", "gzip"), ("/api/stream", "gzip")],
)
async def test_what_is_small_streamed_or_not_accepted_is_not_compressed(client: Client, path, accept):
    answer = await client.get(path, headers={"accept-encoding": accept})
    assert "content-encoding" not in answer.headers
    varies = path == "/api/large"  # what would be compressed for another must say so to caches
    assert ("vary" in answer.headers) is varies


async def test_compression_can_be_switched_off():
    async with open_client(make_app(Config(compression=CompressionConfig(enabled=False)))) as client:
        answer = await client.get("/api/large", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


async def test_an_answer_without_a_body_is_not_compressed():
    app = Keryx(config=Config(compression=CompressionConfig(threshold=0)))

    @app.action("it", web=Web("/it"))
    async def it() -> Response:
        return Response(status=204)

    async with open_client(app) as client:
        answer = await client.get("/api/it", headers={"accept-encoding": "gzip"})
    assert answer.body == b""
    assert "content-encoding" not in answer.headers


# Response


async def test_a_response_of_its_own_has_its_status_type_and_headers_beside_the_standard_ones():
    app = Keryx(config=Config())

    @app.action("page", web=Web("/page"))
    async def page(kind: str = "text") -> Response:
        if kind == "text":
            return Response(
                "<h1>ü</h1>", 201, content_type="text/html; charset=utf-8", headers={"X-Frame-Options": "A"}
            )
        if kind == "empty":
            return Response(status=204)
        if kind == "packed":
            return Response("x" * 5000, headers={"content-encoding": "own"})
        return Response(bytes(3000))

    async with open_client(app, headers={"accept-encoding": "gzip"}) as client:
        answer = await client.get("/api/page")
        assert (answer.status, answer.body) == (201, "<h1>ü</h1>".encode())
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers.all("x-frame-options") == ["A"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        answer = await client.get("/api/page?kind=empty")
        assert (answer.status, answer.body) == (204, b"")
        assert "content-length" not in answer.headers
        answer = await client.get("/api/page?kind=packed")
        assert answer.headers.all("content-encoding") == ["own"]
        answer = await client.get("/api/page?kind=bytes")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "content-encoding" not in answer.headers


# The log


def make_secret_paths(config: Config | None = None) -> Keryx:
    app = Keryx(config=config or Config())

    @app.action("reset", web=Web("/reset/{token}/for/{name}", method="POST"))
    async def reset(token: Annotated[str, SECRET], name: str, note: str = "") -> None: ...

    @app.action("show", web=Web("/reset/{user}/for/{name}"))
    async def show(user: str, name: str) -> None: ...

    return app


SPELLINGS = [
    "swordfish",
    "sword%66ish",
    "hunter2!a%2Fb%3Dc",
    "k3y%2Fa+b==",
    "%54r0ub4dor",
    "token",
    "reset",
    "for",
    "a",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("method", "content", "status"),
    [("POST", b"", 200), ("POST", b"{", 400), ("POST", b"x" * 101, 413), ("PUT", b"", 405), ("OPTIONS", b"", 204)],
)
async def test_a_secret_in_a_path_is_not_told_however_it_is_spelt(method, content, status, spelling, caplog):
    caplog.set_level("DEBUG", "keryx_trio")
    async with open_client(make_secret_paths(Config(max_body_size=100))) as client:
        answer = await client.request(method, f"/api/reset/{spelling}/for/me", content=content)
    assert answer.status == status
    told = answer.text + caplog.text
    assert f"/{spelling}/for" not in told
    assert ("/api/reset/[[secret]]/for/me" in told) is (status != 204)


async def test_a_segment_that_is_secret_for_another_method_only_is_shown(caplog):
    caplog.set_level("DEBUG", "keryx_trio")
    async with open_client(make_secret_paths()) as client:
        await client.get("/api/reset/swordfish/for/me")
    assert "/api/reset/swordfish/for/me" in caplog.text


async def test_a_secret_in_the_path_of_a_client_that_leaves_or_comes_too_late_is_not_logged(caplog, autojump_clock):
    caplog.set_level("DEBUG", "keryx_trio")
    app = make_secret_paths()
    async with open_client(app) as client:
        stream = client.stream("POST", "/api/reset/swordfish/for/me")
        scope = stream._scope

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None: ...

        await app(scope, receive, send)
        app.shut_down()
        assert (await client.post("/api/reset/swordfish/for/me")).status == 503
    assert "swordfish" not in caplog.text
    assert "left before its call began url=/api/reset/[[secret]]/for/me" in caplog.text
    assert "status=503 method=POST url=/api/reset/[[secret]]/for/me" in caplog.text


async def test_what_never_became_a_call_is_logged_too(client: Client, caplog):
    caplog.set_level("INFO", "keryx_trio")
    await client.get("/api/nothing")
    assert "404" in caplog.text
    assert "/api/nothing" in caplog.text
