"""State in Redis, for many machines.

Owns: the keys, and the scripts that are the methods of the store. Does not know: connections, or how values are made.

A session is a hash, a counter is one too. Each method is one Lua script, so that nothing can come between its steps,
and no session is ever without an expiry. Time is the server's.

Redis and Valkey, a primary with or without replicas. Not a cluster: a script that moves a session touches two keys,
which need not be on one of its nodes.

What Redis itself may forget is its own configuration's: with `appendfsync everysec` an acknowledged write of the last
second is lost where the machine loses its power.
"""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from ..logs import Log
from . import Hit
from .availability import Availability
from .counting import resets_in
from .redis_address import Address
from .redis_connection import RedisConnection
from .redis_jobs import RedisJobs

SESSION: Final = b"keryx:session:"
COUNTER: Final = b"keryx:counter:"
VALUE: Final = b"."
"""Before the key of a value in a session's hash, beside the field with the empty name, for which the hash exists also
where there is no value."""

LOAD: Final = b"""
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then return false end
return redis.call('HGETALL', KEYS[1])
"""
UPDATE: Final = b"""
if ARGV[2] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], '', '')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
MOVE: Final = b"""
if redis.call('EXISTS', KEYS[1]) == 0 then return end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('RENAME', KEYS[1], KEYS[2])
"""
DELETE: Final = b"redis.call('DEL', KEYS[1])"
TOUCH: Final = b"redis.call('PEXPIRE', KEYS[1], ARGV[1])"
HIT: Final = b"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local number = math.floor(now / window)
local kept = redis.call('HMGET', KEYS[1], 'number', 'current', 'previous')
local age = kept[1] and number - tonumber(kept[1])
local current, previous = 0, 0
if age == 0 then
  current, previous = tonumber(kept[2]), tonumber(kept[3])
elseif age == 1 then
  previous = tonumber(kept[2])
end
local hits = math.floor(previous * (1 - (now / window - number))) + current
local allowed = hits < limit and 1 or 0
if allowed == 1 then
  redis.call('HSET', KEYS[1], 'number', string.format('%.0f', number), 'current', current + 1, 'previous', previous)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return {allowed, hits + allowed, time[1], time[2]}
"""
"""See `counting.count`."""


class RedisStore:
    """State in a Redis server that may come and go."""

    def __init__(self, url: str, log: Log) -> None:
        address = Address.parse(url)
        self.url = address.shown
        self._connection = RedisConnection(address, Availability(log, self.url))
        self.jobs = RedisJobs(log, self._run)

    def open(self) -> AbstractAsyncContextManager[None]:
        """See `Store`."""
        return self._connection.open()

    async def load_session(self, id: str, ttl: float) -> dict[str, bytes] | None:  # noqa: A002
        """See `Store`."""
        fields = await self._run(LOAD, [SESSION + id.encode()], _milliseconds(ttl))
        if fields is None:
            return None
        values = zip(fields[::2], fields[1::2], strict=True)
        return {name[len(VALUE) :].decode(): value for name, value in values if name}

    async def update_session(self, id: str, values: dict[str, bytes], ttl: float, *, create: bool = True) -> bool:  # noqa: A002
        """See `Store`."""
        fields = [part for key, value in values.items() for part in (VALUE + key.encode(), value)]
        return bool(await self._run(UPDATE, [SESSION + id.encode()], _milliseconds(ttl), int(create), *fields))

    async def move_session(self, old: str, new: str, ttl: float) -> None:
        """See `Store`."""
        await self._run(MOVE, [SESSION + old.encode(), SESSION + new.encode()], _milliseconds(ttl))

    async def delete_session(self, id: str) -> None:  # noqa: A002
        """See `Store`."""
        await self._run(DELETE, [SESSION + id.encode()])

    async def touch_session(self, id: str, ttl: float) -> None:  # noqa: A002
        """See `Store`."""
        await self._run(TOUCH, [SESSION + id.encode()], _milliseconds(ttl))

    async def hit(self, key: str, limit: int, window: float) -> Hit:
        """See `Store`."""
        allowed, count, seconds, microseconds = await self._run(
            HIT, [COUNTER + key.encode()], limit, repr(window).encode(), _milliseconds(2 * window)
        )
        now = int(seconds) + int(microseconds) / 1_000_000
        return Hit(allowed == 1, count, resets_in(now, window))

    async def _run(self, script: bytes, keys: list[bytes], *arguments: bytes | int) -> Any:
        # With the script in each call: it is short, and the server knows it again by its digest. By the digest alone
        # a server that was restarted would have to be told it first.
        return await self._connection.ask(b"EVAL", script, len(keys), *keys, *arguments)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
