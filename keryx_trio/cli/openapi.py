"""`keryx-trio openapi`: the description of the HTTP interface, for other tools."""

from __future__ import annotations

import json

import click

from .applications import find_application


@click.command()
@click.argument("app")
@click.option(
    "--version", type=click.Choice(["3.2", "3.1"]), default="3.2", show_default=True, help="The version of OpenAPI."
)
def openapi(app: str, version: str) -> None:
    """Print the OpenAPI document of an application.

    It is what a server of the application answers at openapi.json. Version 3.1 is for tools that do not know 3.2 yet.
    """
    found = find_application(app)

    from ..openapi import document  # noqa: PLC0415 - not needed to say what the command does

    click.echo(json.dumps(document(found, "3.1" if version == "3.1" else "3.2"), indent=2, ensure_ascii=False))
