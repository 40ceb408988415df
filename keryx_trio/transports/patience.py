"""How long whoever reads what a transport writes may take nothing of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


@contextmanager
def patience(seconds: float, otherwise: str = "the client took nothing") -> Iterator[None]:
    """What is written inside has so many seconds to be taken; 0 for any time.

    Raises:
        trio.BrokenResourceError: it took longer; `otherwise` says what did not happen.
    """
    with trio.CancelScope(deadline=trio.current_time() + (seconds or math.inf)) as scope:
        yield
    if scope.cancelled_caught:
        raise trio.BrokenResourceError(f"{otherwise} for {seconds:g} seconds")
