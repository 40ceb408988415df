"""The frames of messages, read by a client of wsproto's."""

from __future__ import annotations

import wsproto.connection
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.events import TextMessage

from keryx_trio.server.frames import frames

SIZES = st.sampled_from([0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537])
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | SIZES.map("x".__mul__) | SIZES.map("é".__mul__)


@given(st.lists(TEXTS, max_size=8), st.integers(1, 70_000))
@example(["x" * size for size in range(300)], 7)
def test_a_client_reads_each_message_as_it_was_however_its_bytes_are_cut(texts: list[str], cut: int) -> None:
    client = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
    data = frames([text.encode() for text in texts])
    read, whole = [], ""
    for start in range(0, len(data), cut):
        client.receive_data(data[start : start + cut])
        for event in client.events():
            assert isinstance(event, TextMessage)
            whole += event.data
            if event.message_finished:
                read.append(whole)
                whole = ""
    assert (read, whole) == (texts, "")


@given(TEXTS)
def test_a_frame_is_the_one_that_wsproto_would_write(text: str) -> None:
    server = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)
    assert frames([text.encode()]) == server.send(TextMessage(data=text))
