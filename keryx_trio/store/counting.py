"""The arithmetic of a sliding window told from two buckets; the same in every store.

Owns: what one hit does to the buckets, and what it is told. Does not know: where the buckets are kept, or whose clock
it is. The Lua of the Redis store is this module once more, with the same operations in the same order: both compute
with doubles, so both round alike.
"""

from __future__ import annotations

import math

import attrs

from . import Hit


@attrs.frozen
class Buckets:
    """The hits that were allowed in a bucket, and in the one before it."""

    number: int
    current: int
    previous: int


def count(kept: Buckets | None, now: float, limit: int, window: float) -> tuple[Buckets, Hit]:
    """One hit: the buckets after it, and what it is told.

    The buckets need not be kept where the hit is refused: they then say no more than those that are.
    """
    number = math.floor(now / window)
    current = previous = 0
    if kept is not None and kept.number == number:
        current, previous = kept.current, kept.previous
    elif kept is not None and kept.number == number - 1:
        previous = kept.current
    hits = math.floor(previous * (1 - (now / window - number))) + current
    allowed = hits < limit
    return Buckets(number, current + allowed, previous), Hit(allowed, hits + allowed, resets_in(now, window))


def resets_in(now: float, window: float) -> float:
    """Seconds until the bucket that `now` is in ends."""
    return (math.floor(now / window) + 1) * window - now
