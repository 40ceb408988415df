from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire import sse
from tests.wire.sse_parser import Dispatched, parse

LINE_ENDS_OF_OTHERS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
SURROGATES = st.characters(categories=["Cs"])
# Every character of Unicode, with those that matter to the format and to Python's idea of lines made likely.
CHARS = st.sampled_from("\r\n:\0 \ufeffd" + LINE_ENDS_OF_OTHERS) | st.characters() | SURROGATES
TEXT = st.text(CHARS)
NAMES = st.text(CHARS.filter(lambda char: char not in "\r\n\0"))


def repaired(text: str) -> str:
    """What UTF-8 can say of `text`: pairs of surrogates joined, lone ones replaced; by a way of its own."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda match: chr(0x10000 + ((ord(match[0][0]) - 0xD800) << 10) + ord(match[0][1]) - 0xDC00),
        text,
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


def received(text: str) -> str:
    return re.sub("\r\n|\r|\n", "\n", repaired(text))


@given(TEXT, NAMES | st.none(), NAMES | st.none(), st.integers(0, 10**12) | st.none())
def test_what_is_sent_is_what_a_browser_receives(data, event, id_, retry):
    block = sse.encode(data, event, id_, retry)
    parser = parse(block)
    id_ = repaired(id_ or "")
    assert parser.events == [Dispatched(received(data), repaired(event or "") or "message", id_)]
    assert (parser.last_event_id, parser.retry, parser.unknown, parser.comments) == (id_, retry, [], [])
    assert block.endswith(b"\n\n")
    assert b"\r" not in block


@given(st.data(), st.lists(st.tuples(TEXT, NAMES | st.none()), max_size=5))
def test_chunks_may_break_anywhere(data, events):
    stream = b"".join(sse.encode(text, event) + sse.PING for text, event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*chunks).events == parse(stream).events == parse(*(bytes([byte]) for byte in stream)).events
    assert [event.data for event in parse(stream).events] == [received(text) for text, _ in events]


@given(TEXT, NAMES, NAMES)
def test_no_value_can_add_a_field_or_an_event(data, event, id_):
    lines = sse.encode(data, event, id_).decode().split("\n")
    fields = [line.partition(": ")[0] for line in lines[:-2]]
    assert lines[-2:] == ["", ""]
    assert fields == [*(["event"] if event else []), "id", *["data"] * (received(data).count("\n") + 1)]


@given(TEXT)
def test_a_comment_is_no_event_and_has_every_line(text):
    parser = parse(sse.comment(text), sse.encode("after"))
    assert parser.comments == received(text).split("\n")
    assert parser.events == [Dispatched("after")]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_line_of_json_goes_as_it_is(value):
    line = json.dumps(value, ensure_ascii=False).encode()
    assert sse.encode(line, "value") == b"event: value\ndata: " + line + b"\n\n"
    assert json.loads(parse(sse.encode(line)).events[0].data) == value


def test_an_event_reads_as_the_standard_shows_it():
    assert sse.encode("one\ntwo", "token", "7", 1500) == b"event: token\nid: 7\nretry: 1500\ndata: one\ndata: two\n\n"
    assert sse.encode("", None) == b"data: \n\n"


@pytest.mark.parametrize("text", [f"a{char}b" for char in LINE_ENDS_OF_OTHERS])
def test_line_separators_of_unicode_are_data(text):
    assert parse(sse.encode(text)).events == [Dispatched(text)]


def test_a_value_keeps_its_leading_spaces_and_marks():
    assert parse(sse.encode("  a")).events == [Dispatched("  a")]
    assert parse(sse.encode("\ufeffa")).events == [Dispatched("\ufeffa")]


def test_an_empty_event_name_is_none():
    assert sse.encode("a", "") == sse.encode("a", None) == b"data: a\n\n"


def test_an_empty_id_resets_the_last_one():
    parser = parse(sse.encode("a", id="1"), sse.encode("b"), sse.encode("c", id=""), sse.encode("d"))
    assert [event.last_event_id for event in parser.events] == ["1", "1", "", ""]


@pytest.mark.parametrize("char", ["\r", "\n", "\0"])
def test_an_event_name_or_id_that_would_break_its_line_is_refused_by_name(char):
    with pytest.raises(ValueError, match=r"^event must not contain"):
        sse.encode("a", f"x{char}y")
    with pytest.raises(ValueError, match=r"^id must not contain"):
        sse.encode("a", id=f"x{char}y")


@pytest.mark.parametrize("value", [-1, True, False, 1.5, "1"])
def test_a_retry_that_is_no_whole_number_of_milliseconds_is_refused(value):
    with pytest.raises(ValueError, match=r"^retry must be a whole number"):
        sse.encode("a", retry=value)
    with pytest.raises(ValueError, match=r"^retry must be a whole number"):
        sse.retry(value)


def test_a_retry_of_its_own_is_no_event():
    assert sse.retry(0) == b"retry: 0\n\n"
    parser = parse(sse.retry(2500))
    assert (parser.events, parser.retry) == ([], 2500)


def test_an_empty_comment_is_a_colon():
    assert sse.comment("") == b":\n\n"
    assert sse.comment("a\r\n\rb") == b": a\n:\n: b\n\n"
    assert parse(sse.PING).events == []


def test_surrogates_are_joined_or_replaced_and_never_raise():
    assert parse(sse.encode("\ud83d\ude00 \ud83d!\ude00", "\udc00")).events == [
        Dispatched("\U0001f600 \ufffd!\ufffd", "\ufffd")
    ]


class TestTheParserFollowsTheStandard:
    @pytest.mark.parametrize(
        ("chunks", "data"),
        [
            ([b"data: a\r\n\r\n"], ["a"]),
            ([b"data: a\r", b"\n\r", b"\n"], ["a"]),
            ([b"data: a\r\r"], ["a"]),
            ([b"\xef\xbb", b"\xbfdata: a\n\n"], ["a"]),
            ([b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n"], []),
            ([b"data\n\ndata\ndata\n\n"], ["", "\n"]),
            ([b"data:  a\n\n"], [" a"]),
            ([b"data: a"], []),
            ([b"data: a\n"], []),
            ([b"Data: a\n\n"], []),
            ([b"data: \xc3", b"\xa9\n\n"], ["é"]),
            ([b"data: \xff\n\n"], ["\ufffd"]),
        ],
    )
    def test_in_what_is_an_event(self, chunks, data):
        assert [event.data for event in parse(*chunks).events] == data

    def test_in_what_is_an_id(self):
        parser = parse(b"id: 1\n\n", b"id: 2\0\ndata: a\n\n", b"id\ndata: b\n\n")
        assert [event.last_event_id for event in parser.events] == ["1", ""]

    def test_in_what_is_a_retry(self):
        assert parse(b"retry: 12\nretry: 1x\nretry: -1\nretry:\n").retry == 12


def test_bytes_with_line_ends_are_split_as_text_is():
    assert parse(sse.encode(b"a\n\nevent: forged\rdata: b")).events == [Dispatched("a\n\nevent: forged\ndata: b")]


def test_a_long_name_of_an_event_is_not_kept():
    sse._cached_event_line.cache_clear()
    sse.encode("x", "n" * 65)
    assert sse._cached_event_line.cache_info().currsize == 0
    sse.encode("x", "n" * 64)
    assert sse._cached_event_line.cache_info().currsize == 1


def test_an_id_that_is_no_text_is_refused_in_words():
    with pytest.raises(TypeError, match="the id of an event is a text, not int: 5"):
        sse.encode("x", id=5)
