"""What tests of MCP are run under: a bound, and no error in the log that they have not asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import MEASURED, Journal


@pytest.fixture(autouse=True)
def no_warning_of_the_client() -> Iterator[None]:
    """The SDK's client leaves generators of its HTTP client to the garbage collector, which trio warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(httpx2|httpcore2|mcp)", ResourceWarning)
        yield


@pytest.fixture(autouse=True)
def journal() -> Iterator[Journal]:
    """The log of the test, in which no error may be left at the end."""
    handler, logger = Journal(), logging.getLogger("keryx_trio")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert handler.errors_expected or handler.take_errors() == []


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was measured: it stands at the end of the run."""

    def say(line: str) -> None:
        request.config.stash.setdefault(MEASURED, []).append(f"{request.node.name}: {line}")

    return say
