"""Text to UTF-8, whatever is in it; and bytes to text, where they are some."""

from __future__ import annotations

import base64
import codecs
import re
from typing import Final

JSON_TYPES: Final = frozenset({"application/json", "application/x-ndjson", "application/jsonl", "application/json-seq"})
_CHARSET: Final = re.compile(r';\s*charset="?([A-Za-z0-9._:-]+)', re.IGNORECASE)


def to_utf8(text: str) -> bytes:
    """`text` in UTF-8; surrogate pairs become their character, lone surrogates U+FFFD (never an exception)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins surrogates that make a pair; what is left alone becomes U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def utf8_size(data: str | bytes) -> int:
    """How many bytes it is: of a text, in UTF-8 as `to_utf8` writes it."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(to_utf8(data))


def to_base64(data: bytes) -> str:
    """`data` as base64 (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def text_decoder(content_type: str) -> codecs.IncrementalDecoder | None:
    """What decodes a body of that type piece by piece, however it was cut; None where it is no text.

    Text is what is of type `text/...` or JSON, in the charset that it names, or else UTF-8.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in JSON_TYPES or kind.endswith("+json")):
        return None
    charset = _CHARSET.search(content_type)
    return _decoder(charset[1] if charset else "utf-8") or _decoder("utf-8")


def _decoder(charset: str) -> codecs.IncrementalDecoder | None:
    try:
        b"a".decode(charset, "replace")  # which takes nothing but text encodings
        decoder = codecs.getincrementaldecoder(charset)("replace")
        decoder.decode(b"")
    except (LookupError, UnicodeError):  # there is none of that name, or none that takes things as they come
        return None
    return decoder
