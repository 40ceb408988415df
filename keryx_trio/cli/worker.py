"""`keryx-trio worker`: a process that runs jobs, and serves nobody."""

from __future__ import annotations

import sys

import click

from .applications import failure, find_application

EPILOG = """\b
Examples:
  keryx-trio worker examples.report:app
  keryx-trio worker examples.report:app --queue reports --queue mail:4

Start as many as you like, on as many machines as share the store (KERYX_STORE). Stopped by SIGTERM or Ctrl-C, a worker
takes no more jobs, lets those that run finish within KERYX_DRAIN_TIMEOUT, and gives the rest back.
"""


@click.command(epilog=EPILOG, short_help="Run the jobs of an application.")
@click.argument("app")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[:N]",
    help="Run the jobs of this queue, N at once; may be repeated. All queues by default.",
)
@click.option("--workers", type=click.IntRange(min=1), help="How many jobs of each queue run at once.")
def worker(app: str, queues: tuple[str, ...], workers: int | None) -> None:
    """Run the jobs of an application: those that were enqueued, and the recurring ones."""
    import trio  # noqa: PLC0415 - not needed to say what the command does

    from ..config import checked_queues  # noqa: PLC0415
    from ..transports.worker import Workers, run_jobs  # noqa: PLC0415

    try:
        names = checked_queues(queues)
    except ValueError as error:
        raise click.BadParameter(f"must {error}", param_hint="--queue") from None
    found = find_application(app)
    found.workers = Workers.of(found, names, workers or max(1, found.config.tasks.workers))
    try:
        status = trio.run(run_jobs, found)
    except Exception as error:
        raise failure(f"{app} failed", error) from error
    sys.exit(status)
