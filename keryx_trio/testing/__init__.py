"""For tests of applications: a client without a network, on the test's own clock.

What is sent waits until the test reads it, so a test reads as slowly as it likes; and nothing sleeps, so a test on
`trio.testing.MockClock` takes no time.

    async def test_tokens(autojump_clock):
        async with open_client(app) as client:
            async with client.stream("POST", "/api/chat/stream", json={"prompt": "hi"}) as stream:
                event = await stream.receive_event()
                assert event.event == "token"
            # left in the middle: the producer's `finally` has run
            async with client.websocket() as socket:
                await socket.ask("chat:stream", {"prompt": "hi"}, id=1)
                assert (await socket.receive())["event"] == "token"
                await socket.cancel(1)

Owns: `open_client`, which runs an application and talks to it in memory, and the check that nothing of it is left.
Does not know: how the application answers; it speaks ASGI to it, as a server does.
"""

from .client import Client, open_client
from .events import EventReader, Received
from .http import Answer, Headers, Stream
from .websocket import Denied, Socket

__all__ = ["Answer", "Client", "Denied", "EventReader", "Headers", "Received", "Socket", "Stream", "open_client"]
