"""A strict reader of event streams, written from the WHATWG rules and not from our encoder.

It takes bytes in chunks of any size and gives the events that a browser would dispatch.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class Dispatched:
    """What a browser hands to its listeners."""

    data: str
    event: str = "message"
    last_event_id: str = ""


class Parser:
    """Feed it bytes; `events`, `last_event_id`, `retry` and `comments` are what a browser, or its log, would have."""

    def __init__(self) -> None:
        self.events: list[Dispatched] = []
        self.comments: list[str] = []
        self.unknown: list[str] = []
        self.last_event_id = ""
        self.retry: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line = ""
        self._data = ""
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> None:
        text = self._decoder.decode(chunk)
        if text and self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        for char in text:
            if char == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = char == "\r"
            if char in "\r\n":
                line, self._line = self._line, ""
                self._take(line)
            else:
                self._line += char

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:].removeprefix(" "))
        else:
            field, _, value = line.partition(":")
            self._set(field, value.removeprefix(" "))

    def _set(self, field: str, value: str) -> None:
        if field == "event":
            self._event = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id":
            if "\0" not in value:
                self._id = value
        elif field == "retry":
            if value and all(char in "0123456789" for char in value):
                self.retry = int(value)
        else:
            self.unknown.append(field)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(Dispatched(self._data[:-1], self._event or "message", self.last_event_id))
        self._data = self._event = ""


def parse(*chunks: bytes) -> Parser:
    parser = Parser()
    for chunk in chunks:
        parser.feed(chunk)
    return parser
