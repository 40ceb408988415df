"""`--follow`: the events of a stream, for the eyes of a person.

Owns: how an event looks on a terminal. Does not know: where events come from, or who writes them.

Invariant: what an event carries cannot steer the terminal: control characters are shown as their escapes.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final

import attrs

from ..wire.text import to_utf8

if TYPE_CHECKING:
    from ..transports.collecting import Sent

LEAST_NAME, MOST_NAME = 8, 24
"""Between these many characters the column of the names is wide."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NAME, _ERROR, _PLAIN = "\x1b[36m", "\x1b[31m", "\x1b[0m"


@attrs.define
class Follower:
    """Shows events one by one: its name, and what it carries; JSON on one line, if that has room, else on several.

    Args:
        is_watched: whether it is a terminal that shows them.
        colours: whether names stand out.
        width: of a line.

    Attributes:
        shown: how many events there were.
    """

    is_watched: bool = False
    colours: bool = False
    width: int = 100
    shown: int = 0
    _column: int = attrs.field(default=0, init=False)

    @classmethod
    def on(cls, descriptor: int) -> Follower:
        """For what the descriptor is: colours are for terminals alone."""
        is_watched = os.isatty(descriptor)
        width = os.get_terminal_size(descriptor).columns if is_watched else 0
        return cls(is_watched, is_watched and not os.environ.get("NO_COLOR"), width or 100)

    def show(self, item: Sent) -> bytes:
        """The lines of an event."""
        self.shown += 1
        name = _tame(item.event or "")
        if name or self._column:  # names have a column from the first of them on
            self._column = min(max(self._column, len(name), LEAST_NAME), MOST_NAME)
        head = f"{name.ljust(self._column)}  " if self._column else ""
        indent = " " * len(head)
        if name and self.colours:
            head = f"{_ERROR if name == 'error' else _NAME}{name}{_PLAIN}{head[len(name) :]}"
        first, *rest = self._lines(item.data, self.width - len(indent))
        return to_utf8("".join(f"{line.rstrip()}\n" for line in (head + first, *(indent + line for line in rest))))

    @property
    def summary(self) -> str:
        """What there was, at its end."""
        return f"({self.shown} event{'s' if self.shown != 1 else ''})"

    def _lines(self, data: str | bytes, room: int) -> list[str]:
        if isinstance(data, str):
            text = data
        else:
            value = json.loads(data)
            text = json.dumps(value, ensure_ascii=False)
            if len(text) > room and isinstance(value, (dict, list)):
                text = json.dumps(value, ensure_ascii=False, indent=2)
        return [_tame(line) for line in re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))]


def _tame(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
