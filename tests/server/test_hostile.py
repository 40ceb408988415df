"""What clients may do to a server, and that it harms nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.e2e.serving import serve, serve_process
from tests.server.hostile import CASES, Case, attack, check_health
from tests.server.target import make_app

ALL = [pytest.param(case, id=f"{kind}: {case.name}") for kind, cases in CASES.items() for case in cases]


@pytest.mark.parametrize("case", ALL)
async def test_what_is_hostile_ends_its_own_connection_at_most(case: Case, journal: Any) -> None:
    async with serve(make_app(ping=0.0)) as server:
        assert await attack(server.port, case) == case.outcome
        await check_health(server.url)


async def test_one_process_survives_all_of_it() -> None:
    async with serve_process("tests.server.target:app") as process:
        before = await check_health(process.url)
        async with trio.open_nursery() as nursery:
            for cases in CASES.values():
                for case in cases:
                    nursery.start_soon(attack, int(process.url.rpartition(":")[2]), case)
        assert await check_health(process.url) == before
        assert "Traceback" not in process.output
