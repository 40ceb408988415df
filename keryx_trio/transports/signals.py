"""The signals that end a process of ours, and the end of one that does not end by itself.

Owns: which they are, and what a process ends with because of them. Does not know: what it does until then.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import trio

SIGNALLED: Final = 128
"""What shells add to a signal's number for the status of what it has ended."""

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_signals() -> Iterator[AsyncIterator[int]]:
    """Receive them; those that whoever started us ignores, as `nohup` does, stay ignored."""
    minded = [sign for sign in ENDING if signal.getsignal(sign) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*minded) as signals:
        yield signals


def leave_behind(status: int) -> NoReturn:
    """End the process at once, whatever still runs in it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
