"""Ids that nothing else has, and nobody can guess: a request's, a connection's, a session's.

Owns: the random bytes that they are made of. The system is asked for many at once, since each request needs some.
"""

from __future__ import annotations

import binascii
import os
from typing import Final

DRAWN: Final = 4096
"""How many bytes the system is asked for, at once."""


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class _Pool:
    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._bytes, self._at = b"", 0

    def take(self, size: int) -> bytes:
        at, end = self._at, self._at + size
        if end > len(self._bytes):
            self._bytes, at, end = os.urandom(DRAWN), 0, size
        self._at = end
        return self._bytes[at:end]


_pool: Final = _Pool()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)  # or two processes would have the same ids


def new_id() -> str:
    """128 bits, as 32 hexadecimal digits."""
    return _pool.take(16).hex()


def new_secret() -> str:
    """192 bits, as 32 characters that may stand in a cookie or a URL."""
    return binascii.b2a_base64(_pool.take(24), newline=False).translate(_URL_SAFE).decode()
