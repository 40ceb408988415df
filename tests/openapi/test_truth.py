"""What the document says is so: a machine reads it, asks what it says, and holds the answers against it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import httpx
import jsonschema
import pytest

from examples import chat
from keryx_trio.openapi import document
from keryx_trio.testing import Received, open_client
from tests.openapi import all_types
from tests.openapi.reader import Document, Operation, Request, event_object, text

NOBODY = "session_who"
"""The operation that is refused here: nobody has logged in."""


@cache
def read(version: str) -> Document:
    return Document(json.loads(json.dumps(document(all_types.app, version))))


OPERATIONS = read("3.2").operations()
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def encoded(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """The body on the wire; a name that is a file in the form is sent as one."""
    if not request.kind:
        return None, dict(request.headers)
    if request.kind == "application/json":
        return json.dumps(request.body).encode(), {**request.headers, "content-type": request.kind}
    pairs = [
        (name, item) for name, value in request.body.items() for item in (value if isinstance(value, list) else [value])
    ]
    if request.kind == "multipart/form-data":
        files = [(name, ("a.txt", item)) if name in ("file", "more") else (name, (None, item)) for name, item in pairs]
        made = httpx.Request("POST", "http://testserver/", files=files)
    else:
        data: dict[str, list[str]] = {}
        for name, item in pairs:
            data.setdefault(name, []).append(text(item))
        made = httpx.Request("POST", "http://testserver/", data=data)
    return made.read(), {**request.headers, "content-type": made.headers.get("content-type", request.kind)}


async def ask(client: Any, operation: Operation, request: Request):
    body, headers = encoded(request)
    return await client.request(operation.method.upper(), request.target, content=body, headers=headers)


@pytest.mark.parametrize("version", ["3.2", "3.1"])
@pytest.mark.parametrize("whole", [True, False], ids=["with everything", "with what is required"])
@every_operation
async def test_what_the_document_says_can_be_asked_is_answered_as_it_says(operation, whole, version):
    described = read(version)
    operation = next(each for each in described.operations() if str(each) == str(operation))
    asked = 0
    async with open_client(all_types.app) as client:
        for request in described.requests(operation, whole=whole):
            answer = await ask(client, operation, request)
            assert answer.status == (401 if operation.told["operationId"] == NOBODY else 200), (request, answer.text)
            described.check_answer(operation, answer)
            asked += 1
    assert asked


@every_operation
async def test_what_does_not_fit_is_refused_as_the_document_says(operation):
    described = read("3.2")
    parameters = [described.resolve(each) for each in operation.told.get("parameters", [])]
    if "422" not in operation.told["responses"]:
        assert "requestBody" not in operation.told
        assert all(each["in"] == "header" for each in parameters)
        return
    async with open_client(all_types.app) as client:
        for request in described.requests(operation, whole=True):
            query = request.target.partition("?")[0] + "?" + "&".join(["x=1"] * 1001)
            answer = await client.request(operation.method.upper(), query)
            assert answer.status == 400
            described.check_answer(operation, answer)
            if "requestBody" in operation.told:
                kinds = {"content-type": request.kind}
                answer = await client.request(
                    operation.method.upper(), request.target, content=b"{nonsense", headers=kinds
                )
                assert answer.status in (400, 422)
                described.check_answer(operation, answer)
                answer = await client.request(operation.method.upper(), request.target, content=b'{"words": "many"}')
            elif "{" in operation.path:
                answer = await client.request(operation.method.upper(), operation.path.replace("{id}", "none"))
            else:
                name = parameters[0]["name"]
                answer = await client.request(operation.method.upper(), f"{operation.path}?{name}=1&{name}=2")
            assert answer.status == 422, answer.text
            described.check_answer(operation, answer)


@pytest.mark.parametrize("path", ["/api/stream?fail=true", "/api/stream?words=0", "/api/messages?count=3"])
async def test_each_event_is_one_of_the_union_and_of_no_other_kind(path):
    described = read("3.2")
    [operation] = [each for each in OPERATIONS if path.startswith(each.path + "?") and each.method == "get"]
    async with open_client(all_types.app) as client:
        answer = await client.get(path)
        assert answer.events()
        described.check_answer(operation, answer)
    schema = operation.told["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    for event in (Received("1", "unheard"), Received("{}", "done"), Received('{"total": "x", "mean": 1}', "done")):
        with pytest.raises(jsonschema.ValidationError):
            described.check(schema, event_object(event))


async def test_a_login_is_the_cookie_that_the_document_names():
    described = read("3.2")
    operation = next(each for each in OPERATIONS if each.told["operationId"] == "session_who")
    scheme = described.whole["components"]["securitySchemes"]["session"]
    assert operation.told["security"] == [{"session": []}]
    async with open_client(all_types.app) as client:
        await client.post("/api/login", json={"name": "ada"})
        assert list(client.cookies) == [scheme["name"]]
        assert scheme["in"] == "cookie"
        answer = await client.get(operation.path)
        assert answer.json() == {"name": "ada"}
        described.check_answer(operation, answer)


async def test_what_fails_in_an_action_is_the_default():
    described = read("3.2")
    operation = next(each for each in OPERATIONS if each.told["operationId"] == "fail")
    async with open_client(all_types.app) as client:
        answer = await client.get("/api/fail?type=CONNECTION_CHANNEL_AUTHORIZATION")
    assert answer.status == 403
    assert "403" not in operation.told["responses"]
    described.check_answer(operation, answer)


async def test_the_chat_is_as_its_document_says():
    described = Document(document(chat.app))
    operation = described.operations()[0]
    async with open_client(chat.app) as client:
        for request in described.requests(operation, whole=False):
            answer = await client.get(f"{request.target}&pace=0")
            assert {event.event for event in answer.events()} == {"token", "done"}
            described.check_answer(operation, answer)
        answer = await client.get(f"{request.target}&pace=0", headers={"last-event-id": "done"})
        assert answer.status == 204
        described.check_answer(operation, answer)
