"""`Response`: an answer with a body, a status and a content type of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .wire import headers as header_fields
from .wire.text import text_decoder, to_base64

FINAL: Final = range(200, 600)
BODILESS: Final = frozenset({204, 205, 304})


class Response:
    """Send `body` as it is, with its own status, instead of a value as JSON.

    Args:
        body: text (sent as UTF-8) or bytes.
        status: 200 to 599; 204, 205 and 304 have no body.
        content_type: default `text/plain; charset=utf-8` for text, `application/octet-stream` for bytes.
        headers: more header fields; they win over the standard ones.

    Over transports other than HTTP the body is the value: the text, or base64.

    Raises:
        TypeError: the body is neither text nor bytes.
        ValueError: the status is out of range, a bodiless one has a body, or a header field is malformed.
    """

    __slots__ = ("body", "content_type", "headers", "status", "text")

    def __init__(
        self,
        body: str | bytes = b"",
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(body, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a Response's body is str or bytes, not {type(body).__name__}; return a value for JSON")
        if status not in FINAL:
            raise ValueError(f"{status} is no status of an answer: 200 to 599")
        if status in BODILESS and body:
            raise ValueError(f"an answer with status {status} has no body")
        self.text = isinstance(body, str)
        self.body = body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body)
        self.status = int(status)
        self.content_type = content_type or ("text/plain; charset=utf-8" if self.text else "application/octet-stream")
        fields = header_fields.checked(headers)
        own = [] if status in BODILESS else [header_fields.content_type(self.content_type)]
        self.headers = own + [field for field in fields if field[0] not in (b"content-type", b"content-length")]

    @property
    def value(self) -> str:
        """The body as a value, where there is no place for a status: the text that it is, or base64."""
        decoder = text_decoder("text/plain" if self.text else self.content_type)
        return to_base64(self.body) if decoder is None else str(decoder.decode(self.body, final=True))

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.content_type} {len(self.body)} bytes>"
