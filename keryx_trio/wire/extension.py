"""What our server and our transports have agreed on beside ASGI.

Owns: its name. Does not know: either of them.
"""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "keryx_trio"
"""The name of the ASGI extension that every scope of this server has: what it writes is bounded by itself.

Where its value has a `watch`, `watch(left)` has `left()` called once the client has left, for which no task needs to
wait in `receive`; it returns a function that ends this. It may be called once the request's body has been read.
"""
