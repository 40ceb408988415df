"""What the log says, and how: lines for people, and the same as fields for machines.

Owns: `Log`, the lines of a call and of a stream, and the handler that shows them where the application has none.
Does not know: actions, connections, or which values are secret; callers hand over what may be said.

Everything goes to the standard library's logger `keryx_trio`: a record's message is a line for people, and the fields
of it are the record's `keryx_fields`, a dict, beside its `keryx_message`, which is the line without them.

Invariants: what a client sends can't make a line of its own, since control characters are escaped; what can't be
logged never breaks the call that logs it; and a line that is not enabled is not built.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Literal, TypedDict, Unpack

from .config import LogConfig
from .errors import text_of
from .secrecy import Secrets

Level = Literal["debug", "info", "warning", "error", "critical"]

LOGGER: Final = "keryx_trio"
"""The name of the logger that everything goes to."""

_JSON: Final = json.JSONEncoder(ensure_ascii=False, default=str)
_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
)
_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {"debug": "36", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
)


class CallFields(TypedDict, total=False):
    """What the log says of a call that was answered."""

    action: str
    transport: str
    status: str
    duration: float
    """Milliseconds."""
    correlation_id: str | None
    identifier: str | None
    """The client's address."""
    method: str | None
    url: str | None
    params: Mapping[str, object] | None
    """The inputs, without what is secret."""
    error: str | None
    error_type: str | None


class StreamFields(TypedDict, total=False):
    """What the log says of a stream that ended."""

    action: str
    transport: str
    outcome: str
    """done, error, client gone, timeout or shutdown."""
    events: int
    bytes: int
    duration: float
    """Milliseconds."""
    time_to_first_event: float | None
    """Milliseconds."""
    correlation_id: str | None


class Log:
    """An application's log.

    Error handling: whatever goes wrong while a line is built or handled is shown on stderr, by its type and place, and
    reaches no caller.
    """

    def __init__(self, config: LogConfig) -> None:
        self._logger = logging.getLogger(LOGGER)
        self._max_param_length = config.max_param_length

    def enabled(self, level: Level) -> bool:
        """Whether a line of this level would be logged at all; cheap enough to be asked before each."""
        return self._logger.isEnabledFor(_LEVELS[level])

    def debug(self, message: str, /, **fields: object) -> None:
        """Logs what helps whoever looks for a fault."""
        self._say("debug", message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Logs what went as it should."""
        self._say("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Logs what should be looked at, and broke nothing."""
        self._say("warning", message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Logs what failed."""
        self._say("error", message, fields)

    def exception(
        self, message: str, error: BaseException, /, *, secrets: Secrets | None = None, **fields: object
    ) -> None:
        """Logs an error whole: its class, its text and its traceback, without the secrets.

        Where there are secrets the record has no `exc_info`, since other handlers would read them from the frames. The
        message and the fields are the caller's own words, and stay as they are.
        """
        if not self.enabled("error"):
            return
        with _harmless():
            secrets = Secrets() if secrets is None else secrets
            told = {**fields, "error_type": type(error).__name__, "error": secrets.hide(text_of(error))}
            trace = secrets.traceback(error)
            self._emit("error", message, _line(message, told), told, trace=trace, error=None if secrets else error)

    def call(self, level: Level = "info", /, **fields: Unpack[CallFields]) -> None:
        """Logs a call that was answered. Each value of `params` is cut at the configured length."""
        if not self.enabled(level):
            return
        with _harmless():
            if params := fields.get("params"):
                fields["params"] = {key: shortened(value, self._max_param_length) for key, value in params.items()}
            line = call_line(**fields)
            self._emit(level, line, line, fields)

    def stream(self, level: Level = "info", /, **fields: Unpack[StreamFields]) -> None:
        """Logs a stream that ended."""
        if not self.enabled(level):
            return
        with _harmless():
            line = stream_line(**fields)
            self._emit(level, line, line, fields)

    def _say(self, level: Level, message: str, fields: Mapping[str, object]) -> None:
        if not self.enabled(level):
            return
        with _harmless():
            self._emit(level, message, _line(message, fields), fields)

    def _emit(
        self,
        level: Level,
        message: str,
        line: str,
        fields: Mapping[str, object],
        *,
        trace: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        record = self._logger.makeRecord(LOGGER, _LEVELS[level], __file__, 0, line, (), None)
        record.keryx_fields = {key: value for key, value in fields.items() if value is not None}
        record.keryx_message = message
        record.keryx_traceback = trace
        if trace is not None:
            # Shown as it is by any formatter, which then does not make its own from exc_info.
            record.exc_text = _indented(trace)
            record.exc_info = (type(error), error, error.__traceback__) if error is not None else None
        self._logger.handle(record)


def call_line(**fields: Unpack[CallFields]) -> str:
    """The line of a call, in the form `[ACTION:WEB:OK] name (3ms) [GET] address(url) [cor:id] {"input": "value"}`."""
    method, url, correlation_id = fields.get("method"), fields.get("url"), fields.get("correlation_id")
    params, error, error_type = fields.get("params"), fields.get("error"), fields.get("error_type")
    parts = [
        f"[ACTION:{fields['transport'].upper()}:{fields['status'].upper()}] {fields['action']}",
        f"({_span(fields['duration'])})",
        f"[{method}]" if method else "",
        f"{fields.get('identifier') or ''}{f'({url})' if url else ''}",
        f"[cor:{correlation_id}]" if correlation_id else "",
        " ".join(part for part in (error_type, error) if part),
        _JSON.encode(params) if params else "",
    ]
    return plain(" ".join(part for part in parts if part))


def stream_line(**fields: Unpack[StreamFields]) -> str:
    """The line of a stream's end: `[STREAM:WEB:DONE] name (2.1s) events=12 bytes=345 first_event=41ms [cor:id]`."""
    first, correlation_id = fields.get("time_to_first_event"), fields.get("correlation_id")
    parts = [
        f"[STREAM:{fields['transport'].upper()}:{fields['outcome'].upper()}] {fields['action']}",
        f"({_span(fields['duration'])}) events={fields['events']} bytes={fields['bytes']}",
        f"first_event={_span(first)}" if first is not None else "",
        f"[cor:{correlation_id}]" if correlation_id else "",
    ]
    return plain(" ".join(part for part in parts if part))


def plain(text: str) -> str:
    r"""`text` on one line: what is not printable becomes its escape, as `\n`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(value: object, length: int) -> object:
    """`value` if its text has at most `length` characters, else that much of its text and an ellipsis."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    try:
        text = value if isinstance(value, str) else _start_of_json(value, length)
    except (TypeError, ValueError):  # keys that JSON has not, or a value in itself
        value = text = str(value)
    return value if len(text) <= length else text[:length] + "…"


@contextlib.contextmanager
def configured(config: LogConfig) -> Iterator[None]:
    """Shows the log on stderr as `config` says, as long as the context lasts; then all is as before.

    Logging that the application has configured is left alone: where the root logger or the logger `keryx_trio` has
    a handler, this does nothing, and that configuration's levels and formats hold. An application that logs through
    structlog reaches these lines in the same way, with structlog's `ProcessorFormatter` on a handler of its own.
    """
    logger = logging.getLogger(LOGGER)
    if logger.hasHandlers():
        yield
        return
    before = logger.level, logger.propagate
    handler = _handler(config)
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[config.level])
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class _Formatter(logging.Formatter):
    """Shows a record as `render` does, which has all that there is to show."""

    def __init__(self, render: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        return self._render(record)


def _handler(config: LogConfig) -> logging.Handler:
    handler = logging.StreamHandler()
    # A daemon may have no stderr at all.
    colours = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    render = _as_json if config.format == "json" else _as_coloured_text if colours else _as_text
    handler.setFormatter(_Formatter(render))
    return handler


def _as_json(record: logging.LogRecord) -> str:
    own = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "message": getattr(record, "keryx_message", None) or record.getMessage(),
        "pid": record.process,
    }
    trace = getattr(record, "keryx_traceback", None)
    fields = {**getattr(record, "keryx_fields", {}), **({"traceback": trace} if trace else {})}
    return json.dumps({**own, **{key: value for key, value in fields.items() if key not in own}}, default=str)


def _as_text(record: logging.LogRecord, colour: str = "{}") -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    line = f"{when} [{colour.format(record.levelname.lower())}] {record.getMessage()}"
    trace = getattr(record, "keryx_traceback", None)
    return f"{line}\n{_indented(trace)}" if trace else line


def _as_coloured_text(record: logging.LogRecord) -> str:
    return _as_text(record, f"\x1b[{_COLOURS.get(record.levelname.lower(), '0')}m{{}}\x1b[0m")


def _line(message: str, fields: Mapping[str, object]) -> str:
    told = (f" {key}={_quoted(value)}" for key, value in fields.items() if value is not None)
    return plain(message + "".join(told))


def _quoted(value: object) -> str:
    """A field's value, which reads as one word or stands in quotes."""
    text = value if isinstance(value, str) else _JSON.encode(value)
    return _JSON.encode(text) if isinstance(value, str) and re.search(r'[\s="]|^$', text) else text


def _indented(trace: str) -> str:
    """A traceback none of whose lines can pass for a line of the log."""
    return "\n".join(f"    {plain(line)}" for line in trace.rstrip("\n").split("\n"))


def _span(milliseconds: float) -> str:
    return f"{milliseconds:.0f}ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f}s"  # noqa: PLR2004 - a second


def _start_of_json(value: object, length: int) -> str:
    """At least `length` + 1 characters of the value's JSON, where there are so many; a huge one is not written out."""
    text = ""
    for chunk in _JSON.iterencode(value):
        text += chunk
        if len(text) > length:
            break
    return text


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a log that fails must not break what it tells of
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                # Neither its text nor its context: there may be secrets in them.
                frames = "".join(traceback.format_tb(error.__traceback__))
                sys.stderr.write(f"keryx_trio lost a line of its log to {type(error).__name__}, raised here:\n{frames}")
