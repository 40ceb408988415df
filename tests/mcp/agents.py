"""Agents for the tests: the SDK's client, and bare requests to the endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import mcp_types as types
from mcp.client.client import Client

from tests.e2e.serving import Server

LEGACY: Final = "legacy"
NEWEST: Final = "2026-07-28"
MODES: Final = (LEGACY, NEWEST)
ACCEPT: Final = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def agent(server: Server, mode: str, logged: list[Any] | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client; what is logged to it goes to `logged`."""

    async def log(message: types.LoggingMessageNotificationParams) -> None:
        if logged is not None:
            logged.append(message.data)

    settings = {"log_level": "info", "logging_callback": log, **options}
    async with Client(f"{server.url}/mcp", mode=mode, **settings) as client:
        yield client


def message(method: str, params: dict[str, Any] | None = None, id: int | None = 1) -> dict[str, Any]:
    """A JSON-RPC message; without an id a notification."""
    said = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    return said if id is None else {**said, "id": id}


INITIALIZE: Final = message(
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
)


async def open_session(client: httpx.AsyncClient, **headers: str) -> dict[str, str]:
    """Shake hands as an older client does; returns the header fields of the requests to come."""
    answer = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **headers})
    assert answer.status_code == 200, answer.text
    fields = {**ACCEPT, **headers, "Mcp-Session-Id": answer.headers["mcp-session-id"]}
    fields["MCP-Protocol-Version"] = "2025-06-18"
    await client.post("/mcp", json=message("notifications/initialized", id=None), headers=fields)
    return fields


def result(answer: httpx.Response) -> dict[str, Any]:
    """What a request was answered with: the last message of its stream."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return json.loads(lines[-1] if lines else answer.text)
