"""What a type checker must see of the public face. Read by mypy, never run."""

from collections.abc import Coroutine
from typing import Any, assert_type

from keryx_trio import (
    Action,
    ByteStream,
    Connection,
    Event,
    EventStream,
    Keryx,
    Mcp,
    McpConfig,
    Middleware,
    Response,
    StreamingResponse,
    Update,
    Web,
    action,
)

app = Keryx()


@app.action("add", web=Web("/add", method=("GET", "POST")))
async def add(a: int, b: int = 2) -> int:
    return a + b


@action("shout")
async def shout(text: str, connection: Connection) -> str:
    return text.upper()


_ = assert_type(add(1), Coroutine[Any, Any, int])
_ = assert_type(add(a=1, b=3), Coroutine[Any, Any, int])
_ = add("1")  # type: ignore[arg-type]
_ = add(c=1)  # type: ignore[call-arg]
app.add(shout)
kept: Action[..., str] = shout


async def produce(sse: EventStream, word: str) -> None:
    await sse.send({"any": ["JSON"]}, event="e", id="1", retry=5)
    with sse:
        await sse.comment(word)
    await sse.send_error(ValueError())


async def produce_bytes(stream: ByteStream) -> None:
    await stream.send(b"x")
    await stream.send("x")  # type: ignore[arg-type]


async def stream() -> StreamingResponse:
    assert_type(StreamingResponse.sse(produce, "word", ping=1), EventStream)
    assert_type(StreamingResponse.stream(produce_bytes, content_type="text/csv"), ByteStream)
    StreamingResponse.stream("/a/path", headers={"X-Own": "1"})
    return StreamingResponse.sse()


class Audit(Middleware):
    async def run_before(self, params: dict[str, Any], connection: Connection) -> Update | None:
        connection.metadata["seen"] = True
        connection.nursery.start_soon(produce, StreamingResponse.sse(), "word")
        return Update(params={**params, "b": 3})

    async def run_after(
        self, params: dict[str, Any], connection: Connection, error: BaseException | None
    ) -> Update | None:
        return Update(response=Response("x", 201, "text/plain"))


Event("data", event="e", id="1", retry=3)

app.static("/", "site")
Keryx(mcp=True)
Keryx(mcp=McpConfig(allowed_hosts=("api.example",)))


@app.action("note", mcp=Mcp(resource="notes://{id}", read_only=True))
async def note(id: int) -> dict[str, str]:
    return {"text": str(id)}
