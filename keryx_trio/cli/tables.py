"""Tables, as wide as the terminal; a row is one line where nobody looks.

Owns: their form. Does not know: what is in them.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

GAP: Final = "  "
NARROWEST: Final = 12
"""The least width of a column, before the table leaves the terminal's; of one that is narrower by itself, its own."""

WIDE: Final = 10_000
"""The width where nobody looks."""


def table(titles: Sequence[str], rows: Sequence[Sequence[Sequence[str]]]) -> Iterator[str]:
    """The lines of a table whose cells are lists of lines; folded, so that none is longer than the terminal."""
    is_seen = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if is_seen else WIDE
    all_rows = [[[title] for title in titles], *rows]
    if not is_seen:
        all_rows = [[[", ".join(cell)] for cell in row] for row in all_rows]
    wanted = [max(len(line) for row in all_rows for line in row[place]) for place in range(len(titles))]
    widths = _fitted(wanted, width - len(GAP) * (len(titles) - 1))
    for row in all_rows:
        cells = [
            [part for line in cell for part in textwrap.wrap(line, size) or [""]]
            for cell, size in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            yield GAP.join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip()


def _fitted(wanted: Sequence[int], room: int) -> list[int]:
    """As wide as the columns want to be; where there is no room for that, the widest gives way first."""
    widths = [*wanted]
    while sum(widths) > room and max(widths, default=0) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths
