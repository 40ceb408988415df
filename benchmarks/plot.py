"""Lines on logarithmic axes, as SVG by hand: no library, and readable in a light page and a dark one.

Owns: the drawing. Does not know: what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 380
HEIGHT: Final = 270
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 46
"""Of a panel, and the room around its axes, in px."""

LEGEND: Final = 34
COLUMNS: Final = 2

# Told apart also by those who do not see red and green alike, on white as on black; and by their marks.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DARK_COLOURS: Final = ("#56b4e9", "#e69f00", "#2fc99a", "#e7a5c9")
MARKS: Final = (
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>',
    '<rect x="{left:.1f}" y="{top:.1f}" width="7" height="7"/>',
    '<path d="M{x:.1f} {top:.1f}l4 7h-8z"/>',
    '<path d="M{x:.1f} {top:.1f}l4 4-4 4-4-4z"/>',
)

STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 13px; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.line { fill: none; stroke-width: 2; }
"""
DARK: Final = """
text { fill: #e6edf3; }
.grid { stroke: #3d444d; }
"""


@dataclass(frozen=True)
class Line:
    """What is drawn of one thing: points (x, y), both above 0, by rising x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A pair of axes with its lines."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel], told: str) -> str:
    """An SVG of all panels, two in a row, with one legend; `told` is said to those who do not see it.

    Raises:
        ValueError: a point is not above 0, which has no place on such an axis, or there is none.
    """
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = WIDTH * min(COLUMNS, len(panels)), HEIGHT * rows + LEGEND
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    dark = f"@media (prefers-color-scheme: dark) {{{DARK}{_colours(DARK_COLOURS)}}}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(told)}</title>",
        f"<style>{STYLE}{_colours(COLOURS)}{dark}</style>",
        *_legend(names),
    ]
    for place, panel in enumerate(panels):
        across, down = place % COLUMNS, place // COLUMNS
        parts.append(f'<g transform="translate({across * WIDTH} {LEGEND + down * HEIGHT})">')
        parts += _panel(panel, names)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colours(colours: Sequence[str]) -> str:
    return "".join(
        f".c{i} {{ fill: {colour}; }}\n.line.c{i} {{ fill: none; stroke: {colour}; }}\n"
        for i, colour in enumerate(colours)
    )


def _mark(i: int, x: float, y: float) -> str:
    shape = MARKS[i % len(MARKS)].format(x=x, y=y, left=x - 3.5, top=y - 3.5)
    return f'<g class="c{i % len(COLOURS)}">{shape}</g>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = float(LEFT)
    for i, name in enumerate(names):
        yield f'<path class="line c{i % len(COLOURS)}" d="M{x:.1f} 18h26"/>'
        yield _mark(i, x + 13, 18)
        yield f'<text x="{x + 33:.1f}" y="22">{escape(name)}</text>'
        x += 60 + 7 * len(name)


def _panel(panel: Panel, names: Sequence[str]) -> Iterator[str]:
    points = [point for line in panel.lines for point in line.points]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError(f"{panel.title}: logarithmic axes need points, all above 0")
    x = Axis([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    yield f'<text class="title" x="{LEFT}" y="{TOP - 14}">{escape(panel.title)}</text>'
    for value in x.marks():
        at = x.place(value)
        yield f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(value)}</text>'
    for value in y.marks():
        at = y.place(value)
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(panel.x)}</text>'
    down = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<text transform="translate(14 {down:.1f}) rotate(-90)" text-anchor="middle">{escape(panel.y)}</text>'
    for line in panel.lines:
        i = names.index(line.name)
        places = [(x.place(a), y.place(b)) for a, b in line.points]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        yield f'<path class="line c{i % len(COLOURS)}" d="M{path}"/>'
        yield from (_mark(i, a, b) for a, b in places)


class Axis:
    """A logarithmic axis from px to px, that holds all values and at least two marks."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.05 * (high - low), 0.04)
        self._low, self._high = low - room, high + room
        if len(self.marks()) < 2:  # noqa: PLR2004 - one mark tells no scale
            self._low, self._high = self._low - 0.35, self._high + 0.35
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """Where a value stands, in px."""
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)

    def marks(self) -> list[float]:
        """The values that are written at it: powers of ten where there are enough, else 1, 2 and 5 of each."""
        for factors in ((1,), (1, 3), (1, 2, 5)):
            decades = range(math.floor(self._low), math.ceil(self._high) + 1)
            every = [factor * 10.0**decade for decade in decades for factor in factors]
            marks = [mark for mark in every if self._low <= math.log10(mark) <= self._high]
            if len(marks) >= 3:  # noqa: PLR2004 - fewer leave the eye alone
                return marks
        return marks


def short(value: float) -> str:
    """A number as it stands at an axis: 0.1, 30, 5k, 2M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
