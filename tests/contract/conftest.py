"""Each body of the contract's tests runs over every transport, within a bound."""

from __future__ import annotations

import pytest

from tests.contract.drivers import DRIVERS, Driver


@pytest.fixture(params=DRIVERS.values(), ids=DRIVERS.keys())
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param
