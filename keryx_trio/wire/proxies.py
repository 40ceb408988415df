"""What a proxy says of the client behind it, taken only from proxies that are trusted.

Owns: `X-Forwarded-For`, `X-Forwarded-Proto` and `Forwarded` (RFC 7239). Does not know: which proxies are trusted.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

_PAIR: Final = re.compile(rb'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^;,\s"]+))')


@attrs.frozen
class Origin:
    """Where a request comes from."""

    address: str
    secure: bool


class Proxies:
    """The trusted proxies.

    Args:
        networks: addresses or networks.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def origin(self, peer: str, *, secure: bool, headers: Mapping[bytes, bytes]) -> Origin:
        """The client's address and whether it came over TLS, as told by the last proxy that is not to be trusted.

        The hops are read from the nearest on, for as long as whoever tells of the next one is trusted: what a client
        writes into the field itself stands behind them, and is never reached.
        """
        if not self._networks or not self._trusts(peer):
            return _told_by_nobody(peer, secure)
        # Most proxies set the older fields and pass on whatever a client says in the newer one: so those come first.
        older = b"x-forwarded-for" in headers or b"forwarded" not in headers
        hops = _x_forwarded(headers) if older else _forwarded(headers[b"forwarded"])
        for address, proto in reversed(hops):
            if proto is not None:
                secure = proto == "https"
            if address is None:
                break
            peer = address
            if not self._trusts(address):
                break
        return Origin(peer, secure)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


_told_by_nobody: Final = functools.lru_cache(maxsize=1024)(Origin)
"""A client asks more than once."""

Hop = tuple[str | None, str | None]
"""An address and a scheme, where they are told."""


def _x_forwarded(headers: Mapping[bytes, bytes]) -> list[Hop]:
    addresses = [_address(part) for part in headers.get(b"x-forwarded-for", b"").split(b",") if part.strip()]
    said = headers.get(b"x-forwarded-proto", b"").decode("latin-1").lower().split(",")
    protos = [proto.strip() or None for proto in said]
    if len(protos) == len(addresses):
        return list(zip(addresses, protos, strict=True))
    last = protos[-1]  # the nearest proxy's word on the connection that it took
    hops: list[Hop] = [(address, None) for address in addresses]
    return [*hops[:-1], (hops[-1][0], last)] if hops else [(None, last)]


def _forwarded(value: bytes) -> list[Hop]:
    hops: list[Hop] = []
    for element in value.split(b","):
        pairs = {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(element)}
        proto = pairs.get(b"proto")
        hops.append((_address(pairs.get(b"for", b"")), proto.decode("latin-1").lower() if proto else None))
    return hops


def _address(text: bytes) -> str | None:
    """An address without its port; None for what is none (`unknown`, an obfuscated name)."""
    found = text.strip().decode("latin-1")
    if found.startswith("["):
        found = found[1:].partition("]")[0]
    elif found.count(":") == 1:
        found = found.partition(":")[0]
    try:
        return str(ipaddress.ip_address(found))
    except ValueError:
        return None
