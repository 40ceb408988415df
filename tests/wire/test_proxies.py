"""What a proxy says of the client behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire.proxies import Origin, Proxies

ONE = Proxies(["127.0.0.1"])
TWO = Proxies(["127.0.0.1", "10.0.0.0/8"])


def told(proxies: Proxies, peer: str = "127.0.0.1", secure: bool = False, **headers: str) -> Origin:
    fields = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return proxies.origin(peer, secure=secure, headers=fields)


def test_without_trusted_proxies_nobodys_word_is_taken():
    assert told(Proxies([]), x_forwarded_for="1.1.1.1", x_forwarded_proto="https") == Origin("127.0.0.1", secure=False)


def test_a_peer_that_is_not_trusted_is_the_client():
    assert told(ONE, "2.2.2.2", x_forwarded_for="1.1.1.1") == Origin("2.2.2.2", secure=False)
    assert told(ONE, "not an address", x_forwarded_for="1.1.1.1").address == "not an address"


@pytest.mark.parametrize(
    ("proxies", "field", "address"),
    [
        (ONE, "1.1.1.1", "1.1.1.1"),
        (ONE, "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        (ONE, "1.1.1.1, 10.0.0.5", "10.0.0.5"),
        (TWO, "1.1.1.1, 10.0.0.5", "1.1.1.1"),
        (TWO, "6.6.6.6, 1.1.1.1, 10.0.0.5, 10.0.0.6", "1.1.1.1"),
        (TWO, "10.0.0.7, 10.0.0.5", "10.0.0.7"),
        (ONE, "1.1.1.1:4711", "1.1.1.1"),
        (ONE, "2001:db8::1", "2001:db8::1"),
        (ONE, "[2001:db8::1]:4711", "2001:db8::1"),
        (ONE, "unknown", "127.0.0.1"),
        (ONE, "", "127.0.0.1"),
        (ONE, "garbage, ;;;", "127.0.0.1"),
    ],
)
def test_the_nearest_hop_that_is_not_trusted_is_the_client(proxies, field, address):
    assert told(proxies, x_forwarded_for=field).address == address


@pytest.mark.parametrize(
    ("field", "address", "secure"),
    [
        ("for=1.1.1.1;proto=https", "1.1.1.1", True),
        ('for="[2001:db8::1]:80";proto=http;by=10.0.0.1', "2001:db8::1", False),
        ("for=6.6.6.6;proto=http, For=1.1.1.1;Proto=HTTPS", "1.1.1.1", True),
        ("for=_hidden;proto=https", "127.0.0.1", True),
        ("by=10.0.0.1", "127.0.0.1", False),
        ("=;=;,", "127.0.0.1", False),
    ],
)
def test_forwarded_is_understood(field, address, secure):
    assert told(ONE, forwarded=field) == Origin(address, secure)


def test_the_fields_that_proxies_set_win_over_the_one_that_they_pass_on():
    assert told(ONE, forwarded="for=6.6.6.6", x_forwarded_for="2.2.2.2").address == "2.2.2.2"


@pytest.mark.parametrize(
    ("fields", "secure"),
    [
        ({"x_forwarded_proto": "https"}, True),
        ({"x_forwarded_proto": "http"}, False),
        ({"x_forwarded_for": "1.1.1.1", "x_forwarded_proto": "HTTPS"}, True),
        ({"x_forwarded_for": "6.6.6.6, 1.1.1.1", "x_forwarded_proto": "https"}, True),
        ({"x_forwarded_for": "6.6.6.6, 1.1.1.1", "x_forwarded_proto": "https, http"}, False),
        ({"x_forwarded_for": "1.1.1.1"}, False),
    ],
)
def test_the_scheme_is_the_nearest_proxys_word(fields, secure):
    assert told(ONE, **fields).secure is secure


def test_a_proxy_that_says_nothing_of_the_scheme_leaves_it():
    assert told(ONE, secure=True, x_forwarded_for="1.1.1.1").secure is True


@given(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.sampled_from(["forwarded", "x_forwarded_for", "x_forwarded_proto"]),
)
def test_any_field_is_survived_and_nobody_becomes_a_trusted_proxy_by_his_own_word(value, field):
    origin = told(TWO, **{field: value})
    assert isinstance(origin.address, str)
