"""The garbage collector in a process that serves: what it looks at, and how often.

Owns: both, for as long as the process serves. Does not know: what is garbage.

Nearly all that a request or a stream leaves is gone without the collector. It stops everybody while it looks at all
that lives, once that has grown by a quarter: with two thousand streams that open within two seconds this came to a
sixth of all time, and to a tenth of a second in which no event went out. So what is there when the application has
started, its modules most of all, is not looked at any more, and the rest less often.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

USUAL: Final = (700, 2000)
"""How many new objects make it look, where nobody has set another number: up to Python 3.12, and since."""

SELDOM: Final = 5000
"""The same in a process that serves."""

FEW: Final = 1000
"""More frozen objects than the interpreter itself makes (in 3.12 there are 375) are somebody's doing."""


class Collector:
    """The process's collector."""

    def __init__(self) -> None:
        self._threshold: tuple[int, int, int] | None = None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Put everything back as it was, in the end."""
        try:
            yield
        finally:
            if self._threshold is not None:
                gc.set_threshold(*self._threshold)
                gc.unfreeze()

    def settle(self) -> None:
        """The application has started: what is there now stays. Nothing happens where somebody has set it already."""
        threshold = gc.get_threshold()
        is_usual = gc.isenabled() and threshold[0] in USUAL and gc.get_freeze_count() < FEW
        if self._threshold is None and is_usual:
            self._threshold = threshold
            gc.collect()
            gc.freeze()
            gc.set_threshold(SELDOM, *threshold[1:])
