"""Which action answers a method and a path.

Owns: the tree of routes. Does not know: requests, or what it leads to.

Invariant: a fixed segment wins over a parameter at the same place, whatever the order of registration.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Node(Generic[T]):
    __slots__ = ("fixed", "parameter", "targets")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.targets: dict[str, tuple[T, tuple[str, ...]]] = {}  # by method, with the parameters' names


def parameters(route: str) -> tuple[str, ...]:
    """The names of the path parameters of `route`, in order: `/item/{id}` -> `("id",)`.

    Raises:
        ValueError: the route is malformed.
    """
    if not route.startswith("/"):
        raise ValueError(f"route {route!r} must start with a slash")
    names: list[str] = []
    for segment in route.split("/")[1:]:
        match = _PARAMETER.fullmatch(segment)
        if match:
            names.append(match[1])
        elif "{" in segment or "}" in segment:
            raise ValueError(f"route {route!r}: a parameter is a whole segment, /{{name}}/, not {segment!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"route {route!r} names a parameter twice")
    if "?" in route or "#" in route:
        raise ValueError(f"route {route!r} is a path, without a query or fragment")
    return tuple(names)


class Router(Generic[T]):
    """Routes to targets of any kind."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._fixed: dict[tuple[str, str], T] = {}  # the whole path at once, for routes without parameters

    def add(self, method: str, route: str, target: T) -> T | None:
        """Lead `method` on `route` to `target`; the target that already stands there is returned, and stays."""
        names = parameters(route)
        node = self._root
        for segment in route.split("/")[1:]:
            if _PARAMETER.fullmatch(segment):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(segment, _Node())
        taken = node.targets.setdefault(method, (target, names))[0]
        if taken is not target:
            return taken
        if not names:
            self._fixed[method, route] = target
        return None

    def find(self, method: str, raw_path: str) -> tuple[T, dict[str, str]] | None:
        """The target of `method` on a percent-encoded path, with its parameters decoded."""
        fixed = self._fixed.get((method, raw_path))
        if fixed is not None:
            return fixed, {}
        return self._walk(self._root, self._segments(raw_path), 0, method, [])

    def methods(self, raw_path: str) -> list[str]:
        """The methods that something answers on that path; none where the path is unknown."""
        segments = self._segments(raw_path)
        found = [method for method in METHODS if self._walk(self._root, segments, 0, method, [])]
        if "GET" in found:
            found.insert(1, "HEAD")
        return found

    @staticmethod
    def _segments(raw_path: str) -> list[str]:
        return [unquote(segment) for segment in raw_path.split("/")[1:]]

    def _walk(
        self, node: _Node[T], segments: list[str], depth: int, method: str, values: list[str]
    ) -> tuple[T, dict[str, str]] | None:
        if depth == len(segments):
            end = node.targets.get(method)
            return None if end is None else (end[0], dict(zip(end[1], values, strict=True)))
        segment = segments[depth]
        if segment in node.fixed:
            found = self._walk(node.fixed[segment], segments, depth + 1, method, values)
            if found is not None:
                return found
        if node.parameter is not None and segment:
            return self._walk(node.parameter, segments, depth + 1, method, [*values, segment])
        return None
