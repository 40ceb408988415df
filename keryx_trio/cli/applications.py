"""The application that a command is for: `module:attribute`, found from the current folder.

Owns: how it is found, and what is said where it is not. Does not know: what a command does with it.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..app import Keryx


def find_application(name: str) -> Keryx:
    """The application that `module:attribute` names, as hypercorn takes it, found from the current folder.

    Raises:
        click.BadParameter: there is none; it says what was looked for, and where.
        click.ClickException: it is there, and cannot be imported, or has a setting that it cannot have.
    """
    from ..app import Keryx  # noqa: PLC0415 - not needed to say what a command does

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
            raise failure(f"cannot import {module_name}", error) from error  # it is there; what it imports is not
        raise _no_application(f"there is no module {module_name!r} in {here} or on Python's path") from None
    except Exception as error:
        raise failure(f"cannot import {module_name}", error) from error
    for part in (path or "app").split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Keryx):
        kind = type(found).__name__
        what = "nothing" if found is None else f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"
        raise _no_application(f"{name!r} must name a Keryx application, as in module:app, and names {what}")
    return found


def failure(what: str, error: BaseException) -> click.ClickException:
    """One line: what failed, why, and the place in the application that it came from; of a setting its own line."""
    from ..config import ConfigError  # noqa: PLC0415 - as above
    from ..errors import text_of, unwrap  # noqa: PLC0415 - as above

    error = unwrap(error)
    if isinstance(error, ConfigError):
        return click.ClickException(str(error))
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({frame[0].filename}, line {frame[0].lineno})" if frame else ""
    return click.ClickException(f"{what}: {type(error).__name__}: {text_of(error)}{place}")


def _no_application(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="APP")
