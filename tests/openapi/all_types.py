"""An application with everything that a description must tell: each type, each place, each kind of answer."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import trio
from msgspec import Meta

from keryx_trio import (
    SECRET,
    ByteStream,
    Connection,
    ErrorType,
    Event,
    EventStream,
    Keryx,
    RateLimit,
    RequireSession,
    Response,
    StreamingResponse,
    TypedError,
    UploadFile,
    Web,
)

app = Keryx()


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Address:
    """Where somebody lives."""

    street: Annotated[str, Meta(min_length=1, examples=["Rue de la Paix 1"])]
    zip: Annotated[str, Meta(pattern="^[0-9]{5}$", examples=["75002"])]
    floor: int = 0


@dataclasses.dataclass
class Person:
    name: Annotated[str, Meta(min_length=1, max_length=50, examples=["Ada"])]
    home: Address
    height: float = 1.7
    friends: list[Person] = dataclasses.field(default_factory=list)


class Pair(NamedTuple):
    first: int
    second: str


ONE = Pair(1, "one")


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@attrs.frozen
class Circle:
    kind: Literal["circle"]
    radius: Annotated[float, Meta(gt=0)]


@attrs.frozen
class Square:
    kind: Literal["square"]
    side: Annotated[float, Meta(gt=0)]


@attrs.frozen
class Done:
    """What became of it."""

    total: int
    mean: float


@attrs.frozen
class Answers:
    when: dt.datetime
    price: decimal.Decimal
    number: float
    rights: Rights
    different: set[int]
    data: bytes
    key: uuid.UUID
    color: Color | None = None


# Scalars, by every way in


@app.action("scalars:query", web=Web("/scalars"))
async def scalars_in_query(
    *,
    text: Annotated[str, Meta(min_length=1, max_length=20, description="Any text", examples=["tea"])],
    whole: Annotated[int, Meta(ge=-100, le=100)],
    number: Annotated[float, Meta(ge=0, le=1)] = 0.5,
    flag: bool = False,
    color: Color = Color.RED,
    level: Level | None = None,
    either: Literal["a", "b"] = "a",
    key: uuid.UUID | None = None,
    when: dt.datetime | None = None,
    day: dt.date = dt.date(2026, 1, 31),
    clock: dt.time | None = None,
    wait: dt.timedelta | None = None,
    price: decimal.Decimal | None = None,
    many: list[int] | None = None,
    different: set[str] | None = None,
) -> dict[str, str]:
    """Take every scalar from a query.

    What was given comes back, each as Python shows it.
    """
    return {name: repr(value) for name, value in locals().items()}


@app.action("scalars:body", web=Web("/scalars", method=("POST", "PUT")))
async def scalars_in_body(
    *,
    text: Annotated[str, Meta(max_length=20)],
    whole: Annotated[int, Meta(ge=-100, le=100)],
    number: Annotated[float, Meta(gt=0, lt=1)] = 0.5,
    flag: bool | None = None,
    color: Color = Color.RED,
    level: Level = Level.LOW,
    key: uuid.UUID | None = None,
    when: dt.datetime | None = None,
    price: decimal.Decimal = decimal.Decimal("9.90"),
    word: Annotated[str, SECRET] = "",
    either: int | str = 3,
) -> dict[str, str]:
    """Take scalars from a body."""
    return {name: repr(value) for name, value in locals().items() if name != "word"}


# Larger values


@app.action("people:add", web=Web("/people", method="POST"))
async def add_person(
    *,
    person: Person,
    shape: Circle | Square,
    tags: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=3)] = [],  # noqa: B006 - each call has its own
    counts: dict[str, int] | None = None,
    pair: Pair = ONE,
    movie: Movie | None = None,
    anything: Any = None,
) -> Person:
    """Take classes, and answer with one."""
    return person


@app.action("people:find", web=Web("/people"))
async def find_person(person: Person, shapes: list[Circle | Square] | None = None) -> list[Person]:
    """Take a class from a query, as JSON."""
    return [person]


@app.action("people:one", web=Web("/people/{id}"))
async def one_person(id: Annotated[int, Meta(ge=1, examples=[7])], loud: bool = False) -> Movie:
    """Take an input from the path."""
    return {"title": f"{'PERSON' if loud else 'person'} {id}"}


@app.action("people:remove", web=Web("/people/{number}", method="DELETE"))
async def remove_person(number: Annotated[int, Meta(ge=1)]) -> None:
    """The same path, where the action has another name for its input."""


@app.action("answers", web=Web("/answers"))
async def answers() -> Answers:
    """Answer with what JSON writes in its own way."""
    rights = Rights.READ | Rights.WRITE
    return Answers(dt.datetime.now(dt.UTC), decimal.Decimal("1.10"), float("nan"), rights, {1}, b"\xff", uuid.uuid4())


@app.action("upload", web=Web("/upload", method="POST"))
async def upload(file: UploadFile, name: str = "", more: list[UploadFile] | None = None) -> dict[str, Any]:
    """Take files of a form."""
    data = await file.read()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "name": name, "more": len(more or ())}


# Streams, and answers of their own


@app.action(
    "stream:typed",
    web=Web("/stream", method=("GET", "POST"), streaming=True, events={"token": str, "tick": int | None, "done": Done}),
)
async def typed(words: Annotated[int, Meta(ge=0, le=20)] = 3, fail: bool = False) -> StreamingResponse:
    """Stream events of known types."""

    async def produce(sse: EventStream) -> None:
        for number in range(words):
            await sse.send(f"word {number}\n", event="token", id=str(number))
            await sse.send(number or None, event="tick", retry=1000)
        if fail:
            raise TypedError("it was asked to fail")
        await sse.send(Done(words, float("nan")), event="done")

    return StreamingResponse.sse(produce)


@app.action("stream:messages", web=Web("/messages", streaming=True, events={"message": dict[str, int], "error": str}))
async def messages(count: Annotated[int, Meta(ge=0, le=5)] = 2) -> EventStream:
    """Stream events without a name, and an error in words."""

    async def produce(sse: EventStream) -> None:
        for number in range(count):
            await sse.send({"number": number})
        if count % 2:
            await sse.send_error("an odd number")

    return StreamingResponse.sse(produce)


@app.action("stream:untyped", web=Web("/untyped", streaming=True), middleware=[RateLimit(limit=100_000)])
async def untyped() -> StreamingResponse:
    """Stream anything."""

    async def produce():
        for data in ("text", {"number": 1}, [None]):
            yield Event(data, event="anything")
            await trio.lowlevel.checkpoint()

    return StreamingResponse.sse(produce())


@app.action("export:csv", web=Web("/export", produces="text/csv"))
async def export(rows: Annotated[int, Meta(ge=0, le=100)] = 2) -> StreamingResponse:
    """Stream bytes."""

    async def produce(out: ByteStream) -> None:
        for row in range(rows):
            await out.send(f"{row},x\n".encode())

    return StreamingResponse.stream(produce, content_type="text/csv; charset=utf-8")


@app.action("own:answer", web=Web("/own"))
async def own(status: Literal[200, 201, 204] = 200) -> Response:
    """Answer with a status of its own."""
    return Response(b"" if status == 204 else "made", status=status)


# Who may call, and what goes wrong


@app.action("session:login", web=Web("/login", method="POST"), middleware=[RateLimit(limit=100_000)])
async def login(connection: Connection, name: Annotated[str, Meta(min_length=1, examples=["ada"])]) -> dict[str, str]:
    """Log in, by cookie."""
    await connection.session.update(user_id=name)
    return {"name": name}


@app.action("session:who", web=Web("/who"), middleware=[RequireSession()])
async def who(connection: Connection) -> dict[str, str]:
    """Who is logged in."""
    return {"name": connection.session.data["user_id"]}


@app.action("fail", web=Web("/fail"), timeout=0)
async def fail(type: Literal["CONNECTION_ACTION_RUN", "CONNECTION_CHANNEL_AUTHORIZATION"]) -> None:
    """Fail, as it was asked."""
    if type != "CONNECTION_ACTION_RUN":
        raise TypedError("not for you", ErrorType(type), "type", type)


@app.action("hidden")
async def hidden() -> None:
    """Not over HTTP."""
