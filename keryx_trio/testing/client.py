"""The client: what it asks for, what it keeps between its requests, and the check that nothing of them is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
import trio

from ..app import Keryx
from ..connection import ConnectionType
from ..errors import unwrap
from .http import Answer, Headers, Stream
from .websocket import Socket

PATIENCE: Final = 30.0
"""How long the check for what is left waits for calls to end, in seconds of the test's clock."""


class Client:
    """Talks to an application in memory. Made by `open_client`."""

    def __init__(self, app: Keryx, nursery: trio.Nursery, headers: Mapping[str, str] | None) -> None:
        self.app = app
        self.nursery = nursery
        self._headers = dict(headers or {})
        self.cookies: dict[str, str] = {}
        self._open: list[Stream | Socket] = []

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        form: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """A request whose answer is read piece by piece, in `async with`; leaving the block leaves the answer.

        Args:
            method: such as `GET`.
            path: with or without a query.
            params: the query.
            json: a JSON body.
            form: a urlencoded body.
            content: a body as it is.
            headers: of this request.
        """
        if json is not None:
            content, kind = msgspec.json.encode(json), "application/json"
        elif form is not None:
            content, kind = urlencode(form, doseq=True).encode(), "application/x-www-form-urlencoded"
        else:
            kind = None
        fields = {"content-type": kind} if kind is not None else {}
        scope = {
            **self._scope(path, {**fields, **(headers or {})}, params),
            "type": "http",
            "method": method,
            "scheme": "http",
            "extensions": {},
        }
        stream = Stream(self, scope, content or b"")
        self._opened(stream)
        return stream

    def websocket(self, path: str = "/", *, headers: Mapping[str, str] | None = None) -> Socket:
        """A WebSocket, in `async with`; leaving the block leaves the socket.

        Args:
            path: with or without a query.
            headers: of the handshake.
        """
        scope = {
            **self._scope(path, headers or {}),
            "type": "websocket",
            "scheme": "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        socket = Socket(self, scope)
        self._opened(socket)
        return socket

    def _scope(self, path: str, headers: Mapping[str, str], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What any request has in its ASGI scope."""
        path, _, query = path.partition("?")
        given = {name.lower(): value for name, value in (*self._headers.items(), *headers.items())}
        fields = {"host": "testserver", **given}
        if self.cookies and "cookie" not in fields:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "path": path,
            "raw_path": quote(path, safe="/%:@!$&'()*+,;=~").encode(),
            "query_string": (urlencode(params, doseq=True) if params else query).encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
            "client": ("127.0.0.1", 0),
            "server": ("testserver", 80),
        }

    def _opened(self, what: Stream | Socket) -> None:
        self._open = [each for each in self._open if not each.over.is_set()] + [what]

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        """A request and its whole answer; the options are those of `stream`."""
        async with self.stream(method, path, **options) as stream:
            body = await stream.read()
            if not stream.complete:
                raise EOFError(f"the answer was cut after {len(body)} bytes")
            return Answer(stream.status, stream.headers, body)

    async def get(self, path: str, **options: Any) -> Answer:
        """`request("GET", ...)`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        """`request("POST", ...)`."""
        return await self.request("POST", path, **options)

    def keep_cookies(self, headers: Headers) -> None:
        """Keep what an answer sets, as browsers do; `client.cookies` may be changed at will."""
        for field in headers.all("set-cookie"):
            name, _, value = field.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()

    def shut_down(self) -> None:
        """Tell the application that its server stops, as a signal does."""
        self.app.shut_down()

    async def check_nothing_left(self, patience: float = PATIENCE) -> None:
        """Wait until every call has ended. Jobs are nobody's here: the application lets them end when it does.

        Raises:
            AssertionError: after `patience` seconds some have not, or a connection is still registered.
        """
        with trio.move_on_after(patience):
            for each in self._open:
                await each.over.wait()
        calls = [each for each in self._open if not each.over.is_set()]
        connections = [each for each in self.app.connections.values() if each.type is not ConnectionType.TASK]
        if calls or connections:
            self.nursery.cancel_scope.cancel()
            raise AssertionError(f"left behind: calls {calls}, connections {connections}")


@asynccontextmanager
async def open_client(app: Keryx, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[Client]:
    """Run an application and talk to it; at the end check that no call and no connection is left.

    Args:
        headers: sent with every request.

    Raises:
        AssertionError: at the end, where something is left.
    """
    failed: Exception | None = None
    async with app:
        try:
            async with trio.open_nursery() as nursery:
                client = Client(app, nursery, headers)
                try:
                    yield client
                    await client.check_nothing_left()
                except Exception as error:
                    failed = error
                    raise
        except ExceptionGroup as group:
            if failed is None or unwrap(group) is not failed:
                raise
            raise failed from failed.__cause__  # the test's own error, and no other: as it was raised
