"""Text to UTF-8, whatever is in it."""

from __future__ import annotations


def to_utf8(text: str) -> bytes:
    """`text` in UTF-8; surrogate pairs become their character, lone surrogates U+FFFD (never an exception)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins surrogates that make a pair; what is left alone becomes U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
