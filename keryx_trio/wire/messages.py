"""The messages of a WebSocket, as JSON text.

Owns: what a client may say, told from what it may not, and the form of what it is told.
Does not know: sockets, calls, or what an action's name means.

    in      {"messageType": "action", "action": NAME, "params"?: {...}, "messageId"?: ID}
            {"messageType": "cancel", "messageId": ID}
    out     {"messageId": ID, "response": VALUE}
            {"messageId": ID, "streaming": true, "chunk": DATA, "event"?, "id"?, "encoding"?}   each
            {"messageId": ID, "streaming": false}                                               then
            {"messageId": ID, "error": PAYLOAD}                                                 in place of either

Invariant: an id goes back byte for byte as it came, so that a number of any size and form is still the same one.
"""

from __future__ import annotations

import binascii
import functools
from typing import Any, Final, Self

import attrs
import msgspec

from ..errors import ErrorType, TypedError
from . import json, sse

MAX_ID: Final = 256
"""The longest id, in bytes as it was written: it goes back with every chunk of a stream."""

CACHED_NAME: Final = 64
"""Names of events up to this many characters are written once."""

_KINDS: Final = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


class Refused(TypedError):  # noqa: N818 - as trio names things: for a state
    """A message that is none; `id` is the raw id that it bears, where it has a sound one."""

    def __init__(self, message: str, type: ErrorType, key: str | None = None, *, id: bytes = b"") -> None:  # noqa: A002
        super().__init__(message, type, key)
        self.id = id

    @classmethod
    def of(cls, error: TypedError, id: bytes) -> Self:  # noqa: A002 - as above
        """Another error, told of a message."""
        return cls(error.message, error.type, error.key, id=id)


@attrs.frozen
class Ask:
    """A client asks for a call.

    Attributes:
        id: the raw id, empty where there is none.
        key: the id as it compares with others.
    """

    action: str
    params: dict[str, Any] = attrs.field(repr=False)  # there may be secrets in them
    id: bytes
    key: str | float | None


@attrs.frozen
class Cancel:
    """A client wants no more of a call."""

    key: str | float


class _Envelope(msgspec.Struct):
    messageType: Any = None  # noqa: N815 - as it stands on the wire
    action: Any = None
    params: Any = None
    messageId: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815


_decoder: Final = msgspec.json.Decoder(_Envelope)


def read(message: str | bytes) -> Ask | Cancel:
    """What a client says.

    Raises:
        Refused: it is no message, or one that lacks something; its words are for the client.
    """
    try:
        # As text: the raw id is not looked into, and bytes in it might be no UTF-8.
        envelope = _decoder.decode(message.decode() if isinstance(message, bytes) else message)
    except msgspec.ValidationError as error:  # it is JSON, and no object, or has a number that is none
        raise _malformed(f"a message is a JSON object, such as {_EXAMPLE}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(f"the message is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    except RecursionError:
        raise _malformed("the message is not valid JSON: it is nested too deeply") from None
    raw, key = _read_id(envelope.messageId)
    match envelope.messageType:
        case "action":
            return _read_ask(envelope, raw, key)
        case "cancel":
            if key is None:
                raise _malformed("a cancel names the call that it is for by its messageId", "messageId")
            return Cancel(key)
        case kind:
            said = "is missing" if kind is None else f"is unknown: {str(kind)[:40]!r}"
            raise Refused(
                f"messageType {said}; use action or cancel, as in {_EXAMPLE}",
                ErrorType.CONNECTION_TYPE_NOT_FOUND,
                "messageType",
                id=raw,
            )


_EXAMPLE: Final = '{"messageType": "action", "action": "name", "params": {}, "messageId": 1}'


def _read_id(raw: msgspec.Raw) -> tuple[bytes, str | float | None]:
    written = bytes(raw).strip()
    if len(written) > MAX_ID:
        raise _malformed(f"a messageId has at most {MAX_ID} bytes", "messageId")
    try:
        key = msgspec.json.decode(written)
    except msgspec.ValidationError as error:
        raise _malformed(f"a messageId is a number that can be told from others: {error}", "messageId") from None
    if key is None:
        return b"", None
    if isinstance(key, bool) or not isinstance(key, (str, int, float)):
        raise _malformed(f"a messageId is a string or a number, not {_kind(key)}", "messageId")
    return written, key


def _read_ask(envelope: _Envelope, raw: bytes, key: str | float | None) -> Ask:
    name, params = envelope.action, envelope.params
    if not isinstance(name, str) or not name:
        said = "it is missing" if name in (None, "") else f"it is {_kind(name)}"
        raise _malformed(f"a message of type action has the name of one in `action`; {said}", "action", id=raw)
    if params is not None and not isinstance(params, dict):
        raise _malformed(f"params is a JSON object with the inputs, not {_kind(params)}", "params", id=raw)
    return Ask(name, params or {}, raw, key)


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null" if value is None else "an object")


def _malformed(message: str, key: str | None = None, *, id: bytes = b"") -> Refused:  # noqa: A002
    return Refused(message, ErrorType.CONNECTION_ACTION_PARAM_FORMATTING, key, id=id)


class Frames:
    """What the client of one call is told.

    Args:
        id: the raw id, empty for none.
    """

    __slots__ = ("_chunk", "_head")

    def __init__(self, id: bytes) -> None:  # noqa: A002 - the name of the field on the wire
        self._head = b'{"messageId":%b,' % id if id else b"{"
        self._chunk = self._head + b'"streaming":true,"chunk":'

    def response(self, value: object) -> bytes:
        """The answer of a plain call; raises TypeError for what has no JSON form."""
        return b'%b"response":%b}' % (self._head, json.encode(value))

    def error(self, payload: dict[str, Any]) -> bytes:
        """What went wrong with it."""
        return b'%b"error":%b}' % (self._head, json.encode(payload))

    def event(self, data: str | bytes, event: str | None, id: str | None, retry: int | None) -> bytes:  # noqa: A002
        """An event; `data` is text, or JSON as bytes. `retry` is the reconnecting reader's, who is not here.

        Raises:
            ValueError: as server-sent events do, whose fields these are.
        """
        if id is not None or retry is not None:
            sse.check(None, id, retry)
        return b"%b%b%b%b}" % (
            self._chunk,
            data if isinstance(data, bytes) else json.encode(data),
            (_cached_event_field if len(event) <= CACHED_NAME else _event_field)(event) if event else b"",
            b"" if id is None else b',"id":' + json.encode(id),
        )

    def text(self, data: str) -> bytes:
        """A piece of a text."""
        return b"%b%b}" % (self._chunk, json.encode(data))

    def binary(self, data: bytes) -> bytes:
        """A piece of what is no text."""
        return b'%b"%b","encoding":"base64"}' % (self._chunk, binascii.b2a_base64(data, newline=False))

    def end(self) -> bytes:
        """The end of a stream."""
        return self._head + b'"streaming":false}'


def _event_field(event: str) -> bytes:
    sse.check(event, None, None)
    return b',"event":' + json.encode(event)


# Streams send few names, many times each.
_cached_event_field = functools.lru_cache(maxsize=256)(_event_field)
