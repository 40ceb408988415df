"""What is said on one WebSocket: the calls that its client asks for, and how it ends.

Owns: which calls run, which wait, which are refused, and the close. Does not know: how a call lives, what messages look
like, or how they get their turn to be written.

    reader ─┬─► call ─► its outbox ─┐
            ├─► call ─► its outbox ─┼─► turns ─► the socket
            └─► refusals ───────────┘

Every call is a task in the socket's nursery, with a nursery of its own. Reading never waits, so a cancel, and that the
client has left, is read whatever is going on. A client that makes mistakes without end and does not read what they were
is closed.

Invariants: whatever asks for a call is answered by exactly one last message, unless the socket ends first. A mistake of
the client is told to it, and ends nothing. When the conversation has ended, so have all its calls.
"""

from __future__ import annotations

import contextvars
import functools
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ..call import LAST_WRITES, Call, cancelled, shutting_down
from ..connection import Connection, Peer
from ..errors import ErrorType, TypedError, as_typed
from ..wire import messages
from ..wire.messages import Ask, Cancel, Frames, Refused
from ..wire.text import utf8_size
from .exchange import Receive, Send
from .socket_reply import SocketReply, WayOut

if TYPE_CHECKING:
    from ..action import Action

REFUSALS: Final = 512
"""How many refusals may wait to be told. Turns to write come seldom where many streams are busy."""

LINGER: Final = 1.0
"""How long a client may take to answer the close, in seconds. Closed under a client that still sends, it is lost."""

LAST_CLOSE: Final = 0.1
"""How long a close may take where everything else has been cancelled, in seconds."""

SHOWN: Final = 100
"""How much of a client's words is repeated to it, in characters."""

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
FAILED: Final = 1011
"""Close codes (RFC 6455, section 7.4.1)."""


@attrs.define(eq=False)
class _Asked:
    """A call that was asked for."""

    ask: Ask
    action: Action[..., Any]
    correlation_id: str
    call: Call | None = None
    """None while it waits."""


class Conversation:
    """One socket, from its acceptance on.

    Attributes:
        whole: the scope of all of it, which a shutdown bounds.
    """

    def __init__(
        self,
        peer: Peer,
        correlation_id: str,
        path: str,
        receive: Receive,
        send: Send,
        *,
        extension: Mapping[str, Any],
        write_bound: float,
    ) -> None:
        self._peer = peer
        self._app = peer.app
        self._config = peer.app.config.websocket
        self._correlation_id = correlation_id
        self._path = path[:SHOWN]
        self._receive = receive
        self._out = WayOut(send, extension, write_bound, self._leave)
        self._reading = trio.CancelScope()
        self._left = False
        self._close_with = (GOING_AWAY, "the server is shutting down")
        self._taken: dict[str | float, _Asked] = {}  # by their ids, until they are answered
        self._running: dict[_Asked, Call] = {}  # until everything of them has ended
        self._waiting: deque[_Asked] = deque()
        self._count = 0
        self._second, self._heard = -math.inf, 0
        self._refusals: list[bytes] = []
        self._tells = False
        self._start_soon: Callable[..., None]
        self._telling: trio.Nursery
        self.whole = trio.CancelScope()

    # From outside

    def describe(self) -> dict[str, str]:
        """What the log says of a socket that is left behind."""
        return {
            "socket": self._path,
            "action": ", ".join(asked.action.name for asked in self._running) or "none",
            "correlation_id": self._correlation_id,
        }

    def shut_down(self, deadline: float) -> None:
        """The server stops: streams end, what waits is refused, and the close comes after the last call.

        Where calls outlast the deadline it does not wait for them.
        """
        self.whole.deadline = deadline + LAST_WRITES
        self._reading.deadline = deadline + LAST_WRITES / 2
        for call in self._running.values():
            call.shut_down(deadline)
        refusals = [self._refusal(Refused.of(shutting_down(), asked.ask.id)) for asked in self._drop_waiting()]
        if refusals:
            self._telling.start_soon(self._say, refusals)
        self._stop_reading_if_idle()

    def _leave(self) -> None:
        """The client has left, or takes nothing any more."""
        self._reading.cancel()
        self._drop_waiting()
        for call in list(self._running.values()):
            call.leave()

    def _abandon(self, why: TypedError) -> list[bytes]:
        """Give everything up; returns what is to be told of it."""
        payload = why.payload()
        untold = [*self._drop_waiting(), *(asked for asked, call in self._running.items() if not call.reply.ending)]
        for call in self._running.values():
            call.abandon()
        return [Frames(asked.ask.id).error(payload) for asked in untold]

    # Its life

    async def run(self) -> None:
        """Talk until the client leaves or has to be told to."""
        started_in = contextvars.copy_context()  # what one call sets, no other one finds
        async with trio.open_nursery() as calls:
            self._start_soon = functools.partial(started_in.run, calls.start_soon)  # type: ignore[arg-type]
            try:
                async with trio.open_nursery() as self._telling:  # what is refused goes out before the close
                    with self._reading:
                        await self._read()
                await self._out.close(*self._close_with)
            except BaseException as error:
                # Cancelled from outside, as by a server that waits no longer: the client is told all the same, and now.
                why = shutting_down()
                if isinstance(error, Exception):
                    why, self._close_with = as_typed(error), (FAILED, "the server failed")
                last_words = self._abandon(why)
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_CLOSE):
                    await self._say(last_words)
                    await self._out.close(*self._close_with)
                raise
            self._leave()
            if not self._left:
                await self._await_goodbye()

    async def _await_goodbye(self) -> None:
        """Read on for a moment: a connection closed under a client that still sends takes the close with it."""
        with trio.move_on_after(LINGER):
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    return

    async def _tell(self) -> None:
        """Write what was refused, all that there is at once: a turn comes seldom where many streams are busy."""
        while self._refusals:
            refusals, self._refusals = self._refusals, []
            await self._say(refusals)
        self._tells = False

    async def _say(self, refusals: list[bytes]) -> None:
        with suppress(trio.BrokenResourceError):  # it left instead of reading why
            await self._out.say(refusals)

    # Reading

    async def _read(self) -> None:
        """Take messages until the client has left, or has said what ends the socket."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._left = self._out.closed = True
                self._leave()
                return
            text = message.get("text")
            said: str | bytes = message["bytes"] if text is None else text
            if utf8_size(said) > self._config.max_message_size:
                self._close_with = (TOO_BIG, f"a message has at most {self._config.max_message_size} bytes")
                self._drop_waiting()
                return
            try:
                answer = self._hear(said)
            except Refused as refused:
                answer = self._refusal(refused)
            if answer is not None:
                if len(self._refusals) >= REFUSALS:
                    self._close_with = (POLICY_VIOLATION, f"{REFUSALS} messages were refused and the answers not read")
                    self._leave()
                    return
                self._refusals.append(answer)
                if not self._tells:
                    self._tells = True
                    self._telling.start_soon(self._tell)

    def _hear(self, said: str | bytes) -> bytes | None:
        """Do as a message says, or raise why not; returns what is to be answered at once."""
        what = messages.read(said)
        if isinstance(what, Cancel):
            return self._cancel(what)
        self._count_message(what)
        self._ask(what)
        return None

    def _count_message(self, ask: Ask) -> None:
        """See that messages stay within the rate; a second begins with the first message after the last one."""
        now, limit = trio.current_time(), self._config.max_messages_per_second
        if now - self._second >= 1:
            self._second, self._heard = now, 0
        self._heard += 1
        if limit and self._heard > limit:
            said = f"more than {limit} messages in a second; send fewer"
            raise Refused(said, ErrorType.CONNECTION_RATE_LIMITED, id=ask.id)

    def _ask(self, ask: Ask) -> None:
        """Let a call begin, or wait."""
        if self._app.drain_deadline is not None:
            raise Refused.of(shutting_down(), ask.id)
        if ask.key is not None and ask.key in self._taken:
            said = "a call with this messageId is in flight, and goes on; give each call an id of its own"
            raise Refused(said, ErrorType.CONNECTION_ACTION_PARAM_FORMATTING, "messageId", id=ask.id)
        try:
            action = self._app.find_action(ask.action)
        except TypedError as error:
            raise Refused(error.message[:SHOWN], error.type, id=ask.id) from None
        limit = self._config.max_calls
        must_wait = len(self._running) >= limit
        if must_wait and len(self._waiting) >= limit:
            said = f"{limit} calls run on this socket and as many wait; let some end, or cancel them"
            raise Refused(said, ErrorType.CONNECTION_RATE_LIMITED, id=ask.id)
        self._count += 1
        asked = _Asked(ask, action, f"{self._correlation_id}.{self._count}")
        if ask.key is not None:
            self._taken[ask.key] = asked
        if must_wait:
            self._waiting.append(asked)
        else:
            self._start(asked)

    def _cancel(self, cancel: Cancel) -> bytes | None:
        """Cancel a call, which answers for itself; what waits is answered here. Nothing, where the two have crossed."""
        asked = self._taken.get(cancel.key)
        if asked is None:
            return None
        if asked.call is not None:
            asked.call.cancel()
            return None
        self._waiting.remove(asked)
        self._give_back(asked)
        return Frames(asked.ask.id).error(cancelled().payload())

    # Calls

    def _start(self, asked: _Asked) -> None:
        """Make a call of it. From now on its timeout runs."""
        reply = SocketReply(self._out, asked.ask.id, functools.partial(self._give_back, asked))
        connection = Connection(self._peer, asked.correlation_id)
        call = Call(self._app, asked.action, connection, reply, asked.ask.params, origin={"url": self._path})
        asked.call = self._running[asked] = call
        self._start_soon(self._run, asked, call, name=f"{asked.action.name} {asked.correlation_id}")

    async def _run(self, asked: _Asked, call: Call) -> None:
        await call.run()  # cancelled from outside it stays among those that run: its client has to be told
        self._give_back(asked)
        del self._running[asked]
        asked.call = None  # which knows it
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._app.drain_deadline is not None:
            self._stop_reading_if_idle()

    def _give_back(self, asked: _Asked) -> None:
        """Its id may be used again."""
        if asked.ask.key is not None and self._taken.get(asked.ask.key) is asked:
            del self._taken[asked.ask.key]

    def _drop_waiting(self) -> list[_Asked]:
        """What waits will not run; returns it."""
        dropped, self._waiting = list(self._waiting), deque()
        for asked in dropped:
            self._give_back(asked)
        return dropped

    def _stop_reading_if_idle(self) -> None:
        if not self._running:
            self._reading.cancel()

    def _refusal(self, refused: Refused) -> bytes:
        """What is said of what never became a call: to its client, and in the log."""
        self._app.log.info("refused", url=self._path, error=refused.message, correlation_id=self._correlation_id)
        return Frames(refused.id).error(refused.payload(debug=self._app.config.debug))
