"""HTTP/1.1 as bytes: what a client sends becomes heads and parts of bodies, or a reason to refuse it.

Owns: where a request begins and ends, and what is not taken for one (RFC 9112). Does not know: sockets, time, ASGI.

The fields of a head are parsed by httptools. The frame around them is found here, since httptools counts neither the
bytes of a head nor its Host fields, and forgives what parts one request from the next: where two servers in a row
disagree on that, a request can be smuggled past the first one.

Invariants: how the bytes come apart into packets changes nothing. What is held is at most one head, or one line of a
chunk's frame, beyond what was fed last. After a refusal nothing is read any more.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Self

import attrs
import httptools

Fields = list[tuple[bytes, bytes]]

MAX_FIELDS: Final = 100
"""The most fields of a head."""

MAX_CHUNK_LINE: Final = 1024
"""The longest line that begins a chunk, in bytes."""

MAX_CHUNK_EXTRA: Final = 16 * 1024
"""How much the extensions of a body's chunks may have in all, in bytes: they carry nothing that is read."""

MAX_LENGTH_DIGITS: Final = 18

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
METHOD: Final = re.compile(TOKEN)
TARGET: Final = re.compile(rb"[\x21-\x7e]+")
REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
TRAILER_LINE: Final = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
ABSOLUTE: Final = re.compile(rb"https?://(?:[^/?#@]*@)?([^/?#@]+)([/?][^#]*)?(?:#.*)?", re.IGNORECASE)
HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%@-]*)(?::[0-9]*)?")

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How a client that speaks HTTP/2 begins, where nobody has asked it to (RFC 9113, section 3.4)."""

_FIXED_LINE: Final = b"GET / HTTP/1.1\r\n"
"""What httptools is given in place of the request's own line, of which it knows only some methods."""

_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"})


class Refused(Exception):  # noqa: N818 - it is an answer
    """What was sent is no request that is taken here.

    Attributes:
        status: what its sender is answered.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@attrs.frozen
class Head:
    """The head of a request.

    Attributes:
        target: the path and the query, as they were sent; of an absolute URL these parts of it.
        version: `1.0` or `1.1`.
        headers: the fields, their names in lower case.
        length: how many bytes of a body follow; None for a chunked one.
        keeps: whether the connection may be used again.
        expects: whether the client waits for a 100 before it sends the body.
        upgrade: the protocol that the client would rather speak, in lower case, or nothing.
    """

    method: str
    target: bytes
    version: str
    headers: Fields
    length: int | None
    keeps: bool
    expects: bool
    upgrade: bytes

    def without_expectation(self) -> Self:
        """The same, for a client that has been told to go on."""
        return attrs.evolve(self, expects=False)

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a name."""
        return [value for key, value in self.headers if key == name]


@attrs.frozen
class Framing:
    """The fields of a head, and what they say.

    Attributes:
        block: the fields as they were sent.
        is_1_1: whether they were read as HTTP/1.1 has it.
    """

    block: bytes
    is_1_1: bool
    fields: Fields
    length: int | None
    keeps: bool
    expects: bool
    upgrade: bytes


class _State(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNK_LINE = enum.auto()
    CHUNK = enum.auto()
    CHUNK_END = enum.auto()
    TRAILERS = enum.auto()


class Reader:
    """Turns bytes into requests: feed it, and ask it for what it has.

    Args:
        max_head: the largest head, in bytes; also of what trails a chunked body.
    """

    __slots__ = ("_buffer", "_extra", "_fields", "_last", "_left", "_max_head", "_searched", "_state")

    def __init__(self, max_head: int) -> None:
        self._max_head = max_head
        self._buffer = bytearray()
        self._searched = 0
        self._state = _State.HEAD
        self._left = 0
        self._extra = 0
        self._fields: Fields = []
        self._last: Framing | None = None

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._buffer += data

    @property
    def held(self) -> int:
        """How many bytes were fed and not used yet."""
        return len(self._buffer)

    @property
    def in_body(self) -> bool:
        """Whether a request has begun whose body has not been read."""
        return self._state is not _State.HEAD

    def begins_http2(self) -> bool | None:
        """Whether the first bytes are HTTP/2's; None where it can't be told yet."""
        if self._buffer.startswith(PREFACE):
            return True
        return None if PREFACE.startswith(self._buffer) else False

    def rest(self) -> bytes:
        """What was fed and not used, for whoever reads on in another protocol."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return rest

    # Heads

    def head(self) -> Head | None:
        """The next head, once all of it has been fed.

        Raises:
            Refused: what comes is none.
        """
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # some clients end a body with one too many (RFC 9112, section 2.2)
            del buffer[:2]
            self._searched = 0
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(buffer)
            self._check_beginning()
            return None
        if end + 4 > self._max_head:
            raise self._too_large()
        raw = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._searched = 0
        head = self._parsed(raw)
        if head.length is None:
            self._state, self._extra = _State.CHUNK_LINE, 0
        elif head.length:
            self._state, self._left = _State.LENGTH, head.length
        return head

    def _check_beginning(self) -> None:
        """Refuse at once what can't become a head, however it goes on."""
        buffer = self._buffer
        if buffer and not METHOD.match(buffer) and buffer != b"\r":
            raise Refused(400, "this is no HTTP")
        if buffer.count(b"\n") != buffer.count(b"\r\n"):
            raise Refused(400, "a line ends without a carriage return")
        if len(buffer) > self._max_head:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(431, f"the head of the request is larger than {self._max_head} bytes")

    def _parsed(self, raw: bytes) -> Head:
        end = raw.index(b"\r\n")
        line = REQUEST_LINE.fullmatch(raw, 0, end)
        if line is None:
            raise Refused(400, "the request line is no METHOD TARGET HTTP/1.1")
        method, target, minor = line.groups()
        is_1_1, block = minor == b"1", raw[end + 2 :]
        last = self._last
        if last is None or last.block != block or last.is_1_1 is not is_1_1:  # most clients say the same each time
            last = self._last = self._framing(block, is_1_1=is_1_1)
        target, fields = _origin_form(method, target, last.fields)
        return Head(
            method=method.decode().upper(),
            target=target,
            version="1.1" if is_1_1 else "1.0",
            headers=fields,
            length=last.length,
            keeps=last.keeps,
            expects=last.expects,
            upgrade=last.upgrade,
        )

    def _framing(self, block: bytes, *, is_1_1: bool) -> Framing:
        if block.count(b"\n") != block.count(b"\r\n"):
            raise Refused(400, "a line ends without a carriage return")
        self._fields = []
        try:
            httptools.HttpRequestParser(self).feed_data(_FIXED_LINE + block)
        except httptools.HttpParserUpgrade:  # it asks for another protocol; whoever answers decides
            return _framed(block, self._fields, is_1_1=is_1_1)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise Refused(400, f"a malformed field: {error}") from None
        return _framed(block, self._fields, is_1_1=is_1_1)

    def on_header(self, name: bytes, value: bytes) -> None:
        """What httptools calls with each field."""
        if len(self._fields) == MAX_FIELDS:
            raise Refused(431, f"more than {MAX_FIELDS} fields in the head")
        self._fields.append((name.lower(), value.rstrip(b" \t")))

    # Bodies

    def body(self) -> tuple[bytes, bool] | None:
        """The next part of the body and whether it is the last one; None where more must be fed.

        Raises:
            Refused: what comes is no body.
        """
        if self._state is _State.HEAD:  # there is none
            return b"", True
        if self._state is not _State.LENGTH:
            return self._chunks()
        buffer = self._buffer
        if not buffer:
            return None
        part = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(part)
        if not self._left:
            self._state = _State.HEAD
        return part, not self._left

    def _chunks(self) -> tuple[bytes, bool] | None:
        """All that there is of a chunked body, its frame taken off (RFC 9112, section 7.1)."""
        parts: list[bytes] = []
        while True:
            if self._state is _State.CHUNK:
                part = bytes(self._buffer[: self._left])
                del self._buffer[: self._left]
                self._left -= len(part)
                parts.append(part)
                if self._left:
                    break
                self._state = _State.CHUNK_END
            if self._state is _State.CHUNK_END:
                if len(self._buffer) < 2:  # noqa: PLR2004 - a line end
                    break
                if not self._buffer.startswith(b"\r\n"):
                    raise Refused(400, "a chunk is longer than it said")
                del self._buffer[:2]
                self._state = _State.CHUNK_LINE
            line = self._line(MAX_CHUNK_LINE if self._state is _State.CHUNK_LINE else self._max_head)
            if line is None:
                break
            if self._state is _State.CHUNK_LINE:
                self._begin_chunk(line)
            elif self._is_last_trailer(line):
                self._state = _State.HEAD
                return b"".join(parts), True
        data = b"".join(parts)
        return (data, False) if data else None

    def _line(self, limit: int) -> bytes | None:
        """The next line of a chunked body's frame."""
        buffer = self._buffer
        end = buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(buffer) >= limit:
                raise Refused(400, "a line of a chunked body is too long")
            return None
        if not buffer.startswith(b"\r\n", max(0, end - 1)):
            raise Refused(400, "a line of a chunked body ends without a carriage return")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        return line

    def _begin_chunk(self, line: bytes) -> None:
        found = CHUNK_LINE.fullmatch(line)
        if found is None:
            raise Refused(400, "a chunk begins with no size")
        self._count_extra(len(line) - len(found[1]))
        self._left = int(found[1], 16)
        self._state = _State.CHUNK if self._left else _State.TRAILERS
        self._extra = self._extra if self._left else 0

    def _count_extra(self, size: int) -> None:
        self._extra += size
        if self._extra > MAX_CHUNK_EXTRA:
            raise Refused(400, "the frame of a chunked body carries too much beside the body")

    def _is_last_trailer(self, line: bytes) -> bool:
        """Whether a line ends the body. Fields before it are checked, and dropped: nobody asked for any."""
        if not line:
            return True
        self._count_extra(len(line))
        if not TRAILER_LINE.fullmatch(line):
            raise Refused(400, "a malformed field after a chunked body")
        return False


def _framed(block: bytes, fields: Fields, *, is_1_1: bool) -> Framing:
    """What the fields of a head say of where it ends."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in _FRAMING:
            found.setdefault(name, []).append(value)
    hosts = found.get(b"host", [])
    if len(hosts) > 1 or (is_1_1 and not hosts):
        raise Refused(400, f"{len(hosts)} Host fields, where there must be one")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Refused(400, "the Host field names no host")
    options = _tokens(found.get(b"connection", ()))
    expected = _tokens(found.get(b"expect", ()))
    return Framing(
        block=block,
        is_1_1=is_1_1,
        fields=fields,
        length=_length(found, is_1_1=is_1_1),
        keeps=is_1_1 and b"close" not in options,
        expects=is_1_1 and b"100-continue" in expected,
        upgrade=found[b"upgrade"][0].lower() if b"upgrade" in found and b"upgrade" in options and is_1_1 else b"",
    )


def _length(found: dict[bytes, list[bytes]], *, is_1_1: bool) -> int | None:
    """How long the body is (RFC 9112, section 6.3); None for chunked."""
    lengths, codings = found.get(b"content-length", ()), found.get(b"transfer-encoding", ())
    if codings:
        if lengths:
            raise Refused(400, "both a Content-Length and a Transfer-Encoding")
        if not is_1_1:
            raise Refused(400, "a Transfer-Encoding in HTTP/1.0")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise Refused(400, "a Transfer-Encoding other than chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > MAX_LENGTH_DIGITS:
        raise Refused(400, "the Content-Length is no length")
    return int(lengths[0])


def _origin_form(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """The target as a path. A whole URL, as proxies are sent, names the host too (RFC 9112, section 3.2.2)."""
    if target.startswith(b"/") or (target == b"*" and method.upper() == b"OPTIONS"):
        return target, fields.copy()
    url = ABSOLUTE.fullmatch(target)
    if url is None or not HOST.fullmatch(url[1]):
        raise Refused(400, "the target of the request is neither a path nor a URL")
    path = url[2] or b"/"
    path = path if path.startswith(b"/") else b"/" + path
    return path, [(name, url[1] if name == b"host" else value) for name, value in fields]


def _tokens(values: list[bytes] | tuple[bytes, ...]) -> set[bytes]:
    """The members of fields that are lists, in lower case."""
    if not values:
        return set()
    return {token.strip(b" \t").lower() for value in values for token in value.split(b",")}
