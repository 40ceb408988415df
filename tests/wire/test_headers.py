"""Header fields as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire.headers import accepts_gzip, checked, media_type, merged, request_id


def test_names_are_lowered_and_values_stripped():
    assert checked({"X-Own": " a "}) == [(b"x-own", b"a")]
    assert checked([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert checked(None) == []


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_name_or_value_can_smuggle_a_line_end(name, value):
    try:
        fields = checked({name: value})
    except ValueError as error:
        assert "header" in str(error)
    else:
        for part in fields[0]:
            assert not set(part) & set(b"\r\n\0")


@pytest.mark.parametrize("value", [3, None, "€"])
def test_a_value_that_a_header_cannot_carry_is_refused(value):
    with pytest.raises(ValueError, match="x-own"):
        checked({"x-own": value})


def test_what_is_on_top_replaces_but_cookies_and_vary_add_up():
    base = [(b"a", b"1"), (b"vary", b"Origin"), (b"set-cookie", b"x=1")]
    extra = [(b"a", b"2"), (b"vary", b"Accept"), (b"set-cookie", b"y=2")]
    assert merged(base, extra) == [(b"vary", b"Origin"), (b"set-cookie", b"x=1"), *extra]
    assert merged(base, []) is base


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (None, False),
        (b"", False),
        (b"gzip", True),
        (b"GZIP", True),
        (b"x-gzip", True),
        (b"br, gzip;q=0.5", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.0", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"*, gzip;q=0", False),
        (b"identity;q=1, *;q=0", False),
        (b"gzip;q=much", False),
        (b"gzip;level=1", True),
        (b"deflate, br", False),
    ],
)
def test_whether_gzip_is_accepted(value, accepted):
    assert accepts_gzip(value) is accepted


@given(st.binary(max_size=40))
def test_any_accept_encoding_is_survived(value):
    assert accepts_gzip(value) in (True, False)


@given(st.binary(max_size=200))
def test_a_request_id_that_is_passed_on_is_safe_in_logs_and_headers(value):
    found = request_id(value)
    assert (
        found is None
        or (found.isascii() and found.replace("-", "").replace("_", "").replace(".", "").isalnum())
        or not found.strip("-_.")
    )


def test_the_media_type_has_no_parameters():
    assert media_type("Text/HTML; charset=utf-8") == "text/html"
    assert media_type("") == ""
