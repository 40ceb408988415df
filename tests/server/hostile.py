"""What a hostile client may send, each with what our server makes of it.

python -m tests.server.hostile      what it does to plain hypercorn and to ours, as a table in Markdown
"""

from __future__ import annotations

import base64
import re
import struct
from contextlib import suppress
from typing import Final

import attrs
import hpack
import httpx
import hyperframe.frame as frames
import trio

from tests.e2e.serving import PATIENCE, environment, serve_process

ASK = b"GET /api/quick HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /api/quick HTTP/1.1\r\nHost: x\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
OFFER = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
SOCKET = b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + OFFER
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@attrs.frozen
class Case:
    """Something to send.

    Attributes:
        name: what it is.
        data: the bytes.
        outcome: what our server answers, and whether it closes then.
        then: what is sent when that has been answered.
    """

    name: str
    data: bytes
    outcome: str
    then: bytes = b""


def http1() -> list[Case]:
    refused = "400, closed"
    return [
        Case("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", refused),
        Case("HTTP/0.9", b"GET /\r\n\r\n", refused),
        Case("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", refused),
        Case("no Host", b"GET / HTTP/1.1\r\n\r\n", refused),
        Case("two Hosts", ASK + b"Host: y\r\n\r\n", refused),
        Case("a Host that is none", b"GET / HTTP/1.1\r\nHost: a b/c\r\n\r\n", refused),
        Case("a target that is no ASCII", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", refused),
        Case("a target that is no path", b"GET foo HTTP/1.1\r\nHost: x\r\n\r\n", refused),
        Case("CONNECT", b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", refused),
        Case("a space before a colon", ASK + b"a : b\r\n\r\n", refused),
        Case("a field without a name", ASK + b": b\r\n\r\n", refused),
        Case("a folded field", ASK + b"a: b\r\n c\r\n\r\n", refused),
        Case("a bare line feed", ASK + b"a: b\nc: d\r\n\r\n", refused),
        Case("a bare carriage return", ASK + b"a: b\rc: d\r\n\r\n", refused),
        Case("a NUL in a field", ASK + b"a: \0\r\n\r\n", refused),
        Case("a head of 20 KB", ASK + b"a: " + b"x" * 20_000 + b"\r\n\r\n", "431, closed"),
        Case("a head without end", ASK + b"a: " + b"x" * 20_000, "431, closed"),
        Case("500 fields", ASK + b"a: b\r\n" * 500 + b"\r\n", "431, closed"),
        Case("Content-Length and Transfer-Encoding", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused),
        Case("the same, folded", POST + b"Content-Length: 4\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", refused),
        Case("two lengths", POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", refused),
        Case("a list of lengths", POST + b"Content-Length: 4, 4\r\n\r\nabcd", refused),
        Case("a signed length", POST + b"Content-Length: +4\r\n\r\nabcd", refused),
        Case("a length of 30 digits", POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabcd", refused),
        Case("Transfer-Encoding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused),
        Case("Transfer-Encoding: gzip, chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", refused),
        Case("Transfer-Encoding: xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", refused),
        Case("a chunk without a size", POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", refused),
        Case("a chunk with a sign", POST + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", refused),
        Case("a chunk of 2^64 bytes", POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx", refused),
        Case("a chunk longer than it said", POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n", refused),
        Case("a chunk's line of 5 KB", POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 5000 + b"\r\nhello\r\n", refused),
        Case("a request after Connection: close", ASK + b"Connection: close\r\n\r\n" + ASK + b"\r\n", "200, closed"),
        Case("two requests, the second one broken", ASK + b"\r\n" + b"\x00\x01", "200 400, closed"),
        Case("a trailer that is none", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nno trailer\r\n\r\n", refused),
    ]  # fmt: skip


def websocket() -> list[Case]:
    ok = "101"
    return [
        Case("a window that is no number", SOCKET + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc\r\n\r\n", ok),
        Case("a window out of range", SOCKET + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n", ok),
        Case("an extension that is no ASCII", SOCKET + b"Sec-WebSocket-Extensions: \xff\r\n\r\n", "400, closed"),
        Case("a protocol that is no ASCII", SOCKET + b"Sec-WebSocket-Protocol: \xff\r\n\r\n", "400, closed"),
        Case("no key", b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n", "400, closed"),
        Case("version 7", b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + OFFER.replace(b"13", b"7") + b"\r\n", "400, closed"),
        Case("a body", SOCKET + b"Content-Length: 4\r\n\r\nabcd", "404"),
        Case("a path that is no ASCII", SOCKET.replace(b"GET /", b"GET /\xff") + b"\r\n", "400, closed"),
        Case("a frame with the handshake", SOCKET + b"\r\n" + text(b'{"messageType": "x"}'), ok),
        Case("a frame that is none", SOCKET + b"\r\n", "101, closed", b"\xff\xff\xff\xff\xff\xff\xff"),
        Case("a frame that is not masked", SOCKET + b"\r\n", "101, closed", b"\x81\x02hi"),
        Case("a message of 1 MB", SOCKET + b"\r\n", "101, closed", text(b"x" * 1_000_000)),
        Case("a frame of 2^62 bytes", SOCKET + b"\r\n", "101, closed", b"\x81\xff" + struct.pack("!Q", 2**62) + b"maskx" * 40_000),
        Case("text that is no UTF-8", SOCKET + b"\r\n", "101, closed", text(b"\xff\xff")),
        Case("a close with a bad code", SOCKET + b"\r\n", "101, closed", frame(8, struct.pack("!H", 1))),
    ]  # fmt: skip


def frame(opcode: int, data: bytes) -> bytes:
    """A frame as clients send it, masked with zeros."""
    if len(data) < 126:
        size = bytes([0x80 | len(data)])
    elif len(data) < 2**16:
        size = b"\xfe" + struct.pack("!H", len(data))
    else:
        size = b"\xff" + struct.pack("!Q", len(data))
    return bytes([0x80 | opcode]) + size + b"\0\0\0\0" + data


def text(data: bytes) -> bytes:
    return frame(1, data)


def head(number: int, fields: list[tuple[bytes, bytes]] | None = None, *, end: bool = True, **changed: bytes) -> bytes:
    """A HEADERS frame; `changed` are pseudo fields by their names, and an empty one is left out."""
    pseudo = {"method": b"GET", "path": b"/api/quick", "scheme": b"http", "authority": b"x", **changed}
    all_fields = [(b":" + name.encode(), value) for name, value in pseudo.items() if value] + (fields or [])
    headers = frames.HeadersFrame(number, hpack.Encoder().encode(all_fields))
    headers.flags |= {"END_HEADERS", "END_STREAM"} if end else {"END_HEADERS"}
    return bytes(headers.serialize())


def data(number: int, body: bytes, *, end: bool = False) -> bytes:
    sent = frames.DataFrame(number, body)
    sent.flags |= {"END_STREAM"} if end else set()
    return bytes(sent.serialize())


def bomb(number: int) -> bytes:
    """A HEADERS frame with one large field, and thousands of references to it."""
    fields = hpack.Encoder().encode([(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")])
    headers = frames.HeadersFrame(number, fields + b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 5000)
    headers.flags |= {"END_HEADERS", "END_STREAM"}
    return bytes(headers.serialize())


def http2() -> list[Case]:
    start = PREFACE + frames.SettingsFrame(0).serialize()
    settings = base64.urlsafe_b64encode(b"\0\3\0\0\0").rstrip(b"=")
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
    socket_fields = [(b"sec-websocket-version", b"13")]
    return [
        Case("DATA after the answer", start + head(1, method=b"POST", path=b"/api/nowhere", end=False), "h2 404", data(1, b"x" * 1000)),
        Case("DATA for a stream that never was", start + data(7, b"x"), "h2 GOAWAY, closed"),
        Case("a path that is no ASCII", start + head(1, path=b"/\xff"), "h2 RST"),
        Case("a method that is no ASCII", start + head(1, method=b"\xff"), "h2 RST"),
        Case("a host that is no ASCII", start + head(1, authority=b"\xff"), "h2 RST"),
        Case("CONNECT without a path", start + head(1, method=b"CONNECT", path=b"", scheme=b""), "h2 RST"),
        Case("CONNECT", start + head(1, method=b"CONNECT"), "h2 GOAWAY, closed"),
        Case("no method", start + head(1, method=b""), "h2 GOAWAY, closed"),
        Case("PRIORITY for 2,000 idle streams", start + b"".join(frames.PriorityFrame(n, depends_on=0).serialize() for n in range(1, 4001, 2)), "h2"),
        Case("a stream that depends on itself", start + frames.PriorityFrame(1, depends_on=1).serialize(), "h2 GOAWAY, closed"),
        Case("1,000 resets", start + b"".join(head(n) + frames.RstStreamFrame(n, error_code=8).serialize() for n in range(1, 2001, 2)), "h2 GOAWAY, closed"),
        Case("200 streams at once", start + b"".join(head(n, path=b"/api/wait") for n in range(1, 401, 2)), "h2 GOAWAY, closed"),
        Case("a frame of 1 MB", start + b"\x10\x00\x00\x00\x00\x00\x00\x00\x01" + b"x" * 70_000, "h2 GOAWAY, closed"),
        Case("20 MB of fields in 9 KB", start + bomb(1), "h2 GOAWAY, closed"),
        Case("frames that are none", start + bytes(range(256)) * 4, "h2 GOAWAY, closed"),
        Case("a WebSocket with a bad path", start + head(1, [(b":protocol", b"websocket"), *socket_fields], method=b"CONNECT", path=b"/\xff", end=False), "h2 RST"),
        Case("a WebSocket with early DATA", start + head(1, socket_fields, method=b"CONNECT", end=False, protocol=b"websocket") + data(1, text(b"hi")), "h2 200"),
        Case("an upgrade with a bad SETTINGS length", ASK + upgrade + settings + b"\r\n\r\n", "200"),
        Case("an upgrade without SETTINGS", ASK + upgrade + b"\r\n\r\n", "101"),
        Case("a preface cut short", PREFACE[:20] + b"\r\nxx\r\n\r\n", "400, closed"),
    ]  # fmt: skip


CASES = {"HTTP/1.1": http1(), "WebSocket": websocket(), "HTTP/2": http2()}


QUIET: Final = 0.25
"""After so many seconds of silence nothing more is awaited."""


async def attack(port: int, case: Case) -> str:
    """Send it, and tell what came."""
    received, closed = b"", False
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for sent in filter(None, (case.data, case.then)):
            with suppress(trio.BrokenResourceError):
                await stream.send_all(sent)
            is_last = sent is (case.then or case.data)
            ends = is_last and case.outcome.endswith("closed")
            more, closed = await _received(stream, PATIENCE if ends else QUIET)
            received += more
    return told(received) + (", closed" if closed else "")


async def _received(stream: trio.SocketStream, quiet: float) -> tuple[bytes, bool]:
    """What comes until it is quiet, and whether that is because the connection has ended."""
    received = b""
    try:
        while True:
            with trio.move_on_after(quiet) as scope:
                more = await stream.receive_some(65536)
            if scope.cancelled_caught:
                return received, False
            if not more:
                return received, True
            received += more
    except trio.BrokenResourceError:
        return received, True


def told(received: bytes) -> str:
    """What was received, in a few words."""
    if not received or received.startswith(b"HTTP/1.1"):
        return " ".join(found.decode() for found in re.findall(rb"HTTP/1\.1 (\d+)", received)) or "nothing"
    said, decoder = ["h2"], hpack.Decoder()
    while len(received) >= 9:
        frame, length = frames.Frame.parse_frame_header(memoryview(received[:9]))
        body, received = received[9 : 9 + length], received[9 + length :]
        frame.parse_body(memoryview(body))
        if isinstance(frame, frames.HeadersFrame):
            said.append(str(dict(decoder.decode(frame.data))[":status"]))
        elif isinstance(frame, frames.RstStreamFrame):
            said.append("RST")
        elif isinstance(frame, frames.GoAwayFrame):
            said.append("GOAWAY")
    return " ".join(dict.fromkeys(said))


async def check_health(url: str) -> int:
    """See that the server answers; the number of its process."""
    async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
        answer = await client.get(f"{url}/api/pid")
        assert answer.status_code == 200
        return int(answer.json())


async def compare() -> None:
    """Print what each case does to plain hypercorn, and to ours."""
    for kind, cases in CASES.items():
        print(f"\n| {kind} | plain hypercorn | this server |\n|---|---|---|")
        for case in cases:
            plain, ours = [await outcome(case, server) for server in ("hypercorn", "keryx")]
            print(f"| {case.name} | {plain} | {ours} |", flush=True)


async def outcome(case: Case, server: str) -> str:
    async with serve_process("tests.server.target:app", environ=environment(KERYX_SERVER=server)) as process:
        came = await attack(int(process.url.rpartition(":")[2]), case)
        try:
            await check_health(process.url)
        except httpx.HTTPError:
            return f"{came}; **the process is gone**"
        return came


if __name__ == "__main__":
    trio.run(compare)
