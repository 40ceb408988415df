"""Each body of the contract's tests runs over every transport, within a bound."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.contract.drivers import DRIVERS, Driver


@pytest.fixture(params=DRIVERS.values(), ids=DRIVERS.keys())
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param


@pytest.fixture(autouse=True)
def no_warning_of_the_client() -> Iterator[None]:
    """The MCP SDK's client leaves generators of its HTTP client to the garbage collector, which trio warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(httpx2|httpcore2|mcp)", ResourceWarning)
        yield
