"""How an application is called: whatever it does, it ends no more than its own call.

Owns: what is logged of an application that fails. Does not know: what it was asked, or over which protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .wire import Gone

if TYPE_CHECKING:
    from .worker import Site

OURS = (trio.Cancelled, KeyboardInterrupt)
"""What passes: it is about more than a call."""


async def call(site: Site, scope: Any, receive: Any, send: Any) -> bool:
    """Let the application serve a scope; whether it returned as it should.

    Raises:
        trio.Cancelled, KeyboardInterrupt: as they came, or as what is left of a group.
    """
    error: BaseException | None = None
    site.worker.begin_call()
    try:
        await site.serve(scope, receive, send)
    except OURS:
        raise
    except BaseException as raised:  # noqa: ASYNC103, BLE001 - a SystemExit of one call must not end all others
        error = raised
    finally:
        site.worker.end_call()
    if error is None:
        return True
    ours, errors = parted(error)
    if errors is not None:
        await _log(site, errors)
    if ours is not None:
        raise ours from None
    return False


def parted(error: BaseException | None) -> tuple[BaseExceptionGroup | None, BaseException | None]:
    """What of an error is about more than one call, or one connection, and the rest of it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(OURS)
    return None, error


async def _log(site: Site, error: BaseException) -> None:
    """An error, unless all it says is that its client has left."""
    told = error.split(Gone)[1] if isinstance(error, BaseExceptionGroup) else error
    if told is not None and not isinstance(told, Gone):
        await site.config.log.error("Error in ASGI Framework", exc_info=told)
