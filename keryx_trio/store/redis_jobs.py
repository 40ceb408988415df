"""Jobs in Redis, delivered by streaq; for `RedisStore`.

Owns: what streaq is not asked to keep: results, what has failed, and the periods of recurring tasks. Streaq owns all of
a job that is under way: it delivers it, keeps its lease, and delays it. Does not know: connections (`redis_streaq` and
the store have them).

A result is written before streaq is told that the job has ended. Where that does not reach it any more, it delivers the
job once more, and the result that is there ends it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import msgspec
import trio

from ..errors import text_of, unwrap
from . import StoreUnavailable
from .availability import Availability
from .jobs import Attempt, Handler, Order, Overview, Record, Status
from .leasing import OUTAGE_PAUSE
from .redis_address import Address
from .redis_streaq import Again, Keys, Publisher, run_worker

QUEUES: Final = b"keryx:queues"
FAILED: Final = b"keryx:failed:"
"""The ids of what has failed in a queue, by the time at which each is forgotten, in milliseconds."""
OUTCOME: Final = b"keryx:outcome:"
FAILURES: Final = b"keryx:failures:"
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
redis.call('DEL', KEYS[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now * 1000)
if ARGV[4] == '1' then
  redis.call('ZADD', KEYS[2], now * 1000 + ARGV[3], ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
end
"""
)
FAIL: Final = b"""
redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
OVERVIEW: Final = (
    NOW
    + b"""
local limit = tonumber(ARGV[7])
local counts, jobs, failed = {}, {}, {}
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
  local kept = ARGV[8] .. queue
  local waiting, late = redis.call('XLEN', stream) - running, redis.call('ZCARD', delayed)
  counts[#counts + 1] = {queue, waiting, late, running, redis.call('ZCOUNT', kept, now * 1000, '+inf')}
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
  local last = redis.call('ZRANGE', kept, '+inf', now * 1000, 'BYSCORE', 'REV', 'LIMIT', 0, limit)
  for _, id in ipairs(last) do
    failed[#failed + 1] = redis.call('GET', ARGV[6] .. id) or nil
  end
end
return {time[1], time[2], counts, jobs, failed}
"""
)
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
    ) -> None:
        self._address = address
        self._script = script
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
            await self._script(b"redis.call('SADD', KEYS[1], ARGV[1])", [QUEUES], order.queue.encode())
            self._known.add(order.queue)
        await self._ready()
        await self._publisher.publish(order.id, _packed(order), order.queue, delay)

    async def put_recurring(self, order: Order, every: float) -> float:
        """See `Jobs`."""
        task = f"{order.action}@{every!r}".encode()
        is_mine, id, until_next = await self._script(  # noqa: A001 - a job's
            RESERVE, [RECURRING], task, repr(every).encode(), order.id.encode(), self._keys[0], b"%r" % UNPUBLISHED
        )
        if is_mine:
            await self.put(attrs.evolve(order, id=id.decode()))
            await self._script(CONFIRM, [RECURRING], task, id)
        return float(until_next)

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """See `Jobs`."""
        found = await self._script(FIND, [_key(OUTCOME, id)], *self._keys, id.encode())
        if found[0]:
            return _record(*found)
        return None if found[1] is None else _settled(msgspec.json.decode(found[1], type=_Settled))

    async def changed(self, id: str, seconds: float) -> None:  # noqa: A002, ARG002 - nobody tells
        """See `Jobs`."""
        await trio.sleep(seconds)

    async def retry(self, id: str) -> bool:  # noqa: A002
        """See `Jobs`."""
        key = _key(OUTCOME, id)
        kept = await self._script(b"return redis.call('GET', KEYS[1])", [key])
        settled = kept and msgspec.json.decode(kept, type=_Settled)
        if not settled or not settled.failed:
            return False
        # What has failed is kept until it is settled anew: if this process dies here, it can be retried once more.
        marked = msgspec.json.encode(msgspec.structs.replace(settled, retried=True))
        await self._script(b"redis.call('SET', KEYS[1], ARGV[1], 'XX', 'KEEPTTL')", [key], marked)
        await self.put(_order(settled.order))
        await self._script(b"redis.call('ZREM', KEYS[1], ARGV[1])", [_key(FAILED, settled.order[3])], id.encode())
        return True

    async def overview(self, limit: int) -> Overview:
        """See `Jobs`."""
        seconds, microseconds, counted, jobs, failed = await self._script(
            OVERVIEW, [QUEUES], *self._keys, OUTCOME, limit, FAILED
        )
        kinds = (Status.QUEUED, Status.DELAYED, Status.RUNNING, Status.FAILED)
        counts = {
            queue.decode(): {kind: number for kind, number in zip(kinds, numbers, strict=True) if number}
            for queue, *numbers in counted
        }
        failures = [_settled(msgspec.json.decode(each, type=_Settled)) for each in failed]
        now = int(seconds) + int(microseconds) / 1_000_000
        return Overview(now, counts, [*(_record(*job) for job in jobs), *failures])

    async def queues(self) -> set[str]:
        """See `Jobs`."""
        return {name.decode() for name in await self._script(b"return redis.call('SMEMBERS', KEYS[1])", [QUEUES])}

    # A worker's part

    async def serve(self, queue: str, limit: int, handler: Handler, *, lease: float, stopping: trio.Event) -> None:
        """See `Jobs`."""
        attempt = partial(self._attempt, handler)
        while not stopping.is_set():
            fault = await run_worker(self._address, queue, limit, attempt, lease=lease, stopping=stopping)
            if fault is not None:
                self._availability.failed(text_of(unwrap(fault)))
                with trio.move_on_after(OUTAGE_PAUSE):
                    await stopping.wait()

    async def _attempt(self, handler: Handler, packed: list[Any], number: int) -> None:
        """One delivery. Streaq takes a return for the end of the job, and `Again` for another delivery."""
        order = _order(packed)
        outcome, failures = _key(OUTCOME, order.id), _key(FAILURES, order.id)
        kept, failed = await self._patiently(b"return redis.call('MGET', KEYS[1], KEYS[2])", [outcome, failures])
        if kept is not None and not msgspec.json.decode(kept, type=_Settled).retried:
            return
        verdict = await handler(Attempt(order, number, int(failed or 0)))
        if not verdict.status.is_final:
            if verdict.status is Status.DELAYED:
                await self._patiently(FAIL, [failures], REMEMBERED)
            raise Again(verdict.delay)
        if verdict.status is Status.DONE:
            packed[2] = ""
        has_failed = verdict.status is Status.FAILED
        settled = _Settled(packed, has_failed, time.time(), number, msgspec.Raw(verdict.outcome or b"null"))
        await self._patiently(
            SETTLE, [outcome, _key(FAILED, order.queue), failures],
            order.id.encode(), msgspec.json.encode(settled), math.ceil(verdict.keep * 1000), int(has_failed),
        )  # fmt: skip

    async def _patiently(self, script: bytes, keys: list[bytes], *arguments: bytes | int) -> Any:
        """Run a script once the store is there; it ends with the application at the latest."""
        while True:
            try:
                return await self._script(script, keys, *arguments)
            except StoreUnavailable:
                await trio.sleep(OUTAGE_PAUSE)


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
