"""WebSocket in memory: what both sides say, message by message.

Owns: the server's side of ASGI for one socket. Does not know: what is asked on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import trio

from .http import Answer, Headers

if TYPE_CHECKING:
    from .client import Client

ABNORMAL: Final = 1006
"""What stands for the code of a close that nobody wrote (RFC 6455, section 7.4.1)."""


class Denied(Exception):  # noqa: N818 - as trio names things: for a state
    """There is no socket; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the handshake was answered with status {answer.status}: {answer.body.decode()}")
        self.answer = answer


class Socket:
    """A WebSocket, in `async with`; leaving the block leaves the socket.

    Attributes:
        headers: of the handshake's answer.
        close_code: None while it is open, then the code of the application's close.
        over: set once the application has done with it.
    """

    def __init__(self, client: Client, scope: dict[str, Any]) -> None:
        self.headers = Headers([])
        self.close_code: int | None = None
        self.over = trio.Event()
        self._client, self._scope = client, scope
        self._asked = self._told = False
        self._rude: AssertionError | None = None
        self._say, self._hear = trio.open_memory_channel[dict[str, Any]](0)
        self._send, self._receive = trio.open_memory_channel[dict[str, Any]](0)
        client.nursery.start_soon(self._run, name=f"socket {scope['path']}")

    def __repr__(self) -> str:
        return f"<Socket {self._scope['path']}>"

    async def __aenter__(self) -> Self:
        """Shake hands.

        Raises:
            Denied: the application wants no socket.
        """
        try:
            await self._shake_hands()
        except BaseException:
            self.leave()
            raise
        return self

    async def _shake_hands(self) -> None:
        message = await self._next()
        if message["type"] == "websocket.close":
            raise Denied(Answer(403, Headers([]), b""))
        self.headers = Headers(message["headers"])
        if message["type"] == "websocket.http.response.start":
            raise Denied(Answer(message["status"], self.headers, (await self._next())["body"]))
        self._client.keep_cookies(self.headers)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave, and wait until the application has noticed and cleaned up.

        Raises:
            AssertionError: the application has sent or read on after it was told that the client has left.
        """
        self.leave()
        await self.over.wait()  # noqa: ASYNC102 - the test's own cancellation may end it
        if self._rude is not None and error is None:
            raise self._rude

    def leave(self) -> None:
        """Close the connection, as a client that goes away does."""
        self._say.close()
        self._receive.close()

    async def send(self, message: Any) -> None:
        """Say something: text or bytes as they are, anything else as JSON.

        Raises:
            EOFError: the application has closed the socket.
        """
        data = message if isinstance(message, bytes) else None
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode() if data is None else None
        try:
            await self._say.send({"type": "websocket.receive", "text": text, "bytes": data})
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise EOFError("the socket is closed") from None

    async def ask(self, action: str, params: Mapping[str, Any] | None = None, *, id: str | float | None = None) -> None:  # noqa: A002
        """Ask for a call; raises like `send`."""
        await self.send({"messageType": "action", "action": action, "params": params, "messageId": id})

    async def cancel(self, id: str | float) -> None:  # noqa: A002 - the name of the field on the wire
        """Want no more of a call; raises like `send`."""
        await self.send({"messageType": "cancel", "messageId": id})

    async def receive(self) -> Any:
        """The next message, read as JSON; raises like `receive_text`."""
        return msgspec.json.decode(await self.receive_text())

    async def receive_text(self) -> str:
        """The next message.

        Raises:
            EOFError: the application has closed the socket; `close_code` tells why.
        """
        if self.close_code is not None:
            raise EOFError(f"the socket was closed with {self.close_code}")
        message = await self._next()
        if message["type"] != "websocket.send":
            self.close_code = message["code"]
            raise EOFError(f"the socket was closed with {self.close_code}: {message['reason']}")
        return str(message["text"])

    async def _next(self) -> dict[str, Any]:
        with suppress(trio.EndOfChannel):
            return await self._receive.receive()
        self.close_code = ABNORMAL
        await trio.lowlevel.checkpoint()  # where the application crashed, that is what the test gets to see
        raise EOFError("the application ended without a close")

    async def _run(self) -> None:
        try:
            with self._send, self._hear:
                await self._client.app(self._scope, self._next_message, self._take_message)
        finally:
            self.over.set()

    async def _next_message(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        if self._told:
            self._rude = AssertionError("the application reads on after it was told of the disconnect")
            raise self._rude
        try:
            return await self._hear.receive()
        except trio.EndOfChannel:
            self._told = True
            return {"type": "websocket.disconnect", "code": ABNORMAL}

    async def _take_message(self, message: dict[str, Any]) -> None:
        if self._told:
            self._rude = AssertionError(f"the application sent {message['type']} after it was told of the disconnect")
            raise self._rude
        try:
            await self._send.send(message)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()  # the client is gone, which is still to be told: servers say nothing here
        if message["type"] == "websocket.close":
            self._say.close()  # which the client answers with its own
