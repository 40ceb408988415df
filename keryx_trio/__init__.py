"""Actions as trio functions, streamed over every transport, ended by structured concurrency.

Write an action once; it answers over HTTP as JSON, as server-sent events or as a body of bytes. Every call owns a
nursery, a stream's producer runs inside it, a timeout is a cancel scope.
"""

from ._version import __version__
from .app import Keryx
from .action import Action, Mcp, Task, Web, action
from .inputs import SECRET
from .uploads import UploadFile
from .connection import Connection, ConnectionType
from .middleware import Middleware, Update
from .limits import RateLimit, RequireSession
from .response import Response
from .streaming import ByteStream, Event, EventStream, StreamingResponse
from .errors import ErrorType, TypedError
from .config import Config, McpConfig
from .tasks import Job

__all__ = [
    "SECRET",
    "Action",
    "ByteStream",
    "Config",
    "Connection",
    "ConnectionType",
    "ErrorType",
    "Event",
    "EventStream",
    "Job",
    "Keryx",
    "Mcp",
    "McpConfig",
    "Middleware",
    "RateLimit",
    "RequireSession",
    "Response",
    "StreamingResponse",
    "Task",
    "TypedError",
    "Update",
    "UploadFile",
    "Web",
    "__version__",
    "action",
]
