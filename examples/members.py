"""Members only: log in, watch how busy the machine is, log out.

Passwords are kept as salted hashes and checked in a thread, which takes its time: it is meant to. An unknown name gets
the answer of a wrong password, as late. Five tries a minute are all that an address has. A login gives the session
another id, so that nobody who planted or saw the one before is logged in too. KERYX_STORE says where sessions live.

    hypercorn --worker-class trio examples.members:app
    curl -c jar 127.0.0.1:8000/api/login -d 'name=ada&password=analytical-engine'
    curl -N -b jar 127.0.0.1:8000/api/load
"""

import hashlib
import hmac
import os
import secrets
import time
from typing import Annotated, Any

import trio
from msgspec import Meta

from keryx_trio import (
    SECRET,
    Connection,
    ErrorType,
    EventStream,
    Keryx,
    RateLimit,
    RequireSession,
    StreamingResponse,
    TypedError,
    Web,
)

MEMBERS = {  # salt and hash, as hash_password() makes them
    "ada": "a3fa1f617ad6b5c08effd7e1a8d3fe0d:d26a766bd19b9c0d36084e201951d5ed4d27b90db7f818b11519fd960ce5e42e",
}
NOBODY = f"{'00' * 16}:{'00' * 32}"  # takes as long as any, and no password fits
INTERVAL = 1.0

hashing = trio.CapacityLimiter(os.cpu_count() or 1)  # each takes 16 MiB, and a processor for a while
app = Keryx()


def by_address(_: dict[str, Any], connection: Connection) -> str:
    """Also who is logged in is counted by address here, where RateLimit alone would count by member."""
    return f"login:{connection.identifier}"


@app.action("login", web=Web("/login", method="POST"), middleware=[RateLimit(limit=5, window=60, key=by_address)])
async def login(
    name: Annotated[str, Meta(max_length=100)],
    password: Annotated[str, SECRET, Meta(max_length=100)],
    connection: Connection,
) -> dict[str, str]:
    """Log in, by cookie."""
    kept = MEMBERS.get(name, NOBODY)
    if not await trio.to_thread.run_sync(is_password, password, kept, limiter=hashing):
        raise TypedError("no member has this name and password", ErrorType.CONNECTION_SESSION_NOT_FOUND)
    await connection.session.regenerate()  # first, so that the old id is never logged in
    await connection.session.update(user_id=name)
    return {"user_id": name}


@app.action("logout", web=Web("/logout", method="POST"))
async def logout(connection: Connection) -> None:
    """Log out; nothing of the session is left."""
    await connection.session.destroy()


@app.action("whoami", web=Web("/whoami"), middleware=[RequireSession()])
async def whoami(connection: Connection) -> dict[str, str]:
    """Who is logged in."""
    return {"user_id": connection.session.data["user_id"]}


@app.action("load", web=Web("/load", streaming=True), middleware=[RequireSession()], timeout=0)
async def load() -> StreamingResponse:
    """How busy the machine is, every second, for as long as you look."""
    return StreamingResponse.sse(watch)


async def watch(sse: EventStream) -> None:
    while True:
        used = round(time.process_time(), 3)
        await sse.send(
            {"load": os.getloadavg(), "server_cpu_seconds": used, "open": len(app.connections)}, event="load"
        )
        await trio.sleep(INTERVAL)


# Passwords. What is below blocks: it runs in a thread


def hash_password(password: str, salt: bytes | None = None) -> str:
    """What to keep of a password: a salt of its own, and the hash of both."""
    salt = salt or secrets.token_bytes(16)
    return f"{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5, dklen=32).hex()}"


def is_password(password: str, kept: str) -> bool:
    salt = bytes.fromhex(kept.partition(":")[0])
    return hmac.compare_digest(hash_password(password, salt), kept)
