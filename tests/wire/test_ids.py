"""Ids that nothing else has."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from typing import Any

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
    pool = ids._Pool(16)
    taken = [pool.take() for _ in range(ids.DRAWN // 16)]
    assert sorted(taken) == [drawn[at : at + 16] for at in range(0, ids.DRAWN, 16)]


def test_no_two_threads_are_given_the_same_one() -> None:
    def slowly(frame: Any, event: str, arg: object) -> Any:
        """Lets the other thread have its turn after each line."""
        if event == "line":
            time.sleep(0.0002)
        return slowly if frame.f_code is ids._Pool.take.__code__ else None

    def take(made: list[str]) -> None:
        before = sys.gettrace()
        sys.settrace(slowly)
        made += [ids.new_secret() for _ in range(100)]
        sys.settrace(before)

    made: list[list[str]] = [[], []]
    threads = [threading.Thread(target=take, args=(each,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(made[0] + made[1])) == 200


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
