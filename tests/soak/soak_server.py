"""Ten minutes of random clients against one process, which must be as it was afterwards."""

from __future__ import annotations

import os

import pytest

from tests.soak.clients import soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))


@pytest.mark.timeout(SECONDS + 120)
async def test_nothing_is_left_of_clients_that_came_and_went() -> None:
    await soak(SECONDS)
