"""Jobs in Redis, delivered by streaq; for `RedisStore`.

Owns: what streaq is not asked to keep: results, what has failed, and the periods of recurring tasks. Streaq owns all of
a job that is under way: it delivers it, keeps its lease, and delays it. Does not know: connections (`redis_streaq` and
the store have them).

A result is written before streaq is told that the job has ended. Where that does not reach it any more, it delivers the
job once more, and the result that is there ends it. Streaq renews the leases of what runs, and leaves little time for
that, and does not notice where one was lost: so they are renewed here too, more often, and what is lost is cancelled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import msgspec
import trio

from ..errors import text_of, unwrap
from ..logs import Log
from . import StoreUnavailable
from .availability import Availability
from .jobs import Attempt, Handler, Order, Overview, Record, Status
from .leasing import OUTAGE_PAUSE, tell_lost
from .redis_address import Address
from .redis_streaq import Again, Deliveries, Keys, Publisher

QUEUES: Final = b"keryx:queues"
FAILED: Final = b"keryx:failed:"
DONE: Final = b"keryx:done:"
"""The ids of what is final in a queue, by the time at which each is forgotten, in milliseconds."""
OUTCOME: Final = b"keryx:outcome:"
ATTEMPTS: Final = b"keryx:attempts:"
"""How many attempts at a job failed, or were given back."""
RECURRING: Final = b"keryx:recurring"

UNPUBLISHED: Final = 5.0
"""Seconds after which a period whose job was not seen to be put is put by another worker."""

REMEMBERED: Final = 90 * 86_400_000
"""Milliseconds for which the failures of a job are counted."""

NOW: Final = b"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""
FIND: Final = b"""
local data = redis.call('GET', ARGV[1] .. ARGV[6])
if not data then return {false, redis.call('GET', KEYS[1])} end
local queue = cjson.decode(data).a[1][4]
local due = redis.call('ZSCORE', ARGV[3] .. queue, ARGV[6])
local running = redis.call('SISMEMBER', ARGV[5], ARGV[6])
return {data, due or '', running, redis.call('GET', ARGV[2] .. ARGV[6]) or '0'}
"""
"""A job that is under way, by streaq's keys; else what became of it."""
SETTLE: Final = (
    NOW
    + b"""
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[4])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now * 1000)
redis.call('ZADD', KEYS[2], now * 1000 + ARGV[3], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
"""
)
COUNT: Final = b"""
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
KEEP: Final = b"""
if #redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1, ARGV[1]) == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, ARGV[2], 'JUSTID')
return 1
"""
"""Renew the lease of a delivery, where its worker has it still."""
OVERVIEW: Final = (
    NOW
    + b"""
local limit = tonumber(ARGV[7])
local counts, jobs, final = {}, {}, {}
local function show(id, due, running)
  local data = redis.call('GET', ARGV[1] .. id)
  if data then jobs[#jobs + 1] = {data, due, running, redis.call('GET', ARGV[2] .. id) or '0'} end
end
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream, delayed = ARGV[4] .. queue, ARGV[3] .. queue
  local pending = {}
  local count = redis.pcall('XPENDING', stream, 'workers')
  local running = count.err and 0 or count[1]
  if running > 0 then
    for _, entry in ipairs(redis.call('XPENDING', stream, 'workers', '-', '+', running)) do pending[entry[1]] = 1 end
  end
  local due = redis.call('ZCOUNT', delayed, '-inf', now * 1000)
  local row = {queue, redis.call('XLEN', stream) - running + due, redis.call('ZCARD', delayed) - due, running}
  for _, kind in ipairs({ARGV[8], ARGV[9]}) do
    row[#row + 1] = redis.call('ZCOUNT', kind .. queue, now * 1000, '+inf')
    for _, id in ipairs(redis.call('ZRANGE', kind .. queue, '+inf', now * 1000, 'BYSCORE', 'REV', 'LIMIT', 0, limit)) do
      final[#final + 1] = redis.call('GET', ARGV[6] .. id) or nil
    end
  end
  counts[#counts + 1] = row
  local shown = {[0] = 0, [1] = 0}
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', limit + running)) do
    local kind = pending[entry[1]] or 0
    if shown[kind] < limit then
      shown[kind] = shown[kind] + 1
      show(entry[2][2], '', kind)
    end
  end
  local ids = redis.call('ZRANGE', delayed, 0, limit - 1, 'WITHSCORES')
  for place = 1, #ids, 2 do show(ids[place], ids[place + 1], 0) end
end
return {time[1], time[2], counts, jobs, final}
"""
)
BEFORE: Final = b"""
local counted = redis.call('HMGET', KEYS[2], 'failed', 'back')
return {redis.call('GET', KEYS[1]), counted[1], counted[2]}
"""
"""What is known of a job before an attempt at it."""
RESERVE: Final = (
    NOW
    + b"""
local every = tonumber(ARGV[2])
local number = math.floor(now / every)
local kept = redis.call('HGET', KEYS[1], ARGV[1])
local id, is_mine = ARGV[3], 1
if kept then
  local last = cjson.decode(kept)
  if last.number == number then
    if last.put == 1 or now - last.at < tonumber(ARGV[5]) then is_mine = 0 else id = last.id end
  elseif redis.call('EXISTS', ARGV[4] .. last.id) == 1 then
    is_mine = 0
  end
end
if is_mine == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({number = number, id = id, at = now, put = 0}))
end
return {is_mine, id, string.format('%.6f', (number + 1) * every - now)}
"""
)
"""Take a period, unless it is taken or the job of the last one is not settled. One that was taken and is not known to
be put, since its taker was killed, is taken again under the same id, which streaq does not put twice."""
CONFIRM: Final = b"""
local last = cjson.decode(redis.call('HGET', KEYS[1], ARGV[1]))
if last.id == ARGV[2] then
  last.put = 1
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(last))
end
"""


class _Settled(msgspec.Struct, frozen=True):
    """What is kept of a job that is done or has failed."""

    order: list[Any]
    failed: bool
    settled: float
    attempts: int
    outcome: msgspec.Raw
    retried: bool = False
    """Whether it was put into its queue again."""


class RedisJobs:
    """Jobs in Redis.

    Args:
        script: runs a script of the store.
        ready: raises StoreUnavailable where the store is known to be away.
    """

    shared = True

    def __init__(
        self,
        address: Address,
        script: Callable[..., Awaitable[Any]],
        ready: Callable[[], Awaitable[None]],
        availability: Availability,
        log: Log,
    ) -> None:
        self.log = log
        self._address = address
        self.script = script
        self._ready = ready
        self._availability = availability
        self._publisher = Publisher(address, availability)
        keys = Keys.of(address)
        self._keys = (keys.data, keys.tries, keys.delayed, keys.stream, keys.running)
        self._known: set[str] = set()

    async def run(self) -> None:
        """What must run while they are used."""
        await self._publisher.run()

    async def put(self, order: Order, delay: float = 0) -> None:
        """See `Jobs`."""
        if order.queue not in self._known:
            await self.script(b"redis.call('SADD', KEYS[1], ARGV[1])", [QUEUES], order.queue.encode())
            self._known.add(order.queue)
        await self._ready()
        await self._publisher.publish(order.id, _packed(order), order.queue, delay)

    async def put_recurring(self, order: Order, every: float) -> float:
        """See `Jobs`."""
        task = f"{order.action}@{every!r}".encode()
        is_mine, id, until_next = await self.script(  # noqa: A001 - a job's
            RESERVE, [RECURRING], task, repr(every).encode(), order.id.encode(), self._keys[0], b"%r" % UNPUBLISHED
        )
        if is_mine:
            await self.put(attrs.evolve(order, id=id.decode()))
            await self.script(CONFIRM, [RECURRING], task, id)
        return float(until_next)

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """See `Jobs`."""
        found = await self.script(FIND, [_key(OUTCOME, id)], *self._keys, id.encode())
        if found[0]:
            return _record(*found)
        return None if found[1] is None else _settled(msgspec.json.decode(found[1], type=_Settled))

    async def changed(self, id: str, seconds: float) -> None:  # noqa: A002, ARG002 - nobody tells
        """See `Jobs`."""
        await trio.sleep(seconds)

    async def retry(self, id: str) -> bool:  # noqa: A002
        """See `Jobs`."""
        key = _key(OUTCOME, id)
        kept = await self.script(b"return redis.call('GET', KEYS[1])", [key])
        settled = kept and msgspec.json.decode(kept, type=_Settled)
        if not settled or not settled.failed:
            return False
        # What has failed is kept until it is settled anew: if this process dies here, it can be retried once more.
        marked = msgspec.json.encode(msgspec.structs.replace(settled, retried=True))
        await self.script(b"redis.call('SET', KEYS[1], ARGV[1], 'XX', 'KEEPTTL')", [key], marked)
        await self.put(_order(settled.order))
        await self.script(b"redis.call('ZREM', KEYS[1], ARGV[1])", [_key(FAILED, settled.order[3])], id.encode())
        return True

    async def overview(self, limit: int) -> Overview:
        """See `Jobs`."""
        seconds, microseconds, counted, jobs, final = await self.script(
            OVERVIEW, [QUEUES], *self._keys, OUTCOME, limit, FAILED, DONE
        )
        kinds = (Status.QUEUED, Status.DELAYED, Status.RUNNING, Status.FAILED, Status.DONE)
        counts = {
            queue.decode(): {kind: number for kind, number in zip(kinds, numbers, strict=True) if number}
            for queue, *numbers in counted
        }
        ended = [_settled(msgspec.json.decode(each, type=_Settled)) for each in final]
        now = int(seconds) + int(microseconds) / 1_000_000
        return Overview(now, counts, [*(_record(*job) for job in jobs), *ended])

    async def queues(self) -> set[str]:
        """See `Jobs`."""
        return {name.decode() for name in await self.script(b"return redis.call('SMEMBERS', KEYS[1])", [QUEUES])}

    # A worker's part

    async def serve(self, queue: str, limit: int, handler: Handler, *, lease: float, stopping: trio.Event) -> None:
        """See `Jobs`."""
        taker = _Taker(self, handler)
        while not stopping.is_set():
            fault = await Deliveries(self._address, queue, taker, limit=limit, lease=lease).run(stopping)
            if fault is not None:
                self._availability.failed(text_of(unwrap(fault)))
                with trio.move_on_after(OUTAGE_PAUSE):
                    await stopping.wait()

    async def patiently(self, script: bytes, keys: list[bytes], *arguments: bytes | int) -> Any:
        """Run a script once the store is there; it ends with the application at the latest."""
        while True:
            try:
                return await self.script(script, keys, *arguments)
            except StoreUnavailable:
                await trio.sleep(OUTAGE_PAUSE)


@attrs.frozen(eq=False)
class _Taker:
    """Attempts what streaq delivers."""

    _jobs: RedisJobs
    _handler: Handler

    async def attempt(self, packed: list[Any], number: int) -> None:
        """See `Taker`."""
        order = _order(packed)
        outcome, attempts = _key(OUTCOME, order.id), _key(ATTEMPTS, order.id)
        kept, failed, back = await self._jobs.patiently(BEFORE, [outcome, attempts])
        if kept is not None and not msgspec.json.decode(kept, type=_Settled).retried:
            return
        failures, given_back = int(failed or 0), int(back or 0)
        losses = max(0, number - 1 - failures - given_back)
        verdict = await self._handler(Attempt(order, number, failures, losses))
        if not verdict.status.is_final:
            kind = b"failed" if verdict.status is Status.DELAYED else b"back"
            await self._jobs.patiently(COUNT, [attempts], REMEMBERED, kind)
            raise Again(verdict.delay)
        if verdict.status is Status.DONE:
            packed[2] = ""
        has_failed = verdict.status is Status.FAILED
        settled = _Settled(packed, has_failed, time.time(), number, msgspec.Raw(verdict.outcome or b"null"))
        kinds = (FAILED, DONE) if has_failed else (DONE, FAILED)
        await self._jobs.patiently(
            SETTLE, [outcome, *(_key(kind, order.queue) for kind in kinds), attempts],
            order.id.encode(), msgspec.json.encode(settled), math.ceil(verdict.keep * 1000),
        )  # fmt: skip

    async def keep(self, stream: str, worker: str, message: str) -> bool:
        """See `Taker`."""
        try:
            return bool(await self._jobs.script(KEEP, [stream.encode()], worker.encode(), message.encode()))
        except StoreUnavailable:
            return True  # as far as is known; it may be back before the lease ends

    def tell_lost(self, packed: list[Any]) -> None:
        """See `Taker`."""
        tell_lost(self._jobs.log, _order(packed))


def _key(kind: bytes, name: str) -> bytes:
    return kind + name.encode()


def _packed(order: Order) -> list[Any]:
    params = order.params.decode()
    return [order.id, order.action, params, order.queue, order.correlation_id, order.retries, time.time()]


def _order(packed: list[Any]) -> Order:
    id, action, params, queue, correlation_id, retries, _ = packed  # noqa: A001 - a job's
    return Order(id, action, params.encode(), queue, correlation_id, retries)


def _record(data: bytes, due: bytes, running: int, tries: bytes) -> Record:
    """What streaq has of a job, as `FIND` gives it."""
    packed, now = msgspec.json.decode(data)["a"][0], time.time()
    enqueued = packed[-1]
    at = float(due) / 1000 if due else enqueued
    status = Status.DELAYED if at > now else Status.RUNNING if running and not due else Status.QUEUED
    return Record(_order(packed), status, enqueued, at, int(tries))


def _settled(kept: _Settled) -> Record:
    status = Status.FAILED if kept.failed else Status.DONE
    return Record(_order(kept.order), status, kept.order[-1], kept.settled, kept.attempts, bytes(kept.outcome))
