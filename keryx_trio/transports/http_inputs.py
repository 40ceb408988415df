"""From a request to raw inputs: its path, its body (JSON or a form), its query, in the order in which they win.

Owns: content types and their decoding. Does not know: what the inputs mean.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs

from ..errors import ErrorType, TypedError
from ..uploads import UploadFile
from ..wire import headers as header_fields
from ..wire import json
from ..wire.headers import media_type
from .exchange import Exchange

UNKNOWN_TYPE: Final = "application/octet-stream"
# The parser warns of each malformed form, which is answered and logged as such; without a handler that goes to stderr.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())

MAX_FIELDS: Final = 1000
"""The most fields in a query or a form, and the most files."""


_PLAIN_PAIR: Final = re.compile(rb"[A-Za-z0-9_.~-]+=[A-Za-z0-9_.~-]*")
"""A query of one pair, in which nothing is encoded (RFC 3986, section 2.3)."""


@attrs.define
class RawInputs:
    """What a request gives for the inputs, before anybody knows what they mean."""

    values: dict[str, Any] = attrs.Factory(dict)
    text: set[str] = attrs.Factory(set)
    """The keys whose values came as text: a str, or a list where the key was given several times."""
    uploads: list[UploadFile] = attrs.Factory(list)

    def close(self) -> None:
        """Let go of the uploaded files."""
        for upload in self.uploads:
            upload.close()

    def add_text(self, pairs: list[tuple[str, Any]]) -> None:
        """Take text; a key given several times keeps all its values, and replaces what stood there before."""
        found: dict[str, list[Any]] = {}
        for key, value in pairs:
            found.setdefault(key, []).append(value)
        for key, values in found.items():
            self.values[key] = values[0] if len(values) == 1 else values
            self.text.add(key)

    def add_json(self, values: Mapping[str, Any]) -> None:
        """Take JSON values; they replace what stood there before."""
        self.values.update(values)
        self.text.difference_update(values)


async def read(exchange: Exchange, path: Mapping[str, str], limit: int, *, wanted: bool) -> RawInputs:
    """Read the request to its end.

    Args:
        path: the path's parameters.
        limit: the most bytes a body may have.
        wanted: whether there are inputs that a body could give; else it is read, and not looked at.

    Raises:
        TypedError: a body that is too large, malformed, or of a type that gives no inputs.
        trio.BrokenResourceError: the client left before all of it had come.
    """
    raw = of_head(exchange, {})
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    kind = media_type(content_type)
    if wanted and kind == "multipart/form-data":
        await _read_multipart(exchange, content_type, limit, raw)
    else:
        body = await exchange.body(limit)
        if body and wanted:
            _read_body(kind, body, raw)
    raw.add_text(list(path.items()))
    return raw


def of_head(exchange: Exchange, path: Mapping[str, str]) -> RawInputs:
    """What a request gives that has no body.

    Raises:
        TypedError: a malformed query.
    """
    raw = RawInputs()
    query: bytes = exchange.scope.get("query_string", b"")
    if _PLAIN_PAIR.fullmatch(query):  # nothing to decode, and most queries are no more
        key, _, value = query.decode("ascii").partition("=")
        raw.values[key] = value
        raw.text.add(key)
    elif query:
        raw.add_text(_pairs(query, "query"))
    if path:
        raw.add_text(list(path.items()))
    return raw


def _read_body(kind: str, body: bytes, raw: RawInputs) -> None:
    if kind == "application/x-www-form-urlencoded":
        if body.lstrip().startswith(b"{"):
            raise _malformed("the body is JSON but says that it is a form: send `Content-Type: application/json`")
        raw.add_text(_pairs(body, "form"))
    elif kind in ("", "application/json") or kind.endswith("+json"):
        raw.add_json(json.decode_object(body, "the body"))
    else:
        raise _malformed(
            f"a body of type {kind} gives no inputs: send application/json, application/x-www-form-urlencoded or "
            "multipart/form-data"
        )


def _pairs(text: bytes, what: str) -> list[tuple[str, Any]]:
    try:
        return parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise _malformed(f"the {what} has more than {MAX_FIELDS} fields") from None


async def _read_multipart(exchange: Exchange, content_type: str, limit: int, raw: RawInputs) -> None:
    # Imported here: most applications never see a multipart form, and it is slow to import.
    from python_multipart.multipart import parse_options_header  # noqa: PLC0415
    from starlette.datastructures import Headers as FormHeaders  # noqa: PLC0415
    from starlette.datastructures import UploadFile as FormFile  # noqa: PLC0415
    from starlette.formparsers import MultiPartException, MultiPartParser  # noqa: PLC0415

    class Parser(MultiPartParser):
        complete = False

        def on_end(self) -> None:
            self.complete = True

    chunks = exchange.chunks(limit)

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.complete:
            raise MultiPartException("it ends before its closing boundary")

    # Only the boundary is passed on: a charset would let the client choose the codec, and some take for ever.
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"").decode("latin-1")
    async with aclosing(chunks), aclosing(whole()) as body:
        headers = FormHeaders({"content-type": f'multipart/form-data; boundary="{boundary}"'})
        parser = Parser(headers, body, max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=limit)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise _malformed(f"the multipart form is malformed: {error.message}") from None
        except ValueError:  # what the parser says of a boundary or of a header that it cannot read
            raise _malformed("the multipart form is malformed") from None
    pairs: list[tuple[str, Any]] = []
    for key, value in form.multi_items():
        if isinstance(value, FormFile):
            upload = UploadFile(
                file=value.file,
                filename=value.filename or "",
                content_type=_safe_type(value.content_type),
                size=value.size or 0,
                headers=dict(value.headers),
            )
            raw.uploads.append(upload)
            pairs.append((key, upload))
        else:
            pairs.append((key, value))
    raw.add_text(pairs)


def _safe_type(content_type: str | None) -> str:
    """What a part says it is, where that could stand in a header of an answer."""
    try:
        return header_fields.content_type(content_type or "")[1].decode("latin-1") or UNKNOWN_TYPE
    except ValueError:
        return UNKNOWN_TYPE


def _malformed(message: str) -> TypedError:
    return TypedError(message, ErrorType.CONNECTION_ACTION_PARAM_FORMATTING)
