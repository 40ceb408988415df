"""What a client's calls have in common: `connection.session`, behind a cookie and in the store.

Owns: the session as an action sees it, its cookie, and the upkeep of sessions that are in use. Does not know: HTTP, or
which store it is.

Invariants: nothing is stored until something is put in. An id that the store does not know is never adopted. What is
read is what the store would give back: values are JSON from the moment they are put in.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .store import Store, StoreUnavailable
from .wire import json
from .wire.ids import new_secret

if TYPE_CHECKING:
    from .config import SessionConfig

_ID: Final = re.compile(r"[A-Za-z0-9_-]{32}")


class Session:
    """Who is calling, beyond one call.

    Attributes:
        id: what the cookie carries; not the connection's id. It changes with `regenerate` and `destroy`.
        stored: whether the store has it.
        sealed: whether a cookie can no longer be sent (a stream's head is out, or it is a WebSocket).
    """

    __slots__ = (
        "_away",
        "_bound",
        "_changes",
        "_config",
        "_data",
        "_given",
        "_known",
        "_presented",
        "_store",
        "id",
        "sealed",
        "stored",
    )

    def __init__(
        self,
        store: Store,
        config: SessionConfig,
        presented: str | None,
        *,
        bound_to: str | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Make one.

        Args:
            presented: the id in the client's cookie.
            bound_to: what stands for a cookie where there are none, and cannot be guessed or chosen by a client.
            given: values that are there without having been put in, and that nothing put in can replace.
        """
        self._given = dict(given) if given else {}
        self._bound = None if bound_to is None else _id_of(bound_to)
        self._store = store
        self._config = config
        self._presented = presented if presented is not None and _ID.fullmatch(presented) else None
        self._data: dict[str, Any] = self._given.copy()
        self._away = False
        self._changes = 0  # of the session, by calls that may share it
        self._known = self._presented is None  # whether the store has been asked, where there is something to ask for
        self.id = self._bound or new_secret()
        self.stored = False
        self.sealed = self._bound is not None

    def __repr__(self) -> str:
        return f"<Session {'stored' if self.stored else 'new'}>"

    @property
    def data(self) -> Mapping[str, Any]:
        """What was put in, as JSON gives it back; change it with `update`.

        Raises:
            StoreUnavailable: the store could not be asked.
        """
        if self._away:
            raise StoreUnavailable
        return self._data

    async def load(self) -> None:
        """Find the session that the client's cookie names; a store that is away is told of where the data is used.

        Later calls on the same connection find what others have made of it since.
        """
        changes, wanted = self._changes, self.id if self.stored else self._bound or self._presented
        if wanted is None:
            return
        try:
            values = await self._store.load_session(wanted, self._config.ttl)
        except StoreUnavailable:
            self._away = True
            return
        if changes != self._changes:
            return  # another call has changed it meanwhile: what is here is newer than what was read
        self._known, self._away = True, False
        if values is not None:
            self.id, self.stored = wanted, True
            self._data = {key: msgspec.json.decode(value) for key, value in values.items()} | self._given
        elif self.stored:
            self._forget()

    async def update(self, **data: Any) -> None:
        """Put values in, beside those that are there; the first ones make the session.

        Two calls that update one session at the same time lose nothing of each other, except where both set one key.

        Raises:
            TypeError: a value that has no JSON form.
            RuntimeError: the session has ended and its client can't be told of another one any more.
            StoreUnavailable: the store cannot be reached.
        """
        values = {key: json.encode(value) for key, value in data.items()}
        await self._found()
        known_as = self.id
        if not await self._put(values):
            self._forget()  # it ended while this call ran: what comes in now begins another one
            known_as = self.id
            await self._put(values)
        if self.id != known_as:
            return  # another call has ended it meanwhile
        self.stored = True
        self._changes += 1
        self._data.update((key, msgspec.json.decode(value)) for key, value in values.items())
        self._data |= self._given

    async def _found(self) -> None:
        """Ask again where the store was away: a change must not be made to an id that nobody has looked up."""
        if self._away:
            await self.load()
        if self._away:
            raise StoreUnavailable

    async def _put(self, values: dict[str, bytes]) -> bool:
        if self.id == "":
            raise RuntimeError("this session has ended, and no cookie for another one can be sent any more")
        return await self._store.update_session(self.id, values, self._config.ttl, create=not self.stored)

    def _forget(self) -> None:
        self._data, self.stored = dict(self._given), False
        self._changes += 1
        self.id = self._bound or ("" if self.sealed else new_secret())

    async def regenerate(self) -> None:
        """Give the session another id, as after a login, so that nobody who knew the old one shares it.

        Raises:
            RuntimeError: no cookie can be sent any more: the head of the answer is out, or this is a WebSocket.
            StoreUnavailable: the store cannot be reached.
        """
        if self.sealed:
            raise RuntimeError(
                "the session's id cannot change any more: its cookie goes out with the head of the answer, and that is "
                "out already; regenerate() before the stream is returned, in a plain HTTP call"
            )
        await self._found()
        new = new_secret()
        if self.stored:
            await self._store.move_session(self.id, new, self._config.ttl)
        self.id = new
        self._changes += 1

    async def destroy(self) -> None:
        """Forget the session and everything in it, as after a logout.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        await self._found()
        await self._store.delete_session(self.id)
        self._forget()

    async def keep_alive(self) -> None:
        """Give a stored session its whole time to live again."""
        if self.stored:
            await self._store.touch_session(self.id, self._config.ttl)

    def cookie(self, *, secure: bool) -> bytes | None:
        """The value of `Set-Cookie` that tells the client its session.

        None where nothing is known of the session that it has named: it keeps that one.
        """
        if not self._known:
            return None
        config = self._config
        before, after = _around_id(config.cookie_name, config.ttl, config.same_site, secure)
        return b"%b%b%b" % (before, self.id.encode(), after)


@functools.lru_cache(maxsize=64)
def _around_id(name: str, ttl: float, same_site: str, secure: bool) -> tuple[bytes, bytes]:  # noqa: FBT001 - for a cache
    """What stands before and after the id in the cookie."""
    after = f"; Max-Age={math.ceil(ttl)}; Path=/; HttpOnly; SameSite={same_site.title()}{'; Secure' if secure else ''}"
    return f"{name}=".encode("latin-1"), after.encode("latin-1")


def presented_id(cookies: bytes, name: str) -> str | None:
    """The value of the cookie `name` in a `Cookie` field (RFC 6265, section 4.2)."""
    for pair in cookies.split(b";"):
        key, _, value = pair.strip().partition(b"=")
        if key == name.encode("latin-1"):
            return value.strip(b'"').decode("latin-1")
    return None


def _id_of(text: str) -> str:
    """An id that nobody can tell `text` from, nor use as a cookie without knowing it."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"keryx_trio session\0" + text.encode()).digest()).decode()[:32]
