"""Server-sent events as bytes, by the rules of the WHATWG HTML standard, section "Server-sent events".

Owns: the bytes of one event, of a comment, and of a `retry:`.
Does not know: streams, buffers, who reads, or how a value became JSON.

Invariant: each function returns whole blocks: UTF-8, LF as the only line end, closed by an empty line. So blocks may
be joined in any order, and nothing a caller passes can add a field, an event or the end of one.
"""

from __future__ import annotations

import functools
from typing import Final

from .text import to_utf8

LF: Final = 10
CR: Final = 13
"""As numbers: so they are looked for in bytes without a detour."""

CACHED_NAME: Final = 64
"""Names of events up to this many characters are encoded once."""


def encode(
    data: str | bytes,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the name of the field on the wire
    retry: int | None = None,
) -> bytes:
    """One event, ready to be written.

    Args:
        data: text, which may hold line ends of any kind (each of CRLF, CR and LF reaches the reader as LF); or bytes,
            which are UTF-8, as a JSON encoder makes them. Lone surrogates in text become U+FFFD.
        event: the event's name; None and "" leave it out, and the reader takes it for `message`.
        id: what a reconnecting reader sends back as `Last-Event-ID`; "" makes it forget the last one.
        retry: how long the reader waits before it reconnects, in milliseconds.

    Raises:
        ValueError: a CR, LF or NUL in `event` or `id`, or a `retry` that is not a whole number of zero or more.
    """
    head = _cached_event_line(event) if event is None or len(event) <= CACHED_NAME else _event_line(event)
    if isinstance(data, bytes) and (LF in data or CR in data):
        data = data.decode("utf-8", "replace")
    if not isinstance(data, bytes):
        if "\n" in data or "\r" in data:
            data = _unix_lines(data).replace("\n", "\ndata: ")
        data = to_utf8(data)
    if id is not None:
        head += _id_line(id)
    if retry is not None:
        head += _retry_line(retry)
    return b"".join((head, b"data: ", data, b"\n\n"))


def check(event: str | None, id: str | None, retry: int | None) -> None:  # noqa: A002 - as above
    """Raise what `encode` raises for these, for a wire that writes them in another way."""
    if event:
        _one_line("event", event)
    if id is not None:
        _one_line("id", id)
    if retry is not None:
        _retry_line(retry)


def comment(text: str) -> bytes:
    """A comment: readers skip it, whoever watches the wire sees it. Each line of `text` is a comment of its own."""
    lines = (f": {line}\n" if line else ":\n" for line in _unix_lines(text).split("\n"))
    return to_utf8("".join(lines) + "\n")


def retry(ms: int) -> bytes:
    """Tells the reader to wait `ms` milliseconds before it reconnects, with no event.

    Raises:
        ValueError: `ms` is not a whole number of zero or more.
    """
    return _retry_line(ms) + b"\n"


def _event_line(event: str | None) -> bytes:
    return b"event: %b\n" % to_utf8(_one_line("event", event)) if event else b""


# Streams send few names, many times each. A refused name is not kept, and neither is a long one.
_cached_event_line = functools.lru_cache(maxsize=256)(_event_line)


def _id_line(id: str) -> bytes:  # noqa: A002 - as above
    if not isinstance(id, str):
        raise TypeError(f"the id of an event is a text, not {type(id).__name__}: {id!r}")
    if id.isprintable():  # it has no line end then, and mostly it is a number
        return b"id: %b\n" % id.encode()
    return b"id: %b\n" % to_utf8(_one_line("id", id))


def _retry_line(ms: int) -> bytes:
    if isinstance(ms, bool) or not isinstance(ms, int) or ms < 0:
        raise ValueError(f"retry must be a whole number of milliseconds, zero or more, not {ms!r}")
    return b"retry: %d\n" % ms


def _one_line(field: str, value: str) -> str:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"{field} must not contain CR, LF or NUL: {value!r}")
    return value


def _unix_lines(text: str) -> str:
    """Not `str.splitlines`: U+2028, U+0085, form feed and their like are data, not line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


PING: Final = comment("ping")
"""What a quiet stream carries, so that proxies keep it open."""
