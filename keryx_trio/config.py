"""Every setting, its default, its meaning, and how the environment spells it.

Owns: `Config` and its groups, the checks of their values, and the variables `KERYX_...`.
Does not know: what the settings do; a setting is here once something reads it.

Invariant: a `Config` that exists is valid: its values are checked and brought into one form when it is made, whether
they come from code or from the environment. To add a setting is to add a line: its type decides how it is read and
checked, its description is the reference.
"""

# No `from __future__ import annotations` here: the checks read the types of the fields.

import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Self, TypeVar, get_args, get_origin

import attrs

PREFIX: Final = "KERYX"

T = TypeVar("T")
N = TypeVar("N", int, float)


class ConfigError(SystemExit, ValueError):
    """A setting has a value that it can't have. Each line names one: what was given, and what is expected.

    It is a `SystemExit` too, so that a start that it stops shows these lines and no traceback.
    """


@attrs.frozen
class Kind:
    """What a type of setting takes: told in words, read from a variable, and checked."""

    expected: str
    parse: Callable[[str], object]
    """Raises KeyError or ValueError for a text that is no such value."""
    accepts: Callable[[Any], bool]


@attrs.frozen
class Setting:
    """One setting, as a page of reference shows it."""

    path: str
    """Where it is in `Config`: `log.level`."""
    env: str
    """The variable that sets it: `KERYX_LOG_LEVEL`."""
    type: Any
    """Its annotation."""
    default: Any
    description: str
    """What it is, and its unit."""


def setting(default: T, description: str, clean: Callable[[T], T] | None = None) -> T:
    """A field of a group of settings.

    Args:
        default: its value where nothing sets it.
        description: what it is, with its unit.
        clean: brings a value of the right type into its one form, or raises ValueError saying what it must be.
    """
    return attrs.field(default=default, metadata={"description": description, "clean": clean})


def _plain(text: object) -> bool:
    """No control characters: settings go into headers and log lines."""
    return isinstance(text, str) and not any(char < " " or char == "\x7f" for char in text)


_KINDS: Final[Mapping[Any, Kind]] = {
    bool: Kind(
        "true or false",
        lambda text: {"true": True, "false": False}[text.strip().lower()],
        lambda value: isinstance(value, bool),
    ),
    float: Kind(
        "a number of seconds, zero or more",
        float,
        lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf,
    ),
    int: Kind(
        "a whole number, zero or more",
        int,
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    ),
    str: Kind("text without control characters", str, _plain),
    tuple[str, ...]: Kind(
        "a list of texts without control characters",
        lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
        lambda value: isinstance(value, tuple) and all(map(_plain, value)),
    ),
}


def _kind(type_: Any) -> Kind:
    if get_origin(type_) is Literal:
        words = get_args(type_)
        return Kind(f"one of {', '.join(words)}", lambda text: text.strip().lower(), words.__contains__)
    return _KINDS[type_]


def _parsed(field: "attrs.Attribute[Any]", text: str) -> object:
    """What a variable's text says; a ValueError that tells what it must be."""
    kind = _kind(field.type)
    try:
        return kind.parse(text)
    except (KeyError, ValueError):
        raise ValueError(f"be {kind.expected}") from None


def _settled(field: "attrs.Attribute[Any]", value: Any) -> Any:
    """`value` in its one form; a ValueError that tells what it must be."""
    kind = _kind(field.type)
    value = tuple(value) if isinstance(value, list) else value
    if not kind.accepts(value):
        raise ValueError(f"be {kind.expected}")
    clean = field.metadata["clean"]
    return clean(value) if clean else value


def _check_fields(cls: type, fields: list[Any]) -> list[Any]:
    """The hook that gives each setting its check, so that no line of a group can forget it."""

    def check(value: Any, field: "attrs.Attribute[Any]") -> Any:
        try:
            return _settled(field, value)
        except ValueError as error:
            raise ConfigError(f"{cls.__name__}.{field.name} must {error}, not {value!r}") from None

    converter = attrs.Converter(check, takes_field=True)
    return [field.evolve(converter=converter) if "description" in field.metadata else field for field in fields]


def _route(route: str) -> str:
    if route in {"", "/"}:
        return ""
    if not route.startswith("/") or route.endswith("/"):
        raise ValueError('start with "/" and not end with it')
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+", route):
        raise ValueError("be a path, without parameters or a query")
    return route


def _latin(text: str) -> str:
    if not text.isascii():
        raise ValueError("be plain text that a header can carry")
    return text


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """As browsers spell them: in lower case, without a slash at the end."""
    origins = tuple(origin.lower().rstrip("/") for origin in origins)
    if not all(re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]-]+", origin) for origin in origins):
        raise ValueError("be * or origins, such as https://app.example or http://localhost:3000")
    return origins


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in hosts)
    if not all(re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]+)?", host) for host in hosts):
        raise ValueError("be hosts, such as app.example, localhost:8000 or [::1]")
    return hosts


def _latins(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_latin, texts))


def _name(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("be made of letters, digits, - and _")
    return name


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_name, names))


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("not be empty")
    return text


def _above_zero(value: N) -> N:
    if value == 0:
        raise ValueError("be above zero")
    return value


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ValueError("be addresses or networks, such as 127.0.0.1 or 10.0.0.0/8") from None
    return networks


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class LogConfig:
    """What the log says, and in which form. Logging that the application has configured is left alone."""

    format: Literal["text", "json"] = setting("text", "Lines for people (text), or one JSON object a line (json).")
    level: Literal["debug", "info", "warning", "error", "critical"] = setting("info", "The least level that is logged.")
    max_param_length: int = setting(100, "How much of each value of a call's inputs is logged, in characters.")


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class CorsConfig:
    """Which pages of other origins may call."""

    allowed_origins: tuple[str, ...] = setting(
        ("*",),
        "The origins that may call; * is any, without credentials. A list is answered with credentials.",
        _origins,
    )
    allowed_methods: tuple[str, ...] = setting(
        ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"), "The methods that they may use.", _names
    )
    allowed_headers: tuple[str, ...] = setting(
        ("Content-Type", "Last-Event-ID", "X-Request-Id"), "The request headers that they may send.", _names
    )
    exposed_headers: tuple[str, ...] = setting(
        ("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"),
        "The response headers that they may read.",
        _names,
    )
    max_age: int = setting(600, "How long a browser may keep the answer to a preflight, in seconds.")


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class SecurityConfig:
    """The security headers of every HTTP answer. An empty text leaves that header out."""

    content_security_policy: str = setting("default-src 'self'", "Content-Security-Policy.", _latin)
    strict_transport_security: str = setting(
        "max-age=31536000; includeSubDomains", "Strict-Transport-Security.", _latin
    )
    content_type_options: str = setting("nosniff", "X-Content-Type-Options.", _latin)
    frame_options: str = setting("DENY", "X-Frame-Options.", _latin)
    referrer_policy: str = setting("strict-origin-when-cross-origin", "Referrer-Policy.", _latin)


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class SessionConfig:
    """The session of a client, and its cookie."""

    ttl: float = setting(86_400.0, "How long a session lives after its last use, in seconds.", _above_zero)
    cookie_name: str = setting("__session", "The name of its cookie.", _name)
    same_site: Literal["strict", "lax", "none"] = setting("strict", "From which pages browsers send the cookie.")


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class RateLimitConfig:
    """What `RateLimit()` allows where it is not told. Calls are counted in a sliding window."""

    window: float = setting(60.0, "The length of the window, in seconds.", _above_zero)
    limit: int = setting(20, "Calls in a window by one address.", _above_zero)
    user_limit: int = setting(
        200, "Calls in a window by one user: whoever has a `user_id` in the session.", _above_zero
    )


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class WebSocketConfig:
    """What one WebSocket may ask for, and which pages may open one."""

    enabled: bool = setting(True, "Whether sockets are served at all. On one every action can be called by its name.")
    max_calls: int = setting(
        32, "How many calls of one socket run at once; as many again wait, and the next is refused.", _above_zero
    )
    max_message_size: int = setting(
        65_536, "The largest message of a client, in bytes; a larger one ends the socket.", _above_zero
    )
    max_messages_per_second: int = setting(
        0, "How many messages of one socket are taken in a second, cancels not counted; 0 for no limit."
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "The origins whose pages may open a socket, beside the server's own and those that CORS names; * is any, "
        "without the session.",
        _origins,
    )


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class McpConfig:
    """How agents reach the actions over the Model Context Protocol.

    Args:
        verify_token: `async (token) -> AccessToken | None`, or an object that has such a method, as the MCP SDK's
            `TokenVerifier` (`mcp.server.auth.provider`). With it only requests with a bearer token that it knows are
            answered; the token's subject, or else its client, is `session.data["user_id"]` of the calls. Not a
            variable of the environment.
    """

    enabled: bool = setting(False, "Whether MCP is served. Every action is a tool then, but for `Mcp(tool=False)`.")
    route: str = setting("/mcp", "The path of its endpoint.", _route)
    name: str = setting("keryx_trio", "The name that agents are told of the server.")
    instructions: str = setting("", "What agents are told of how to use the server.")
    allowed_hosts: tuple[str, ...] = setting(
        ("localhost", "127.0.0.1", "[::1]"),
        "The hosts by which it may be asked, with any port where none is named: against DNS rebinding.",
        _hosts,
    )
    allowed_origins: tuple[str, ...] = setting(
        (), "The origins whose pages may ask, beside those of the allowed hosts; * is any.", _origins
    )
    resource_url: str = setting(
        "", "Its public URL, as its protected resource metadata tells; empty for the one that was asked.", _latin
    )
    authorization_servers: tuple[str, ...] = setting(
        (), "The URLs of the servers that issue tokens for it, as its metadata tells.", _latins
    )
    required_scopes: tuple[str, ...] = setting((), "The scopes that a token must have.", _latins)
    verify_token: Any = None


def checked_queue(name: str) -> str:
    """`name`, where it is one of a queue.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ValueError(f"{name!r} is no name for a queue: use letters, digits, . _ and -")
    return name


def checked_queues(queues: tuple[str, ...]) -> tuple[str, ...]:
    """`queues`, where each is one, with a number or without.

    Raises:
        ValueError: one is none; it says what they must be.
    """
    if not all(re.fullmatch(r"[A-Za-z0-9._-]+(:[1-9][0-9]*)?", queue) for queue in queues):
        raise ValueError("be queues, such as default or mail:4 for four of its jobs at once")
    return queues


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class TasksConfig:
    """How jobs run in the background."""

    workers: int = setting(1, "How many jobs of each queue one process runs at once; 0 where others run them.")
    queues: tuple[str, ...] = setting(
        (), "The queues whose jobs run here, each with a number of its own where it has one (mail:4); all by default.",
        checked_queues,
    )  # fmt: skip
    lease: float = setting(
        30.0, "How long after its worker was killed a job may be taken by another one, in seconds.", _above_zero
    )
    retry_delay: float = setting(
        1.0, "How long a job that failed and has retries left waits for the first of them, in seconds; each further "
        "one waits twice as long, for an hour at most.",
    )  # fmt: skip
    result_ttl: float = setting(3600.0, "How long the result of a job is kept, in seconds.", _above_zero)
    failed_ttl: float = setting(604_800.0, "How long a job that failed is kept, in seconds.", _above_zero)


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class CompressionConfig:
    """Compression of plain HTTP answers. Streams are never compressed."""

    enabled: bool = setting(True, "Whether answers are compressed for the clients that accept it.")
    threshold: int = setting(1024, "The least size of a body that is compressed, in bytes.")


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class DocsConfig:
    """The description of the HTTP interface (OpenAPI), and the page to try it."""

    enabled: bool = setting(True, "Whether `openapi.json` and the page `docs` are served below the API's route.")
    title: str = setting("API", "What the interface is called.", _not_empty)
    version: str = setting("0.1.0", "Its version.", _not_empty)
    description: str = setting("", "What it is for; Markdown.")


@attrs.frozen(kw_only=True, field_transformer=_check_fields)
class Config:
    """All settings of an application, by keyword. Those left out have their defaults.

    Raises:
        ConfigError: a value that its setting can't have; the message names the setting.
    """

    debug: bool = setting(False, "Whether clients are told of unknown exceptions, with their tracebacks.")
    api_route: str = setting("/api", "The path below which actions are served; empty or / for the root.", _route)
    ping: float = setting(15.0, "A quiet SSE stream carries a comment this often, in seconds; 0 for never.")
    action_timeout: float = setting(
        300.0, "How long a call may take where its action says nothing, in seconds; 0 for no limit."
    )
    read_timeout: float = setting(
        30.0, "How long a client may send nothing of a body that it has announced before it is refused, in seconds."
    )
    write_timeout: float = setting(
        30.0, "How long a client may take nothing of what is written to it before it is cut off, in seconds."
    )
    drain_timeout: float = setting(10.0, "How long a shutdown waits for the calls that run, in seconds.")
    max_body_size: int = setting(10_485_760, "The largest body of a request, in bytes.")
    max_collected: int = setting(
        16_777_216,
        "How much of a stream is collected where its whole is the result (MCP, tasks, the shell), in bytes.",
        _above_zero,
    )
    server: Literal["keryx", "hypercorn"] = setting(
        "keryx",
        "Whose code serves connections in hypercorn's trio worker: keryx, which is hardened, or hypercorn, its own.",
    )
    store: str = setting(
        "memory://", "Where sessions, counters and jobs live: memory://, sqlite:///app.db or redis://host:6379/0."
    )
    trusted_proxies: tuple[str, ...] = setting(
        (), "The proxies whose word on a client's address and scheme is taken: addresses or networks.", _networks
    )
    session: SessionConfig = attrs.field(factory=SessionConfig)
    rate_limit: RateLimitConfig = attrs.field(factory=RateLimitConfig)
    log: LogConfig = attrs.field(factory=LogConfig)
    cors: CorsConfig = attrs.field(factory=CorsConfig)
    security: SecurityConfig = attrs.field(factory=SecurityConfig)
    compression: CompressionConfig = attrs.field(factory=CompressionConfig)
    websocket: WebSocketConfig = attrs.field(factory=WebSocketConfig)
    mcp: McpConfig = attrs.field(factory=McpConfig)
    tasks: TasksConfig = attrs.field(factory=TasksConfig)
    docs: DocsConfig = attrs.field(factory=DocsConfig)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The configuration that the variables `KERYX_...` of `environ` tell.

        The names are the paths of the settings: `KERYX_LOG_FORMAT` is `log.format`. Lists are comma-separated,
        booleans true or false, times in seconds, sizes in bytes. Variables that name no setting are ignored.

        Raises:
            ConfigError: values that their settings can't have, a line each, which names the variable.
        """
        faults: list[str] = []
        config = _read(cls, PREFIX, environ, faults)
        if faults:
            raise ConfigError("\n".join(faults))
        return config


def settings(group: type[attrs.AttrsInstance] = Config, path: str = "") -> Iterator[Setting]:
    """Every setting of a group and of the groups in it, in the order of the source."""
    for field in attrs.fields(group):
        here = f"{path}.{field.name}" if path else field.name
        if attrs.has(field.type):
            yield from settings(field.type, here)
        elif "description" in field.metadata:
            env = f"{PREFIX}_{here.replace('.', '_').upper()}"
            yield Setting(here, env, field.type, field.default, field.metadata["description"])


C = TypeVar("C", bound=attrs.AttrsInstance)


def _read(group: type[C], prefix: str, environ: Mapping[str, str], faults: list[str]) -> C:
    """A group from its variables; what is wrong with them goes to `faults`, so that all of it is told at once."""
    values: dict[str, Any] = {}
    for field in attrs.fields(group):
        name = f"{prefix}_{field.name.upper()}"
        if attrs.has(field.type):
            values[field.name] = _read(field.type, name, environ, faults)
        elif name in environ and "description" in field.metadata:
            try:
                values[field.name] = _settled(field, _parsed(field, environ[name]))
            except ValueError as error:
                faults.append(f"{name} must {error}, not {environ[name]!r}")
    return group(**values)
