"""The life of a call, from its inputs to its last byte.

Owns: the scopes a call lives in, and why it ended. Does not know: how its stream reaches the client (its `Delivery`
does), how anything looks on the wire (a `Reply` does), or what is said of a call (its `Account` does).

Two scopes have two meanings:

    whole   the client has left: everything dies, and nobody is told anything any more
    work    the timeout, the shutdown, or the client wants no more of this call: there is a last word

The application's code, and the nursery lent to it (`connection.nursery`), are inside both. Delivery is inside `whole`
only, beside the action: from there it can still tell the client what became of the rest, and no failing task can cut
it. `whole` is the scope of the nursery that these tasks need; a call that is one task has none, for when its client
leaves only `work` is left to end.

Invariants: the first cause decides how the call ended; a `work` that is cancelled without one has passed its deadline.
What ends a stream is put into its outbox at once, so the client is told when it happens, however long the producer
cleans up. Nothing is written after the client has left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from .account import Account
from .connection import CallNursery, CallScope, timed_out
from .delivery import Delivery
from .errors import ErrorType, TypedError, leaves, unwrap
from .failures import contained, is_end, is_expected, parted
from .middleware import run_around
from .outbox import CANCELLED, DONE, GONE, End, Outcome
from .reply import Reply
from .streaming import CallContext, StreamingResponse, call_context

if TYPE_CHECKING:
    from .action import Action
    from .app import Keryx
    from .connection import Connection

STOPPED: Final = (Outcome.TIMEOUT, Outcome.SHUTDOWN, Outcome.CANCELLED)
"""How a call ends that is stopped from outside, and still has a last word."""

_NOTHING: Final = object()
"""Stands for the value of an action that returned none, because it was cancelled."""

LAST_WRITES: Final = 0.4
"""How long after the drain what is told at its end may still be written, in seconds."""


class Call:
    """One call of an action by a client. `run` it once, in the task that is its own.

    Args:
        raw: the inputs as they came.
        text: the keys of those that came as text.
        origin: what the log is told of where it came from.
    """

    def __init__(
        self,
        app: Keryx,
        action: Action[..., Any],
        connection: Connection,
        reply: Reply,
        raw: Mapping[str, Any],
        *,
        text: Collection[str] = (),
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.app = app
        self.account = Account(app, action, connection, raw, origin or {})
        self.action = action
        self.connection = connection
        self.reply = reply
        self.raw = raw
        self.text = text
        self.cause: Outcome | None = None
        self.stream: StreamingResponse | None = None
        self._whole: trio.CancelScope | None = None
        self._work: trio.CancelScope | None = None
        self._lost = False  # whether nobody is left to tell
        self._timeout = math.inf
        self._times_out = self._shuts_down = math.inf  # when, on trio's clock
        self._delivered: trio.Event  # where something is delivered beside the action
        self._writing = False
        self._finished = False

    # What may happen to it, from outside

    def describe(self) -> dict[str, str]:
        """What the log says of a call that is left behind."""
        return {"action": self.action.name, "correlation_id": self.connection.correlation_id}

    def leave(self) -> None:
        """The client has left; nothing, where it has been answered in full."""
        if not self.reply.ending:
            self._lose()

    def abandon(self) -> None:
        """The server gives it up at once: it has no last word of its own, though its client may still be there."""
        if not self.reply.ending:
            self._lose(End(Outcome.SHUTDOWN))

    def drop(self) -> None:
        """Nobody waits for it any more: a call that has been answered, and goes on, does so no longer either."""
        self._lose()

    def _lose(self, end: End = GONE) -> None:
        self._note(end.outcome)
        self._lost = True
        for scope in (self._whole, self._work):
            if scope is not None:
                scope.cancel()  # before the end: who waits in a send is cancelled there, not let go as if it had sent
        if self.stream is not None:
            self.stream.outbox.finish(end)

    def cancel(self) -> None:
        """The client wants no more of it; nothing, where it has been answered in full."""
        if not self.reply.ending:
            self._stop(Outcome.CANCELLED)
            if self.stream is not None:
                self.stream.outbox.finish(CANCELLED)

    def _stop(self, cause: Outcome) -> None:
        self._note(cause)
        if self._work is not None:
            self._work.cancel()

    def expire(self) -> None:
        """Its timeout has passed, in the connection's scope."""
        self._stop(Outcome.TIMEOUT)

    def shut_down(self, deadline: float) -> None:
        """The server stops: a stream that is watched ends now, all else may finish until `deadline`.

        Every write is bounded.
        """
        self._shuts_down = deadline
        if self._whole is not None:
            self._whole.deadline = deadline + LAST_WRITES
        self._set_deadline()
        if self.stream is not None and not self.reply.patient:
            self._end_for_shutdown(self.stream)

    # Its scopes

    def _open_whole(self, nursery: trio.Nursery) -> None:
        """All that this call still is happens in `nursery`."""
        self._whole = nursery.cancel_scope
        self._whole.deadline = self._shuts_down + LAST_WRITES
        if self._lost:
            self._whole.cancel()

    def _close_whole(self, nursery: trio.Nursery) -> None:
        """It has been done: what waits in `nursery` waits for nothing."""
        self._whole = None
        nursery.cancel_scope.cancel()

    def _open_work(self) -> trio.CancelScope:
        """The scope of the application's code from now on."""
        self._work = trio.CancelScope(deadline=min(self._times_out, self._shuts_down))
        if self._lost or self.cause in STOPPED:
            self._work.cancel()
        return self._work

    def _set_deadline(self) -> None:
        if self._work is not None:
            self._work.deadline = min(self._times_out, self._shuts_down)

    # Its life

    async def run(self) -> None:
        """Run the action and answer, whatever happens. Raises nothing but what is no error (a KeyboardInterrupt)."""
        events = self.action.events if self.app.config.debug else None
        context = CallContext(
            trio.lowlevel.current_task(),
            self.connection.correlation_id,
            events.check if events is not None else None,
        )
        outer_context = call_context.set(context)
        self._timeout = self.app.timeout_of(self.action)
        self._times_out = trio.current_time() + self._timeout
        if self.app.drain_deadline is not None:
            self.shut_down(self.app.drain_deadline)
        unwatch: Callable[[], None] | None = None
        try:
            unwatch = self.reply.watch(self.leave)
            if unwatch is not None and not self._lends():
                await self._answer_alone()
            else:
                await self._answer_with_nursery(watches=unwatch is None)
        except* Exception as error:  # noqa: BLE001 - there is nobody left to tell but the log
            self.account.report("an error at the end of a call", error)
        finally:
            if unwatch is not None:
                unwatch()
            if self.stream is not None:  # without an end where the server has cancelled all of this
                self.stream.outbox.finish(End(self.cause or Outcome.SHUTDOWN))
            for stream in context.streams:  # nobody reads them any more: nobody may wait to send, nothing stays open
                try:
                    await stream.discard()  # noqa: ASYNC102 - shielded, and bounded, in there
                except Exception as error:  # noqa: BLE001 - the application's own, and no reason to keep others open
                    self.account.report("a source could not be closed", error)
            if self.stream is not None or not self.account.begun:
                self._report_untold()
                self._log_end()
            # What knows itself in a circle is taken apart, so that all of it is gone at once, without the collector.
            call_context.reset(outer_context)
            if self.stream is not None:
                self.stream.outbox.detach()

    def _lends(self) -> bool:
        """Whether anybody gets to see the connection, whose nursery a call lends."""
        return self.action.inputs.connection_parameter is not None or bool(self.app.middleware_of(self.action))

    async def _watch(self) -> None:
        await self.reply.left()
        self.leave()

    async def _answer_alone(self) -> None:
        """Answer for an action that is lent nothing: a call of one task, beside which a stream is delivered."""
        value: Any = _NOTHING
        error: Exception | None = None
        passing: BaseException | None = None
        enclosing = self.reply.enclosing
        try:
            if enclosing is None:
                with self._open_work():
                    value = await self._invoke(None)
                    self._stopped()
            else:
                value = await self._invoke_in(enclosing)
        except BaseException as raised:  # noqa: ASYNC103 - what is about more than the call is raised in there
            if enclosing is not None and enclosing.cancel_called:
                passing, own = parted(raised)
                error = None if own is None else self._failure(own)
            elif (error := self._failure(raised)) is None:
                raise
        try:
            if enclosing is not None and self._may_be_cut() and enclosing.cancel_called:
                await self._end_in_cancelled(value, error)
                if passing is not None:
                    raise passing
            elif isinstance(value, StreamingResponse):
                await self._stream_alone(value)
            elif value is _NOTHING or self.cause is not None:
                await self._tell(value, self._decided(error))
            else:
                await self._write_value(value)
        finally:
            del error, passing  # whose tracebacks know this frame

    async def _invoke_in(self, enclosing: trio.CancelScope) -> Any:
        """Run the action in a scope of the connection's: one for each call would cost more than all else about it."""
        self._work = enclosing
        if self._shuts_down < math.inf:
            self._set_deadline()
        timeout = self.app.timers.of(self._timeout)
        timeout.begin(self, self._times_out)
        try:
            return await self._invoke(None)
        finally:
            timeout.end(self)
            if self.account.has_lasted(self._timeout):
                self.expire()  # as nobody could meanwhile: the action held up the whole loop
            if self._may_be_cut():
                self._stopped()  # notes the cause, while there is a scope that tells of it
                enclosing.deadline = math.inf
            self._work = None  # what comes is the answer, which neither a timeout nor the shutdown cancels

    def _may_be_cut(self) -> bool:
        """Whether anything has happened that cancels."""
        return self.cause is not None or self._shuts_down < math.inf

    async def _end_in_cancelled(self, value: Any, error: Exception | None) -> None:
        """Say the last word of a call that was stopped together with its connection."""
        if isinstance(value, StreamingResponse):
            try:
                await value.discard()  # has a shield and a bound of its own
            except Exception as raised:  # noqa: BLE001 - the application's own, and told in the log
                error = raised
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITES):
            await self._tell(_NOTHING, self._decided(error))

    async def _stream_alone(self, stream: StreamingResponse) -> None:
        error: Exception | None = None
        async with trio.open_nursery() as outer:
            self._open_whole(outer)
            try:
                with self._open_work():
                    await self._produce(stream, outer)
            except BaseException as raised:  # noqa: ASYNC103 - as above
                error = self._failure(raised)
                if error is None:
                    raise
            try:
                await self._tell(stream, self._decided(error))
            finally:
                del error  # as above
            self._close_whole(outer)

    async def _answer_with_nursery(self, *, watches: bool) -> None:
        """Answer for an action whose tasks are a part of the call, or to a client who has to be watched by one."""
        async with trio.open_nursery() as outer:
            self._open_whole(outer)
            if watches:
                outer.start_soon(self._watch)
            await self._answer(outer)
            self._close_whole(outer)
        if outer.cancel_scope.cancelled_caught and self._whole is not None:
            self._note(Outcome.GONE)

    async def _answer(self, outer: trio.Nursery) -> None:
        value: Any = _NOTHING
        error: Exception | None = None
        lent: CallScope | None = None
        try:
            with self._open_work():
                async with trio.open_nursery() as user:
                    lent = CallScope(CallNursery(user, self._failed), self.verdict, self.account.secrets)
                    try:
                        value = await self._invoke(lent)
                        if isinstance(value, StreamingResponse):
                            await self._produce(value, outer, user)
                        else:
                            await self._keep_for(value, user, outer)
                    except Exception as raised:  # noqa: BLE001 - told to the client below
                        # Caught inside the nursery, so that it wins over what its tasks raise when they are cancelled.
                        error = raised
                        self._failed(raised)
                        user.cancel_scope.cancel()
        except BaseException as raised:  # noqa: ASYNC103 - mostly a group, of errors from the nursery's tasks
            failure = self._failure(raised)
            if failure is None:
                raise
            if error is not None:
                self.account.report("a task of a failed call failed too", failure)
            error = error or failure
            del failure  # as below
        finally:
            if lent is not None:
                lent.close()
        if error is None and user.cancel_scope.cancel_called and not self._finished:
            error = TypedError(f"the call of action {self.action.name} was cancelled by the application")
        try:
            await self._tell(value, self._decided(error))
        finally:
            del error  # whose traceback knows this frame

    def _failure(self, raised: BaseException) -> Exception | None:
        """What was raised, as the error that the call has failed with; None for what is about more, and has to pass."""
        error = contained(raised)
        if error is not None:
            self._failed(error)
        return error

    async def _invoke(self, lent: CallScope | None) -> Any:
        """From raw inputs to the action's value; a stream's source is ready to be read."""
        await trio.lowlevel.checkpoint_if_cancelled()  # the client may have thought better of it before it began
        inputs = self.action.inputs
        if inputs.has_secrets:
            self.account.secrets.extend(inputs.secrets(self.raw))
        if lent is not None:
            self.connection.scope = lent
        await self.connection.session.load()
        params = inputs.structure(self.raw, text=self.text)
        if inputs.has_secrets:
            self.account.secrets.extend(inputs.secrets(params))  # a converter may have made others of them
        if lent is None:  # there is no middleware either, nor anything else to hand over
            value = await self.action.function(**params)
        else:
            middleware = self.app.middleware_of(self.action)
            value = await run_around(
                self.action, middleware, params, self.connection, verdict=self.verdict, log=self.app.log
            )
        if isinstance(value, StreamingResponse):
            value.attach(self.reply)
            await value.prepare()
        return value

    async def _produce(self, stream: StreamingResponse, outer: trio.Nursery, user: trio.Nursery | None = None) -> None:
        """Produce a stream while it is delivered; ends when its producer has."""
        if self._stopped() or self.reply.declines():
            await stream.discard()
            self._finish(user)
            return
        stream.outbox.verdict = self._late_end
        stream.outbox.pulse = self.app.pulse
        self.stream = stream
        delivery = Delivery(stream, self.reply, self.account, self.app.ping_of(stream), self._times_out)
        self._delivered = delivery.done
        self.account.call(Outcome.DONE)
        outer.start_soon(delivery.run, self._lose)
        if self.app.drain_deadline is not None and not self.reply.patient:
            self._end_for_shutdown(stream)
        if stream.has_source:
            await stream.produce()
            stream.outbox.finish(DONE)
            self._finish(user)
        # Without a source the tasks of `user` send, and leaving it waits for them.

    async def _keep_for(self, value: Any, user: trio.Nursery, outer: trio.Nursery) -> None:
        """Where tasks of the call still run, they live until its plain value is written."""
        if user.child_tasks and not self._stopped():
            self._times_out = math.inf
            self._set_deadline()
            # Written by a task outside the nursery: one of the call's tasks that fails now must not cut the answer.
            self._writing = True
            self._delivered = trio.Event()
            outer.start_soon(self._write_beside, value)
            await self._delivered.wait()
        self._finish(user)

    def _finish(self, user: trio.Nursery | None) -> None:
        """The action has done what it was called for; what else runs in its nursery is not waited for."""
        self._finished = True
        if user is not None:
            user.cancel_scope.cancel()

    def _failed(self, error: Exception) -> None:
        """The call has failed. So it ended, and its stream is told at once, however long its tasks clean up."""
        self._note(Outcome.ERROR)
        if self.stream is not None:
            self.stream.fail(error, self._end_of(error))

    def _decided(self, error: Exception | None) -> Exception | None:
        """What the client is told: why the call was stopped, where that came first, or else what was raised."""
        if not self._stopped():
            return error
        if error is not None and not is_expected(error):
            self.account.report("an error in a call that was being stopped", error)
        return self.verdict() or cancelled()

    async def _tell(self, value: Any, error: Exception | None) -> None:
        """The last word, from outside all that could have been cancelled."""
        if self.stream is not None or self._writing:
            told = False
            if self.stream is not None:
                told = self.stream.outbox.finish(DONE if error is None else self._end_of(error))
            if error is not None and not told:
                self._report_late(error)
            if not self._lost:
                await self._delivered.wait()
        elif error is not None:
            await self._write_error(error)
        elif not self._lost:
            await self._write_value(value)

    # What goes out

    async def _write_value(self, value: Any) -> None:
        try:
            if isinstance(value, StreamingResponse):
                await self.reply.open(value, [])
            else:
                await self.reply.value(value)
            self.account.call(Outcome.DONE)
        except trio.BrokenResourceError:
            self._lose()
        except Exception as error:
            if self.reply.begun:
                raise  # the rest of an answer is no place for another
            await self._write_error(error)  # the value has no form on the wire

    async def _write_beside(self, value: Any) -> None:
        try:
            await self._write_value(value)
        finally:
            self._delivered.set()

    async def _write_error(self, error: Exception) -> None:
        typed, payload = self.account.told(error)
        if self._lost:
            return
        try:
            await self.reply.error(typed, payload)
            self.account.call(self.cause or Outcome.ERROR, typed)
        except trio.BrokenResourceError:
            self._lose()

    # Why it ended

    def _note(self, cause: Outcome) -> None:
        """Keep the first cause. A deadline that passed before anybody looked came first."""
        if self.cause is None:
            self.cause = self._fired() or cause

    def _fired(self) -> Outcome | None:
        if self._work is None or not self._work.cancel_called:
            return None
        return Outcome.TIMEOUT if self._times_out <= self._shuts_down else Outcome.SHUTDOWN

    def _stopped(self) -> bool:
        """Whether the call was ended from outside, with a last word that is not the action's."""
        if self.cause is None:
            self.cause = self._fired()
        return self.cause in STOPPED

    def verdict(self) -> TypedError | None:
        """Why the call was stopped, as an error; None where it was not, or where its client did it."""
        if not self._stopped():
            return None
        if self.cause is Outcome.TIMEOUT:
            return timed_out(self.action.name, self._timeout)
        if self.cause is Outcome.SHUTDOWN:
            return shutting_down()
        return None

    def _late_end(self) -> End | None:
        """The end of a stream whose timeout has fired, whatever its producer does with the cancellation."""
        return self._end_of(None) if self._stopped() and trio.current_time() >= self._times_out else None

    def _end_of(self, error: Exception | None) -> End:
        if self._stopped():
            error = self.verdict()
        return End(self.cause or Outcome.ERROR, error)

    def _end_for_shutdown(self, stream: StreamingResponse) -> None:
        self._stop(Outcome.SHUTDOWN)
        stream.outbox.finish(self._end_of(None))

    # What the log is told of its end

    def _report_untold(self) -> None:
        """A failure that its stream's client was to be told, and was not, since the call was cancelled from outside."""
        outbox = None if self.stream is None else self.stream.outbox
        error = outbox.end.error if outbox is not None and outbox.end is not None and not outbox.told else None
        if error is not None and not is_expected(error):
            self.account.report("an error that nobody could be told", error)

    def _report_late(self, error: Exception) -> None:
        """An error that came after the client's last word: in the log, unless it only says that the stream ended."""
        end = None if self.stream is None else self.stream.outbox.end
        was_told = end is not None and end.error is not None and unwrap(end.error) is unwrap(error)
        if not (was_told or self._stopped() or all(is_end(leaf) for leaf in leaves(error))):
            self.account.report("an error after the end of the answer", error)

    def _log_end(self) -> None:
        if not self.account.begun:  # not even an answer was
            self.account.call(self.cause or Outcome.SHUTDOWN)
        elif self.stream is not None:
            end = self.stream.outbox.end
            outcome = end.outcome if end is not None else self.cause or Outcome.SHUTDOWN
            self.account.stream(outcome, self.stream.comments)


def shutting_down() -> TypedError:
    """What a client is told whom a shutdown has stopped, or who came too late."""
    return TypedError("the server is shutting down; try again", ErrorType.CONNECTION_UNAVAILABLE, retry_after=1)


def cancelled() -> TypedError:
    """What a client is told that has cancelled a call which was to answer with a value."""
    return TypedError("the call was cancelled by its client")
