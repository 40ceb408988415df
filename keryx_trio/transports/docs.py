"""The application's own description over HTTP: its OpenAPI document, and a page to read it and try it.

Owns: where both are, how long a made document serves, and the page's policy. Does not know: what the document tells
(`openapi` does), or actions: one on the same route wins, and so does a file that the application serves itself.

Nothing here needs another host. The page's own script shows streams while they run; Swagger UI, which shows everything
else, comes from an optional package, and without it the page's script does all.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import attrs
import trio

from ..errors import ErrorType, TypedError
from ..openapi import VERSIONS, Version, document
from ..response import Response
from ..wire import headers as header_fields
from . import files
from .exchange import Exchange

if TYPE_CHECKING:
    from starlette.responses import Response as FileAnswer

    from ..app import Keryx

PAGES: Final = Path(__file__).parent.parent / "pages"
SWAGGER_PACKAGE: Final = "flask_swagger_ui"
"""Carries the files of Swagger UI, and follows its releases; nothing of it is imported."""

SWAGGER: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
SWAGGER_MARK: Final = "<!-- swagger-ui -->"

POLICY: Final = "default-src 'self'; img-src 'self' data:"
"""As everywhere, and what Swagger UI's style sheet needs: its icons are images in it."""


@attrs.frozen
class _Made:
    """A document that was made."""

    actions: int
    """How many there were: none is ever taken away."""
    answer: Response
    etag: bytes


class Docs:
    """Answers for the document and the page."""

    def __init__(self, app: Keryx) -> None:
        self._app = app
        self._document = f"{app.config.api_route}/openapi.json"
        self._page = f"{app.config.api_route}/docs"
        self._made: dict[tuple[Version, str], _Made] = {}

    def has(self, path: str) -> bool:
        """Whether a path is one of these."""
        return path == self._document or f"{path}/".startswith(f"{self._page}/")

    async def find(self, path: str, exchange: Exchange) -> FileAnswer | Response | None:
        """What answers a GET or HEAD of a decoded path; None where there is nothing.

        Raises:
            TypedError: a version of OpenAPI that is not known.
        """
        if path == self._document:
            return await self._describe(exchange)
        if path == self._page:
            return _unless_known(self._index, _etag(self._index.body), exchange)
        if path == f"{self._page}/":
            return Response(status=307, headers={"location": "../docs"})
        for folder in self._folders:
            if folder.has(path) and (file := await folder.find(path, exchange)) is not None:
                return file
        return None

    async def _describe(self, exchange: Exchange) -> Response:
        version, root = _version(exchange), str(exchange.scope.get("root_path", ""))
        made = self._made.get((version, root))
        count = len(self._app.actions)
        if made is None or made.actions != count:
            # In a thread: with hundreds of actions it takes a while, which nobody else should have to wait.
            body = await trio.to_thread.run_sync(_encoded, self._app, version, root)
            etag = _etag(body)
            made = _Made(count, _answer(body, "application/json", etag), etag)
            self._made[version, root] = made
        return _unless_known(made.answer, made.etag, exchange)

    @functools.cached_property
    def _index(self) -> Response:
        page = (PAGES / "docs.html").read_text(encoding="utf-8")
        if _swagger_folder() is not None:
            style, script = (f"docs/swagger-ui/{name}" for name in SWAGGER)
            tags = f'<link rel="stylesheet" href="{style}">\n    <script src="{script}" defer></script>'
            page = page.replace(SWAGGER_MARK, tags)
        body = page.encode()
        return _answer(body, "text/html; charset=utf-8", _etag(body), {"content-security-policy": POLICY})

    @functools.cached_property
    def _folders(self) -> list[files.Folder]:
        own = files.Folder(f"{self._page}/", PAGES / "docs")
        swagger = _swagger_folder()
        if swagger is None:
            return [own]
        return [own, files.Folder(f"{self._page}/swagger-ui/", swagger, only=SWAGGER)]


def _encoded(app: Keryx, version: Version, root: str) -> bytes:
    told: dict[str, Any] = document(app, version, root=root)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _version(exchange: Exchange) -> Version:
    query = parse_qs(bytes(exchange.scope.get("query_string", b"")).decode("utf-8", "replace"))
    wanted = query.get("version", ["3.2"])[-1]
    if wanted not in VERSIONS:
        raise TypedError(
            f"version: must be one of: {', '.join(VERSIONS)}", ErrorType.CONNECTION_ACTION_PARAM_VALIDATION, "version"
        )
    return wanted


def _etag(body: bytes) -> bytes:
    """Weak, since the body may go out compressed."""
    return b'W/"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()


def _answer(body: bytes, content_type: str, etag: bytes, headers: dict[str, str] | None = None) -> Response:
    fields = {"etag": etag.decode(), "cache-control": "no-cache", **(headers or {})}
    return Response(body, content_type=content_type, headers=fields)


def _unless_known(answer: Response, etag: bytes, exchange: Exchange) -> Response:
    """The answer, or that the client has it already."""
    if not header_fields.has_etag(exchange.headers.get(b"if-none-match"), etag):
        return answer
    kept = {name.decode(): value.decode() for name, value in answer.headers if name != b"content-type"}
    return Response(status=304, headers=kept)


def _swagger_folder() -> Path | None:
    """Where the files of Swagger UI are; None where its package is not installed."""
    spec = importlib.util.find_spec(SWAGGER_PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    folder = Path(next(iter(places))) / "dist" if places else None
    return folder if folder is not None and all((folder / name).is_file() for name in SWAGGER) else None
