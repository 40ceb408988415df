"""Hypercorn's workers, followed to their ends.

Owns: which of them failed, and what is said of it. Does not know: what they serve, or with which settings.

What is mended (hypercorn 0.18, `run.py`; pgjones/hypercorn#269 is one case of it): it stops everything when a worker
has failed, and ended with 0 all the same, which tells a supervisor that all is well. Here its processes are kept, and
asked when it is done.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from hypercorn.config import Config

STOPPED: Final = (0, -signal.SIGTERM)
"""How a worker ends that was told to: by itself, or so early that nothing was there yet to hear it."""


class Workers:
    """The worker processes of one server; stands where hypercorn makes them, as its `multiprocessing` context."""

    def __init__(self) -> None:
        self._context: Any = None
        self._processes: list[Any] = []

    def run(self, config: Config) -> int:
        """Serve until told to stop.

        Raises:
            click.ClickException: a worker could not start, or failed. All of them have ended.
        """
        import hypercorn.run  # noqa: PLC0415 - not needed to say what a command does

        module: Any = hypercorn.run
        get_context = module.get_context
        module.get_context = self._of
        try:
            status: int = module.run(config)
        finally:
            module.get_context = get_context
        for process in self._processes:
            process.join()  # hypercorn has told it to end, and each does so by force after its drain
        for process in self._processes:
            if process.exitcode not in STOPPED:
                raise click.ClickException(_failed(process.pid, process.exitcode))
        return status

    def _of(self, method: str) -> Workers:
        import multiprocessing  # noqa: PLC0415 - as above

        self._context = multiprocessing.get_context(method)
        return self

    def Event(self) -> Any:  # noqa: N802 - of the context
        """What tells the workers to stop."""
        return self._context.Event()

    def Process(self, **options: Any) -> Any:  # noqa: N802 - of the context
        """A worker, not started."""
        self._processes = [process for process in self._processes if process.exitcode not in STOPPED]
        process = self._context.Process(**options)
        self._processes.append(process)
        return process


def _failed(pid: int, code: int) -> str:
    if code > 0:
        return f"a worker could not start, or has failed: process {pid} ended with {code}; what it said is above"
    name = f"signal {-code}"
    with suppress(ValueError):  # not every number has a name
        name = signal.Signals(-code).name
    hint = ", which is what a system does to it that runs out of memory" if -code == signal.SIGKILL else ""
    return f"a worker was killed: process {pid}, by {name}{hint}"
