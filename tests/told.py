"""Middleware that watches, for tests of how calls end."""

from __future__ import annotations

from typing import Any

from keryx_trio import Connection, Middleware, Update


class Told(Middleware):
    """Keeps what each `run_after` was told."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    async def run_after(
        self, params: dict[str, Any], connection: Connection, error: BaseException | None
    ) -> Update | None:
        self.errors.append(error)
        return None
