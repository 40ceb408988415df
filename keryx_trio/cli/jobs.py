"""`keryx-trio jobs`: what is in the queues, and a second try for what has failed.

Owns: the tables. Does not know: where jobs are kept. The application is not started: its store is opened alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from .applications import failure, find_application
from .tables import table

if TYPE_CHECKING:
    from ..app import Keryx
    from ..store.jobs import Overview, Record

LIMIT: Final = 20

EPILOG: Final = """\b
Examples:
  keryx-trio jobs examples.report:app
  keryx-trio jobs examples.report:app --retry 3f2a9c0d1e4b5a6978879605
"""


@click.command(epilog=EPILOG, short_help="Show the jobs of an application, or retry one.")
@click.argument("app")
@click.option("--retry", metavar="ID", help="Put a job that failed into its queue again.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many of each kind are shown."
)
def jobs(app: str, retry: str | None, limit: int) -> None:
    """Show the queues of an application, and its jobs: those that run, wait, have failed, or are done.

    The jobs are those of the store that the application has (KERYX_STORE).
    """
    import trio  # noqa: PLC0415 - not needed to say what the command does

    from ..errors import TypedError  # noqa: PLC0415
    from ..transports.stdio import output_taken_over  # noqa: PLC0415

    with output_taken_over():  # the module may print
        found = find_application(app)
    if not found.store.jobs.shared:
        click.echo(
            f"{app} keeps its jobs in memory, where only its own process sees them; "
            "KERYX_STORE names a store that can be shared",
            err=True,
        )
    try:
        overview = trio.run(_read, found, retry, limit)
    except TypedError as error:
        raise click.ClickException(str(error)) from None
    except click.ClickException:
        raise
    except Exception as error:
        raise failure("the jobs cannot be read", error) from error
    if overview is None:
        click.echo(f"{retry} is in its queue again")
        return
    for line in lines(found, overview):
        click.echo(line)


async def _read(app: Keryx, retry: str | None, limit: int) -> Overview | None:
    """What there is; or nothing, where a job was to be retried, and is."""
    from .. import logs  # noqa: PLC0415 - as above

    with logs.configured(app.config.log):
        async with app.store.open():
            if retry is None:
                return await app.store.jobs.overview(limit)
            if await app.store.jobs.retry(retry):
                return None
    raise click.ClickException(f"there is no job {retry!r} that has failed")


def lines(app: Keryx, overview: Overview) -> Iterator[str]:
    """The tables, without the secrets of inputs."""
    from ..store.jobs import Status  # noqa: PLC0415 - as above

    shown = [Status.QUEUED, Status.DELAYED, Status.RUNNING, Status.FAILED, Status.DONE]
    if not overview.counts:
        yield "there are no jobs"
        return
    queues = [
        [[queue], *([str(counts.get(status, 0))] for status in shown)]
        for queue, counts in sorted(overview.counts.items())
    ]
    yield from table(["QUEUE", *(status.upper() for status in shown)], queues)
    for status in (Status.RUNNING, Status.DELAYED, Status.QUEUED, Status.FAILED, Status.DONE):
        records = [record for record in overview.records if record.status is status]
        if records:
            yield ""
            titles = [status.upper(), "ACTION", "QUEUE", "TRIED", _WHEN[status.value], "INPUTS"]
            rows = [_row(app, record, overview.now) for record in records]
            has_errors = any(record.outcome for record in records)
            yield from table(
                [*titles, "ERROR"] if has_errors else titles, rows if has_errors else [r[:-1] for r in rows]
            )
            all_of_them = sum(counts.get(status, 0) for counts in overview.counts.values())
            if all_of_them > len(records):
                yield f"... and {all_of_them - len(records)} more"


_WHEN: Final = {"running": "ENQUEUED", "delayed": "DUE", "queued": "ENQUEUED", "failed": "FAILED", "done": "DONE"}


def _row(app: Keryx, record: Record, now: float) -> list[list[str]]:
    order = record.order
    moment = record.due if record.status in ("delayed", "failed", "done") else record.enqueued
    cells = [order.id, order.action, order.queue, f"{record.attempts}x", _span(moment - now), _inputs(app, record)]
    return [*([cell] for cell in cells), [_error(record)]]


def _span(seconds: float) -> str:
    """How far a moment is from now."""
    size, unit = abs(seconds), "s"
    for length, name in ((60, "min"), (60, "h"), (24, "d")):
        if size < length:
            break
        size, unit = size / length, name
    return f"in {size:.0f} {unit}" if seconds > 0 else f"{size:.0f} {unit} ago"


def _inputs(app: Keryx, record: Record) -> str:
    from ..wire import json  # noqa: PLC0415 - as above

    action = app.actions.get(record.order.action)
    if action is None:
        return "(the application has no such action)"
    given = action.inputs.redact(json.decode_object(record.order.params or b"{}", "a job"))
    return " ".join(f"{key}={_short(value)}" for key, value in given.items())


def _short(value: Any) -> str:
    from ..logs import plain, shortened  # noqa: PLC0415 - as above

    return plain(str(shortened(value, 30)))


def _error(record: Record) -> str:
    import msgspec  # noqa: PLC0415 - as above

    from ..logs import plain  # noqa: PLC0415

    return plain(str(msgspec.json.decode(record.outcome).get("message"))) if record.outcome else ""
