"""What comes out of a call that it did not return: whose business it is, and whether it is worth a line in the log.

Owns: which errors are a call's own. Does not know: calls.
"""

from __future__ import annotations

from typing import Final

import trio

from .errors import TypedError, leaves, unwrap
from .outbox import ReaderLeft, StreamEnded

MORE: Final = (trio.Cancelled, KeyboardInterrupt)
"""What is about more than a call, and passes."""


def contained(raised: BaseException) -> Exception | None:
    """`raised` as an error of this call alone; None where it is about more than the call.

    A `SystemExit` or a `GeneratorExit` of an action must not end the server and with it everybody else's calls. What
    cancels or interrupts goes on.
    """
    if isinstance(raised, Exception):
        return raised
    if any(isinstance(leaf, MORE) for leaf in leaves(raised)):
        return None
    error = RuntimeError(f"the action raised {type(unwrap(raised)).__name__}, which would end the whole server")
    error.__cause__ = raised
    return error


def parted(raised: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What passes, of what came out of a cancelled action, and the rest of it, which is the call's own."""
    if isinstance(raised, MORE):
        return raised, None
    if isinstance(raised, BaseExceptionGroup):
        return raised.split(MORE)
    return None, raised


def is_end(error: BaseException) -> bool:
    """Whether an error only says that its stream has ended."""
    return isinstance(error, (StreamEnded, ReaderLeft))


def is_expected(error: BaseException) -> bool:
    """Whether an error says what was meant to be said, or only that the stream has ended: nothing for the log."""
    return all(isinstance(leaf, TypedError) or is_end(leaf) for leaf in leaves(error))
