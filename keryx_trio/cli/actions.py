"""`keryx-trio actions`: what an application can do, as a table.

Owns: the table. Does not know: how any of it is reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from .applications import find_application
from .tables import table

if TYPE_CHECKING:
    from ..action import Action

TITLES: Final = ("ACTION", "WHERE", "INPUTS", "WHAT IT DOES")
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
        (each.name, [*_places(each, found.config.api_route)], [_inputs(each)], [each.summary])
        for each in found.actions.values()
    ]
    for line in table(TITLES, [([name], *cells) for name, *cells in rows]):
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
