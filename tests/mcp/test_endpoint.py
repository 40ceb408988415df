"""The endpoint over HTTP: who may ask, what belongs to a session, and what ends a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from mcp.server.auth.provider import AccessToken

from keryx_trio import Config, Connection, EventStream, Keryx, McpConfig, RequireSession, StreamingResponse
from tests.e2e.raw import open_raw
from tests.e2e.serving import serve, until
from tests.mcp.agents import ACCEPT, INITIALIZE, LEGACY, MODES, NEWEST, agent, message, open_session, result

LIMIT = 20.0
modes = pytest.mark.parametrize("mode", MODES)


class Stage:
    """An application with a stream that tells when it has been cleaned up."""

    def __init__(self, *, mcp: McpConfig | None = None, **settings: Any) -> None:
        self.app = Keryx(config=Config(**settings), mcp=mcp or True)
        self.begun = trio.Event()
        self.cleaned = trio.Event()

        @self.app.action("stream", timeout=0)
        async def stream() -> StreamingResponse:
            async def produce(sse: EventStream) -> None:
                try:
                    await sse.send("here")
                    self.begun.set()
                    await trio.sleep_forever()
                finally:
                    self.cleaned.set()

            return StreamingResponse.sse(produce)

        @self.app.action("plain")
        async def plain() -> str:
            return "plain"

        @self.app.action("visits")
        async def visits(connection: Connection) -> int:
            count = connection.session.data.get("visits", 0) + 1
            await connection.session.update(visits=count)
            return count


# What ends a call


@modes
async def test_cancelling_a_call_ends_its_producer_at_once(
    mode: str, journal: Any, measured: Callable[[str], None]
) -> None:
    stage = Stage()
    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, agent(server, mode) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call_tool, "stream", {})
                await stage.begun.wait()
                start = trio.current_time()
                nursery.cancel_scope.cancel()
            await stage.cleaned.wait()
            measured(f"the producer had ended {(trio.current_time() - start) * 1000:.1f} ms after the cancel")
            assert (await client.call_tool("plain", {})).content[0].text == "plain"
    assert journal.fields("outcome") == ["client gone"]


async def test_a_client_of_an_older_protocol_that_is_gone_cancels_its_calls(journal: Any) -> None:
    stage = Stage()
    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            fields = await open_session(client)
            body = json.dumps(message("tools/call", {"name": "stream", "arguments": {}})).encode()
            async with open_raw(server.port) as raw:
                own = [f"{name}: {value}" for name, value in fields.items()]
                own = ["Host: localhost", "Content-Type: application/json", *own]
                await raw.send(
                    "\r\n".join(["POST /mcp HTTP/1.1", *own, f"Content-Length: {len(body)}", "", ""]).encode() + body
                )
                await stage.begun.wait()
            await stage.cleaned.wait()
    assert journal.fields("outcome") == ["client gone"]


async def test_the_end_of_a_session_ends_its_calls(journal: Any) -> None:
    stage = Stage()

    async def run() -> None:
        await client.post("/mcp", json=message("tools/call", {"name": "stream"}), headers=fields)

    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client, trio.open_nursery() as nursery:
            fields = await open_session(client)
            nursery.start_soon(run)
            await stage.begun.wait()
            assert (await client.request("DELETE", "/mcp", headers=fields)).status_code == 200
            await stage.cleaned.wait()
            again = await client.post("/mcp", json=message("tools/list"), headers=fields)
            assert again.status_code == 404
            nursery.cancel_scope.cancel()
    assert journal.fields("outcome") == ["client gone"]


@modes
async def test_a_stop_gives_calls_their_last_words_and_ends_what_only_listens(mode: str, journal: Any) -> None:
    stage, results = Stage(drain_timeout=1), []

    async def run() -> None:
        results.append(await client.call_tool("stream", {}))

    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, agent(server, mode) as client:
            await client.list_tools()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await stage.begun.wait()
                stage.app.shut_down()
            await until(lambda: not stage.app._calls)
    assert results[0].is_error
    assert results[0].content[0].text == "here"
    assert "CONNECTION_UNAVAILABLE" in results[0].content[1].text
    assert journal.fields("outcome") == ["shutdown"]


async def test_a_request_that_a_stop_cuts_short_has_an_answer_all_the_same() -> None:
    stage, answers = Stage(drain_timeout=0.2), []

    @stage.app.action("stubborn", timeout=0)
    async def stubborn() -> None:
        stage.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def run() -> None:
        answers.append(await ask_newest(client, {}, "stubborn"))

    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await stage.begun.wait()
            stage.app.shut_down()
    assert answers[0].status_code in (200, 503)
    assert "CONNECTION_UNAVAILABLE" in answers[0].text


async def test_a_client_that_only_listens_has_its_end_at_a_stop() -> None:
    stage = Stage(drain_timeout=1)
    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            fields = await open_session(client)
            async with client.stream("GET", "/mcp", headers=fields) as answer:
                assert answer.status_code == 200
                stage.app.shut_down()
                assert [data async for data in answer.aiter_bytes()] in ([], [b""])


async def test_a_body_that_stops_coming_is_refused(journal: Any) -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage(read_timeout=0.2).app) as server, open_raw(server.port) as raw:
            raw.expect("POST")
            await raw.send(
                b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            assert (await raw.head()).status == 408
    assert journal.take_errors() == []


async def test_no_request_is_taken_while_the_application_stops() -> None:
    stage = Stage(drain_timeout=1)
    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            fields = await open_session(client)
            stage.app.shut_down()
            refused = await client.post("/mcp", json=message("tools/list"), headers=fields)
    assert refused.status_code == 503
    assert refused.json()["error"]["data"]["error"]["type"] == "CONNECTION_UNAVAILABLE"


async def test_a_client_that_takes_nothing_is_given_up(journal: Any) -> None:
    stage = Stage(write_timeout=0.3)

    @stage.app.action("firehose", timeout=0)
    async def firehose() -> StreamingResponse:
        async def produce(sse: EventStream) -> None:
            try:
                while True:
                    await sse.send("x" * 10_000)
            finally:
                stage.cleaned.set()

        return StreamingResponse.sse(produce)

    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            fields = await open_session(client)
            body = json.dumps(message("tools/call", {"name": "firehose"})).encode()
            async with open_raw(server.port, receive_buffer=4096) as raw:
                own = [f"{name}: {value}" for name, value in fields.items()]
                own = ["Host: localhost", "Content-Type: application/json", *own]
                await raw.send(
                    "\r\n".join(["POST /mcp HTTP/1.1", *own, f"Content-Length: {len(body)}", "", ""]).encode() + body
                )
                await stage.cleaned.wait()
    assert journal.fields("outcome") == ["client gone"]


# Who may ask


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", None, 200),
        ("localhost:8000", None, 200),
        ("127.0.0.1:9", None, 200),
        ("[::1]:8000", None, 200),
        ("LocalHost:8000", "http://LOCALHOST:3000", 200),
        ("localhost", "http://localhost", 200),
        ("localhost", "https://127.0.0.1:1", 200),
        ("localhost", "https://friend.example", 200),
        ("api.example:8443", None, 200),
        ("api.example", None, 421),
        ("evil.example", None, 421),
        ("evil.example:8000", "http://evil.example:8000", 421),
        ("localhost.evil.example", None, 421),
        ("localhost@evil.example", None, 421),
        ("", None, 421),
        ("localhost", "http://evil.example", 403),
        ("localhost", "null", 403),
        ("localhost", "file://localhost", 403),
        ("localhost", "http://localhost.evil.example", 403),
    ],
)
async def test_only_known_hosts_and_their_pages_are_served(host: str, origin: str | None, status: int) -> None:
    settings = McpConfig(
        allowed_hosts=("localhost", "127.0.0.1", "[::1]", "api.example:8443"),
        allowed_origins=("https://friend.example",),
    )
    with trio.fail_after(LIMIT):
        async with serve(Stage(mcp=settings).app) as server, server.client() as client:
            headers = {**ACCEPT, "Host": host, **({"Origin": origin} if origin else {})}
            answer = await client.post("/mcp", json=INITIALIZE, headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed == (origin if status == 200 else None)
    if status != 200:
        assert answer.json()["error"]["data"]["error"]["type"] == "CONNECTION_CHANNEL_AUTHORIZATION"
        assert "KERYX_MCP_ALLOWED_" in answer.json()["error"]["message"]


async def test_a_page_that_may_ask_may_look_before_it_asks() -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage().app) as server, server.client() as client:
            headers = {
                "Origin": "http://localhost:6274",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "mcp-session-id, authorization",
            }
            answer = await client.options("/mcp", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:6274"
    assert answer.headers["access-control-allow-headers"] == "mcp-session-id, authorization"
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert answer.headers["vary"] == "Origin"


async def test_a_request_id_goes_through_to_the_call_and_back(journal: Any) -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage().app) as server, server.client() as client:
            fields = await open_session(client, **{"X-Request-Id": "mine"})
            answer = await client.post("/mcp", json=message("tools/call", {"name": "plain"}), headers=fields)
    assert answer.headers["x-request-id"] == "mine"
    assert result(answer)["result"]["content"][0]["text"] == "plain"
    assert "mine" in journal.fields("correlation_id")


async def test_the_endpoint_moves_and_nothing_else_is_taken() -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage(mcp=McpConfig(route="/agents")).app) as server, server.client() as client:
            assert (await client.post("/agents", json=INITIALIZE, headers=ACCEPT)).status_code == 200
            assert (await client.post("/mcp", json=INITIALIZE, headers=ACCEPT)).status_code == 404
            assert (await client.get("/.well-known/oauth-protected-resource/agents")).status_code == 404


async def test_a_body_that_is_too_large_is_refused() -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage(max_body_size=1000).app) as server, server.client() as client:
            answer = await client.post(
                "/mcp", content=b" " * 1001, headers={**ACCEPT, "Content-Type": "application/json"}
            )
    assert answer.status_code == 413


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_it_speaks_every_version_of_http(http2: bool) -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage().app) as server, server.client(http2=http2) as client:
            fields = await open_session(client)
            answer = await client.post("/mcp", json=message("tools/call", {"name": "plain"}), headers=fields)
    assert result(answer)["result"]["content"][0]["text"] == "plain"


# Sessions


async def test_a_session_is_that_of_the_protocol() -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage().app) as server, agent(server, LEGACY) as first, agent(server, LEGACY) as second:
            counts = [(await client.call_tool("visits", {})).content[0].text for client in (first, first, second)]
        async with serve(Stage().app) as server, agent(server, NEWEST) as newer:  # which has none
            counts += [(await newer.call_tool("visits", {})).content[0].text for _ in range(2)]
    assert counts == ["1", "2", "1", "1", "1"]


async def test_an_id_of_the_protocol_is_no_cookie() -> None:
    stage = Stage()
    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            fields = await open_session(client)
            await client.post("/mcp", json=message("tools/call", {"name": "visits"}), headers=fields)
            [stored] = stage.app.store._sessions
    assert stored != fields["Mcp-Session-Id"]


# Tokens


async def verify(token: str) -> AccessToken | None:
    scopes = {"good": ["read"], "narrow": []}
    if token not in scopes:
        return None
    return AccessToken(token=token, client_id="the client", subject="ada", scopes=scopes[token])


class Verifier:
    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="the client", scopes=[]) if token == "other" else None


def guarded(**settings: Any) -> Stage:
    stage = Stage(mcp=McpConfig(**{"verify_token": verify, **settings}))

    @stage.app.action("me", middleware=[RequireSession()])
    async def me(connection: Connection) -> Any:
        return connection.session.data["user_id"]

    return stage


async def test_without_a_token_that_is_known_the_way_to_one_is_told() -> None:
    servers = ("https://login.example",)
    with trio.fail_after(LIMIT):
        async with serve(guarded(authorization_servers=servers).app) as server, server.client() as client:
            for headers in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic good"}):
                answer = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **headers})
                assert answer.status_code == 401
                challenge = answer.headers["www-authenticate"]
                url = f"{server.url}/.well-known/oauth-protected-resource/mcp"
                assert challenge.startswith("Bearer ")
                assert f'resource_metadata="{url}"' in challenge
                assert answer.headers["x-frame-options"] == "DENY"
            metadata = await client.get(url)
    assert metadata.json() == {
        "resource": f"{server.url}/mcp",
        "authorization_servers": ["https://login.example"],
        "bearer_methods_supported": ["header"],
    }


@modes
async def test_whoever_holds_a_token_is_the_user_of_the_session(mode: str) -> None:
    with trio.fail_after(LIMIT):
        async with serve(guarded().app) as server, server.client() as client:
            headers = {"Authorization": "Bearer good"}
            if mode == LEGACY:
                headers = await open_session(client, **headers)
                answer = await client.post("/mcp", json=message("tools/call", {"name": "me"}), headers=headers)
                others = {**headers, "Authorization": "Bearer narrow-minded"}
                assert (await client.post("/mcp", json=message("tools/list"), headers=others)).status_code == 401
            else:
                answer = await ask_newest(client, headers)
    assert result(answer)["result"]["content"][0]["text"] == "ada"


async def ask_newest(
    client: httpx.AsyncClient, headers: dict[str, str], name: str = "me", arguments: dict[str, Any] | None = None
) -> httpx.Response:
    """A request of the newest protocol, which carries all it needs."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    fields = {**ACCEPT, **headers, "MCP-Protocol-Version": NEWEST, "Mcp-Method": "tools/call", "Mcp-Name": name}
    said = message("tools/call", {"name": name, "arguments": arguments or {}, "_meta": meta})
    return await client.post("/mcp", json=said, headers=fields)


async def test_scopes_that_a_token_lacks_are_named() -> None:
    with trio.fail_after(LIMIT):
        async with serve(guarded(required_scopes=("read",)).app) as server, server.client() as client:
            headers = {**ACCEPT, "Authorization": "Bearer narrow"}
            refused = await client.post("/mcp", json=INITIALIZE, headers=headers)
            allowed = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, "Authorization": "Bearer good"})
    assert (refused.status_code, allowed.status_code) == (403, 200)
    assert "insufficient_scope" in refused.headers["www-authenticate"]


async def test_a_verifier_of_the_sdk_serves_and_the_public_url_is_told() -> None:
    settings = {"verify_token": Verifier(), "resource_url": "https://api.example/mcp"}
    with trio.fail_after(LIMIT):
        async with serve(guarded(**settings).app) as server, server.client() as client:
            known = await ask_newest(client, {"Authorization": "Bearer other"})
            unknown = await client.post("/mcp", json=INITIALIZE, headers=ACCEPT)
            metadata = await client.get("/.well-known/oauth-protected-resource/mcp")
    assert result(known)["result"]["content"][0]["text"] == "the client"
    assert "https://api.example/.well-known/oauth-protected-resource/mcp" in unknown.headers["www-authenticate"]
    assert metadata.json()["resource"] == "https://api.example/mcp"


@pytest.mark.parametrize("own", ["theirs", "x"])
async def test_no_id_of_a_session_leads_to_what_another_user_put_in(own: str) -> None:
    async def anybody(token: str) -> AccessToken | None:
        client, _, subject = token.partition("/")
        return AccessToken(token=token, client_id=client, subject=subject, scopes=[])

    stage = guarded(verify_token=anybody)

    @stage.app.action("put")
    async def put(connection: Connection, value: str) -> None:
        await connection.session.update(value=value, user_id="mallory")

    @stage.app.action("get")
    async def get(connection: Connection) -> Any:
        return {"value": None, **connection.session.data}

    with trio.fail_after(LIMIT):
        async with serve(stage.app) as server, server.client() as client:
            ada = await open_session(client, Authorization="Bearer a b/c")
            said = message("tools/call", {"name": "put", "arguments": {"value": "secret"}})
            await client.post("/mcp", json=said, headers=ada)
            mine = await client.post("/mcp", json=message("tools/call", {"name": "get"}), headers=ada)
            fields = {"Mcp-Session-Id": ada["Mcp-Session-Id"] if own == "theirs" else own}
            fields["Authorization"] = "Bearer a/b c"
            for name, arguments in (("get", {}), ("put", {"value": "by bob"})):
                theirs = await ask_newest(client, fields, name, arguments)
            theirs = await ask_newest(client, fields, "get")
            again = await client.post("/mcp", json=message("tools/call", {"name": "get"}), headers=ada)
    assert result(mine)["result"]["structuredContent"] == {"value": "secret", "user_id": "c"}
    assert result(again)["result"]["structuredContent"] == {"value": "secret", "user_id": "c"}
    assert result(theirs)["result"]["structuredContent"] == {"value": "by bob", "user_id": "b c"}


async def test_without_tokens_an_id_that_a_newer_client_makes_up_is_nothing() -> None:
    with trio.fail_after(LIMIT):
        async with serve(Stage().app) as server, server.client() as client:
            answers = [await ask_newest(client, {"Mcp-Session-Id": "x"}, "visits") for _ in range(2)]
    assert [result(answer)["result"]["content"][0]["text"] for answer in answers] == ["1", "1"]


async def test_a_verifier_that_fails_is_a_fault_of_ours(journal: Any) -> None:
    async def broken(token: str) -> None:
        raise LookupError("the database is gone")

    with trio.fail_after(LIMIT):
        async with serve(guarded(verify_token=broken).app) as server, server.client() as client:
            answer = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, "Authorization": "Bearer x"})
    assert answer.status_code == 500
    assert "database" not in answer.text
    assert "the database is gone" in journal.take_errors()[0]
