"""Whether a store can be reached, said in the log when that changes, and not by every call that notices.

Owns: the line when a store goes away, the one when it is back, and how long a call waits for it. Does not know: which
store it is, or how it is reached.
"""

from __future__ import annotations

from typing import Final

import trio

from ..logs import Log
from . import StoreUnavailable

PATIENCE: Final = 2.0
"""Seconds that a call waits for the store. A store in reach answers in milliseconds; beyond this the client of the call
is better served by a 503 at once than by one after its own timeout, with all the calls piled up that came meanwhile."""

SETTLED: Final = 1.0
"""Seconds without a failure after which a store counts as back. One that fails every other call stays away, in one
line, where each change would be two lines a call."""


class Availability:
    """What is known of one store.

    Args:
        log: where it is said.
        url: the store, without credentials.
    """

    def __init__(self, log: Log, url: str) -> None:
        self._log = log
        self._url = url
        self._away_since: float | None = None
        self._failed_at = 0.0

    def failed(self, reason: str) -> StoreUnavailable:
        """A call could not be served: the error for its caller. The first one is said in the log."""
        self._failed_at = trio.current_time()
        if self._away_since is None:
            self._away_since = self._failed_at
            self._log.error(
                "The store is away: sessions, rate limits and jobs fail with 503 until it is back",
                store=self._url,
                reason=reason,
            )
        return StoreUnavailable()

    def worked(self) -> None:
        """A call was served."""
        if self._away_since is None:
            return
        now = trio.current_time()
        if now - self._failed_at >= SETTLED:
            self._log.info("The store is back", store=self._url, away_seconds=round(now - self._away_since, 1))
            self._away_since = None
