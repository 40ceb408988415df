"""`keryx-trio run`: one call, whose answer goes to the output.

Owns: the command line of a call. An application's actions are its commands, and their inputs the options: what there
is, is known once the application has been imported. Does not know: how the call lives (`transports.shell`), or what an
input may be.

Nothing but the answer goes to the output. A failure's last words, `{"error": ...}`, are the last line of stderr.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from .applications import failure, find_application

if TYPE_CHECKING:
    from ..action import Action
    from ..app import Keryx
    from ..transports.shell import Ended

HELP: Final = """Call an action of an application, and print its answer.

APP is module:attribute, such as examples.chat:app, found from the current folder. The inputs of the action are options:
`run APP --help` shows the actions, `run APP ACTION --help` the inputs of one.

A value is printed as one line of JSON, {"response": ...}; a stream of events, once it has ended, as {"response":
[{"data": ..., "event": ..., "id": ...}, ...]}; a stream of bytes as it is, while it comes. The log, and whatever the
application prints, goes to stderr.
"""
EPILOG: Final = """\b
The status:
  0    the answer is on the output
  1    the call failed; the last line of stderr is {"error": {...}}
  2    the command line was wrong
  130  Ctrl-C, and 143 after SIGTERM: the call was cancelled, and has cleaned up
  141  whoever read the output left before its end

\b
Examples:
  keryx-trio run examples.chat:app chat:stream --prompt "what is a lambda" --follow
  keryx-trio run examples.export:app export:csv --limit 1000 > orders.csv
  echo '{"prompt": "slices"}' | keryx-trio run -q examples.chat:app chat:stream --json -
"""


@attrs.define
class Asked:
    """What the command's own options say, wherever they stand."""

    follow: bool = False
    quiet: bool = False
    json: str | None = None


class CallFailed(click.ClickException):
    """The call ended in an error, or could not begin."""

    def __init__(self, payload: dict[str, Any], status: int = 1) -> None:
        super().__init__(str(payload["message"]))
        self.payload = payload
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's own signature
        """Print the error, below all else."""
        from ..wire import json  # noqa: PLC0415 - imported by now, as all that the application needs

        click.echo(b'{"error":%b}' % json.encode(self.payload), err=True)


def _note(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if not value:
        return
    setattr(ctx.ensure_object(Asked), str(option.name), value)
    if option.name == "quiet":
        import logging  # noqa: PLC0415 - only here

        logging.disable()
        ctx.call_on_close(partial(logging.disable, logging.NOTSET))


def own_options() -> list[click.Parameter]:
    """The command's own, which may stand before the application, before the action, and behind it."""
    noted: dict[str, Any] = {"expose_value": False, "callback": _note}
    from_json = (
        "Read the inputs from the input (-) or a file: a JSON object, whose values are taken as they are. "
        "The options of inputs win over it."
    )
    return [
        click.Option(["--follow"], is_flag=True, help="Print events as they come, for people.", **noted),
        click.Option(["--json"], metavar="-|FILE", help=from_json, **noted),
        click.Option(["-q", "quiet"], is_flag=True, is_eager=True, help="Keep the log silent.", **noted),
    ]


class Applications(click.Group):
    """The applications, of which any name may be one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """None: nobody knows them."""
        return []

    def resolve_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - as above
        args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The application that the first word names."""
        from ..transports.stdio import output_taken_over  # noqa: PLC0415 - not needed to say what the command does

        with output_taken_over():  # the module may print
            try:
                app = find_application(args[0])
            except click.ClickException as error:
                raise error if isinstance(error, click.UsageError) else _failed(error.message) from None
        return args[0], Actions(args[0], app), args[1:]


class Actions(click.Group):
    """The actions of an application."""

    def __init__(self, name: str, app: Keryx) -> None:
        super().__init__(
            name,
            params=own_options(),
            subcommand_metavar="ACTION [INPUTS]...",
            help="Call an action of this application. ACTION --help shows its inputs.",
        )
        self._app = app

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """The names of all."""
        return list(self._app.actions)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The call of the action of that name."""
        action = self._app.actions.get(cmd_name)
        return None if action is None else Call(self._app, action)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """The actions, each with the first line of its description."""
        with formatter.section("Actions"):
            formatter.write_dl([(action.name, action.summary) for action in self._app.actions.values()])

    def resolve_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - as above
        args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The action that the first word names. That there is none is an answer like another."""
        from ..errors import TypedError  # noqa: PLC0415 - imported by now
        from ..transports.shell import find_action  # noqa: PLC0415

        try:
            action = find_action(self._app, args[0])
        except TypedError as error:
            raise CallFailed(error.payload()) from None
        return action.name, Call(self._app, action), args[1:]


class Call(click.Command):
    """The call of an action."""

    def __init__(self, app: Keryx, action: Action[..., Any]) -> None:
        from . import options  # noqa: PLC0415 - needs what the application has imported

        self._app = app
        self._action = action
        self._inputs = options.options(action.inputs)
        super().__init__(
            action.name,
            context_settings={"token_normalize_func": options.dashed},
            params=[*self._inputs, *own_options()],
            help=action.description,
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The inputs, then the command's own options."""
        from . import options  # noqa: PLC0415 - as above

        records = [option.get_help_record(ctx) for option in self._inputs]
        hidden = [(name, "Only by --json: the option of this name is the command's.") for name in self._only_by_json()]
        with formatter.section("Inputs"):
            if records or hidden:
                formatter.write_dl([*filter(None, records), *hidden])
            else:
                formatter.write_text("There are none.")
        if any(map(self._action.inputs.is_secret, self._action.inputs.keys)):
            formatter.write_paragraph()
            formatter.write_text(options.SECRETS)
        others = [option.get_help_record(ctx) for option in self.get_params(ctx) if option not in self._inputs]
        with formatter.section("Options"):
            formatter.write_dl([*filter(None, others)])

    def _only_by_json(self) -> list[str]:
        shown = {option.input for option in self._inputs}
        return [name for name in self._action.inputs.keys if name not in shown]

    def invoke(self, ctx: click.Context) -> None:
        """Make the call, and end the command with its status."""
        from ..transports import stdio  # noqa: PLC0415 - imported by now
        from .following import Follower  # noqa: PLC0415
        from .options import gather  # noqa: PLC0415

        asked = ctx.ensure_object(Asked)
        values = {} if asked.json is None else _read_json(asked.json)
        given = {option: ctx.params[option.name or ""] for option in self._inputs}
        with ExitStack() as stack:
            raw, text = gather(self._action.inputs, given, values, stack=stack, ask=_ask)
            output = stack.enter_context(stdio.output_taken_over())
            follower = Follower.on(output) if asked.follow else None
            ended = self._run(output, raw, text, follower)
        if follower is not None and follower.is_watched and not asked.quiet and ended.status == 0:
            click.echo(follower.summary, err=True)
        if ended.error is not None:
            raise CallFailed(ended.error, ended.status)
        ctx.exit(ended.status)

    def _run(self, output: int, raw: dict[str, Any], text: set[str], follower: Any) -> Ended:
        import trio  # noqa: PLC0415 - imported by now

        from ..transports import shell  # noqa: PLC0415

        show = None if follower is None else follower.show
        call = partial(shell.run, self._app, self._action, shell.Output(output), raw, text=text, show=show)
        try:
            return trio.run(call)
        except Exception as error:
            raise _failed(failure("the application failed", error).message) from error


def _read_json(source: str) -> dict[str, Any]:
    from ..errors import TypedError  # noqa: PLC0415 - imported by now
    from ..wire import json  # noqa: PLC0415
    from .options import STDIN, read_input  # noqa: PLC0415

    try:
        text = read_input() if source == STDIN else Path(source).read_bytes()
        return json.decode_object(text, "the input" if source == STDIN else source)
    except TypedError as error:
        raise CallFailed(error.payload()) from None
    except OSError as error:
        raise click.BadParameter(f"cannot read {source}: {error.strerror}", param_hint="--json") from None


def _ask(name: str) -> str | None:
    """Ask a person, who sees nothing of what they type."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    import getpass  # noqa: PLC0415 - only here

    try:
        return getpass.getpass(f"{name}: ")
    except EOFError:
        click.echo(err=True)
        return None


def _failed(message: str) -> CallFailed:
    """The failure of the application itself."""
    from ..errors import ErrorType, TypedError  # noqa: PLC0415 - imported by now

    return CallFailed(TypedError(message, ErrorType.CONNECTION_SERVER_ERROR).payload())


run = Applications(
    "run",
    params=own_options(),
    subcommand_metavar="APP ACTION [INPUTS]...",
    short_help="Call an action, and print its answer.",
    help=HELP,
    epilog=EPILOG,
)
