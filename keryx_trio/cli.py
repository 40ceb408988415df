"""The command line: what can be done with an application from a shell.

Owns: the commands, and how an application is found. Does not know: what any command leads to; each imports that itself,
so that a command starts no slower than what it needs.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._version import __version__

if TYPE_CHECKING:
    from .app import Keryx


def find_application(name: str) -> Keryx:
    """The application that `module:attribute` names, as hypercorn takes it, found from the current folder.

    Raises:
        click.BadParameter: there is none; it says what was looked for, and where.
    """
    from .app import Keryx  # noqa: PLC0415 - not needed to say what a command does

    if not re.fullmatch(r"[^\W\d][\w.]*(:[^\W\d][\w.]*)?", name):
        raise _no_application(f"{name!r} is no module:attribute, such as examples.chat:app")
    module_name, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failure(f"cannot import {module_name}", error) from error  # it is there; what it imports is not
        raise _no_application(f"there is no module {module_name!r} in {here} or on Python's path") from None
    except Exception as error:
        raise _failure(f"cannot import {module_name}", error) from error
    for part in (path or "app").split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Keryx):
        kind = type(found).__name__
        what = "nothing" if found is None else f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"
        raise _no_application(f"{name!r} must name a Keryx application, as in module:app, and names {what}")
    return found


def _failure(what: str, error: BaseException) -> click.ClickException:
    """One line: what failed, why, and the place in the application that it came from."""
    from .errors import text_of, unwrap  # noqa: PLC0415 - as above

    error = unwrap(error)
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({frame[0].filename}, line {frame[0].lineno})" if frame else ""
    return click.ClickException(f"{what}: {type(error).__name__}: {text_of(error)}{place}")


def _no_application(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="APP")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keryx-trio", message="%(prog)s %(version)s")
def main() -> None:
    """Run an application of keryx_trio. APP is module:attribute, such as examples.chat:app."""


@main.command()
@click.argument("app")
def mcp(app: str) -> None:
    """Serve agents over standard input and output.

    This is what an agent starts by itself: its settings name this command. Nothing but the Model Context Protocol goes
    to the output; the log, and whatever the application prints, goes to the error output.
    """
    try:
        import trio  # noqa: PLC0415

        from .transports.mcp import serve_stdio  # noqa: PLC0415 - the SDK is slow to import
        from .transports.stdio import taken_over  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException(f"MCP needs an extra: pip install 'keryx-trio[mcp]' ({error})") from None
    with taken_over() as descriptors:
        found = find_application(app)
        try:
            trio.run(serve_stdio, found, descriptors)
        except Exception as error:
            raise _failure(f"{app} failed", error) from error
