"""Text to bytes and back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire.text import text_decoder, to_base64


@given(st.text(), st.lists(st.integers(0, 200)), st.sampled_from(["utf-8", "utf-16", "shift_jis", "latin-1"]))
def test_text_is_the_same_however_its_bytes_are_cut(text, cuts, charset):
    data = text.encode(charset, "ignore")
    decoder = text_decoder(f"text/plain; charset={charset}")
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [decoder.decode(data[start:end]) for start, end in itertools.pairwise(places)]
    assert "".join(pieces) + decoder.decode(b"", final=True) == data.decode(charset)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/csv",
        "TEXT/HTML; Charset=UTF-8",
        "application/json",
        "application/ld+json ; a=b",
        "application/x-ndjson",
        'text/x; charset="utf-8"',
    ],
)
def test_text_and_json_are_text(content_type):
    assert text_decoder(content_type).decode("é".encode()) == "é"


@pytest.mark.parametrize("content_type", ["application/octet-stream", "image/svg+xml", "application/jsonx", "", "x"])
def test_anything_else_is_bytes(content_type):
    assert text_decoder(content_type) is None


@pytest.mark.parametrize("charset", ["nobody", "base64", "zip", "rot13", "idna", "undefined", "\0", "utf-8-sig"])
def test_a_charset_that_decodes_no_text_is_utf8(charset):
    assert text_decoder(f"text/plain; charset={charset}").decode(b"abc") == "abc"


@pytest.mark.parametrize(("charset", "data", "text"), [("latin-1", b"\xe9", "é"), ("cp1252", b"\x80", "€")])
def test_a_charset_is_minded(charset, data, text):
    assert text_decoder(f"text/plain;charset={charset}").decode(data) == text


def test_a_broken_text_is_told_by_a_replacement():
    decoder = text_decoder("text/plain")
    assert decoder.decode(b"a\xe2\x82") == "a"
    assert decoder.decode(b"", final=True) == "\ufffd"


def test_base64():
    assert to_base64(b"\x00\xff") == "AP8="
