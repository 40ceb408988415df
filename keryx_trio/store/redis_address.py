"""Where a Redis server is, and who we are there: what `redis://user:password@host:6379/0` says.

Owns: the form of such a URL. Does not know: how to connect.

Invariant: neither `repr` nor an error shows the password.
"""

from __future__ import annotations

import ssl
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from ..config import ConfigError

PORT = 6379


@attrs.frozen
class Address:
    """A server, a database in it, and the credentials for it."""

    host: str
    port: int
    database: int
    user: str | None
    password: str | None = attrs.field(repr=False)
    tls: ssl.SSLContext | None = attrs.field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """What the URL says. `rediss://` is TLS: the certificate and the host's name in it are verified.

        With `?ssl_ca_certs=FILE` the authorities in FILE are trusted in place of the system's.

        Raises:
            ConfigError: it has not the form `redis://[[user]:password@]host[:port][/database]`.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            database = int(parts.path.strip("/") or 0)
            query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        except ValueError:
            host, port, database, query = None, None, 0, {}
        if host is None or database < 0 or not query.keys() <= {"ssl_ca_certs"}:
            raise ConfigError(
                f"KERYX_STORE must be {url.partition(':')[0]}://[user:password@]host[:port][/database], "
                "with what is special in a password percent-encoded"
            )
        return cls(
            host=host,
            port=PORT if port is None else port,
            database=database,
            user=_text(parts.username),
            password=_text(parts.password),
            tls=_tls(query.get("ssl_ca_certs", [None])[0]) if parts.scheme == "rediss" else None,
        )

    @property
    def shown(self) -> str:
        """The URL, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.database}"


def _text(part: str | None) -> str | None:
    return unquote(part) if part else None


def _tls(authorities: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"KERYX_STORE: the certificates in {authorities} can't be read: {error}") from error
