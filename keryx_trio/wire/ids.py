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
    """Random pieces of one size. Also between threads each is given once: a list gives a member of it to one alone."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[bytes] = []

    def clear(self) -> None:
        self._pieces.clear()

    def take(self) -> bytes:
        try:
            return self._pieces.pop()
        except IndexError:
            size, drawn = self._size, os.urandom(DRAWN)
            pieces = [drawn[at : at + size] for at in range(0, DRAWN - size + 1, size)]
            mine = pieces.pop()
            self._pieces.extend(pieces)
            return mine


_ids: Final = _Pool(16)
_secrets: Final = _Pool(24)

if hasattr(os, "register_at_fork"):
    for _each in (_ids, _secrets):
        os.register_at_fork(after_in_child=_each.clear)  # or two processes would have the same ids


def new_id() -> str:
    """128 bits, as 32 hexadecimal digits."""
    return _ids.take().hex()


def new_secret() -> str:
    """192 bits, as 32 characters that may stand in a cookie or a URL."""
    return binascii.b2a_base64(_secrets.take(), newline=False).translate(_URL_SAFE).decode()
