"""The answer to one call of an agent: shown while it runs, told whole at its end.

Owns: the form of an answer in the Model Context Protocol. Does not know: what was called, or through which connection.

While a stream runs, the data of each event goes out as a logging message, and as progress where the client asked for
that. Both are tied to the request, so they take the way that its result will take. The result is the text of all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
import msgspec
import trio

from ..response import Response
from ..streaming import ByteStream
from ..wire import json
from ..wire.text import to_base64
from .collecting import Collector, Sent
from .patience import patience

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

Contents = types.TextResourceContents | types.BlobResourceContents

LOGGER: Final = "keryx_trio"
"""What the logging messages name as their source."""


class McpReply(Collector):
    """The answer to one call.

    Args:
        context: the request, as the SDK has it.
        logs: whether the client wants logging messages of level info.
        limit: the most that is kept of a stream, in bytes.
        timeout: how long the client may take nothing of a message, in seconds; 0 for any time.
    """

    def __init__(self, context: ServerRequestContext[Any, Any], *, logs: bool, limit: int, timeout: float) -> None:
        super().__init__(limit)
        self._context = context
        self._logs = logs
        self._timeout = timeout
        self._progress = 0

    async def value(self, value: Any) -> None:
        """The action returned it; what has no form on the wire raises."""
        if isinstance(value, Response):
            await super().value(_parsed(value) if "json" in value.content_type else value.value)
        else:
            await super().value(value if isinstance(value, str) else msgspec.json.decode(json.encode(value)))

    @property
    def is_object(self) -> bool:
        """Whether the action returned an object."""
        return self.stream is None and isinstance(self.returned, dict)

    async def show(self, items: list[Sent]) -> None:
        """Send what an event carries, as it comes. Of a byte stream text alone is worth a look."""
        is_text = not isinstance(self.stream, ByteStream)
        for item in items:
            if is_text or isinstance(item.data, str):
                await self._show(item.data if isinstance(item.data, str) else msgspec.json.decode(item.data))
        await trio.lowlevel.checkpoint()

    async def _show(self, data: Any) -> None:
        data = "null" if data is None else data  # which the SDK would leave out
        session, request = self._context.session, str(self._context.request_id)
        if self._logs:
            message = types.LoggingMessageNotification(
                params=types.LoggingMessageNotificationParams(level="info", logger=LOGGER, data=data)
            )
            with patience(self._timeout):
                await session.send_notification(message, related_request_id=request)
        self._progress += 1
        with patience(self._timeout):
            await session.report_progress(self._progress)

    # What became of it

    def tool_result(self, uri: str) -> types.CallToolResult:
        """The result of a tool.

        Args:
            uri: names a stream of bytes, which is embedded.
        """
        content: list[types.ContentBlock] = []
        structured = None
        if isinstance(self.stream, ByteStream):
            if self.text or self.body or self.failed is None:
                content.append(types.EmbeddedResource(type="resource", resource=self._embedded(self.stream, uri)))
        elif self.stream is not None:
            if self.text or self.failed is None:
                content.append(_text(self.text))
        elif self.failed is None:
            content.append(_text(self.returned if isinstance(self.returned, str) else _json(self.returned)))
            structured = self.returned if isinstance(self.returned, dict) else None
        if self.failed is not None:
            content.append(_text(_json({"error": self.failed})))
        return types.CallToolResult(content=content, structured_content=structured, is_error=self.failed is not None)

    def resource(self, uri: str) -> Contents:
        """The contents of a resource: of `{"text" or "blob": ..., "mimeType"?}`, of a stream, or of a plain text.

        Raises:
            TypeError: the action returned none of these.
        """
        if isinstance(self.stream, ByteStream):
            return self._embedded(self.stream, uri)
        if self.stream is not None or isinstance(self.returned, str):
            text = self.returned if self.stream is None else self.text
            return types.TextResourceContents(uri=uri, mime_type="text/plain", text=text)
        returned = self.returned if isinstance(self.returned, dict) else {}
        mime_type = returned.get("mimeType")
        match returned:
            case {"text": str(text)}:
                return types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
            case {"blob": str(blob)}:
                return types.BlobResourceContents(uri=uri, mime_type=mime_type, blob=blob)
        raise TypeError('a resource returns {"text": ...} or {"blob": ...}, with a "mimeType" beside it')

    def _embedded(self, stream: ByteStream, uri: str) -> Contents:
        if self.is_text:
            return types.TextResourceContents(uri=uri, mime_type=stream.content_type, text=self.text)
        return types.BlobResourceContents(uri=uri, mime_type=stream.content_type, blob=to_base64(self.body))


def _parsed(response: Response) -> Any:
    """What a body of JSON says; the text, where it says nothing."""
    try:
        return msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        return response.value


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _json(value: object) -> str:
    return json.encode(value).decode()
