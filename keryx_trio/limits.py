"""The middleware that is shipped: how often somebody may call, and who may call at all.

Owns: `RateLimit`, `RequireSession`, and the header fields of the first. Does not know: where counters live.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from .errors import ErrorType, TypedError
from .middleware import Middleware, Update
from .wire.headers import Headers

if TYPE_CHECKING:
    from .connection import Connection

USER: Final = "user_id"
"""The key of the session that tells who is logged in."""


@attrs.frozen
class RateLimited:
    """What the limiter found; `connection.rate_limit`.

    Attributes:
        limit: calls in a window.
        remaining: calls that are left in it.
        reset: when there is room again, in seconds since 1970.
        retry_after: seconds to wait, where the call was refused.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: float | None = None

    def headers(self) -> Headers:
        """`X-RateLimit-*`; `Retry-After` is the error's."""
        return [
            (b"x-ratelimit-limit", str(self.limit).encode()),
            (b"x-ratelimit-remaining", str(self.remaining).encode()),
            (b"x-ratelimit-reset", str(self.reset).encode()),
        ]


class RateLimit(Middleware):
    """Refuse calls above a limit, counted in a sliding window, with a 429 that says when to try again.

    Whoever has a `user_id` in the session is counted as that user, everybody else by address. Calls from action to
    action are not counted. One limiter on several actions counts them together; two limiters count apart only where
    their limits, windows or keys differ.

    Args:
        limit: calls in a window; None = 20 by address, 200 by user (`config.rate_limit`).
        window: seconds; None = `config.rate_limit.window`, 60.
        key: who is counted, instead: a fixed name, or a function of the params and the connection.
    """

    def __init__(
        self,
        limit: int | None = None,
        window: float | None = None,
        key: str | Callable[[dict[str, Any], Connection], str] | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit is a number of calls above zero, not {limit!r}")
        if window is not None and not 0 < window < math.inf:
            raise ValueError(f"window is a number of seconds above zero, not {window!r}")
        self.limit = limit
        self.window = window
        self.key = key

    async def run_before(self, params: dict[str, Any], connection: Connection) -> Update | None:
        """Count the call; see `Middleware`."""
        if connection.scope.nested:
            return None
        config = connection.app.config.rate_limit
        user = connection.session.data.get(USER)
        limit = self.limit or (config.limit if user is None else config.user_limit)
        window = self.window or config.window
        who = self._who(params, connection, user)
        hit = await connection.app.store.hit(f"{who}:{limit}:{window:g}", limit, window)
        connection.rate_limit = RateLimited(
            limit=limit,
            remaining=max(0, limit - hit.count),
            reset=math.ceil(time.time() + hit.resets_in),
            retry_after=None if hit.allowed else hit.resets_in,
        )
        if not hit.allowed:
            seconds = math.ceil(hit.resets_in)
            raise TypedError(
                f"rate limit of {limit} calls in {window:g} seconds exceeded; try again in {seconds} seconds",
                ErrorType.CONNECTION_RATE_LIMITED,
                retry_after=seconds,
            )
        return None

    def _who(self, params: dict[str, Any], connection: Connection, user: Any) -> str:
        if self.key is not None:
            return f"key:{self.key if isinstance(self.key, str) else self.key(params, connection)}"
        return f"ip:{connection.identifier}" if user is None else f"user:{user}"


class RequireSession(Middleware):
    """Refuse with a 401 whoever has no session with `key` in it.

    Args:
        key: what a login puts into the session.
    """

    def __init__(self, key: str = USER) -> None:
        self.key = key

    async def run_before(
        self,
        params: dict[str, Any],  # noqa: ARG002 - as `Middleware` has it
        connection: Connection,
    ) -> Update | None:
        """Look for the key; see `Middleware`."""
        if self.key not in connection.session.data:
            raise TypedError("log in first: this needs a session", ErrorType.CONNECTION_SESSION_NOT_FOUND)
        return None
