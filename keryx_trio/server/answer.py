"""How an answer looks in HTTP/1.1: its head, and the frame of its body.

Owns: the bytes of an answer, and whether they keep to what its head says. Does not know: sockets, or who answers.

Invariant: nothing an application puts into a field can begin another one, and no body is longer or shorter than its
Content-Length says; what would be is an error of the application.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from .http1 import TOKEN, Fields

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSING: Final = b"\r\nconnection: close\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

NO_BODY: Final = frozenset({204, 304})
"""What has no body, and no frame for one."""
_NAME: Final = re.compile(TOKEN)
_LINE_END: Final = re.compile(rb"[\r\n\0]")


class Answer:
    """The answer to one request.

    Args:
        method: of the request.
        version: of the request.
        keeps: whether the connection may be used again, as far as the request goes.

    Attributes:
        keeps: the same, as far as the answer goes too.
        until_close: whether nothing but the end of the connection ends the body, so that a cut looks like an end.
    """

    __slots__ = ("_chunked", "_left", "_silent", "_version", "keeps", "until_close")

    def __init__(self, method: str, version: str, *, keeps: bool) -> None:
        self._version = version
        self._silent = method == "HEAD"
        self._chunked = False
        self._left: int | None = None
        self.keeps = keeps
        self.until_close = False

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]], more: Fields) -> bytes:
        """The head; `more` are the server's own fields.

        Raises:
            ValueError: a status or a field that can't be sent.
        """
        lines = [_status_line(status)]
        length: bytes | None = None
        says_close = False
        for name, value in headers:
            known, line, value = _lines.get((name, value)) or _line(name, value)  # noqa: PLW2901 - without its spaces
            if known is not None:
                if known == b"transfer-encoding":
                    continue  # how the body is framed is not the application's to say
                if known == b"connection":
                    says_close = says_close or b"close" in value.lower()
                elif length is not None and length != value:
                    raise ValueError("an answer has two different Content-Length fields")
                else:
                    length = value
            lines.append(line)
        lines += [(_lines.get(field) or _line(*field))[1] for field in more]
        self._frame(status, length, lines)
        self.keeps = self.keeps and not says_close and not self.until_close
        if status >= 200 and not (self.keeps or says_close):  # noqa: PLR2004 - before it, the last word is to come
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1 or b"\0" in head:
            raise ValueError("a field of an answer has a line end or a NUL in it")
        return head + b"\r\n\r\n"

    def whole(self, status: int, lines: bytes, headers: Fields, own: bytes, body: bytes) -> bytes:
        """An answer that is there as a whole.

        Args:
            lines: fields as they stand on the wire, which have been checked.
            headers: further ones.
            own: the server's, as `lines`.

        Raises:
            ValueError: a status or a field that can't be sent.
        """
        parts = [_status_line(status), b"\r\n", lines]
        for name, value in headers:
            _checked_name(name)
            if _LINE_END.search(value):
                raise ValueError("a field of an answer has a line end or a NUL in it")
            parts += (name, b": ", value, b"\r\n")
        parts += (own, b"content-length: ", b"%d" % len(body), b"\r\n\r\n" if self.keeps else CLOSING)
        if not self._silent:
            parts.append(body)
        return b"".join(parts)

    def _frame(self, status: int, length: bytes | None, lines: list[bytes]) -> None:
        if status in NO_BODY or status < 200:  # noqa: PLR2004 - an answer before the answer
            self._silent = True
        elif length is not None:
            if not length.isdigit():
                raise ValueError(f"the Content-Length of an answer is {length!r}")
            self._left = int(length)
        elif self._version == "1.0":
            self.until_close = not self._silent
        else:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")

    def part(self, data: bytes, *, last: bool) -> bytes:
        """A part of the body, as it goes on the wire.

        Raises:
            ValueError: the body is longer, or ends earlier, than the head said.
        """
        if self._silent:
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (last and self._left):
                raise ValueError("the body of an answer has another length than its Content-Length says")
            return data
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            return data + LAST_CHUNK if last else data
        return data

    @property
    def counts(self) -> bool:
        """Whether the length of the body was said, so that each part may be framed once only."""
        return self._left is not None

    @property
    def comes_with_body(self) -> bool:
        """Whether the end of the body is near enough for the head to wait and go out with it."""
        return self._silent or self._left is not None


def checked_fields(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """See that an application's fields are fields; raises ValueError."""
    for name, value in headers:
        _checked_name(bytes(name))
        if _LINE_END.search(value):
            raise ValueError("a field of an answer has a line end or a NUL in it")


def short(status: int, reason: str, more: Fields) -> bytes:
    """The answer to what is no request, or is refused before anybody looked at it; it ends the connection."""
    answer = Answer("GET", "1.1", keeps=False)
    body = (reason + "\n").encode() if reason else b""
    fields = [(b"content-length", str(len(body)).encode())]
    if body:
        fields.append((b"content-type", b"text/plain; charset=utf-8"))
    return answer.head(status, fields, more) + body


_SPECIAL: Final = frozenset({b"transfer-encoding", b"connection", b"content-length"})
"""The fields that say how the body is framed."""

_lines: Final[dict[tuple[bytes, bytes], tuple[bytes | None, bytes, bytes]]] = {}
MAX_LINES: Final = 512
"""So many fields are remembered with their lines: most answers differ in few of theirs."""


def _line(name: bytes, value: bytes) -> tuple[bytes | None, bytes, bytes]:
    """A field's name where that is special, its line, and its value; remembered until there are too many."""
    lower, stripped = _checked_name(name), value.strip()  # as all servers do
    made = lower if lower in _SPECIAL else None, b"%b: %b" % (name, stripped), stripped
    if len(_lines) >= MAX_LINES:
        _lines.clear()
    _lines[name, value] = made
    return made


@functools.lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    if not 100 <= status <= 999:  # noqa: PLR2004 - three digits
        raise ValueError(f"{status} is no status of an answer")
    return b"HTTP/1.1 %d %b" % (status, phrase.encode())


@functools.lru_cache(maxsize=512)
def _checked_name(name: bytes) -> bytes:
    """A field's name in lower case, which is one."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a field")
    return name.lower()
