"""What schemathesis is told of this project: formats that it does not know, and a check that it has not."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from keryx_trio.testing.events import EventReader
from tests.openapi.reader import Document, event_object

schemathesis.openapi.format("decimal", st.decimals(-1000, 1000, places=2).map(str))
# Of the durations of RFC 3339 those without years, months and weeks, whose lengths differ.
schemathesis.openapi.format("duration", st.integers(0, 10_000).map(lambda seconds: f"PT{seconds}S"))


@schemathesis.check
def json_in_events_fits(ctx, response, case) -> None:
    """The data of each event is what `contentSchema` says, which validators of JSON Schema leave out."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if kind != "text/event-stream":
        return
    document = Document(case.operation.schema.raw_schema)
    told = document.resolve(case.operation.definition.raw["responses"][str(response.status_code)])
    media = told["content"][kind]
    for event in EventReader().feed(response.content):
        document.check(media.get("itemSchema", media.get("schema")), event_object(event))
