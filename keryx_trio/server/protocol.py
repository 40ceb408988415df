"""What is said on an HTTP/2 connection: hypercorn's `H2Protocol`, with what a client could do to it contained.

Owns: the mends of that class. Does not know: sockets, or how the connection ends.

What is mended (hypercorn 0.18, `protocol/h2.py`; the numbers are of pgjones/hypercorn), beside what `sending` and
`streams` mend:
- DATA for a stream that is answered raised (#312, #334, #365); it counts for the window, and is dropped;
- a request with a path or a method that is none, or a CONNECT without a path, raised; the stream is reset;
- a request body that nobody read held up every stream of the connection; its window alone is not opened any more;
- a frame longer than any may be was kept, up to 16 MiB, before it was refused (h2 4.4);
- GOAWAY after `keep_alive_max_requests` cut the streams that were open; it waits for them;
- a shutdown reset what came while it went on; the application answers;
- a client may open and reset streams as fast as it likes (CVE-2023-44487, #146): it is told to calm down.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hypercorn.events import Closed, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request, StreamClosed, Trailers
from hypercorn.utils import filter_pseudo_headers

from .http1 import HOST, METHOD, TARGET
from .sending import Sending
from .streams import Buffer, Reset, Stream
from .tasks import Inbox, Tasks
from .websocket import Socket, refusal
from .wire import Gone, Wire

if TYPE_CHECKING:
    from .worker import Site

Codes = h2.errors.ErrorCodes

RESETS: Final = 100
"""How many streams a client may reset beyond those that it lets be answered."""

SHARED_WINDOW: Final = 2**20
"""How much a client may send on all streams of a connection before any of it is read, in bytes."""

SIZE: Final = 3
"""How long the size of a frame is, in bytes; it comes first."""


class Protocol(Sending):
    """What is said on one connection."""

    def __init__(self, site: Site, tasks: Tasks, wire: Wire, send: Any) -> None:
        parts: Any = (site.app, site.config, site.context, tasks, site.state, wire.tls, wire.client, wire.server, send)
        super().__init__(wire, *parts)
        self._site = site
        self._tasks = tasks
        self._limits = site.worker.limits
        self._resets = self._answered = 0
        self._unread: dict[int, int] = {}
        self._inboxes: dict[int, Inbox] = {}

    # Its beginning

    async def initiate(self, headers: Any = None, settings: bytes | None = None) -> None:
        """Begin, perhaps with a request that was made in HTTP/1.1."""
        if settings is None:
            self.connection.initiate_connection()
        else:
            self.connection.initiate_upgrade_connection(settings)
        self.connection.increment_flow_control_window(SHARED_WINDOW)
        await self._flush()
        self.task_group.spawn(self.send_task)
        if headers is not None:
            await self._create_stream(h2.events.RequestReceived(stream_id=1, headers=headers))
            if 1 in self.streams:
                await self.streams[1].handle(EndBody(stream_id=1))

    # What comes

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            handler = HANDLERS.get(type(event))
            if handler is not None:
                await handler(self, event)
            if self.closed:
                return
        await self._flush()

    async def _begin(self, event: Any) -> None:
        """A request, or what is none."""
        code = self._fault(event)
        if code is None:
            await self._create_stream(event)
            await self.send(Updated(idle=self.idle))
        else:
            with suppress(h2.exceptions.ProtocolError):  # its client has reset it, a moment before
                self.connection.reset_stream(event.stream_id, code)
            await self._count_reset()

    async def _end(self, event: Any) -> None:
        """The end of a request's body."""
        if (stream := self.streams.get(event.stream_id)) is not None:
            await stream.handle(EndBody(stream_id=event.stream_id))

    async def _was_reset(self, event: Any) -> None:
        """The client left a stream."""
        await self._close_stream(event.stream_id)
        await self._count_reset()

    async def _count_reset(self) -> None:
        self._resets += 1
        if self._resets > RESETS + self._answered:
            self.connection.close_connection(Codes.ENHANCE_YOUR_CALM)
            await self._flush()
            await self.send(Closed())

    async def _open_window(self, event: Any) -> None:
        await self._window_updated(event.stream_id)

    async def _open_windows(self, event: Any) -> None:
        if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            await self._window_updated(None)

    async def _leave(self, event: Any) -> None:  # noqa: ARG002 - it says no more
        await self.send(Closed())

    async def _take(self, event: Any) -> None:
        """A part of a body: its window opens again when the application has taken it."""
        number, size = event.stream_id, event.flow_controlled_length
        stream, inbox = self.streams.get(number), self._inboxes.get(number)
        if stream is not None:
            await stream.handle(Body(stream_id=number, data=event.data))
        self._unread[number] = self._unread.get(number, 0) + size
        if stream is None or not inbox:
            self._acknowledge(number)

    def _acknowledge(self, number: int) -> None:
        if size := self._unread.pop(number, 0):
            try:
                self.connection.acknowledge_received_data(size, number)
            except h2.exceptions.ProtocolError:
                return  # the connection is over: there is nothing to open

    async def _taken(self, number: int) -> None:
        self._acknowledge(number)
        await self._flush()

    def _fault(self, request: Any) -> Codes | None:
        """Why a stream will not be served."""
        pseudo = {name: value for name, value in request.headers if name.startswith(b":")}
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        is_socket = method == b"CONNECT" and pseudo.get(b":protocol") == b"websocket"
        headers = filter_pseudo_headers(request.headers)
        if self._tasks.running >= 2 * self.config.h2_max_concurrent_streams:
            return Codes.REFUSED_STREAM  # calls may outlive their streams, but not pile up
        is_request = METHOD.fullmatch(method) and TARGET.fullmatch(path) and path[:1] in b"/*"
        if not (is_request and HOST.fullmatch(headers[0][1])):
            return Codes.PROTOCOL_ERROR
        if (method == b"CONNECT" and not is_socket) or (is_socket and refusal(headers)):
            return Codes.PROTOCOL_ERROR
        return None

    async def _create_stream(self, request: Any) -> None:
        number = request.stream_id
        pseudo = {name: value for name, value in request.headers if name.startswith(b":")}
        headers, method = filter_pseudo_headers(request.headers), pseudo[b":method"].decode().upper()
        parts = (
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            number,
        )  # fmt: skip
        if method == "CONNECT":
            # Inflated, what the window lets through could be a thousand times as much; so nothing is compressed.
            headers = [(name, value) for name, value in headers if name != b"sec-websocket-extensions"]
            self.streams[number] = Socket(*parts, max_message=self._limits.max_message)
        else:
            stream = self.streams[number] = Stream(*parts)
            if not self._wire.tls:
                stream.extension["attempt"] = partial(self.attempt, stream)
        self.stream_buffers[number] = Buffer(self._limits.write_timeout)
        self.keep_alive_requests += 1
        await self.streams[number].handle(
            Request(number, headers, "2", method, pseudo[b":path"], self.connection_state)
        )
        await self.context.mark_request()

    def inbox(self, send: Any) -> Inbox:
        """What a stream's call receives from. Its window bounds it."""
        number = send.__self__.stream_id
        inbox = self._inboxes[number] = Inbox(0, partial(self._taken, number))
        return inbox

    async def handle(self, event: Any) -> None:
        """Take what came from the client, or that nothing more will."""
        await super().handle(event)
        if self._comes_too_much() and not self.closed:
            self.connection.close_connection(Codes.FRAME_SIZE_ERROR)
            await self._flush()
            await self.send(Closed())
        if isinstance(event, Closed):
            for number in list(self.stream_buffers):
                await self._drop_buffer(number)

    def _comes_too_much(self) -> bool:
        """Whether the next frame is longer than any may be: h2 would look when all of it, up to 16 MiB, has come."""
        held = getattr(self.connection.incoming_buffer, "_data", b"")
        return len(held) >= SIZE and int.from_bytes(held[:SIZE]) > self.connection.max_inbound_frame_size

    # What goes

    async def stream_send(self, event: Any) -> None:
        """Take what a stream has for the client.

        Raises:
            Gone: the client has left the stream, or was cut off.
        """
        number = event.stream_id
        try:
            if isinstance(event, (Body, Data)):
                await (await self._wake(number)).push(event.data)
            elif isinstance(event, (EndBody, EndData)):
                self._buffer(number).set_complete()
                await (await self._wake(number)).drain()
            elif isinstance(event, Trailers):
                await self._send_trailers(event)
            elif isinstance(event, Reset):
                await self._reset(number, Codes.INTERNAL_ERROR)
            elif isinstance(event, StreamClosed):
                self._answered += 1
                await self._close_stream(number)
                await self._after_stream()
            else:
                await super().stream_send(event)
        except TimeoutError:
            starved = True
        else:
            starved = False
        if starved:
            await self._reset(number, Codes.CANCEL)
            raise Gone(f"the client took nothing for {self._limits.write_timeout:g} seconds")

    async def _reset(self, number: int, code: Codes) -> None:
        """Tell the client that the answer will not be complete."""
        try:
            self.connection.reset_stream(number, code)
            await self._flush()
        except h2.exceptions.ProtocolError:
            await self.has_data.set()  # it has ended already
        await self._close_stream(number)
        await self._after_stream()

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        self._inboxes.pop(stream_id, None)
        self._acknowledge(stream_id)
        await self._drop_buffer(stream_id)

    async def _after_stream(self) -> None:
        if not self.streams and self.keep_alive_requests > self.config.keep_alive_max_requests:
            await self.send(Closed())
        else:
            await self.send(Updated(idle=self.idle))

    async def say_goodbye(self) -> None:
        """Tell the client that this is the end."""
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection()
            await self._flush()


HANDLERS: Final = {
    h2.events.RequestReceived: Protocol._begin,  # noqa: SLF001 - the class's own, as all of these
    h2.events.DataReceived: Protocol._take,  # noqa: SLF001
    h2.events.StreamEnded: Protocol._end,  # noqa: SLF001
    h2.events.StreamReset: Protocol._was_reset,  # noqa: SLF001
    h2.events.WindowUpdated: Protocol._open_window,  # noqa: SLF001
    h2.events.RemoteSettingsChanged: Protocol._open_windows,  # noqa: SLF001
    h2.events.ConnectionTerminated: Protocol._leave,  # noqa: SLF001
}
"""What is done with what came. Priorities are not among it: all streams are alike."""
