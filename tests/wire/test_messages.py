"""The messages of a WebSocket: what a client may say, and what it is told."""

from __future__ import annotations

import base64
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.wire import sse
from keryx_trio.wire.messages import MAX_ID, Ask, Cancel, Frames, Refused, read

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip
FIELD = st.text(max_size=100).filter(lambda text: not set(text) & set("\r\n\0"))


@given(st.text(min_size=1), st.dictionaries(st.text(), VALUES), st.text(max_size=20) | NUMBERS)
def test_a_call_is_read_as_it_was_asked_for(action, params, id):
    written = json.dumps(id)
    said = (
        f'{{"messageType":"action","action":{json.dumps(action)},"params":{json.dumps(params)},"messageId":{written}}}'
    )
    if not _is_unicode(action, params, id) or len(written) > MAX_ID:
        return
    try:
        ask = read(said)
    except Refused as error:
        assert "out of range" in str(error)  # a number that no float can hold
    else:
        assert ask == Ask(action, params, written.encode(), id)
        assert read(said.encode()) == ask


def _is_unicode(*values: object) -> bool:
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def test_params_and_id_may_be_left_out():
    assert read('{"messageType":"action","action":"a"}') == Ask("a", {}, b"", None)
    assert read('{"messageType":"action","action":"a","params":null,"messageId":null}') == Ask("a", {}, b"", None)
    assert read('{"messageType":"action","action":"a","messageId":""}') == Ask("a", {}, b'""', "")


def test_a_cancel_names_a_call():
    assert read('{"messageType":"cancel","messageId": 7 }') == Cancel(7)
    assert read('{"messageType":"cancel","messageId":"7"}') == Cancel("7")


@pytest.mark.parametrize(
    ("said", "type", "key", "id", "words"),
    [
        ("", "PARAM_FORMATTING", None, b"", "not valid JSON"),
        ("{", "PARAM_FORMATTING", None, b"", "not valid JSON"),
        (b"\xff\xfe", "PARAM_FORMATTING", None, b"", "not valid JSON"),
        (b'{"messageType":"action","action":"\xff"}', "PARAM_FORMATTING", None, b"", "not valid JSON"),
        (b'{"messageType":"action","action":"a","messageId":"\xff"}', "PARAM_FORMATTING", None, b"", "not valid JSON"),
        ("[" * 2000 + "]" * 2000, "PARAM_FORMATTING", None, b"", "a message is a JSON object"),
        ('{"params":' + "[" * 30_000 + "]" * 30_000 + "}", "PARAM_FORMATTING", None, b"", "nested too deeply"),
        ("[1]", "PARAM_FORMATTING", None, b"", "a message is a JSON object"),
        ('"action"', "PARAM_FORMATTING", None, b"", "a message is a JSON object"),
        ('{"params":{"n":1e999}}', "PARAM_FORMATTING", None, b"", "out of range"),
        ("{}", "TYPE_NOT_FOUND", "messageType", b"", "messageType is missing"),
        ('{"messageId":1}', "TYPE_NOT_FOUND", "messageType", b"1", "messageType is missing"),
        ('{"messageType":"subscribe","messageId":"a"}', "TYPE_NOT_FOUND", "messageType", b'"a"', "unknown: 'subscribe'"),
        ('{"messageType":["action"]}', "TYPE_NOT_FOUND", "messageType", b"", "unknown"),
        ('{"messageType":"' + "x" * 900 + '"}', "TYPE_NOT_FOUND", "messageType", b"", "unknown: 'x"),
        ('{"messageType":"action","messageId":1}', "PARAM_FORMATTING", "action", b"1", "it is missing"),
        ('{"messageType":"action","action":"","messageId":1}', "PARAM_FORMATTING", "action", b"1", "it is missing"),
        ('{"messageType":"action","action":7,"messageId":1}', "PARAM_FORMATTING", "action", b"1", "it is a number"),
        ('{"messageType":"action","action":"a","params":[],"messageId":1}', "PARAM_FORMATTING", "params", b"1", "not an array"),
        ('{"messageType":"action","action":"a","params":"x"}', "PARAM_FORMATTING", "params", b"", "not a string"),
        ('{"messageType":"action","action":"a","messageId":true}', "PARAM_FORMATTING", "messageId", b"", "not a boolean"),
        ('{"messageType":"action","action":"a","messageId":{}}', "PARAM_FORMATTING", "messageId", b"", "not an object"),
        ('{"messageType":"action","action":"a","messageId":1e999}', "PARAM_FORMATTING", "messageId", b"", "out of range"),
        ('{"messageType":"action","action":"a","messageId":"' + "x" * 256 + '"}', "PARAM_FORMATTING", "messageId", b"", "at most"),
        ('{"messageType":"cancel"}', "PARAM_FORMATTING", "messageId", b"", "names the call"),
        ('{"messageType":"cancel","messageId":null}', "PARAM_FORMATTING", "messageId", b"", "names the call"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused_with_words_that_help(said, type, key, id, words):
    with pytest.raises(Refused, match=words) as caught:
        read(said)
    error = caught.value
    assert error.type.endswith(type)
    assert (error.key, error.id) == (key, id)
    assert len(error.message) < 300


@given(st.text() | st.binary())
def test_anything_else_is_read_or_refused(said):
    try:
        assert isinstance(read(said), (Ask, Cancel))
    except Refused:
        return


# What a client is told


@given(VALUES)
def test_a_reply_holds_its_value(value):
    message = json.loads(Frames(b"1e2").response(value))
    assert message == {"messageId": 100, "response": value if _is_unicode(value) else message["response"]}


@given(st.text(), st.none() | FIELD, st.none() | FIELD)
def test_an_event_holds_its_data_with_name_and_id_beside_it(data, event, id):
    message = json.loads(Frames(b'"a"').event(data, event, id, None))
    expected = {"messageId": "a", "streaming": True, "chunk": data}
    if event:
        expected["event"] = event
    if id is not None:
        expected["id"] = id
    if _is_unicode(data, event, id):
        assert message == expected
    else:
        assert message.keys() == expected.keys()


@given(VALUES)
def test_json_data_goes_as_it_is(value):
    text = json.dumps(value).encode()
    assert json.loads(Frames(b"").event(text, None, None, None)) == {"streaming": True, "chunk": value}


@pytest.mark.parametrize(
    "field", [{"event": "a\nb"}, {"event": "\0" * 100}, {"id": "a\rb"}, {"retry": -1}, {"retry": True}]
)
def test_what_no_event_stream_could_carry_is_refused_here_too(field):
    arguments = {"event": None, "id": None, "retry": None} | field
    with pytest.raises(ValueError, match=next(iter(field))) as caught:
        Frames(b"").event("x", **arguments)
    with pytest.raises(ValueError) as also:  # noqa: PT011 - the same one
        sse.encode("x", **arguments)
    assert str(caught.value) == str(also.value)


@given(st.binary())
def test_bytes_go_as_base64(data):
    message = json.loads(Frames(b"").binary(data))
    assert base64.b64decode(message.pop("chunk"), validate=True) == data
    assert message == {"streaming": True, "encoding": "base64"}


def test_ends_and_errors():
    assert Frames(b"7").end() == b'{"messageId":7,"streaming":false}'
    assert Frames(b"").end() == b'{"streaming":false}'
    assert json.loads(Frames(b"7").error({"message": "no"})) == {"messageId": 7, "error": {"message": "no"}}
    assert json.loads(Frames(b"7").response(math.inf)) == {"messageId": 7, "response": None}
