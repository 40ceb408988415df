"""Messages of text as a server writes them on a WebSocket (RFC 6455, section 5.2).

Owns: their frames, one a message. Does not know: compression, control frames, or what clients send.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

TEXT: Final = 0x81
"""Text, and all of the message: no server masks what it sends."""

SHORT: Final = 125
"""The longest message whose length stands in the second byte of its frame."""

IN_TWO: Final = 126
IN_EIGHT: Final = 127
"""What stands there where the length follows, in so many bytes."""

_short: Final = tuple(bytes((TEXT, size)) for size in range(SHORT + 1))
_in_two: Final = Struct("!BBH").pack
_in_eight: Final = Struct("!BBQ").pack


def frames(texts: Iterable[bytes]) -> bytes:
    """Messages, given in UTF-8, as they go on the wire one after the other."""
    parts: list[bytes] = []
    for text in texts:
        size = len(text)
        if size <= SHORT:
            head = _short[size]
        elif size <= 0xFFFF:  # noqa: PLR2004 - what two bytes hold
            head = _in_two(TEXT, IN_TWO, size)
        else:
            head = _in_eight(TEXT, IN_EIGHT, size)
        parts += (head, text)
    return b"".join(parts)
