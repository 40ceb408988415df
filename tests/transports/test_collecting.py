"""What is put together of a stream, for those who get all of it at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio import StreamingResponse, TypedError
from keryx_trio.outbox import CANCELLED, DONE, End, Outcome
from keryx_trio.transports.collecting import Collector

TOKENS = st.lists(st.text() | st.dictionaries(st.text(), st.integers()) | st.integers() | st.none())


def collect(*values: object, limit: int = 10_000) -> str:
    collector = Collector(limit)
    for value in values:
        data = value if isinstance(value, str) else json.dumps(value).encode()
        collector.keep(collector.event(data, None, None, None))
    return collector.text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((), ""),
        (("a", "b"), "ab"),
        ((1, 2), "1\n2"),
        (("a", {"b": 1}, "c", "d"), 'a\n{"b": 1}\ncd'),
        (("a\n", 1), "a\n1"),
        (("", 1), "1"),
        ((1, "", 2), "1\n2"),
        ((1, "\n", 2), "1\n\n2"),
    ],
)
def test_strings_are_joined_and_any_other_value_has_a_line_of_its_own(values, text):
    assert collect(*values) == text


@given(TOKENS)
def test_every_value_can_be_found_on_its_line(values):
    lines = collect(*values, limit=10**9).split("\n")
    for value in values:
        assert isinstance(value, str) or json.dumps(value) in lines


@given(st.lists(st.text()))
def test_tokens_alone_are_joined_as_they_are(tokens):
    assert collect(*tokens, limit=10**9) == "".join(tokens)


@pytest.mark.parametrize("text", ["abcde", "äb€"])
def test_a_send_that_would_be_too_much_raises(text):
    size = len(text.encode())
    assert collect(text, limit=size) == text
    with pytest.raises(TypedError, match="KERYX_MAX_COLLECTED") as caught:
        collect(text, limit=size - 1)
    assert caught.value.status == 413


def test_what_no_event_stream_could_carry_is_refused_here_too():
    with pytest.raises(ValueError, match="event"):
        Collector(100).event("x", "a\nb", None, None)


@pytest.mark.parametrize(
    ("end", "text", "failed"),
    [
        (DONE, "a\ufffd", None),
        (CANCELLED, "a", None),
        (End(Outcome.TIMEOUT), "a", {"message": "no"}),
    ],
)
async def test_a_text_that_ends_in_a_character_says_so_where_that_was_its_end(end, text, failed):
    collector = Collector(100)
    stream = StreamingResponse.stream("/nowhere", content_type="text/plain")
    collector.announce(stream)
    assert collector.is_text
    assert not collector.declines()
    await collector.open(stream, [collector.chunk(b"a\xc3")])
    assert collector.chunk(b"") is None
    assert (collector.begun, collector.ending) == (True, False)
    await collector.end(end, {"message": "no"}, None)
    assert (collector.text, collector.failed, collector.ending) == (text, failed, True)


async def test_bytes_are_put_together():
    collector = Collector(100)
    stream = StreamingResponse.stream("/nowhere")
    collector.announce(stream)
    await collector.open(stream, [collector.chunk(b"a\xff"), collector.chunk(b"b")])
    await collector.end(DONE, None, None)
    assert (collector.body, collector.text, collector.is_text) == (b"a\xffb", "", False)
