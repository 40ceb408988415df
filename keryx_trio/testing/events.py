"""A reader of event streams, as a browser is one.

Owns: bytes to events. Does not know: where the bytes come from.
"""

from __future__ import annotations

import codecs
from typing import Any

import attrs
import msgspec


@attrs.frozen
class Received:
    """An event as a reader of the stream gets it."""

    data: str
    event: str = "message"
    id: str = ""
    """The last event id at this point, which outlives the event that set it."""

    def json(self) -> Any:
        """The data, read as JSON."""
        return msgspec.json.decode(self.data)


class EventReader:
    """Bytes to events, by the rules of the WHATWG HTML standard, section "Server-sent events"."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._data: list[str] = []
        self._event = ""
        self.last_event_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[Received]:
        """The events that `data` completes."""
        self._text += self._decoder.decode(data)
        events: list[Received] = []
        while (line := self._next_line()) is not None:
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(Received("\n".join(self._data), self._event or "message", self.last_event_id))
                self._data, self._event = [], ""
        return events

    def _next_line(self) -> str | None:
        """The text up to the next CR, LF or CRLF; a CR at the very end may be half of a CRLF, so it waits."""
        ends = [at for at in (self._text.find("\r"), self._text.find("\n")) if at >= 0]
        if not ends or (self._text[min(ends)] == "\r" and min(ends) == len(self._text) - 1):
            return None
        end = min(ends)
        line, rest = self._text[:end], end + (2 if self._text.startswith("\r\n", end) else 1)
        self._text = self._text[rest:]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "":
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
