"""A process of hypercorn's command line: how it learns that it should stop, and that it does.

Owns: the signals of a worker's process, and its end by force. Does not know: connections, or what an application does
to stop.

What is mended (hypercorn 0.18):
- the application was told of a shutdown after all its requests had ended, or had been cancelled after three seconds;
- with `--workers 0`, and where a worker gets the signal itself, SIGTERM killed it; so did the main process, which sends
  it to the others when the first worker is done;
- a task that would not end held the process for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Final

import trio
from hypercorn.trio.worker_context import EventWrapper

from .collector import Collector
from .worker import KEY, Worker

LAST_MOMENT: Final = 0.7
"""How long after the drain a process ends by force, in seconds."""


class Process:
    """A process that does nothing but serve, of one application."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._worker: Worker | None = None
        self._timer: threading.Timer | None = None
        self._signalled = trio.Event()
        self.collector = Collector()

    async def app(self, scope: Any, receive: Any, send: Any, *rest: Any) -> None:
        """The application, of which is noted which worker it makes when it starts."""

        async def noted(message: Any) -> None:
            self._worker = worker = scope.get("state", {}).get(KEY)
            if worker is not None:
                worker.when_stopping = self.arm
                if message["type"] == "lifespan.startup.complete":
                    self.collector.settle()
            await send(message)

        await self._app(scope, receive, noted if scope["type"] == "lifespan" else send, *rest)

    @property
    def inner(self) -> Callable[..., Awaitable[None]]:
        """The application alone."""
        return self._app

    @contextmanager
    def listening(self, *, alone: bool) -> Iterator[None]:
        """Hear signals. A process that has been told to stop hears no second one: the main process sends it another.

        Args:
            alone: whether there is no main process, which hears Ctrl-C for all.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # which is where signals are heard
            return
        token = trio.lowlevel.current_trio_token()

        def hear(number: int, frame: object) -> None:  # noqa: ARG001 - of every handler
            token.run_sync_soon(self._signalled.set, idempotent=True)

        numbers = [signal.SIGTERM, signal.SIGINT] if alone else [signal.SIGTERM]
        before = {number: signal.signal(number, hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if alone else signal.SIG_IGN)

    async def until_told(self, trigger: Callable[[], Awaitable[None]] | None) -> None:
        """Return when it should stop: on a signal, or when the main process says so."""
        async with trio.open_nursery() as nursery:
            if trigger is not None:
                nursery.start_soon(self._await_word, trigger)
            await self._signalled.wait()
            nursery.cancel_scope.cancel()
        self.arm()

    async def _await_word(self, trigger: Callable[[], Awaitable[None]]) -> None:
        await trigger()
        self._signalled.set()

    def arm(self) -> None:
        """From now on there is a last moment, whatever blocks."""
        if self._worker is not None and self._timer is None:
            self._timer = threading.Timer(self._worker.limits.drain_timeout + LAST_MOMENT, _leave)
            self._timer.daemon = True
            self._timer.start()

    def disarm(self) -> None:
        """It has ended by itself."""
        if self._timer is not None:
            self._timer.cancel()


def _leave() -> None:
    """End the process: what it was told to wait for will not end."""
    print("keryx_trio: the shutdown has taken as long as it may; what is left is left behind", file=sys.stderr)  # noqa: T201
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def between_signals(serve: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Hypercorn's function that serves in a worker's process, which signals end as they should."""

    @wraps(serve)
    async def served(app: Any, config: Any, *, shutdown_trigger: Any = None, **options: Any) -> None:
        process = Process(app)
        alone = shutdown_trigger is None
        with process.listening(alone=alone), process.collector.serving():
            try:
                trigger = partial(process.until_told, shutdown_trigger)
                await serve(process.app, config, shutdown_trigger=trigger, **options)
            finally:
                if alone:
                    process.disarm()  # what comes after it may be somebody's program

    return served


def without_process(app: Any) -> Any:
    """An application, as a connection calls it: a process has to do with its lifespan alone."""
    process = getattr(app, "__self__", None)
    return process.inner if isinstance(process, Process) else app


class Terminated(EventWrapper):
    """Hypercorn's word that the worker stops: the application is told at once, and waited for as long as it may take.

    Hypercorn sets its own bound, the graceful timeout, when this has returned; so that is on top, and for what is left.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    async def set(self) -> None:
        """Stop."""
        await super().set()
        await self._worker.stop()


def attach(worker: Worker, context: Any) -> None:
    """Let a worker know when hypercorn's one stops."""
    if not isinstance(context.terminated, Terminated):
        context.terminated = Terminated(worker)
