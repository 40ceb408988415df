"""A connection from its acceptance: TLS, which protocol it speaks, and that its end is no other's business.

Owns: what stands in place of hypercorn's `TCPServer`. Does not know: what is said on the connection.

Invariant: nothing that happens on a connection leaves this module, but for a cancellation or an interrupt from outside.
Hypercorn runs its handlers in one nursery with the listeners, so what one of them raises ends the whole process
(pgjones/hypercorn#203 and #225 are cases of it).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import trio
from hypercorn.utils import parse_socket_addr

from .calling import OURS, parted
from .connection import PREFACE, Http1
from .http1 import Head
from .http2 import Http2
from .wire import Wire
from .worker import KEY, Site, Worker

USUAL: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What says no more than that the client is not there any more, or never spoke TLS."""


class Server:
    """Serves one connection; made, and awaited, as hypercorn's own class is."""

    def __init__(self, app: Any, config: Any, context: Any, state: Any, stream: Any) -> None:
        worker: Worker = state[KEY]
        self._site = Site(app, config, context, state, worker)
        self._stream = stream
        self._wire = Wire(stream, worker.limits.write_timeout)
        self._serving: Http1 | Http2 | None = None
        self._whole: trio.CancelScope | None = None

    def __await__(self) -> Generator[Any, None, None]:
        return self.run().__await__()

    # What the worker asks of it

    def close_if_idle(self) -> None:
        """Close soon, where no call runs."""
        if self._serving is None:
            self.cancel()
        else:
            self._serving.close_if_idle()

    def cut(self) -> None:
        """Write no more."""
        self._wire.abort()

    def cancel(self) -> None:
        """End now."""
        if self._whole is not None:
            self._whole.cancel()

    # Its life

    async def run(self) -> None:
        """Serve it to its end."""
        error: BaseException | None = None
        self._site.worker.begin_connection(self)
        try:
            async with trio.open_nursery() as nursery:
                self._whole = nursery.cancel_scope
                await self._serve(await self._protocol(), nursery)
        except OURS:
            raise
        except BaseException as raised:  # noqa: ASYNC103, BLE001 - a failing connection ends alone
            error = raised
        finally:
            self._site.worker.end_connection(self)
            self._wire.close_now()
            self._serving = self._whole = None  # they know this, and it knows them
        ours, errors = parted(error)
        if errors is not None:
            await self._tell(errors)
        if ours is not None:
            raise ours from None

    async def _protocol(self) -> str:
        """What TLS has agreed on."""
        if not isinstance(self._stream, trio.SSLStream):
            return "http/1.1"
        with trio.fail_after(self._site.config.ssl_handshake_timeout):
            await self._stream.do_handshake()
        return self._stream.selected_alpn_protocol() or "http/1.1"

    async def _serve(self, protocol: str, nursery: trio.Nursery) -> None:
        site, wire, socket = self._site, self._wire, self._wire.socket
        wire.client = parse_socket_addr(socket.family, socket.getpeername())
        wire.server = parse_socket_addr(socket.family, socket.getsockname())
        if protocol == "h2":
            await self._serve_http2(PREFACE, b"")
        else:
            self._serving = first = Http1(site, wire, nursery, self._serve_http2)
            await first.serve()

    async def _serve_http2(self, asked: Head | str, data: bytes) -> None:
        self._serving = second = Http2(self._site, self._wire)
        await second.run(data, asked if isinstance(asked, Head) else None)

    async def _tell(self, error: BaseException) -> None:
        """In the log, unless it only says that the client is not there any more, or never spoke TLS."""
        if isinstance(error, BaseExceptionGroup):
            told: BaseException | None = error.split(USUAL)[1]
        else:
            told = None if isinstance(error, USUAL) else error
        if told is not None:
            await self._site.config.log.error("A connection failed, and ends alone", exc_info=told)
