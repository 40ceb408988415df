"""Jobs in Redis, for many machines; for `RedisStore`.

Owns: the keys, and the scripts that are the methods. Does not know: connections (the store has one).

A job is a hash. Its id stands in one sorted set of its queue: among what waits, by when it is due; among what runs, by
when its lease ends; or among what has failed or is done, by when it is forgotten. Each method is one Lua script, so
that nothing can come between its steps. Time is the server's, in microseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import msgspec

from ..logs import Log
from .jobs import Attempt, Order, Overview, Record, Status, Verdict
from .leasing import Leases

LOOK_EVERY: Final = 0.2
"""Seconds after which a worker with nothing to do looks for what other processes have put: one question to Redis."""

_HEAD: Final = b"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function job(id) return 'keryx:job:' .. id end
local function set(kind, queue) return 'keryx:' .. kind .. ':' .. queue end
local function wait(id, queue, due)
  redis.call('HSET', job(id), 'status', 'queued', 'due', due)
  redis.call('ZADD', set('waiting', queue), due, id)
  redis.call('SADD', 'keryx:queues', queue)
end
local function put(id, queue, order, delay)
  redis.call('HSET', job(id), 'queue', queue, 'order', order, 'enqueued', now)
  redis.call('HSET', job(id), 'attempts', 0, 'failures', 0, 'losses', 0)
  wait(id, queue, now + delay)
end
local function show(id)
  local found = redis.call('HMGET', job(id), 'order', 'status', 'enqueued', 'due', 'attempts', 'outcome')
  return found[1] and {id, unpack(found)}
end
"""

PUT: Final = _HEAD + b"put(ARGV[1], ARGV[2], ARGV[3], ARGV[4])"
PUT_RECURRING: Final = (
    _HEAD
    + b"""
local id, queue, order, task, every = unpack(ARGV)
local number = math.floor(now / (every * 1000000))
local kept = redis.call('HGET', 'keryx:recurring', task)
local last = kept and cjson.decode(kept)
local status = last and redis.call('HGET', job(last.id), 'status')
local is_due = not last or (last.number ~= number and status ~= 'queued' and status ~= 'running')
if is_due then
  put(id, queue, order, 0)
  redis.call('HSET', 'keryx:recurring', task, cjson.encode({number = number, id = id}))
end
return {is_due and 1 or 0, string.format('%.6f', (number + 1) * every - now / 1000000)}
"""
)
FIND: Final = _HEAD + b"return {now, show(ARGV[1])}"
RETRY: Final = (
    _HEAD
    + b"""
local found = redis.call('HMGET', job(ARGV[1]), 'status', 'queue')
if found[1] ~= 'failed' then return false end
redis.call('PERSIST', job(ARGV[1]))
redis.call('HDEL', job(ARGV[1]), 'outcome')
redis.call('HSET', job(ARGV[1]), 'failures', 0, 'losses', 0)
redis.call('ZREM', set('failed', found[2]), ARGV[1])
wait(ARGV[1], found[2], now)
return found[2]
"""
)
QUEUES: Final = (
    _HEAD
    + b"""
local found = {}
for _, queue in ipairs(redis.call('SMEMBERS', 'keryx:queues')) do
  if redis.call('EXISTS', set('waiting', queue), set('running', queue)) > 0 then
    found[#found + 1] = queue
  else
    for _, kind in ipairs({'failed', 'done'}) do redis.call('ZREMRANGEBYSCORE', set(kind, queue), 0, now) end
    if redis.call('EXISTS', set('failed', queue), set('done', queue)) == 0 then
      redis.call('SREM', 'keryx:queues', queue)
    end
  end
end
return found
"""
)
OVERVIEW: Final = (
    _HEAD
    + b"""
local counts, jobs = {}, {}
for _, queue in ipairs(redis.call('SMEMBERS', 'keryx:queues')) do
  local row = {queue}
  local function some(kind, from, to)
    row[#row + 1] = redis.call('ZCOUNT', set(kind, queue), from, to)
    for _, id in ipairs(redis.call('ZRANGE', set(kind, queue), from, to, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
      jobs[#jobs + 1] = show(id) or nil
    end
  end
  some('waiting', '-inf', now)
  some('waiting', '(' .. string.format('%.0f', now), '+inf')
  some('running', '-inf', '+inf')
  for _, kind in ipairs({'failed', 'done'}) do
    redis.call('ZREMRANGEBYSCORE', set(kind, queue), 0, now)
    row[#row + 1] = redis.call('ZCARD', set(kind, queue))
    for _, id in ipairs(redis.call('ZRANGE', set(kind, queue), 0, ARGV[1] - 1, 'REV')) do
      jobs[#jobs + 1] = show(id) or nil
    end
  end
  counts[#counts + 1] = row
end
return {now, counts, jobs}
"""
)
CLAIM: Final = (
    _HEAD
    + b"""
local queue, limit, lease = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local found, due = {}, nil
for _, kind in ipairs({'running', 'waiting'}) do
  local room = limit - #found
  local ids = room > 0 and redis.call('ZRANGE', set(kind, queue), '-inf', now, 'BYSCORE', 'LIMIT', 0, room) or {}
  for _, id in ipairs(ids) do
    redis.call('ZREM', set(kind, queue), id)
    local order = redis.call('HGET', job(id), 'order')
    if order then
      redis.call('HINCRBY', job(id), 'attempts', 1)
      if kind == 'running' then redis.call('HINCRBY', job(id), 'losses', 1) end
      redis.call('HSET', job(id), 'status', 'running', 'due', now + lease)
      redis.call('ZADD', set('running', queue), now + lease, id)
      found[#found + 1] = {id, order, unpack(redis.call('HMGET', job(id), 'attempts', 'failures', 'losses'))}
    end
  end
end
for _, kind in ipairs({'running', 'waiting'}) do
  local first = redis.call('ZRANGE', set(kind, queue), 0, 0, 'WITHSCORES')
  if first[2] and (not due or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
return {found, due and string.format('%.6f', (due - now) / 1000000) or ''}
"""
)
RENEW: Final = (
    _HEAD
    + b"""
local lost = {}
for place = 2, #ARGV, 3 do
  local id, queue, number = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  local found = redis.call('HMGET', job(id), 'status', 'attempts')
  if found[1] == 'running' and found[2] == number then
    redis.call('HSET', job(id), 'due', now + ARGV[1])
    redis.call('ZADD', set('running', queue), now + ARGV[1], id)
  else
    lost[#lost + 1] = id
  end
end
return lost
"""
)
SETTLE: Final = (
    _HEAD
    + b"""
local id, queue, number, status, seconds, outcome, order = unpack(ARGV)
local found = redis.call('HMGET', job(id), 'status', 'attempts')
local is_open = found[1] == 'queued' or found[1] == 'running'
local is_held = found[1] == 'running' and found[2] == number
if not (is_held or (is_open and status == 'done')) then return 0 end
redis.call('ZREM', set('running', queue), id)
redis.call('ZREM', set('waiting', queue), id)
if outcome ~= '' then redis.call('HSET', job(id), 'outcome', outcome) end
if status == 'done' or status == 'failed' then
  redis.call('HSET', job(id), 'status', status, 'due', now, 'order', order)
  redis.call('PEXPIRE', job(id), math.ceil(seconds / 1000))
  redis.call('ZREMRANGEBYSCORE', set(status, queue), 0, now)
  redis.call('ZADD', set(status, queue), now + seconds, id)
else
  if status == 'delayed' then redis.call('HINCRBY', job(id), 'failures', 1) end
  wait(id, queue, now + seconds)
end
return 1
"""
)


class RedisJobs(Leases):
    """Jobs in Redis.

    Args:
        run: runs a script of the store: `run(script, keys, *arguments)`.
    """

    shared = True
    look_every = LOOK_EVERY

    def __init__(self, log: Log, run: Callable[..., Awaitable[Any]]) -> None:
        super().__init__(log)
        self._run = run

    async def put(self, order: Order, delay: float = 0) -> None:
        """See `Jobs`."""
        await self._run(PUT, [], order.id.encode(), order.queue.encode(), _packed(order), _microseconds(delay))
        self._has_come(order.queue)

    async def put_recurring(self, order: Order, every: float) -> float:
        """See `Jobs`."""
        task = f"{order.action}@{every!r}".encode()
        was_put, until_next = await self._run(
            PUT_RECURRING, [], order.id.encode(), order.queue.encode(), _packed(order), task, repr(every).encode()
        )
        if was_put:
            self._has_come(order.queue)
        return float(until_next)

    async def find(self, id: str) -> Record | None:  # noqa: A002
        """See `Jobs`."""
        now, *found = await self._run(FIND, [], id.encode())
        return _record(found[0], now) if found and found[0] else None

    async def retry(self, id: str) -> bool:  # noqa: A002
        """See `Jobs`."""
        queue = await self._run(RETRY, [], id.encode())
        if queue is not None:
            self._has_come(queue.decode())
        return queue is not None

    async def overview(self, limit: int) -> Overview:
        """See `Jobs`."""
        now, counted, jobs = await self._run(OVERVIEW, [], limit)
        kinds = (Status.QUEUED, Status.DELAYED, Status.RUNNING, Status.FAILED, Status.DONE)
        counts = {
            queue.decode(): {kind: number for kind, number in zip(kinds, numbers, strict=True) if number}
            for queue, *numbers in counted
        }
        shown = {queue: by_status for queue, by_status in counts.items() if by_status}
        return Overview(now / 1_000_000, shown, [_record(job, now) for job in jobs])

    async def queues(self) -> set[str]:
        """See `Jobs`."""
        return {name.decode() for name in await self._run(QUEUES, [])}

    # A worker's part

    async def claim(self, queue: str, limit: int, lease: float) -> tuple[list[Attempt], float]:
        """See `Leases`."""
        found, until_next = await self._run(CLAIM, [], queue.encode(), limit, _microseconds(lease))
        attempts = [Attempt(_order(id, order), *map(int, numbers)) for id, order, *numbers in found]  # noqa: A001
        return attempts, float(until_next or "inf")

    async def renew(self, attempts: Collection[Attempt], lease: float) -> list[Attempt]:
        """See `Leases`."""
        held = [
            part
            for each in attempts
            for part in (each.order.id.encode(), each.order.queue.encode(), str(each.number).encode())
        ]
        lost = {id.decode() for id in await self._run(RENEW, [], _microseconds(lease), *held)}  # noqa: A001 - a job's
        return [attempt for attempt in attempts if attempt.order.id in lost]

    async def settle(self, attempt: Attempt, verdict: Verdict) -> bool:
        """See `Leases`."""
        order, is_final = attempt.order, verdict.status.is_final
        return bool(
            await self._run(
                SETTLE, [],
                order.id.encode(), order.queue.encode(), str(attempt.number).encode(), verdict.status.encode(),
                _microseconds(verdict.keep if is_final else verdict.delay), verdict.outcome or b"",
                _packed(order, forget=verdict.status is Status.DONE),
            )
        )  # fmt: skip


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _packed(order: Order, *, forget: bool = False) -> bytes:
    """An order as JSON, without its inputs where they are of no more use."""
    params = "" if forget else order.params.decode()
    return msgspec.json.encode([order.action, params, order.queue, order.correlation_id, order.retries])


def _order(id: bytes, packed: bytes) -> Order:  # noqa: A002
    action, params, *rest = msgspec.json.decode(packed)
    return Order(id.decode(), action, params.encode(), *rest)


def _record(job: list[Any], now: int) -> Record:
    id, order, status, enqueued, due, attempts, outcome = (*job, None)[:7]  # noqa: A001 - a job's
    shown, at = Status(status.decode()), float(due)
    if shown is Status.QUEUED and at > now:
        shown = Status.DELAYED
    return Record(_order(id, order), shown, float(enqueued) / 1e6, at / 1e6, int(attempts), outcome)
