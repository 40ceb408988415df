"""The rounds of trio's loop: whether others have had their turn.

A loop that never waits has to give way now and then, and to give way costs a round. Whoever sends an event a second has
waited already, and can see it here.

Owns: the count. Does not know: who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio


class Pulse(trio.abc.Instrument):
    """Counts the rounds of a loop.

    Attributes:
        rounds: how many there have been; in each of them every task that could run has.
    """

    __slots__ = ("rounds",)

    def __init__(self) -> None:
        self.rounds = 0

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's own signature
        """A round begins."""
        self.rounds += 1

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Count the rounds of the loop that runs this."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)


STILL: Final = Pulse()
"""One that nobody has set going: by it nobody ever had a turn."""
