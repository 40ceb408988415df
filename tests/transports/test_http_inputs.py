"""What a request's head gives for the inputs."""

from __future__ import annotations

from urllib.parse import parse_qsl

import hypothesis.strategies as st
from hypothesis import given

from keryx_trio.transports import http_inputs
from keryx_trio.transports.exchange import Exchange

queries = st.one_of(
    st.text("abcXYZ019-._~", min_size=0, max_size=8).flatmap(
        lambda key: st.text("abc019-._~", max_size=8).map(lambda value: f"{key}={value}")
    ),
    st.text("ab=&+%20;é", max_size=20),
    st.text("ab=&%[]#?/", max_size=20),
)


async def receive() -> dict[str, object]:
    raise AssertionError("there is nothing to receive")


async def send(message: object) -> None:
    raise AssertionError("there is nothing to send")


@given(queries)
def test_a_query_is_read_as_a_form_is(query: str) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query.encode()}
    raw = http_inputs.of_head(Exchange(scope, receive, send, read_timeout=0, write_timeout=0), {})
    expected: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        expected.setdefault(key, []).append(value)
    assert raw.values == {key: values[0] if len(values) == 1 else values for key, values in expected.items()}
    assert raw.text == set(expected)


def test_the_path_wins_over_the_query() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"id=1"}
    raw = http_inputs.of_head(Exchange(scope, receive, send, read_timeout=0, write_timeout=0), {"id": "2"})
    assert raw.values == {"id": "2"}
