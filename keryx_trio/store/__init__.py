"""Where state lives between calls: sessions, counters and jobs, in memory, in a SQLite file or in Redis.

Owns: the protocol that the three stores share, and which URL leads to which. Does not know: cookies, limits, or what
the values mean.

Invariant: the three behave alike. Values are bytes that came from JSON, so that what is read back is the same
everywhere; every method is atomic, and may be called by any number of tasks, processes and machines at once.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from ..config import ConfigError
from ..errors import ErrorType, TypedError
from ..logs import Log
from .jobs import Jobs


class StoreUnavailable(TypedError):  # noqa: N818 - named for the state, as trio names its own
    """The store cannot be reached. Over HTTP it is a 503 with `Retry-After`; what needs no store goes on."""

    def __init__(self) -> None:
        super().__init__("the store cannot be reached; try again", ErrorType.CONNECTION_UNAVAILABLE, retry_after=2)


@attrs.frozen
class Hit:
    """What a counter said to one hit."""

    allowed: bool
    count: int
    """The hits in the sliding window that ends now, this one included where it was allowed."""
    resets_in: float
    """Seconds until the present bucket ends, and there may be room again."""


class Store(Protocol):
    """What every store can do. Any method raises `StoreUnavailable` while the store is away, or not open.

    A change that ended so may have been made all the same, where the store did it and its answer was lost. To make it
    again does no harm; a hit may then count twice. What returned is done, and stays done.

    Times are in seconds and above zero. A store asks its own clock, so that all who share it agree. Ids and keys are
    any text that UTF-8 can carry.
    """

    url: str
    """What it is, without credentials."""

    @property
    def jobs(self) -> Jobs:
        """The jobs in it."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Use the store. Entering does not fail where the store is away for now; it does where it never can work."""

    async def load_session(self, id: str, ttl: float) -> dict[str, bytes] | None:  # noqa: A002
        """A session's values, each as JSON, and `ttl` seconds more of life for it; None where there is none."""

    async def update_session(self, id: str, values: dict[str, bytes], ttl: float, *, create: bool = True) -> bool:  # noqa: A002
        """Put values into a session, beside those it has.

        Where there is none it is made, with `create`; else nothing happens and the answer is False: so that a session
        which ended meanwhile stays ended.
        """

    async def move_session(self, old: str, new: str, ttl: float) -> None:
        """Give a session another id; the old one is unknown from then on. Nothing where there is none."""

    async def delete_session(self, id: str) -> None:  # noqa: A002
        """Forget a session."""

    async def touch_session(self, id: str, ttl: float) -> None:  # noqa: A002
        """Give a session `ttl` seconds more of life, where there is one."""

    async def hit(self, key: str, limit: int, window: float) -> Hit:
        """Count a hit, unless `limit` of them are in the sliding window of `window` seconds already.

        The window is told from two buckets: the hits of this one, and of the one before in the share of it that the
        sliding window still covers, rounded down.
        """


def make_store(url: str, log: Log) -> Store:
    """The store that a URL names: `memory://`, `sqlite:///relative.db`, `redis://host:6379/0`.

    Raises:
        ConfigError: no store has such a URL, or the extra that it needs is not installed. The message does not quote
            the URL, in which there may be a password.
    """
    scheme, found, _ = url.partition("://")
    if scheme == "memory" and found:
        from .memory import MemoryStore  # noqa: PLC0415 - only the store in use is loaded

        return MemoryStore(log)
    if scheme == "sqlite" and found:
        from .sqlite import SqliteStore  # noqa: PLC0415 - as above

        return SqliteStore(url, log)
    if scheme in ("redis", "rediss") and found:
        try:
            from .redis import RedisStore  # noqa: PLC0415 - as above
        except ImportError as error:
            raise ConfigError(
                f"KERYX_STORE names Redis, which needs an extra: pip install 'keryx-trio[redis]' ({error})"
            ) from error
        return RedisStore(url, log)
    raise ConfigError(
        "KERYX_STORE must be memory://, sqlite:///path, redis://host:6379/0 or rediss://... for TLS"
        + (f"; there is no store for {scheme}://" if found else "")
    )
