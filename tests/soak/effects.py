"""An application whose one job leaves a mark, for the soak of jobs: a line in the file that EFFECTS names."""

from __future__ import annotations

import os
import random

import trio

from keryx_trio import Keryx

app = Keryx()
_file = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@app.action("effect")
async def effect(number: int) -> int:
    """Take a moment, then leave the mark."""
    await trio.sleep(random.uniform(0.01, 0.06))
    os.write(_file, b"%d\n" % number)
    return number
