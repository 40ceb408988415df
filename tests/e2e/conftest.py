"""Real servers, real clients: what each of these tests is run under.

Every test is bounded in time, leaves no call and no connection behind (`serve` checks that), and no error in a log
that it has not asked for (`journal` checks that).
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.serving import SERVER_LOG

LIMIT = 30.0
"""How long a test may take, in seconds."""


def bounded_in(conftest: str) -> Callable[[list[pytest.Item]], None]:
    """The hook that bounds the tests beside a `conftest.py`."""

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        for item in items:
            here = Path(conftest).parent in item.path.parents
            if here and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
                item.obj = _bounded(item.obj)

    return pytest_collection_modifyitems


pytest_collection_modifyitems = bounded_in(__file__)


def _bounded(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(LIMIT):
            await test(*args, **kwargs)

    return bounded


class Journal(logging.Handler):
    """What was logged, by the application and by its server."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.errors_expected = False

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, key: str) -> list[Any]:
        """The values of a field, in the order of the records that have it."""
        found = [getattr(record, "keryx_fields", {}) for record in self.records]
        return [fields[key] for fields in found if key in fields]

    def errors(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.levelno >= logging.ERROR]

    def take_errors(self) -> list[str]:
        """The errors by now, as text: they were asked for, and are not held against the test."""
        errors = self.errors()
        self.records = [record for record in self.records if record.levelno < logging.ERROR]
        return [logging.Formatter().format(record) for record in errors]


@pytest.fixture(autouse=True)
def journal() -> Iterator[Journal]:
    """The log of the test, in which no error may be left at the end."""
    handler = Journal()
    loggers = [logging.getLogger("keryx_trio"), logging.getLogger(SERVER_LOG)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert handler.errors_expected or handler.take_errors() == []
