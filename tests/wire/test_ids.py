"""Ids that nothing else has."""

from __future__ import annotations

import os
import re

import pytest

from keryx_trio.wire import ids


def test_they_differ_over_many_drawings_and_have_their_form() -> None:
    made = [ids.new_id() for _ in range(3 * ids.DRAWN // 16)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    secrets = [ids.new_secret() for _ in range(3 * ids.DRAWN // 24)]
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch("[A-Za-z0-9_-]{32}", each) for each in secrets)


def test_no_byte_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = b"".join(number.to_bytes(2, "big") for number in range(ids.DRAWN // 2))
    monkeypatch.setattr(os, "urandom", lambda size: drawn[:size])
    pool = ids._Pool()
    taken = b"".join(pool.take(16) for _ in range(ids.DRAWN // 16))
    assert taken == drawn


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_ids_of_its_own() -> None:
    ids.new_id()  # so that there is something to inherit
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(write, ids.new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        theirs = pipe.read().decode()
    assert len(theirs) == 32
    assert theirs != ids.new_id()
