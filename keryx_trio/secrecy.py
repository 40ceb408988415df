"""The secrets of a call, and how they are kept out of what it says.

Owns: `Secrets`, the ways in which a secret may be written, and the bounds on looking for it. Does not know: which
inputs are secret, or what the texts are for.

Invariants: in doubt it hides. What a secret is looked for with is made once, when something is first to be told, so a
call that says nothing pays nothing. The work grows with the texts and the secrets, not with their product: a long
secret is known by its edges, and what would take too long to look through is hidden as a whole.
"""

from __future__ import annotations

import base64
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

import attrs

from .wire import json as wire_json
from .wire.text import to_utf8

SECRET_MARK: Final = "[[secret]]"  # noqa: S105 - not one
"""What stands where a secret was."""

LONG: Final = 128
"""A secret of more characters is looked for as it is, and by its edges however they are written."""

EDGE: Final = 64
"""Characters at each end of a long secret. A text that has one of them, and not the whole, is hidden."""

LINES: Final = (8192, 128, 4)
"""The lines of a secret are secrets too: those in its first characters, so many, of so many characters at least."""

MAX_FORMS: Final = 10_000
"""The most strings that are looked for; with more, every text is hidden."""

MAX_WORK: Final = 2**25
"""The most characters that are gone through for one text; one that would take more is hidden."""

_HOLE: Final = "\x1a"
"""ASCII's SUBSTITUTE: stands for what was taken out until all is, so that no secret is found in the marks."""


class Secrets:
    """What must not be shown. It may grow."""

    __slots__ = ("_search", "_texts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: dict[str, None] = {}
        self._search: _Search | None = None
        if texts:
            self.extend(texts)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def extend(self, texts: Iterable[str]) -> None:
        """Add secrets; empty ones are none."""
        known = len(self._texts)
        self._texts.update((text, None) for text in texts if text)
        if len(self._texts) > known:
            self._search = None

    def hide(self, text: str) -> str:
        """`text` with `[[secret]]` for each secret, also where it is written as in JSON, repr, base64 or a URL."""
        return self._made().hide(text) if self._texts else text

    def hide_in(self, value: object, *, keys: bool = True) -> Any:
        """The JSON form of a value without secrets in it; without those in keys too, unless they are our own.

        A value is left as it is where there are no secrets.

        Raises:
            TypeError: for what has no JSON form.
        """
        if not self._texts:
            return value
        data = json.loads(wire_json.encode(value))
        texts: list[str] = []
        _each(data, texts.append, keys=keys)
        return _each(data, self._made().within("\n".join(texts)).hide, keys=keys)

    def traceback(self, error: BaseException) -> str:
        """The traceback of an error, its causes and its parts, without secrets, and without the values of variables."""
        whole = traceback.TracebackException.from_exception(error)
        if not self._texts:
            return "".join(whole.format())
        # Each error's own text first: inside a group it is indented, and no longer what it was.
        waiting = [whole]
        while waiting:
            each = waiting.pop()
            said = self.hide("".join(each.format_exception_only()))
            each.format_exception_only = _saying(said)  # type: ignore[method-assign, assignment]
            waiting += [each for each in (each.__cause__, each.__context__, *(each.exceptions or ())) if each]
        return self.hide("".join(whole.format()))

    def _made(self) -> _Search:
        if self._search is None:
            self._search = _Search.of(self._texts)
        return self._search


@attrs.frozen
class _Search:
    """What is looked for: long secrets as they are, their edges in every form, and every form of the others."""

    whole: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    blind: bool = attrs.field(default=False, kw_only=True)
    """There is too much to look for."""

    @classmethod
    def of(cls, secrets: Iterable[str]) -> _Search:
        whole: set[str] = set()
        edges: set[str] = set()
        forms: set[str] = set()
        for secret in secrets:
            for part in _parts(secret):
                if len(part) > LONG:
                    whole.add(part)
                    edges.update(_forms(part[:EDGE]), _forms(part[-EDGE:]))
                else:
                    forms.update(_forms(part))
            if len(whole) + len(edges) + len(forms) > MAX_FORMS:
                return cls(blind=True)
        # The longest first: a secret that contains another leaves nothing behind.
        return cls(*(tuple(sorted(each, key=len, reverse=True)) for each in (whole, edges, forms)))

    def within(self, text: str) -> _Search:
        """The same for the parts of a text: what it does not hold need not be looked for in them."""
        if self._is_too_much(text):
            return _Search(blind=True)
        return _Search(*(tuple(form for form in each if form in text) for each in (self.whole, self.edges, self.forms)))

    def hide(self, text: str) -> str:
        if self._is_too_much(text):
            return SECRET_MARK
        for secret in self.whole:
            text = text.replace(secret, _HOLE)
        if any(edge in text for edge in self.edges):
            return SECRET_MARK
        for form in self.forms:
            text = text.replace(form, _HOLE)
        return re.sub(f"{_HOLE}+", SECRET_MARK, text) if _HOLE in text else text

    def _is_too_much(self, text: str) -> bool:
        return self.blind or len(text) * (len(self.whole) + len(self.edges) + len(self.forms)) > MAX_WORK


def _parts(secret: str) -> set[str]:
    """A secret, and its lines, which may be told one by one; not every "}" of it."""
    start, most, shortest = LINES
    lines = [line for line in secret[:start].splitlines() if len(line) >= shortest]
    return {secret, *lines[:most]}


def _forms(text: str) -> Iterator[str]:
    """The ways in which a text may be written."""
    sent = to_utf8(text)
    yield text
    yield sent.decode()
    yield from _base64(sent)
    if text.isascii() and text.isalnum():
        return  # the same in all others
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    for shown in (repr(text), ascii(text), repr(text.encode(errors="replace"))[1:]):
        yield shown[1:-1]
        yield shown[1:-1].replace("'", "\\'")
    for escape in (quote, quote_plus):
        for safe in ("", "/", "!*'()"):  # the last is JavaScript's
            escaped = escape(text, safe, errors="replace")
            yield escaped
            yield re.sub("%..", lambda match: match[0].lower(), escaped)


def _base64(data: bytes) -> Iterator[str]:
    """Of the data alone, and the digits that are its own wherever it stands among other bytes."""
    yield base64.b64encode(data).decode()
    for shift in range(3):
        digits = base64.b64encode(bytes(shift) + data).decode()
        own = digits[(shift * 8 + 5) // 6 : (shift + len(data)) * 8 // 6]
        if len(own) > 3:  # noqa: PLR2004 - fewer may stand for anything
            yield own
            yield own.replace("+", "-").replace("/", "_")


def _each(data: Any, told: Callable[[str], Any], *, keys: bool) -> Any:
    """A copy of JSON data with each of its strings as it is `told`, and each number that is a secret as a whole."""
    if isinstance(data, str):
        return told(data)
    if isinstance(data, dict):
        return {told(key) if keys else key: _each(value, told, keys=keys) for key, value in data.items()}
    if isinstance(data, list):
        return [_each(value, told, keys=keys) for value in data]
    if data is None or isinstance(data, bool):
        return data
    return SECRET_MARK if told(str(data)) == SECRET_MARK else data


def _saying(text: str) -> Callable[..., Iterator[str]]:
    return lambda **_: iter((text,))
