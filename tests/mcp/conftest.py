"""What tests of MCP are run under: a bound, and no error in the log that they have not asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import journal  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def no_warning_of_the_client() -> Iterator[None]:
    """The SDK's client leaves generators of its HTTP client to the garbage collector, which trio warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(httpx2|httpcore2|mcp)", ResourceWarning)
        yield
