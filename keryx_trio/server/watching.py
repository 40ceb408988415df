"""Clients that leave while their calls wait for something else: noticed for all of them by one task.

Owns: the one poll of a worker, and what it looks at. Does not know: what is said on a connection.

An application of plain ASGI needs a task for each call, which awaits `http.disconnect`. A short call is over before
that task has begun, and a thousand quiet streams are a thousand tasks. Here a connection is looked at once its call has
lasted a little while, and costs an entry in a table of the kernel's.

Invariant: what is watched is open. Whoever closes a connection takes it out first.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final

import trio

IS_THERE: Final = hasattr(select, "epoll")
"""Whether the system has what it takes: a poll that can be waited for like a socket."""

AHEAD: Final = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLRDHUP", 0)
LEFT: Final = getattr(select, "EPOLLRDHUP", 0)
"""What is looked at: that there is something to read, or only that nothing more will come."""

ENDED: Final = LEFT | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
"""What says that nothing more will."""


class Watch:
    """Tells of sockets that there is something to read, or that they are at their end."""

    def __init__(self) -> None:
        self._poll: Any = select.epoll() if IS_THERE else None
        self._watched: dict[int, Callable[[bool], bool]] = {}

    def add(self, fd: int, ready: Callable[[bool], bool]) -> None:
        """Call `ready` when a socket is, with whether it is at its end; only for that, once it has returned False."""
        self._watched[fd] = ready
        self._poll.register(fd, AHEAD)

    def discard(self, fd: int) -> None:
        """Look no more, if it was looked at."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    async def run(self) -> None:
        """Look, as long as the worker lives."""
        if not IS_THERE:
            return
        with self._poll:
            while True:
                await trio.lowlevel.wait_readable(self._poll.fileno())
                for fd, what in self._poll.poll(0):
                    ready = self._watched.get(fd)
                    if ready is not None and not ready(bool(what & ENDED)) and fd in self._watched:
                        self._poll.modify(fd, LEFT)
