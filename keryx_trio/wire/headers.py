"""HTTP header fields: checked, merged, and the ones that stand on every answer.

Owns: the bytes of header fields. Does not know: requests, answers, or who sends them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..config import CorsConfig, SecurityConfig

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def checked(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Headers:
    """The user's header fields as bytes, names in lower case.

    Raises:
        ValueError: for a name that is no token or a value with CR, LF or NUL in it (RFC 9110, section 5), and for
            the fields about the connection, which only the server may set.
    """
    fields: Headers = []
    for name, value in headers.items() if isinstance(headers, Mapping) else headers or ():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name}: {value!r} is not a text that a header can carry (latin-1, one line)")
        if name.lower() in HOP_BY_HOP:
            raise ValueError(f"header {name}: it is about the connection, which is the server's; leave it out")
        fields.append((name.lower().encode(), value.strip().encode("latin-1")))
    return fields


def joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header fields by name. Repeated ones are joined (RFC 9110, section 5.3), so none of them hides behind another."""
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        key = bytes(name).lower()
        if key in headers:
            headers[key] += (b"; " if key == b"cookie" else b", ") + bytes(value)
        else:
            headers[key] = bytes(value)
    return headers


def content_type(value: str) -> tuple[bytes, bytes]:
    """A content type as a field; raises like `checked`."""
    return checked({"content-type": value})[0]


def merged(base: Headers, extra: Headers) -> Headers:
    """`base` with `extra` on top: a name in `extra` replaces the one in `base`; cookies add up, and so does `Vary`."""
    if not extra:
        return base
    names = {name for name, _ in extra} - {b"set-cookie", b"vary"}
    return [field for field in base if field[0] not in names] + extra


def security(config: SecurityConfig) -> Headers:
    """The security header fields that every answer carries; an empty setting leaves its field out."""
    fields = [
        (b"content-security-policy", config.content_security_policy),
        (b"strict-transport-security", config.strict_transport_security),
        (b"x-content-type-options", config.content_type_options),
        (b"x-frame-options", config.frame_options),
        (b"referrer-policy", config.referrer_policy),
    ]
    return [(name, value.encode("latin-1")) for name, value in fields if value]


class Cors:
    """What cross-origin readers are told (the Fetch standard, "CORS protocol")."""

    __slots__ = ("_exposed", "_origins", "_preflight", "any_origin")

    def __init__(self, config: CorsConfig) -> None:
        self.any_origin = "*" in config.allowed_origins
        self._origins = frozenset(origin.encode("latin-1") for origin in config.allowed_origins)
        self._exposed = (b"access-control-expose-headers", ", ".join(config.exposed_headers).encode("latin-1"))
        self._preflight: Headers = [
            (b"access-control-allow-methods", ", ".join(config.allowed_methods).encode("latin-1")),
            (b"access-control-allow-headers", ", ".join(config.allowed_headers).encode("latin-1")),
            (b"access-control-max-age", str(int(config.max_age)).encode()),
        ]

    def known(self, origin: bytes | None) -> bytes | None:
        """The origin, where it makes a difference to `answer`."""
        return origin if origin in self._origins and not self.any_origin else None

    def answer(self, origin: bytes | None) -> Headers:
        """The fields of any answer to a request from `origin`."""
        if self.any_origin:  # never with credentials: any page could then read as its user
            return [(b"access-control-allow-origin", b"*"), self._exposed]
        if origin is None or origin not in self._origins:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            self._exposed,
            (b"vary", b"Origin"),
        ]

    def preflight(self, origin: bytes | None) -> Headers:
        """The fields of the answer to a preflight request from `origin`."""
        fields = self.answer(origin)
        return fields + self._preflight if fields[0][0] == b"access-control-allow-origin" else fields


class Standard:
    """The fields that stand on every answer, whatever it is."""

    __slots__ = ("_lines", "_security", "cors")

    def __init__(self, security_config: SecurityConfig, cors_config: CorsConfig) -> None:
        self._security = security(security_config)
        self.cors = Cors(cors_config)
        self._lines: dict[tuple[bytes | None, tuple[bytes, bytes]], bytes] = {}

    def fields(self, origin: bytes | None) -> Headers:
        """Those of an answer to a page of `origin`."""
        return [*self._security, *self.cors.answer(origin)]

    def lines(self, origin: bytes | None, content_type: tuple[bytes, bytes]) -> bytes:
        """The same, with the type of what is answered, as they stand on the wire; made once for each origin."""
        key = self.cors.known(origin), content_type
        lines = self._lines.get(key)
        if lines is None:
            fields = [*self.fields(key[0]), content_type]
            lines = self._lines[key] = b"".join(b"%b: %b\r\n" % field for field in fields)
        return lines


def is_same_origin(origin: bytes, host: bytes, *, secure: bool) -> bool:
    """Whether a page of `origin` belongs to `host`, as a request's `Host` names it (RFC 6454, section 5).

    Its scheme may be the better one, since a proxy may have taken TLS away; on a request that came over TLS it must be.
    """
    scheme, _, own = origin.lower().partition(b"://")
    port = {b"http": b":80", b"https": b":443"}.get(scheme)
    if port is None or (secure and scheme != b"https"):
        return False
    return own.removesuffix(port) == host.lower().removesuffix(port)


def host_name(host: str) -> str:
    """A host without its port, as a `Host` field or an origin names it: `[::1]:8000` -> `[::1]`."""
    return re.sub(r":[0-9]*$", "", host)


def has_etag(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether an `If-None-Match` field names an entity tag, by weak comparison (RFC 9110, section 13.1.2)."""
    tags = [tag.strip().removeprefix(b"W/") for tag in (if_none_match or b"").split(b",")]
    return tags == [b"*"] or etag.removeprefix(b"W/") in tags


def request_id_field(value: str) -> tuple[bytes, bytes]:
    """An answer's own `X-Request-Id`."""
    return b"x-request-id", value.encode()


def request_id(value: bytes | None) -> str | None:
    """An incoming `X-Request-Id` that is safe to pass on into logs and answers, or None."""
    return value.decode() if value is not None and _REQUEST_ID.fullmatch(value) else None


def accepts_gzip(value: bytes | None) -> bool:
    """Whether an `Accept-Encoding` field allows gzip (RFC 9110, section 12.5.3)."""
    star = gzip = None
    for part in (value or b"").lower().split(b","):
        coding, _, parameter = part.partition(b";")
        name, _, q = parameter.partition(b"=")
        weight = _weight(q) if name.strip() == b"q" else 1.0
        if coding.strip() in (b"gzip", b"x-gzip"):
            gzip = weight
        elif coding.strip() == b"*":
            star = weight
    return bool(star if gzip is None else gzip)


def _weight(q: bytes) -> float:
    try:
        return float(q)
    except ValueError:
        return 0.0


def media_type(content_type: str) -> str:
    """`text/html; charset=utf-8` -> `text/html`."""
    return content_type.partition(";")[0].strip().lower()
