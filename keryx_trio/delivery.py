"""The delivery of a stream: from its outbox to the client, until its end.

Owns: when something is written, what is written together, and the sign of life of a quiet stream. Does not know: who
produces, how anything looks on the wire, or why the stream ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from .account import Account
from .outbox import DONE, Attempt, End, Item
from .reply import Reply
from .streaming import StreamingResponse


class Delivery:
    """Delivers one stream; `run` it once, as a task.

    Args:
        silence: after how many seconds without anything a sign of life is due; infinite for never.
        times_out: when the call's timeout passes, on trio's clock.

    Attributes:
        done: set when nothing more will be written.
    """

    __slots__ = ("_account", "_outbox", "_reply", "_silence", "_stream", "_times_out", "_write_now", "_wrote", "done")

    def __init__(
        self, stream: StreamingResponse, reply: Reply, account: Account, silence: float, times_out: float
    ) -> None:
        self._stream = stream
        self._outbox = stream.outbox
        self._reply = reply
        self._account = account
        self._silence = silence if reply.ping is not None else math.inf
        self._times_out = times_out
        self._wrote = -math.inf  # when something went out last, on trio's clock
        self._write_now: Attempt | None = None
        self.done = trio.Event()

    async def run(self, lost: Callable[[], None]) -> None:
        """Write what the outbox holds until its end, and then the end; call `lost` where nobody takes it any more."""
        try:
            await self._begin()
            await self._end(await self._go_on())
        except trio.BrokenResourceError:
            lost()
        finally:
            self.done.set()

    async def _begin(self) -> None:
        await self._reply.open(self._stream, self._outbox.take())
        self._went_out()
        self._write_now = self._reply.attempt
        if self._write_now is not None:
            self._outbox.attempt = self._attempt

    async def _go_on(self) -> End:
        """Write what is sent, until there is nothing but an end."""
        outbox = self._outbox
        while True:
            if outbox.release():
                await trio.lowlevel.checkpoint()  # who was let in may fill the box again: fewer, larger writes
            if (items := outbox.take()) or outbox.torn:
                outbox.torn = False
                await self._reply.write(items)  # and before them the rest of the one that is torn
                self._went_out()
            elif (end := outbox.last_word()) is not None:
                return end
            else:
                await self._wait_for_more()

    async def _end(self, end: End) -> None:
        payload = data = None
        if end.error is not None:
            _, payload = self._account.told(end.error)
            data = payload if end.data is None else self._account.sendable(end.data)
        await self._reply.end(end, payload, data)

    async def _wait_for_more(self) -> None:
        """Return when there may be something to write; in so many seconds of silence, show that the stream is alive."""
        if await self._outbox.wait(min(self._wrote + self._silence, self._times_out)):
            return
        if trio.current_time() >= self._times_out:
            self._outbox.finish(DONE)  # the verdict makes it the timeout's end
        elif self._reply.ping is not None and trio.current_time() >= self._wrote + self._silence:
            await self._reply.ping()  # nothing was written meanwhile by a sender either
            self._wrote = trio.current_time()

    def _attempt(self, item: Item) -> bool | None:
        """Write a lone item from its sender's task, while the delivery waits."""
        whole = None if self._write_now is None else self._write_now(item)
        if whole is not None:
            self._account.count(1, len(item))
            self._wrote = trio.current_time()
        return whole

    def _went_out(self) -> None:
        """What was taken last."""
        self._account.count(*self._outbox.taken)
        self._wrote = trio.current_time()
