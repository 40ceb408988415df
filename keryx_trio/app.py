"""`Keryx`: the actions, the lifespan, and what leads a server's call to the transport it is for.

Owns: registration, `app.state`, `app.nursery`, the registries of connections and calls, the shutdown. Does not know:
what any transport does with a call.

Invariant: everything hangs on the app. Nothing is global, so two apps in one process share nothing.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import cached_property
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Protocol, Self, TypeVar

import attrs
import trio

from . import logs
from .action import Action, Mcp, Task, Web, action
from .call import LAST_WRITES
from .config import Config, ConfigError, McpConfig
from .connection import Connection
from .deadlines import Timers
from .errors import ErrorType, TypedError, leaves, text_of, unwrap
from .failures import MORE
from .middleware import Middleware
from .pulse import Pulse
from .routing import Router
from .store import StoreUnavailable, make_store
from .streaming import EventStream, StreamingResponse
from .tasks import Job, enqueue, find

if TYPE_CHECKING:
    from .transports.files import Folder
    from .transports.http import HttpTransport
    from .transports.mcp import McpTransport
    from .transports.websocket import WebSocketTransport
    from .transports.worker import Workers

P = ParamSpec("P")
R = TypeVar("R")
DRAIN_MARGIN: Final = LAST_WRITES + 0.2
"""How long after the drain what was stopped then may take to end, in seconds."""

Lifespan = Callable[["Keryx"], AbstractAsyncContextManager[Any]]

MCP_MISSING: Final = "MCP needs an extra: pip install 'keryx-trio[mcp]'"
WRONG_WORKER: Final = "keryx_trio runs on trio, and this server does not: use hypercorn --worker-class trio module:app"


class Running(Protocol):
    """What a shutdown must reach."""

    def describe(self) -> dict[str, str]:
        """What the log says of what is left behind."""

    def shut_down(self, deadline: float) -> None:
        """Be done by then, on trio's clock."""


class Keryx:
    """An application: actions, and every way to reach them. An ASGI application for hypercorn's trio worker.

    Args:
        actions: actions, or modules whose actions are taken.
        config: the settings; by default from the environment (`Config.from_env()`).
        store: the URL of where sessions, counters and jobs live; by default `config.store`.
        mcp: whether agents are served over the Model Context Protocol, or how; by default `config.mcp`.
        middleware: runs around every action, outside the action's own.
        lifespan: `lifespan(app)` is an async context manager, entered before the first call and left after the last;
            what it yields is `app.state`.

    Attributes:
        config: the settings.
        connections: every open connection by its id.
        state: what the lifespan yielded, while the app runs.
        log: the application's log.
        stopping: set once the application stops.
        serving: whether it serves others while it runs. Taken back, before it runs, where it runs for the sake of one
            call in the same process: then nothing is started, or even imported, that only others would need.

    Raises:
        ConfigError: a variable of the environment has a bad value.
        TypeError, ValueError: an action that cannot be registered.
    """

    def __init__(
        self,
        actions: Iterable[Action[..., Any] | ModuleType] = (),
        *,
        config: Config | None = None,
        store: str | None = None,
        mcp: bool | McpConfig | None = None,
        middleware: Sequence[Middleware] = (),
        lifespan: Lifespan | None = None,
    ) -> None:
        self.config = _with_mcp(config or Config.from_env(), mcp)
        self.log = logs.Log(self.config.log)
        self.store = make_store(store or self.config.store, self.log)
        self.connections: dict[str, Connection] = {}
        self.state: Any = None
        self.pulse = Pulse()
        self.timers = Timers()
        self.serving = True
        self._calls: set[Running] = set()  # what a shutdown must reach
        self._idle = trio.lowlevel.ParkingLot()
        self._named: set[Running] = set()  # what a shutdown did not reach, and the log has
        self.drain_deadline: float | None = None
        self.stopping = trio.Event()
        self.router: Router[Action[..., Any]] = Router()
        self._actions: dict[str, Action[..., Any]] = {}
        self.folders: tuple[Folder, ...] = ()  # whose files are served
        self.tools: dict[str, Action[..., Any]] = {}  # by the names that agents know
        self._middleware = tuple(middleware)
        self._around: dict[str, tuple[Middleware, ...]] = {}
        self._lifespan = lifespan
        self._outer: trio.Nursery | None = None
        self._nursery: trio.Nursery | None = None  # inside it, and lent
        self._running: AbstractAsyncContextManager[Self] | None = None
        if self.config.mcp.enabled and importlib.util.find_spec("mcp") is None:
            raise ConfigError(MCP_MISSING)
        for each in actions:
            self.add(each)
        if self.config.server == "keryx" and "hypercorn.trio.run" in sys.modules:
            from . import server  # noqa: PLC0415 - it is for who serves

            server.install()

    # Registration

    @property
    def actions(self) -> Mapping[str, Action[..., Any]]:
        """The registered actions by name, in the order of registration."""
        return dict(self._actions)

    def action(
        self,
        name: str,
        *,
        description: str | None = None,
        web: Web | None = None,
        mcp: Mcp | None = None,
        task: Task | None = None,
        timeout: float | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Action[P, R]]:
        """Make an action of a trio function and register it; see `keryx_trio.action` for the arguments."""
        make = action(
            name,
            description=description,
            web=web,
            mcp=mcp,
            task=task,
            timeout=timeout,
            middleware=middleware,
        )

        def register(function: Callable[P, Coroutine[Any, Any, R]]) -> Action[P, R]:
            made = make(function)
            self.add(made)
            return made

        return register

    def add(self, what: Action[..., Any] | ModuleType) -> None:
        """Register an action, or all actions of a module.

        Raises:
            ValueError: its name or its route is taken.
            TypeError: it is no action, or a module without any.
        """
        if isinstance(what, ModuleType):
            found = [value for value in vars(what).values() if isinstance(value, Action)]
            if not found:
                raise TypeError(f"module {what.__name__} has no actions; make one with @action('name')")
            for each in dict.fromkeys(found):
                self.add(each)
        elif isinstance(what, Action):
            self._register(what)
        else:
            raise TypeError(f"{what!r} is no action; make one with @action('name'), or pass a module that has some")

    def _register(self, added: Action[..., Any]) -> None:
        if added.name in self._actions:
            raise ValueError(f"action {added.name}: there is an action of that name already")
        if added.mcp.tool and (other := self.tools.get(added.tool_name)):
            raise ValueError(f"action {added.name}: its name as a tool, {added.tool_name}, is that of {other.name} too")
        for method in added.web.method if added.web else ():
            route = self.config.api_route + added.web.route if added.web else ""
            taken = self.router.add(method, route, added)
            if taken is not None:
                raise ValueError(f"action {added.name}: {method} {route} is taken by action {taken.name}")
        if added.mcp.tool:
            self.tools[added.tool_name] = added
        self._actions[added.name] = added
        self._around[added.name] = (*self._middleware, *added.middleware)

    def static(self, prefix: str, directory: str | os.PathLike[str]) -> None:
        """Serve the files of a folder below `prefix`, to GET and HEAD: a page, its styles and scripts.

        A folder is answered by its `index.html`. Files carry the standard headers, an `ETag`, and answer ranges. What
        lies outside, behind a link as much as behind `..`, is not served, nor is what is hidden (`.git`). Actions win.

        Args:
            prefix: a path, such as `/` or `/assets`.
            directory: where the files are.

        Raises:
            ValueError: a malformed prefix, or one that another folder has.
            NotADirectoryError: there is no such folder.
        """
        from .transports import files  # noqa: PLC0415 - as the transports

        self.folders = files.added(self.folders, files.Folder(prefix, directory))

    # The transports, imported by who serves: a call from the shell needs none of them

    @cached_property
    def _http(self) -> HttpTransport:
        from .transports.http import HttpTransport  # noqa: PLC0415

        return HttpTransport(self)

    @cached_property
    def _websocket(self) -> WebSocketTransport:
        from .transports.websocket import WebSocketTransport  # noqa: PLC0415

        return WebSocketTransport(self)

    @cached_property
    def workers(self) -> Workers | None:
        """What runs jobs here while the application runs, by default as the settings say; None where nothing does.

        To have others, set them before it runs. One that serves nobody leaves jobs alone, unless nobody else can have
        them.
        """
        if not self.serving and self.store.jobs.shared:
            return None
        from .transports.worker import Workers  # noqa: PLC0415

        return Workers.of(self)

    @cached_property
    def _mcp(self) -> McpTransport | None:
        if not self.config.mcp.enabled:
            return None
        try:
            from .transports.mcp import McpTransport  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(f"{MCP_MISSING} ({error})") from error
        return McpTransport(self)

    # What calls ask

    def find_action(self, name: str) -> Action[..., Any]:
        """The action of that name.

        Raises:
            TypedError: there is none.
        """
        try:
            return self._actions[name]
        except KeyError:
            raise TypedError(f"action not found: {name}", ErrorType.CONNECTION_ACTION_NOT_FOUND) from None

    def middleware_of(self, action: Action[..., Any]) -> tuple[Middleware, ...]:
        """What runs around an action, outermost first."""
        return self._around[action.name]

    def timeout_of(self, action: Action[..., Any]) -> float:
        """An action's timeout in seconds; infinite for none."""
        timeout = self.config.action_timeout if action.timeout is None else action.timeout
        return timeout or math.inf

    def ping_of(self, stream: StreamingResponse) -> float:
        """After how many seconds of quiet a stream shows that it is alive; infinite for never."""
        if not isinstance(stream, EventStream):
            return math.inf
        return (self.config.ping if stream.ping is None else stream.ping) or math.inf

    @contextmanager
    def connected(self, connection: Connection) -> Iterator[None]:
        """Keep a connection in the registry while it is open."""
        self.connections[connection.id] = connection
        try:
            yield
        finally:
            del self.connections[connection.id]

    # Jobs

    async def enqueue(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        delay: float = 0,
        retries: int = 0,
    ) -> Job:
        """Have an action called in the background. Once this returns, the job is in the store.

        Args:
            name: of the action.
            params: its inputs; they are kept as JSON until the job is done, secrets too.
            queue: the queue of the job; by default that of the action's `Task`, or "default".
            delay: seconds before it may begin.
            retries: how often it is tried again where it failed for a reason that may pass: an error of the server's
                own, a timeout, a limit. Each time it waits longer (`config.tasks.retry_delay`).

        Raises:
            TypedError: no such action, invalid inputs, or the store cannot be reached.
            TypeError: inputs that have no form in JSON.
            ValueError: a queue, a delay or a number of retries that cannot be.
        """
        job = await enqueue(self, name, params, queue=queue, delay=delay, retries=retries)
        if self.workers is not None:
            self.workers.notice(job.queue)
        elif not self.store.jobs.shared:
            self.log.warning("no worker can take this job: nobody else has this store", job=job.id, action=name)
        return job

    async def job(self, id: str) -> Job:  # noqa: A002
        """A job that was enqueued, by this process or another one.

        Raises:
            TypedError: there is none of that id, it is kept no longer, or the store cannot be reached.
        """
        return await find(self, id)

    # Its life

    @property
    def nursery(self) -> trio.Nursery:
        """A nursery that lives as long as the application runs. A task in it that fails stops the application.

        Raises:
            RuntimeError: the application is not running.
        """
        if self._nursery is None:
            raise RuntimeError("the application is not running: use `async with app:`, or serve it")
        return self._nursery

    @property
    def mcp_server(self) -> Any:
        """The application as a server of the MCP SDK, for the SDK's client in the same process, while it runs.

        Raises:
            RuntimeError: MCP is not served.
        """
        if self._mcp is None:
            raise RuntimeError("MCP is not served: Keryx(mcp=True), or KERYX_MCP_ENABLED=true")
        return self._mcp.server.sdk

    async def __aenter__(self) -> Self:
        """Run the application's lifespan around a script or a test.

        Raises:
            RuntimeError: it is running already.
        """
        if self._running is not None:
            raise RuntimeError("the application is running already")
        self._running = self._run()
        try:
            return await self._running.__aenter__()
        except BaseException:
            self._running = None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._running is None:
            raise RuntimeError("the application is not running")
        try:
            return await self._running.__aexit__(kind, error, trace)  # noqa: ASYNC102 - `_run` shields what must be
        except BaseExceptionGroup as group:
            if error is None or unwrap(group) is not unwrap(error):
                raise
            return False  # the body's own exception, and no other: it goes on as it was raised
        finally:
            self._running = None

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[Self]:
        """From the lifespan's start to its end; tasks of `app.nursery` have ended before what they use is closed."""
        self.drain_deadline, self.stopping = None, trio.Event()
        with logs.configured(self.config.log), self.pulse.beating():
            async with trio.open_nursery() as outer:
                self._outer = outer
                outer.start_soon(self.timers.run)
                held = trio.Event()
                self._nursery = await outer.start(self._hold_nursery, held)
                try:
                    async with (
                        self.store.open(),
                        _entered(self._lifespan, self) as self.state,
                        self._mcp.running() if self.serving and self._mcp is not None else nullcontext(),
                        self.workers.running() if self.workers is not None else nullcontext(),
                    ):
                        self.log.info("sessions, counters and jobs live here", store=self.store.url)
                        outer.start_soon(self._keep_sessions)
                        try:
                            yield self
                        finally:
                            await self.drain()  # noqa: ASYNC102 - shielded, and bounded, in there
                            self._nursery.cancel_scope.cancel()
                            with trio.CancelScope(shield=True):
                                await held.wait()
                finally:
                    self.state = self._nursery = self._outer = None
                    outer.cancel_scope.cancel()

    @staticmethod
    async def _hold_nursery(held: trio.Event, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        finally:
            held.set()

    async def _keep_sessions(self) -> None:
        """Keep the sessions of open connections alive, however long their streams last."""
        while True:
            await trio.sleep(self.config.session.ttl / 3)
            for connection in list(self.connections.values()):
                try:
                    await connection.session.keep_alive()
                except StoreUnavailable:
                    break  # the store has said so in the log; the next round tries again

    def shut_down(self) -> float:
        """Stop taking calls: streams end with their last words, plain calls may finish within `config.drain_timeout`.

        Returns at once the moment at which the drain is over, on trio's clock. Does nothing the second time.
        """
        if self.drain_deadline is None:
            self.drain_deadline = trio.current_time() + self.config.drain_timeout
            self.stopping.set()
            for call in list(self._calls):
                call.shut_down(self.drain_deadline)
            if self._outer is not None:
                self._outer.start_soon(self.drain)  # which names what is left behind, whoever else waits for it
        return self.drain_deadline

    @contextmanager
    def running(self, call: Running) -> Iterator[None]:
        """Keep a call, or what will be one, where a shutdown finds it."""
        self.begin(call)
        try:
            yield
        finally:
            self.end(call)

    def begin(self, call: Running) -> None:
        """It runs; a request says so itself, since it is felt there."""
        self._calls.add(call)
        if self.drain_deadline is not None:
            call.shut_down(self.drain_deadline)

    def end(self, call: Running) -> None:
        """It does so no longer."""
        self._calls.discard(call)
        if self.drain_deadline is not None and not self._calls:
            self._idle.unpark_all()

    async def drain(self) -> None:
        """Shut down and wait for the open calls, no longer than that allows; those that are left behind are named."""
        with trio.CancelScope(shield=True, deadline=self.shut_down() + DRAIN_MARGIN):
            while self._calls:
                await self._idle.park()
        for call in self._calls - self._named:
            self.log.warning("left behind: its cleanup takes longer than the shutdown may", **call.describe())
        self._named |= self._calls

    # ASGI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope.

        Raises:
            RuntimeError: the server does not run on trio, or has not started the lifespan.
        """
        kind = scope["type"]
        if kind == "http" and self._nursery is not None:
            served_by = self._http if self._mcp is None or not self._mcp.serves(scope) else self._mcp
            await served_by(scope, receive, send)
        elif not trio.lowlevel.in_trio_task():
            if kind != "lifespan":
                raise RuntimeError(WRONG_WORKER)
            await _refuse_start(receive, send)
        elif kind == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        elif self._nursery is None:
            raise RuntimeError("the application is not running: the server must support ASGI's lifespan")
        else:
            await self._websocket(scope, receive, send)

    async def _serve_lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        stage = "startup"
        try:
            await receive()
            _ = self._http, self._websocket  # imported now, so that the first request need not wait for it
            async with self:
                if self.config.server == "keryx" and "state" in scope:
                    self._join_server(scope["state"])
                await send({"type": "lifespan.startup.complete"})
                stage = "shutdown"
                await receive()
        except (Exception, SystemExit, BaseExceptionGroup) as error:
            # A server takes what is no plain error for an application without a lifespan, and serves on.
            if any(isinstance(leaf, MORE) for leaf in leaves(error)):
                raise
            cause = unwrap(error)
            self.log.exception("the application failed", cause, stage=stage)
            await send({"type": f"lifespan.{stage}.failed", "message": f"{type(cause).__name__}: {text_of(cause)}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    def _join_server(self, state: dict[str, Any]) -> None:
        """Have the connections of this process served by our own server, where it can be."""
        from . import server  # noqa: PLC0415 - as above

        refusal = server.install()
        if refusal is not None:
            self.log.warning("hypercorn's own code serves: keryx_trio's is not in its place", reason=refusal)
            return
        config = self.config
        limits = server.Limits(
            read_timeout=config.read_timeout or math.inf,
            write_timeout=config.write_timeout or math.inf,
            drain_timeout=config.drain_timeout,
            max_message=config.websocket.max_message_size,
        )
        worker = server.Worker(limits, self.shut_down)
        state[server.KEY] = worker
        if self._outer is not None:
            self._outer.start_soon(worker.run)
        self.log.info("keryx_trio's own server is in hypercorn's place; KERYX_SERVER=hypercorn switches it off")


def _with_mcp(config: Config, mcp: McpConfig | Literal[True, False] | None) -> Config:
    if mcp is None:
        return config
    chosen = mcp if isinstance(mcp, McpConfig) else config.mcp
    return attrs.evolve(config, mcp=attrs.evolve(chosen, enabled=mcp is not False))


async def _refuse_start(receive: Any, send: Any) -> None:
    await receive()
    # Some servers show their own traceback around the message, in which it would drown. This process ends here.
    sys.tracebacklimit = 0
    await send({"type": "lifespan.startup.failed", "message": WRONG_WORKER})


@asynccontextmanager
async def _entered(lifespan: Lifespan | None, app: Keryx) -> AsyncIterator[Any]:
    if lifespan is None:
        yield None
        return
    async with lifespan(app) as state:
        yield state
