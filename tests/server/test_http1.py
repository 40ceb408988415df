"""Bytes that are requests, and bytes that are none."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.server.http1 import MAX_CHUNK_EXTRA, Head, Reader, Refused
from tests.server.hostile import ASK, POST, http1

MAX_HEAD = 16 * 1024
Message = tuple[Head, bytes]


def read(packets: list[bytes]) -> tuple[list[Message], int | None]:
    """The requests that are in these packets, and why no more of them are."""
    reader, head, body, found = Reader(MAX_HEAD), None, b"", []
    try:
        for packet in packets:
            reader.feed(packet)
            while True:
                if head is None:
                    head, body = reader.head(), b""
                    if head is None:
                        break
                part = reader.body()
                if part is None:
                    break
                body += part[0]
                if part[1]:
                    found.append((head, body))
                    head = None
    except Refused as refused:
        return found, refused.status
    return found, None


token = st.text("abcXYZ-_!09", min_size=1, max_size=10).map(str.encode)
value = st.binary(max_size=20).map(
    lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip(b" \t")
)
framing = {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"}
fields = st.lists(st.tuples(token, value).filter(lambda field: field[0].lower() not in framing), max_size=5)
target = st.text("abc/%20?&=.~;:@", max_size=20).map(lambda text: b"/" + text.encode())
method = st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE", b"OPTIONS", b"BREW"])
bodies = st.one_of(st.none(), st.binary(max_size=60), st.lists(st.binary(min_size=1, max_size=30), max_size=4))
extension = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request and its body."""
    head = b"%s %s HTTP/1.1\r\nHost: x\r\n" % (draw(method), draw(target))
    for name, content in draw(fields):
        head += b"%s:%s%s\r\n" % (name, draw(st.sampled_from([b"", b" ", b" \t"])), content)
    body = draw(bodies)
    if body is None:
        return head + b"\r\n", b""
    if isinstance(body, bytes):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), draw(extension), chunk) for chunk in body)
    trailer = draw(st.sampled_from([b"", b"Trailer: value\r\n"]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", b"".join(body)


def split(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


streams = st.lists(requests(), min_size=1, max_size=4)
places = st.lists(st.integers(0, 10_000), max_size=10)


@given(streams, places)
def test_requests_are_what_was_sent_however_they_come_apart(sent: list[tuple[bytes, bytes]], at: list[int]) -> None:
    found, refused = read(split(b"".join(data for data, _ in sent), at))
    assert refused is None
    assert [body for _, body in found] == [body for _, body in sent]


@given(requests())
def test_what_h11_takes_is_taken_for_the_same(sent: tuple[bytes, bytes]) -> None:
    data, body = sent
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    request, read_body = peer.next_event(), b""
    while isinstance(event := peer.next_event(), h11.Data):
        read_body += event.data
    assert isinstance(event, h11.EndOfMessage)
    ((head, found),), _ = read([data])
    assert (head.method.encode(), head.target, found) == (request.method, request.target, read_body == body and body)
    assert head.headers == [(bytes(name), bytes(content)) for name, content in request.headers]


SPLIT = [
    ASK + b"\r\n",
    POST + b"Content-Length: 4\r\n\r\nabcd" + ASK + b"\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n\r\n" + ASK + b"\r\n",
]


@pytest.mark.parametrize("data", SPLIT, ids=["a head", "a length", "chunks"])
def test_every_split_into_two_or_three_packets_is_the_same(data: bytes) -> None:
    whole = read([data])
    assert whole[1] is None
    assert read([data[n : n + 1] for n in range(len(data))]) == whole
    for first in range(len(data)):
        for second in range(first, len(data), 7):
            assert read([data[:first], data[first:second], data[second:]]) == whole


@pytest.mark.parametrize("case", http1(), ids=lambda case: case.name)
def test_what_is_refused_is_refused_however_it_comes_apart(case: object) -> None:
    data: bytes = case.data  # type: ignore[attr-defined]
    whole, at_once = read([data]), read([data[n : n + 1] for n in range(len(data))])
    assert (len(whole[0]), whole[1] is None) == (len(at_once[0]), at_once[1] is None)


@given(st.binary(max_size=200), places)
def test_no_bytes_do_more_than_be_refused(data: bytes, at: list[int]) -> None:
    for start in (b"", ASK, POST + b"Transfer-Encoding: chunked\r\n\r\n"):
        found, refused = read(split(start + data, at))
        assert refused in (None, 400, 431)
        assert len(found) <= 1 or b"\r\n\r\n" in data


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_chunked_body_that_was_changed_is_never_more_than_one(parts: list[bytes], at: int, change: bytes) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    at %= len(body)
    found, _ = read([POST + b"Transfer-Encoding: chunked\r\n\r\n" + body[:at] + change + body[at + len(change) :]])
    assert len(found) <= 1 + body.count(b"HTTP/1.1")


def test_the_frame_of_a_body_may_not_be_larger_than_the_body_for_ever() -> None:
    line = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    reader = Reader(MAX_HEAD)
    reader.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    assert reader.head() is not None
    taken = 0
    with pytest.raises(Refused):
        for _ in range(100):
            reader.feed(line)
            taken += len(reader.body()[0])  # type: ignore[index]
    assert taken == MAX_CHUNK_EXTRA // 1001


def test_a_whole_url_names_the_host() -> None:
    ((head, _),), _ = read([b"GET http://other:81/a?b HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert (head.target, head.headers) == (b"/a?b", [(b"host", b"other:81")])
    ((head, _),), _ = read([b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert head.target == b"*"


@pytest.mark.parametrize(
    ("version", "field", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: Close", False),
        ("1.1", "Connection: a, close", False),
        ("1.0", "", False),
    ],
)
def test_a_connection_is_kept_where_both_sides_know_how(version: str, field: str, keeps: bool) -> None:
    ((head, _),), _ = read([f"GET / HTTP/{version}\r\nHost: x\r\n{field or 'A: b'}\r\n\r\n".encode()])
    assert head.keeps is keeps


line = st.sampled_from(
    [b"GET /a HTTP/1.1", b"POST /b?x=1 HTTP/1.1", b"GET http://other:1/c HTTP/1.1", b"GET / HTTP/1.0"]
)
block = st.sampled_from(
    [
        b"Host: x\r\n",
        b"Host: x\r\nConnection: close\r\n",
        b"Host: x\r\nContent-Length: 2\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        b"X: 1\r\n",
        b"Host: x\r\nHost: y\r\n",
    ]
)
BODY = {b"Content-Length": b"ab", b"Transfer-Encoding": b"2\r\nab\r\n0\r\n\r\n"}


@given(st.lists(st.tuples(line, block), min_size=1, max_size=6))
def test_a_head_whose_fields_came_before_is_what_it_is_on_a_connection_of_its_own(
    asked: list[tuple[bytes, bytes]],
) -> None:
    together, reader = [], Reader(MAX_HEAD)
    alone = []
    for request_line, fields in asked:
        data = request_line + b"\r\n" + fields + b"\r\n"
        data += next((body for name, body in BODY.items() if name in fields), b"")
        own, refused = read([data])
        alone.append((own, refused))
        try:
            reader.feed(data)
            head = reader.head()
            assert head is not None
            body = b""
            while (part := reader.body()) is not None:
                body += part[0]
                if part[1]:
                    break
            together.append(([(head, body)], None))
        except Refused as error:
            together.append(([], error.status))
            break
    assert together == alone[: len(together)]


def test_what_is_done_to_the_fields_of_one_head_is_not_done_to_the_next() -> None:
    reader = Reader(MAX_HEAD)
    for _ in range(2):
        reader.feed(ASK + b"\r\n")
        head = reader.head()
        assert head is not None
        assert (b"added", b"x") not in head.headers
        head.headers.append((b"added", b"x"))
