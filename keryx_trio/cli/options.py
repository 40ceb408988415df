"""The inputs of an action as options of a command.

Owns: the names of the options, what the help says of each, and how what was given becomes raw inputs. Does not know:
what is valid. Values go on as the text that they are, and one place structures them, for every transport.

An option is the input's name with `-` for `_`. Three names are the command's own (`--follow`, `--json`, `--help`): an
input that bears one of them, and no other, is given by `--json`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from ..inputs.annotations import ITEMS, Kind, read
from ..inputs.faults import Fault
from ..uploads import UploadFile
from .describing import constraints, metavar

if TYPE_CHECKING:
    from ..inputs import Inputs
    from ..inputs.model import Parameter

OWN: Final = ("follow", "json", "help")
"""The inputs that the command's own options keep from having one."""

SECRETS_FROM: Final = "KERYX_INPUT_"
"""With the input's name in capitals: the variable that a secret is read from."""

STDIN: Final = "-"

SECRETS: Final = f"""A required secret that is not given is asked for, where the input is a terminal. Give it in its
file, or in the variable {SECRETS_FROM}NAME: who is on this machine can see the options of a command while it runs."""


class InputOption(click.Option):
    """The option of one input.

    Attributes:
        input: the name of the input.
        of_file: whether it names the file that a secret is in.
    """

    def __init__(self, name: str, declarations: list[str], *, of_file: bool = False, **settings: Any) -> None:
        super().__init__([f"input_{name}_file" if of_file else f"input_{name}", *declarations], **settings)
        self.input = name
        self.of_file = of_file
        self.declarations = declarations


def options(inputs: Inputs) -> list[InputOption]:
    """The options of all inputs that have some, in their order."""
    taken = {dashed(parameter.name) for parameter in inputs.parameters} | {*OWN}
    return [option for parameter in inputs.parameters for option in _options(parameter, inputs, taken)]


def dashed(name: str) -> str:
    """A name as options spell it."""
    return name.replace("_", "-")


def _options(parameter: Parameter, inputs: Inputs, taken: set[str]) -> Iterator[InputOption]:
    name = parameter.name
    if name in OWN:
        return
    schema = inputs.schema()
    described = schema["properties"][name]
    told = [*(["required"] if parameter.required else []), *constraints(described, schema.get("$defs", {}))]
    secret = inputs.is_secret(name)
    if secret:
        told.append("secret")
    help_text = " ".join([*([described["description"]] if "description" in described else []), f"[{'; '.join(told)}]"])
    settings: dict[str, Any] = {"help": help_text if told else described.get("description", "")}
    option = f"--{dashed(name)}"
    if _is_flag(parameter):
        off = f"no-{dashed(name)}"
        yield InputOption(
            name, [option if off in taken else f"{option}/--{off}"], default=None, is_flag=True, **settings
        )
        return
    shown = metavar(described, schema.get("$defs", {}))
    yield InputOption(name, [option], multiple=True, metavar=shown, type=click.UNPROCESSED, **settings)
    if secret and f"{dashed(name)}-file" not in taken:
        help_text = f"Read {option} from a file, or from {STDIN}, the input."
        yield InputOption(name, [f"{option}-file"], of_file=True, metavar="PATH", help=help_text)


def _is_flag(parameter: Parameter) -> bool:
    reading = read(parameter.annotation)
    kinds = {read(part).kind for part in reading.parts} if reading.kind is Kind.UNION else {reading.kind}
    return Kind.BOOL in kinds and kinds <= {Kind.BOOL, Kind.NONE}


def _takes_files(annotation: Any) -> bool:
    reading = read(annotation)
    if reading.kind is Kind.UNION or reading.kind in ITEMS:
        return any(map(_takes_files, reading.parts))
    return reading.kind is Kind.UPLOAD


# From what was given to raw inputs


def gather(
    inputs: Inputs,
    given: Mapping[InputOption, Any],
    values: Mapping[str, Any],
    *,
    stack: ExitStack,
    ask: Callable[[str], str | None],
) -> tuple[dict[str, Any], set[str]]:
    """The raw inputs, and the names of those that came as text.

    Args:
        given: what each option was given; None, or nothing in it, where it was not.
        values: what `--json` gave, which options win over.
        stack: closes the files that are opened.
        ask: asks a person for a secret by its name; None where nobody is there, or has an answer.

    Raises:
        click.UsageError: a secret was given in two ways, or its file cannot be read.
    """
    raw, text = dict(values), set[str]()
    by_name: dict[str, Any] = {}
    for option, value in given.items():
        if value is None or value == ():
            continue
        if option.input in by_name:
            option_name = f"--{dashed(option.input)}"
            raise click.UsageError(f"{option_name} and {option_name}-file give the same input: keep one of them")
        by_name[option.input] = _secret_in(value, option) if option.of_file else value
    for parameter in inputs.parameters:
        name, value = parameter.name, by_name.get(parameter.name)
        if value is None and name not in raw and inputs.is_secret(name):
            value = os.environ.get(f"{SECRETS_FROM}{name.upper()}")
            if value is None and parameter.required and read(parameter.annotation).secret:
                value = ask(name)
        if isinstance(value, bool):
            raw[name] = value
        elif value is not None:
            pieces = list(value) if isinstance(value, tuple) else [value]
            if _takes_files(parameter.annotation):
                pieces = [_file(path, stack) for path in pieces]
            raw[name] = pieces[0] if len(pieces) == 1 else pieces
            text.add(name)
    return raw, text


def read_input() -> bytes:
    """All of standard input; raises OSError where there is none."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def _secret_in(path: str, option: InputOption) -> str:
    try:
        text = (read_input() if path == STDIN else Path(path).read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path}: {_why(error)}", param=option) from None
    return text.removesuffix("\n").removesuffix("\r")


def _file(path: str, stack: ExitStack) -> UploadFile | Fault:
    """The file, opened but not read; or what is wrong with it, which is told among all faults."""
    try:
        file: BinaryIO = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115 - which closes it
        size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        return Fault(f"cannot open {path}: {_why(error)}", path)
    import mimetypes  # noqa: PLC0415 - only here

    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return UploadFile(file, Path(path).name, kind, size)


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
