"""The signature of an action's function, with its annotations resolved.

Owns: which callables can be read, which parameters are inputs, and which one gets the connection. Does not know: what
the annotations mean.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import attrs


def read_signature(
    function: Callable[..., Any], *, action: str, connection_type: type
) -> tuple[dict[str, tuple[Any, Any]], str | None]:
    """The annotation and default (or NOTHING) of each input by its name, and the name of the connection's parameter.

    Raises:
        TypeError: a parameter that no call could fill, or an annotation that is missing or cannot be resolved.
    """
    plain, bound = _plain(function)
    hints = _hints(plain, action, connection_type)
    inputs: dict[str, tuple[Any, Any]] = {}
    connections: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in bound:
            continue
        _check(parameter, hints, action)
        if _is_connection(hints[name], connection_type):
            connections.append(name)
        else:
            has_default = parameter.default is not inspect.Parameter.empty
            inputs[name] = (hints[name], parameter.default if has_default else attrs.NOTHING)
    if len(connections) > 1:
        raise TypeError(f"action {action!r} has two connections, {' and '.join(connections)}; keep one")
    return inputs, connections[0] if connections else None


def read_return(function: Callable[..., Any], *, connection_type: type) -> Any:
    """The return annotation; Any where there is none, or one for type checkers only that cannot be resolved."""
    plain, _ = _plain(function)
    if "return" not in plain.__annotations__:
        return Any
    names = {connection_type.__name__: connection_type, **plain.__globals__}
    try:
        return _hint("return", plain.__annotations__["return"], names, "")
    except TypeError:
        return Any


def _plain(function: Any) -> tuple[Any, set[str]]:
    """The function inside of partials, decorators and methods, and the names that partials have bound."""
    bound: set[str] = set()
    while not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        if isinstance(function, functools.partial):
            bound |= function.keywords.keys()
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            function = getattr(function, "__func__", None) or type(function).__call__
    return function, bound


def _hints(plain: Any, action: str, connection_type: type) -> dict[str, Any]:
    """The annotations of the parameters; the return annotation is not needed here, and may be for type checkers only.

    The connection's class is known by its name, so that it may be imported under `if TYPE_CHECKING`.
    """
    names = {connection_type.__name__: connection_type, **plain.__globals__}
    return {
        name: _hint(name, annotation, names, action)
        for name, annotation in plain.__annotations__.items()
        if name != "return"
    }


def _hint(name: str, annotation: Any, names: dict[str, Any], action: str) -> Any:
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)[name]
    except Exception as error:  # noqa: BLE001 - an annotation in quotes is code, which may raise anything
        where = f"action {action!r}, parameter {name!r}"
        raise TypeError(f"{where}: {annotation!r} must be resolvable at run time: {error}") from None


def _check(parameter: inspect.Parameter, hints: dict[str, Any], action: str) -> None:
    where = f"action {action!r}, parameter {parameter.name!r}"
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise TypeError(f"{where}: inputs need names; write each as a parameter, or take a dict")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise TypeError(f"{where}: inputs are passed by name; remove the / after it")
    if parameter.name not in hints:
        raise TypeError(f"{where} has no annotation; say of which type it is")


def _is_connection(hint: Any, connection_type: type) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = hint.__origin__
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return any(isinstance(member, type) and issubclass(member, connection_type) for member in members)
