"""`keryx-trio serve`: an application behind hypercorn's trio worker.

Owns: the settings of that server which make it fit for streams, and what the command ends with. Does not know: how it
serves; `supervised` how its workers are followed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from .applications import failure, find_application
from .supervised import Workers

if TYPE_CHECKING:
    from hypercorn.config import Config as ServerConfig

    from ..config import Config

DEFAULT_BIND: Final = "127.0.0.1:8000"

BACKLOG: Final = 2048
"""Connections that wait to be accepted: with fewer, a burst of clients loses some of theirs."""

NO_LIMIT: Final = 2**31 - 1
"""Requests on a connection. At the server's limit HTTP/2 ends it, with all streams that are open on it."""

GRACE: Final = 2.0
"""How long after our own drain the server may take to end what is left, in seconds."""

LARGER: Final = 1024
"""By how many bytes the server takes larger messages than we do, so that we are the ones to refuse them."""

EPILOG: Final = """\b
Examples:
  keryx-trio serve examples.chat:app
  keryx-trio serve examples.chat:app --reload
  keryx-trio serve examples.chat:app --bind 0.0.0.0:8000 --workers 4

The settings of the application are variables, such as KERYX_STORE, which workers need in order to share sessions. For
TLS, or another of the server's own settings, run `hypercorn --worker-class trio` itself.
"""


@click.command(epilog=EPILOG, short_help="Serve over HTTP and WebSocket.")
@click.argument("app")
@click.option("--bind", metavar="HOST:PORT", multiple=True, default=[DEFAULT_BIND], show_default=DEFAULT_BIND,
              help="Where to listen; may be repeated. unix:PATH is a socket.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="How many processes serve.")
@click.option("--reload", is_flag=True, help="Start again when a source file has changed.")
def serve(app: str, bind: tuple[str, ...], workers: int, *, reload: bool) -> None:
    """Serve an application over HTTP/1.1, HTTP/2, WebSocket, and MCP where it is on.

    The server is hypercorn with its trio worker. SIGTERM or Ctrl-C stops it: streams are told, calls may finish, and it
    ends with 0. Where a worker cannot start, or fails, all of them stop, and it ends with 1.
    """
    found = find_application(app)  # in this process too, which can say at once what is wrong
    config = server_config(app, found.config)
    try:
        config.bind = _bound(config, bind)
    except (OSError, OverflowError) as error:  # the second is what Python says of a port that is none
        raise failure(f"cannot serve at {', '.join(bind)}", error) from error
    config.workers, config.use_reloader = workers, reload
    sys.exit(Workers().run(config))


def _bound(config: ServerConfig, bind: tuple[str, ...]) -> list[str]:
    """The sockets, bound here, as the server takes them over.

    Left to itself, hypercorn lets several workers share their port with whoever else has it, so that a server that was
    forgotten would answer some of the requests.
    """
    config.bind = [*bind]
    return [f"fd://{socket.detach()}" for socket in config.create_sockets().insecure_sockets]


def server_config(app: str, settings: Config) -> ServerConfig:
    """The server's settings for an application, by its name and its own settings."""
    from hypercorn.config import Config as ServerConfig  # noqa: PLC0415 - as above

    config = ServerConfig()
    config.application_path = app
    config.worker_class = "trio"
    config.backlog = BACKLOG
    config.keep_alive_max_requests = NO_LIMIT
    config.graceful_timeout = settings.drain_timeout + GRACE
    config.websocket_max_message_size = settings.websocket.max_message_size + LARGER
    config.accesslog = None  # our own log has a line for each call
    return config
