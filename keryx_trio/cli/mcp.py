"""`keryx-trio mcp`: agents over standard input and output."""

from __future__ import annotations

import click

from .applications import failure, find_application


@click.command()
@click.argument("app")
def mcp(app: str) -> None:
    """Serve agents over standard input and output.

    This is what an agent starts by itself: its settings name this command. Nothing but the Model Context Protocol goes
    to the output; the log, and whatever the application prints, goes to the error output.
    """
    try:
        import trio  # noqa: PLC0415

        from ..transports.mcp import serve_stdio  # noqa: PLC0415 - the SDK is slow to import
        from ..transports.stdio import taken_over  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException(f"MCP needs an extra: pip install 'keryx-trio[mcp]' ({error})") from None
    with taken_over() as descriptors:
        found = find_application(app)
        try:
            trio.run(serve_stdio, found, descriptors)
        except Exception as error:
            raise failure(f"{app} failed", error) from error
