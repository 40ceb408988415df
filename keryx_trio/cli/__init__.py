"""The command line: what can be done with an application from a shell.

Owns: the list of commands. Each is a module of its own, which is imported when it is asked for, and imports what it
leads to when it runs: so that a command starts no slower than what it needs. Does not know: what any of them does.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

from .._version import __version__

COMMANDS: Final = ("run", "serve", "worker", "actions", "jobs", "mcp", "openapi")
"""The commands, in the order in which they are shown; each is a module of its name."""

INTERRUPTED: Final = 130
"""The status of what Ctrl-C has ended: 128, and the number of the signal."""

EPILOG: Final = """\b
Examples:
  keryx-trio actions examples.chat:app
  keryx-trio run examples.chat:app chat:stream --prompt "what is a lambda" --follow
  keryx-trio serve examples.chat:app --bind 127.0.0.1:8000
"""


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """The names of all."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f".{cmd_name}", __name__), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Where Ctrl-C ends it, its status says so."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(__version__, prog_name="keryx-trio", message="%(prog)s %(version)s")
def main() -> None:
    """Run an application of keryx_trio.

    APP is module:attribute, such as examples.chat:app, found from the current folder.
    """
