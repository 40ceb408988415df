"""`keryx-trio actions`: what an application can do, as a table.

Owns: the table. Does not know: how any of it is reached.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import click

from .applications import find_application

if TYPE_CHECKING:
    from ..action import Action

TITLES: Final = ("ACTION", "WHERE", "INPUTS", "WHAT IT DOES")
GAP: Final = "  "
NARROWEST: Final = (12, 20, 12, 16)
"""The least width of each column, before the table leaves the terminal's."""

WIDE: Final = 10_000
"""The width where nobody looks: a row is one line then, for programs to read."""

EPILOG: Final = """\b
Examples:
  keryx-trio actions examples.chat:app
  keryx-trio actions examples.members:app | grep POST
"""


@click.command(epilog=EPILOG, short_help="Show what an application can do.")
@click.argument("app")
def actions(app: str) -> None:
    """Show the actions of an application: where each is reached, and what it takes.

    Inputs in brackets may be left out. `keryx-trio run APP ACTION --help` tells more of one.
    """
    from ..transports.stdio import output_taken_over  # noqa: PLC0415 - not needed to say what the command does

    with output_taken_over():  # the module may print
        found = find_application(app)
    if not found.actions:
        click.echo(f"{app} has no actions", err=True)
        return
    rows = [
        (each.name, [*_places(each, found.config.api_route)], [_inputs(each)], [_first_line(each)])
        for each in found.actions.values()
    ]
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal or "COLUMNS" in os.environ else WIDE
    for line in table([([name], *cells) for name, *cells in rows], width):
        click.echo(line)


def _places(action: Action[..., Any], api_route: str) -> Iterator[str]:
    """Where it is reached, a line each."""
    if action.web is not None:
        kind = ", events" if action.web.streaming else f", {action.web.produces}" if action.web.produces else ""
        yield f"{','.join(action.web.method)} {api_route}{action.web.route}{kind}"
    if action.mcp.tool:
        yield f"tool {action.tool_name}"
    if action.mcp.prompt:
        yield f"prompt {action.tool_name}"
    if action.mcp.resource is not None:
        yield f"resource {action.mcp.resource}"
    if action.task is not None:
        every = "" if action.task.every is None else f", every {action.task.every:g} s"
        yield f"queue {action.task.queue}{every}"


def _inputs(action: Action[..., Any]) -> str:
    names = {each.name: each.required for each in action.inputs.parameters}
    return " ".join(name if required else f"[{name}]" for name, required in names.items())


def _first_line(action: Action[..., Any]) -> str:
    return action.description.partition("\n")[0]


def table(rows: Sequence[Sequence[Sequence[str]]], width: int) -> Iterator[str]:
    """The lines of a table whose cells are lists of lines, folded so that none is longer than `width`, if that can be."""
    all_rows = [[[title] for title in TITLES], *rows]
    wanted = [max(len(line) for row in all_rows for line in row[place]) for place in range(len(TITLES))]
    widths = _fitted(wanted, width - len(GAP) * (len(TITLES) - 1))
    for row in all_rows:
        cells = [
            [part for line in cell for part in textwrap.wrap(line, size) or [""]] if width < WIDE else [", ".join(cell)]
            for cell, size in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            yield GAP.join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip()


def _fitted(wanted: Sequence[int], room: int) -> list[int]:
    """As wide as the columns want to be; where there is no room for that, the widest gives way first."""
    widths = [*wanted]
    while sum(widths) > room:
        spare = [width - least for width, least in zip(widths, NARROWEST, strict=True)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= 1
    return widths
