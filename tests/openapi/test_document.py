"""What the document tells of an application, part by part."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any, Literal

import attrs
import pytest
from msgspec import Meta
from typing_extensions import TypeAliasType

from keryx_trio import (
    SECRET,
    ByteStream,
    Config,
    Connection,
    ErrorType,
    EventStream,
    Keryx,
    Middleware,
    RateLimit,
    RequireSession,
    Response,
    StreamingResponse,
    UploadFile,
    Web,
    action,
)
from keryx_trio.config import DocsConfig, SessionConfig
from keryx_trio.openapi import document
from tests.openapi import all_types


@attrs.frozen
class Point:
    """A place."""

    x: int
    y: int = 0


@attrs.frozen
class Line:
    points: list[Point]
    width: float = 1.0


@attrs.frozen
class Drawing:
    line: Line


def other_point() -> type:
    @attrs.frozen
    class Point:
        z: int

    return Point


def app_with(function: Any, name: str = "it", route: str = "/it", *, config: Config | None = None, **web: Any) -> Keryx:
    app = Keryx(config=config or Config())
    app.action(name, web=Web(route, **web))(function)
    return app


def operation_of(function: Any, method: str = "get", **web: Any) -> dict[str, Any]:
    told = document(app_with(function, method=method.upper(), **web))
    return told["paths"]["/api/it"][method]


def parameter(function: Any, **web: Any) -> dict[str, Any]:
    [only] = operation_of(function, **web)["parameters"]
    return only


def answer_of(function: Any, **web: Any) -> dict[str, Any]:
    return operation_of(function, **web)["responses"]["200"]["content"]


# The whole


def test_an_application_without_actions_has_a_document():
    assert document(Keryx(config=Config())) == {
        "openapi": "3.2.0",
        "info": {"title": "API", "version": "0.1.0"},
        "servers": [{"url": "/"}],
        "paths": {},
        "components": document(Keryx(config=Config()))["components"],
    }


def test_title_version_and_description_are_settings():
    config = Config(docs=DocsConfig(title="Tea", version="3", description="Brews."))
    assert document(Keryx(config=config))["info"] == {"title": "Tea", "version": "3", "description": "Brews."}


def test_what_is_mounted_says_where():
    assert document(Keryx(config=Config()), root="/app")["servers"] == [{"url": "/app"}]


def test_the_older_version_has_no_item_schema():
    told = json.dumps(document(all_types.app, "3.1"))
    assert told.startswith('{"openapi": "3.1.0"')
    assert "itemSchema" not in told
    assert "itemSchema" in json.dumps(document(all_types.app))


def test_the_document_is_the_same_each_time_it_is_made():
    assert json.dumps(document(all_types.app)) == json.dumps(document(all_types.app))


def test_only_what_answers_over_http_is_told():
    paths = document(all_types.app)["paths"]
    assert list(paths)[:2] == ["/api/scalars", "/api/people"]
    assert not [path for path in paths if "hidden" in path]


def test_every_reference_leads_somewhere():
    told = document(all_types.app)
    text = json.dumps(told)
    for part in text.split('"$ref": "#/')[1:]:
        found: Any = told
        for key in part[: part.index('"')].split("/"):
            found = found[key]
    assert ":" not in "".join(told["components"]["schemas"])


# An operation


def test_a_docstring_is_summary_and_description():
    async def it() -> None:
        """Brew
        some tea.

        It takes a while.
        """

    told = operation_of(it)
    assert (told["summary"], told["description"]) == ("Brew some tea.", "Brew\nsome tea.\n\nIt takes a while.")


def test_a_short_docstring_is_the_summary_alone():
    async def it() -> None:
        """Brew."""

    assert "description" not in operation_of(it)


@pytest.mark.parametrize(
    ("name", "method", "operations", "tags"),
    [
        ("tea:brew", "GET", ["tea_brew"], ["tea"]),
        ("tea:brew", ("GET", "POST"), ["tea_brew_get", "tea_brew_post"], ["tea"]),
        ("tea.brew-now", "GET", ["tea_brew_now"], None),
    ],
)
def test_the_name_of_an_action_names_its_operations_and_their_tag(name, method, operations, tags):
    async def it() -> None: ...

    told = document(app_with(it, name, method=method))["paths"]["/api/it"]
    assert [each["operationId"] for each in told.values()] == operations
    assert all(each.get("tags") == tags for each in told.values())


def test_two_operations_never_have_one_name():
    async def it() -> None: ...

    app = app_with(it, "tea:brew")
    app.add(action("tea_brew", web=Web("/other"))(it))
    assert document(app)["paths"]["/api/other"]["get"]["operationId"] == "tea_brew_2"


def test_one_path_with_two_names_for_its_parameter_is_told_once():
    async def one(id: int) -> None: ...
    async def other(number: Annotated[int, Meta(description="Which")]) -> None: ...

    app = app_with(one, "one", "/it/{id}")
    app.add(action("other", web=Web("/it/{number}", method="DELETE"))(other))
    paths = document(app)["paths"]
    assert list(paths) == ["/api/it/{id}"]
    [told] = paths["/api/it/{id}"]["delete"]["parameters"]
    assert told == {
        "name": "id", "in": "path", "required": True, "description": "Which", "schema": {"type": "integer"},
    }  # fmt: skip


# What it takes


def test_a_constraint_a_default_and_an_example_stand_in_the_schema_and_the_description_beside_it():
    async def it(cups: Annotated[int, Meta(ge=1, description="How many", examples=[2])] = 1) -> None: ...

    assert parameter(it) == {
        "name": "cups", "in": "query", "description": "How many",
        "schema": {"type": "integer", "minimum": 1, "examples": [2], "default": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int | None, {"type": "integer"}),
        (str | None, {"type": "string"}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Any, {"type": "string"}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        (
            list[list[int]],
            {
                "type": "array",
                "items": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"type": "array", "items": {"type": "integer"}},
                },
                "minItems": 1,
            },
        ),
        (
            Point | int,
            {
                "anyOf": [
                    {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/Point"},
                    },
                    {"type": "integer"},
                ]
            },
        ),
    ],
    ids=str,
)
def test_text_is_described_as_it_is_taken(annotation, schema):
    async def it(x) -> None: ...

    it.__annotations__["x"] = annotation
    assert parameter(it)["schema"] == schema


@pytest.mark.parametrize("annotation", [Point, Point | None, dict[str, int]], ids=str)
def test_an_object_in_a_query_is_json(annotation):
    async def it(x) -> None: ...

    it.__annotations__["x"] = annotation
    told = parameter(it)
    assert "schema" not in told
    assert list(told["content"]) == ["application/json"]


def test_a_text_in_a_path_is_not_empty():
    async def it(id: str) -> None: ...

    [told] = document(app_with(it, route="/it/{id}"))["paths"]["/api/it/{id}"]["get"]["parameters"]
    assert told["schema"] == {"type": "string", "minLength": 1}


def test_a_list_in_a_path_has_one_item():
    async def it(id: list[int]) -> None: ...

    [told] = document(app_with(it, route="/it/{id}"))["paths"]["/api/it/{id}"]["get"]["parameters"]
    assert told["schema"] == {"type": "array", "items": {"type": "integer"}, "maxItems": 1}


@pytest.mark.parametrize("method", ["post", "put", "patch"])
def test_a_body_is_json_or_a_form(method):
    async def it(cups: int, point: Point, kinds: list[str] = []) -> None: ...  # noqa: B006 - a default of an input

    told = operation_of(it, method)
    assert "parameters" not in told
    assert told["requestBody"]["required"] is True
    content = told["requestBody"]["content"]
    assert list(content) == ["application/json", "application/x-www-form-urlencoded"]
    for media in content.values():
        assert media["schema"]["required"] == ["cups", "point"]
        assert media["schema"]["properties"]["point"] == {"$ref": "#/components/schemas/Point"}
    assert content["application/x-www-form-urlencoded"]["encoding"] == {"point": {"contentType": "application/json"}}


@pytest.mark.parametrize("method", ["get", "delete", "options"])
def test_a_method_without_a_body_takes_a_query(method):
    async def it(cups: int = 1) -> None: ...

    told = operation_of(it, method)
    assert "requestBody" not in told
    assert told["parameters"][0]["in"] == "query"


def test_a_body_that_may_be_left_out_is_not_required():
    async def it(cups: int = 1) -> None: ...

    assert "required" not in operation_of(it, "post")["requestBody"]


def test_a_file_that_is_needed_comes_in_a_multipart_form():
    async def it(file: UploadFile, name: str) -> None: ...

    content = operation_of(it, "post")["requestBody"]["content"]
    assert list(content) == ["multipart/form-data"]
    assert content["multipart/form-data"]["schema"]["properties"]["file"] == {"type": "string", "format": "binary"}


def test_without_a_file_that_may_be_left_out_json_will_do():
    async def it(name: str, file: UploadFile | None = None) -> None: ...

    content = operation_of(it, "post")["requestBody"]["content"]
    assert list(content["application/json"]["schema"]["properties"]) == ["name"]
    assert list(content["multipart/form-data"]["schema"]["properties"]) == ["name", "file"]


def test_a_secret_is_marked_and_its_default_not_shown():
    async def it(word: Annotated[str, SECRET] = "swordfish") -> None: ...

    app = app_with(it, method="POST")
    assert "swordfish" not in json.dumps(document(app))
    assert '"password"' in json.dumps(document(app))


def test_the_connection_is_no_input():
    async def it(connection: Connection) -> None: ...

    assert "parameters" not in operation_of(it)


# What it answers


def test_a_return_annotation_is_the_answer():
    async def it() -> list[Point]: ...

    assert answer_of(it) == {
        "application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Point"}}}
    }


def test_a_tuple_is_told_item_by_item():
    async def it() -> tuple[int, str]: ...

    assert answer_of(it)["application/json"]["schema"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]


@pytest.mark.parametrize("annotation", [None, "nothing that is known", "Keryx"])
def test_what_is_not_known_may_be_any_json(annotation):
    async def it(): ...

    if annotation:
        it.__annotations__["return"] = annotation
    assert answer_of(it) == {"application/json": {"schema": {}}}


def test_half_of_a_class_is_not_left_where_the_rest_cannot_be_described():
    @attrs.frozen
    class Broken:
        point: Point
        app: Keryx

    async def it() -> Any: ...

    it.__annotations__["return"] = Broken
    assert set(document(app_with(it))["components"]["schemas"]) == {"Error", "ErrorPayload"}


@pytest.mark.parametrize(
    ("annotation", "web", "content"),
    [
        (StreamingResponse, {"streaming": True}, ["text/event-stream"]),
        (EventStream, {}, ["text/event-stream"]),
        (StreamingResponse, {"events": {"token": str}}, ["text/event-stream"]),
        (StreamingResponse, {"produces": "text/csv"}, ["text/csv"]),
        (Any, {"produces": "text/csv"}, ["text/csv"]),
        (StreamingResponse, {}, ["*/*"]),
        (StreamingResponse | Response, {"streaming": True}, ["text/event-stream"]),
        (StreamingResponse | list[int], {"streaming": True}, ["application/json", "text/event-stream"]),
        (Response, {}, ["*/*"]),
        (Response, {"produces": "image/png"}, ["image/png"]),
        (ByteStream, {}, ["*/*"]),
        (TypeAliasType("Either", EventStream | list[int]), {}, ["application/json", "text/event-stream"]),
        (Response | list[int], {}, ["application/json"]),
    ],
    ids=str,
)
def test_the_content_type_of_an_answer(annotation, web, content):
    async def it() -> Any: ...

    it.__annotations__["return"] = annotation
    assert list(answer_of(it, **web)) == content


def test_a_stream_of_bytes_is_binary():
    async def it() -> StreamingResponse: ...

    assert answer_of(it, produces="text/csv") == {"text/csv": {"schema": {"type": "string", "format": "binary"}}}


def statuses(function: Any, method: str = "get", config: Config | None = None, **options: Any) -> list[str]:
    app = Keryx(config=config or Config(), middleware=options.pop("around", ()))
    app.action("it", web=Web("/it", method=method), **options)(function)
    return list(document(app)["paths"]["/api/it"][method]["responses"])


def test_a_status_stands_where_it_can_occur():
    async def nothing() -> None: ...
    async def something(x: int) -> None: ...

    always = ["200", "400", "408", "500", "503", "default"]
    assert statuses(nothing) == always
    assert statuses(nothing, timeout=0) == ["200", "400", "500", "503", "default"]
    assert statuses(something) == ["200", "400", "408", "422", "500", "503", "default"]
    assert statuses(something, "post", timeout=0) == ["200", "400", "408", "413", "422", "500", "503", "default"]
    assert statuses(nothing, middleware=[RateLimit()]) == ["200", "400", "408", "429", "500", "503", "default"]
    assert statuses(nothing, around=[RequireSession()]) == ["200", "400", "401", "408", "500", "503", "default"]
    assert statuses(nothing, around=[Middleware()]) == always


def test_a_limited_action_tells_its_limits():
    async def it() -> None: ...

    app = Keryx(config=Config(), middleware=[RateLimit()])
    app.action("it", web=Web("/it"))(it)
    told = document(app)
    limits = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert limits < set(told["paths"]["/api/it"]["get"]["responses"]["200"]["headers"])
    assert {*limits, "Retry-After"} < set(told["components"]["responses"]["RateLimited"]["headers"])


def test_a_session_is_needed_or_may_be_there():
    async def it() -> None: ...

    app = app_with(it, config=Config(session=SessionConfig(cookie_name="tea")))
    app.add(action("members", web=Web("/members"), middleware=[RequireSession()])(it))
    told = document(app)
    assert told["components"]["securitySchemes"]["session"]["name"] == "tea"
    assert told["paths"]["/api/it"]["get"]["security"] == [{}, {"session": []}]
    assert told["paths"]["/api/members"]["get"]["security"] == [{"session": []}]


def test_the_error_payload_has_every_type_and_its_stack_in_debug_mode_only():
    schema = document(Keryx(config=Config()))["components"]["schemas"]["ErrorPayload"]
    assert schema["properties"]["type"]["enum"] == [kind.value for kind in ErrorType]
    assert "stack" not in schema["properties"]
    debug = document(Keryx(config=Config(debug=True)))["components"]["schemas"]["ErrorPayload"]
    assert "stack" in debug["properties"]


# Events


def events_of(types: dict[str, Any]) -> dict[str, Any]:
    async def it() -> StreamingResponse: ...

    told = document(app_with(it, "tea:pour-out", events=types))
    media = told["paths"]["/api/it"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert media == {"itemSchema": {"$ref": "#/components/schemas/TeaPourOutEvent"}}
    return told["components"]["schemas"]


def test_events_are_a_union_by_name_with_the_error_that_any_stream_may_end_with():
    schemas = events_of({"token": str, "done": Point})
    token, done, error = schemas["TeaPourOutEvent"]["oneOf"]
    assert token["properties"]["event"] == {"type": "string", "const": "token"}
    assert token["properties"]["data"] == {"type": "string"}
    assert done["required"] == ["event", "data"]
    assert done["properties"]["data"] == {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": "#/components/schemas/Point"},
    }
    assert error == {"$ref": "#/components/schemas/ErrorEvent"}


def test_an_event_without_a_name_may_lack_the_field():
    message, *_ = events_of({"message": int})["TeaPourOutEvent"]["anyOf"]
    assert message["required"] == ["data"]


class Word(enum.StrEnum):
    TEA = "tea"


class Plain(enum.Enum):
    TEA = "tea"


@pytest.mark.parametrize(
    ("annotation", "text", "as_json"),
    [
        (Word, [{"type": "string", "enum": ["tea"]}], None),
        (Plain, [], {"const": "tea", "type": "string"}),
        (Literal["a", 1], [{"type": "string", "const": "a"}], {"type": "integer", "const": 1}),
        (str | None, [{"type": "string"}], {"type": "null"}),
        (Any, [{"type": "string"}], {}),
        (float | int, [], {"anyOf": [{"type": ["number", "null"]}, {"type": "integer"}]}),
    ],
    ids=str,
)
def test_what_goes_out_as_text_is_told_as_text(annotation, text, as_json):
    event, *_ = events_of({"it": annotation})["TeaPourOutEvent"]["oneOf"]
    data = event["properties"]["data"]
    forms = data.get("anyOf", [data])
    told = [form for form in forms if "contentSchema" not in form]
    if annotation is Word:
        text = [{"type": "string", "const": "tea"}]
    assert told == text
    assert [form["contentSchema"] for form in forms if "contentSchema" in form] == (
        [] if as_json is None else [as_json]
    )


def test_an_error_event_of_ones_own_may_also_be_the_frameworks():
    [event] = events_of({"error": str})["TeaPourOutEvent"]["oneOf"]
    assert [form.get("contentSchema") for form in event["properties"]["data"]["anyOf"]] == [
        None, {"$ref": "#/components/schemas/ErrorPayload"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["two\nlines", ""])
def test_a_name_that_no_event_can_have_is_refused(name):
    with pytest.raises(ValueError, match=r"event"):
        Web("/it", events={name: str})


def test_a_type_that_cannot_be_sent_is_refused_by_action_and_event():
    async def it() -> StreamingResponse: ...

    with pytest.raises(TypeError, match=r"action it: event 'done': Keryx cannot be described"):
        app_with(it, events={"done": Keryx})


# The names of classes


def names(*annotations: Any, returned: Any = None) -> list[str]:
    app = Keryx(config=Config())
    for place, annotation in enumerate(annotations):

        async def it(x): ...

        it.__annotations__ |= {"x": annotation, "return": returned}
        app.action(f"it{place}", web=Web(f"/it{place}", method="POST"))(it)
    schemas = document(app)["components"]["schemas"]
    return sorted(name for name in schemas if not name.startswith("Error"))


def test_a_class_is_described_once_under_its_own_name():
    assert names(Point, list[Point], returned=Point) == ["Point"]


def test_two_classes_of_one_name_are_told_apart_whichever_comes_first():
    other = other_point()
    found = names(Point, other)
    assert found == names(other, Point)
    assert len(found) == 2
    assert all(name.endswith("Point") and "." in name for name in found)


def test_two_classes_that_cannot_be_told_apart_are_numbered():
    found = names(other_point(), other_point())
    assert len(found) == 2
    assert found[1] == f"{found[0]}_2"


def test_what_is_taken_has_another_name_where_it_differs_from_what_is_sent():
    assert names(Drawing, returned=Drawing) == ["Drawing", "DrawingInput", "Line", "LineInput", "Point"]


def test_a_class_that_bears_a_name_of_ours_gives_way():
    @attrs.frozen
    class ErrorPayload:
        code: int

    async def it() -> Any: ...

    it.__annotations__["return"] = ErrorPayload
    told = document(app_with(it))
    schema = told["paths"]["/api/it"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["$ref"] != "#/components/schemas/ErrorPayload"
    assert "timestamp" in told["components"]["schemas"]["ErrorPayload"]["properties"]


def test_a_validator_of_openapi_finds_nothing_wrong():
    validator = pytest.importorskip("openapi_spec_validator")
    for version in ("3.2", "3.1"):
        validator.validate(json.loads(json.dumps(document(all_types.app, version))))
