"""The server under an application: hypercorn's trio worker, with what it lacks to face the open network.

Owns: connections, and what clients may do to them; it speaks ASGI to whatever application it is given. Does not know:
actions, or anything else of this package.

HTTP/1.1 is served by code of this package, parsed by httptools. HTTP/2 and WebSocket are hypercorn's own classes, with
their defects contained. Hypercorn's settings, sockets, TLS, access log, processes and command line are as they are.

    mend ─► process         in hypercorn's place
     └────► tcp             a connection: TLS, and who serves it
             ├─ connection ─► cycle      HTTP/1.1: requests, and one of them as ASGI has it
             │   └─ websocket
             └─ http2                    both by hypercorn's classes, through `tasks`
    http1, answer, frames   bytes, in and out
    wire                    the socket, with a bound for every write
    worker                  what an application and its server know of each other
    collector               the process's garbage collector, which has little to do
"""

from __future__ import annotations

from ..wire.extension import EXTENSION
from .mend import install
from .worker import KEY, Limits, Worker

__all__ = ["EXTENSION", "KEY", "Limits", "Worker", "install"]
