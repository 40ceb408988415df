"""What an action takes: read once from its signature, then raw values become typed ones, or every fault is told.

Owns: `Inputs`, what registration refuses, and the one error that names all faults of a call. Does not know: where raw
values come from, connections (it is told their class), or JSON Schema (`schema.py` describes the same annotations).

Invariant: nothing that leaves here shows a secret: not the error, its chain, or the redacted copy. What a call costs is
linear in its size, and the size of its error is bounded.
"""

from __future__ import annotations

import copy
import datetime as dt
import enum
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

import attrs
from cattrs.errors import BaseValidationError

from ..errors import ErrorType, TypedError
from .annotations import REDACTED, SECRET, Field, Secret, readings
from .faults import INVALID, MAX_FAULTS, REQUIRED, Fault, Step, brief, flatten, show_path
from .redaction import Findings, Redact, redactor, strings
from .scalars import Take
from .schema import inputs_schema
from .signatures import read_signature
from .structuring import JsonConverter, TextConverter
from .unions import Work

__all__ = ["SECRET", "Inputs", "Secret"]

MAX_MESSAGE: Final = 500
"""Characters of the message of one fault."""

MAX_SECRETS: Final = 100
"""Secrets that are looked for in what faults quote; of a call with more of them nothing is quoted."""

MAX_SEARCHED: Final = 100_000
"""Characters that are searched for them; where there would be more, nothing is quoted."""

MAX_VALUE: Final = 200
"""Characters, as JSON, of the value that is shown with a fault."""


@attrs.frozen
class Parameter:
    """One input: its annotation, and how its value is made in each mode, or without any.

    `default` is the structured default, or NOTHING for a required input.
    """

    name: str
    annotation: Any
    default: Any
    from_json: Take
    from_text: Take
    redact: Redact | None
    fill: Callable[[], Any]

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is attrs.NOTHING


@attrs.frozen(eq=False)
class Inputs:
    """What an action takes; `Inputs.of` reads it from a signature.

    Args:
        name: of the action.
        parameters: its inputs, in the order of the signature.
        connection_parameter: the name of the parameter that gets the connection, if there is one.
        work: bounds that of one call; its converters share it.
    """

    name: str
    parameters: tuple[Parameter, ...]
    connection_parameter: str | None = None
    _work: Work = attrs.field(factory=Work, repr=False)
    keys: tuple[str, ...] = attrs.field(init=False)
    _secret: tuple[Parameter, ...] = attrs.field(init=False, repr=False)
    _schemas: list[dict[str, Any]] = attrs.field(factory=list, init=False, repr=False)

    @keys.default
    def _keys(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @_secret.default
    def _find_secret(self) -> tuple[Parameter, ...]:
        return tuple(parameter for parameter in self.parameters if parameter.redact is not None)

    @property
    def has_secrets(self) -> bool:
        """Whether any input is secret, or holds something that is."""
        return bool(self._secret)

    @classmethod
    def of(cls, function: Callable[..., Any], *, action: str, connection_type: type) -> Inputs:
        """Read the signature of an action's function.

        Args:
            function: a function, bound method, partial or callable object; what a partial has bound is no input.
            action: its name, for errors.
            connection_type: a parameter annotated with it, or a subclass, gets the connection and is no input.

        Raises:
            TypeError: a parameter that cannot be an input; it names the action, the parameter, and what to do.
        """
        annotations, connection_parameter = read_signature(function, action=action, connection_type=connection_type)
        if not annotations:
            return cls(action, (), connection_parameter)
        work = Work()
        from_json = JsonConverter(work)
        from_text = TextConverter(from_json, work)
        parameters = []
        for name, (annotation, default) in annotations.items():
            try:
                parameters.append(_parameter(name, annotation, default, from_json, from_text))
            except TypeError as error:
                raise TypeError(f"action {action!r}, input {name!r}: {error}") from None
        return cls(action, tuple(parameters), connection_parameter, work)

    def structure(self, raw: Mapping[str, object], *, text: Collection[str] = ()) -> dict[str, Any]:
        """The typed values of all inputs, defaults filled in.

        Args:
            raw: by input name; unknown names are ignored.
            text: the names whose value came as text (a str, or a list of them for a repeated key, or an `UploadFile`)
                and is coerced; the others are JSON values, or typed already, and are not. In the place of a file that
                could not be opened stands the `Fault` that says why.

        Raises:
            TypedError: CONNECTION_ACTION_PARAM_VALIDATION, with every fault in `errors`.
        """
        values: dict[str, Any] = {}
        errors: list[tuple[str, Exception]] = []
        self._work.start()
        for parameter in self.parameters:
            name = parameter.name
            if name in raw:
                take = parameter.from_text if name in text else parameter.from_json
                try:
                    values[name] = take(raw[name])
                except Exception as error:  # noqa: BLE001 - any is a fault of this input, and all of them are told
                    errors.append((name, error))
            elif parameter.required:
                errors.append((name, Fault(REQUIRED)))
            else:
                values[name] = parameter.fill()
        if errors:
            # Raised outside of any `except`, so that its context does not hold what was given.
            try:
                raise self._error(errors, raw)
            finally:
                errors.clear()  # whose tracebacks know this frame
        return values

    @property
    def required(self) -> list[str]:
        """The names of the inputs that a call must give."""
        return [parameter.name for parameter in self.parameters if parameter.required]

    def schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the object that holds the inputs; made once, do not change it."""
        if not self._schemas:
            fields = [Field(p.name, p.name, p.name, p.annotation, p.default) for p in self.parameters]
            self._schemas.append(inputs_schema(fields))
        return self._schemas[0]

    def secrets(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """The text of every secret in raw or structured values, also in those that are not valid."""
        found: list[str] = []
        for parameter in self._secret:
            if parameter.name in values:
                found += _redact(parameter, values[parameter.name])[1]
        return tuple(dict.fromkeys(secret for secret in found if secret))

    def is_secret(self, name: str) -> bool:
        """Whether an input is secret, or holds something that is."""
        return any(parameter.name == name and parameter.redact is not None for parameter in self.parameters)

    def redact(self, values: Mapping[str, object]) -> dict[str, object]:
        """A copy of raw or structured values for the log: inputs only, each secret replaced by `[[secret]]`."""
        return {
            parameter.name: _redact(parameter, values[parameter.name])[0]
            for parameter in self.parameters
            if parameter.name in values
        }

    def _error(self, errors: list[tuple[str, Exception]], raw: Mapping[str, object]) -> TypedError:
        found = [row for name, error in errors for row in flatten(error, (("field", name),))][:MAX_FAULTS]
        # Of an input that holds a secret nothing is shown: it may be under a misspelt key.
        named = {parameter.name: parameter for parameter in self.parameters}[errors[0][0]]
        value = _showable(found[0][1].value) if named.redact is None else None
        hide = _tell_any([*strings(value), *_quotes(found)], self.secrets(raw))
        told = [(show_path(path, hide=hide), _message(fault, hide=hide)) for path, fault in found]
        key, message = told[0]
        at_least = "at least " if len(found) >= MAX_FAULTS else ""
        more = f" (and {at_least}{len(told) - 1} more)" if len(told) > 1 else ""
        return TypedError(
            f"{key}: {message}{more}",
            ErrorType.CONNECTION_ACTION_PARAM_VALIDATION,
            key,
            None if hide else value,
            errors=told,
        )


def _parameter(
    name: str, annotation: Any, default: Any, from_json: JsonConverter, from_text: TextConverter
) -> Parameter:
    reading, *_ = readings(annotation)
    take = from_json.take(reading)
    text_take = from_text.take(reading)
    redact = redactor(annotation)
    if default is attrs.NOTHING:
        return Parameter(name, annotation, default, take, text_take, redact, _no_default)
    try:
        structured = take(default)
    except (Fault, BaseValidationError) as error:
        raise TypeError(f"its default does not fit its type: {brief(error).message}") from None
    try:
        fill = _filler(structured)
    except Exception as error:  # noqa: BLE001 - a class may refuse to be copied in any way
        raise TypeError(f"its default cannot be copied for each call ({error}); make it in the action") from None
    return Parameter(name, annotation, structured, take, text_take, redact, fill)


def _no_default() -> Any:
    raise AssertionError("a required input has no default")  # pragma: no cover - never called


def _filler(default: Any) -> Callable[[], Any]:
    """Gives the default itself where it cannot change, else a copy, so that calls do not share it."""
    if _is_constant(default):
        return lambda: default
    copy.deepcopy(default)  # once now, since it may fail
    return lambda: copy.deepcopy(default)


_CONSTANTS: Final = frozenset(
    {type(None), bool, int, float, str, Secret, bytes, Decimal, uuid.UUID, object}
    | {dt.datetime, dt.date, dt.time, dt.timedelta}
)


def _is_constant(value: object) -> bool:
    """Whether a value cannot change; a hash does not say so, for every plain object has one."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_constant, cast("Collection[object]", value)))
    return type(value) in _CONSTANTS or isinstance(value, enum.Enum)


def _redact(parameter: Parameter, value: object) -> tuple[object, list[str]]:
    """A copy of the value without its secrets, and what they are."""
    if parameter.redact is None:
        return value, []
    found = Findings()
    try:
        return parameter.redact(value, found), found.secrets
    except RecursionError:
        return REDACTED, [*found.secrets, *strings(value)]


def _quotes(found: Iterable[tuple[tuple[Step, ...], Fault]]) -> Iterator[str]:
    """All texts in faults that are not our own: keys of the input, and what the application said; uncut."""
    for path, fault in found:
        yield from (step for kind, step in path if kind == "item" and isinstance(step, str))
        if fault.quoted:
            yield fault.message


def _tell_any(texts: Iterable[str], secrets: Collection[str]) -> bool:
    """Whether any of the texts tells, or may tell, any of the secrets; one search for each, whatever was sent."""
    text = "\n".join(set(texts))
    too_much = len(secrets) > MAX_SECRETS or len(text) > MAX_SEARCHED
    return bool(text and secrets) and (too_much or any(secret in text for secret in secrets))


def _message(fault: Fault, *, hide: bool) -> str:
    """The message, bounded; of the application's own the first line, cut here and not before it is searched."""
    if not fault.quoted:
        return fault.message[:MAX_MESSAGE]
    return INVALID if hide else fault.message.partition("\n")[0][:MAX_MESSAGE] or INVALID


def _showable(value: object) -> object:
    """The value where it is JSON, and short; else None."""
    try:
        size = 0
        for piece in _JSON.iterencode(value):  # piece by piece: a large value is given up early
            size += len(piece.encode())
            if size > MAX_VALUE:
                return None
    except (TypeError, ValueError, RecursionError):
        return None
    return value


_JSON: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
