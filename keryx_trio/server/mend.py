"""The one place that puts our server in hypercorn's place.

Owns: what of hypercorn is replaced, when, and in which versions of it. Does not know: what it is replaced by.

Replaced are two names of `hypercorn.trio.run`, which it looks up when it starts to serve:

    TCPServer       what serves a connection: ours, where the application has made a `Worker`; else hypercorn's own
    worker_serve    what a process of hypercorn's command line runs: the same, between our signals

The first is all that `hypercorn.trio.serve` needs. Nothing is imported that is not there: who does not serve, such as a
command of the shell, pays nothing.
"""

from __future__ import annotations

import sys
from typing import Any, Final

HYPERCORN: Final = "0.18"
"""The versions of hypercorn, by how they begin, whose code has been read and mended."""


def install() -> str | None:
    """Put our server in hypercorn's place, where that is loaded; once or again.

    Returns:
        Why hypercorn serves with its own code; None where ours does.
    """
    run: Any = sys.modules.get("hypercorn.trio.run")
    if run is None:
        return "hypercorn's trio worker is not loaded"
    version = _version()
    if not f"{version}.".startswith(f"{HYPERCORN}."):
        return f"hypercorn {version} is not known to it, {HYPERCORN} is"
    if not hasattr(run.TCPServer, "hypercorns_own"):
        from . import process  # noqa: PLC0415 - imports hypercorn
        from .tcp import Server  # noqa: PLC0415
        from .worker import KEY  # noqa: PLC0415

        own = run.TCPServer

        def serve(app: Any, config: Any, context: Any, state: Any, stream: Any) -> Any:
            if KEY not in state:
                return own(app, config, context, state, stream)
            process.attach(state[KEY], context)
            return Server(process.without_process(app), config, context, state, stream)

        serve.hypercorns_own = own  # type: ignore[attr-defined]
        run.TCPServer = serve
        run.worker_serve = process.between_signals(run.worker_serve)
    return None


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - not needed by who does not serve

    return version("hypercorn")
