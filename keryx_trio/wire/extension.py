"""What our server and our transports have agreed on beside ASGI.

Owns: its name. Does not know: either of them.
"""

from __future__ import annotations

from typing import Final

EXTENSION: Final = "keryx_trio"
"""The name of the ASGI extension that every scope of this server has: what it writes is bounded by itself.

Where it has a `scope`, that is the cancel scope that the task `task` is in, which serves the connection and calls the
application, which is `app`. If it is cancelled the call ends, and the connection with it; a last word may be written
behind a shield. It is for `app` alone: what stands between the server and another application would be cancelled too,
or may have a shield, within which nothing is.

Where it has `bodiless`, which is True, the request has no body, and nothing has to be received.

Where it has an `answer`, `await answer(status, lines, headers, body)` is the whole answer in one message. `lines` are
fields as they stand on the wire, ready and checked, which are the same on many answers; `headers` are further ones.
None of them says how the body is framed. It raises what `send` raises.

Where it has a `watch`, `watch(left)` has `left()` called once the client has left, for which no task needs to
wait in `receive`; it returns a function that ends this. It may be called once the request's body has been read.

Where it has an `attempt`, `attempt(data)` writes a part of the body at once, as far as the socket has room; it never
waits. It returns True where all of it is out, or will be whatever is done; False where the rest goes out before what is
sent next, for which an empty part is enough; None where nothing was written, and it has to be sent.

On a WebSocket where it has a `say`, `await say(texts)` sends messages of text together, which are given in UTF-8. It
raises what `send` raises; where it is cancelled nobody knows whether they are out, so nothing may follow them. An
`attempt` there takes the text of one message, and `say([])` is enough for its rest.
"""
