"""Answers with a body of their own."""

from __future__ import annotations

import pytest

from keryx_trio import Response, StreamingResponse


def test_text_and_bytes_have_their_own_default_type():
    assert Response("ü").body == "ü".encode()
    assert Response("x").content_type == "text/plain; charset=utf-8"
    assert Response(bytearray(b"x")).content_type == "application/octet-stream"
    assert Response(b"x", 202, "image/png").headers == [(b"content-type", b"image/png")]
    assert repr(Response("abc", 404)) == "<Response 404 text/plain; charset=utf-8 3 bytes>"


@pytest.mark.parametrize("body", [{"a": 1}, None, 3])
def test_other_bodies_are_refused_with_a_hint(body):
    with pytest.raises(TypeError, match="return a value for JSON"):
        Response(body)


@pytest.mark.parametrize("status", [0, 100, 199, 600])
def test_a_status_that_is_none_is_refused(status):
    with pytest.raises(ValueError, match="no status of an answer"):
        Response("", status)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_bodiless_status_has_no_body(status):
    assert Response(status=status).body == b""
    assert Response(status=status).headers == []
    with pytest.raises(ValueError, match="has no body"):
        Response("x", status)


def test_the_length_and_the_type_are_not_set_twice():
    response = Response("x", headers={"Content-Length": "99", "Content-Type": "a/b", "X": "1"})
    assert response.headers == [(b"content-type", b"text/plain; charset=utf-8"), (b"x", b"1")]


def test_a_malformed_header_is_refused():
    with pytest.raises(ValueError, match="header"):
        Response("x", headers={"X": "a\nb"})


@pytest.mark.parametrize("content_type", ["text/html\r\nX-Evil: 1", "text/html\nx", "a\0b"])
def test_a_content_type_cannot_carry_another_header(content_type):
    with pytest.raises(ValueError, match="content-type"):
        Response("x", content_type=content_type)
    with pytest.raises(ValueError, match="content-type"):
        StreamingResponse.stream("/some/path", content_type=content_type)


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"])
def test_a_header_about_the_connection_is_the_servers(name):
    with pytest.raises(ValueError, match="about the connection"):
        Response("x", headers={name: "x"})
