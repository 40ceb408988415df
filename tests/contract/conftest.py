"""Each body of the contract's tests runs over every transport, within a bound."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.contract.drivers import DRIVERS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Over every transport; what is marked `awaited`, over those alone where somebody waits for the answer."""
    if "driver" in metafunc.fixturenames:
        is_awaited = metafunc.definition.get_closest_marker("awaited") is not None
        drivers = {name: each for name, each in DRIVERS.items() if not (is_awaited and each.background)}
        metafunc.parametrize("driver", drivers.values(), ids=drivers.keys())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "awaited: of what becomes of who waits for an answer")


@pytest.fixture(autouse=True)
def no_warning_of_the_client() -> Iterator[None]:
    """The MCP SDK's client leaves generators of its HTTP client to the garbage collector, which trio warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(httpx2|httpcore2|mcp)", ResourceWarning)
        yield
