"""Every night: which clocks will be put forward or back within half a year, all over the world.

The time zones are those of this machine, real ones. One action makes the report, as a stream that tells how far it is.
It is followed from the shell, read over HTTP, or made by a worker, which nobody needs to watch: then the whole stream
is the job's result. That is made once at midnight (UTC), however many workers there are, and whenever it is ordered.

    keryx-trio run examples.report:app report:nightly --follow

    export KERYX_STORE=sqlite:////tmp/report.db
    hypercorn --worker-class trio examples.report:app
    curl -N 127.0.0.1:8000/api/report
    curl -X POST '127.0.0.1:8000/api/reports?days=365'
    curl 127.0.0.1:8000/api/reports/ID_FROM_ABOVE

The server runs jobs itself. To leave that to others, start it with KERYX_TASKS_WORKERS=0, and as many of these as you
like, of which `keryx-trio jobs examples.report:app` tells what they have to do:

    keryx-trio worker examples.report:app
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import attrs
import trio
from msgspec import Meta

from keryx_trio import Config, ErrorType, EventStream, Keryx, StreamingResponse, Task, TypedError, Web

DAY = 86_400  # seconds
YEARS = range(1970, 2101)
AREAS = ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")

From = Annotated[date | None, Meta(description="The first day; by default today, in UTC")]
Days = Annotated[int, Meta(ge=1, le=1000, description="How many days")]

config = Config.from_env()
kept = attrs.evolve(config.tasks, result_ttl=2 * DAY)  # until the next one is there, and a day to spare
app = Keryx(config=attrs.evolve(config, tasks=kept))


@app.action("report:nightly", web=Web("/report", streaming=True), task=Task(queue="reports", every=DAY))
async def nightly(day: From = None, days: Days = 183) -> StreamingResponse:
    """Tell which clocks will be put forward or back, area by area."""
    day = day or datetime.now(UTC).date()
    if not YEARS[0] <= day.year <= YEARS[-1]:
        message = f"must be in the years {YEARS[0]} to {YEARS[-1]}"
        raise TypedError(message, ErrorType.CONNECTION_ACTION_PARAM_VALIDATION, key="day", value=day)
    return StreamingResponse.sse(report, day, days)


@app.action("report:order", web=Web("/reports", method="POST"))
async def order(day: From = None, days: Days = 183) -> dict[str, str]:
    """Have a report made by a worker, and tell the id of that job."""
    job = await app.enqueue("report:nightly", {"day": day, "days": days}, retries=3)
    return {"id": job.id, "status": job.status}


@app.action("report:find", web=Web("/reports/{job_id}"))
async def find(job_id: str) -> dict[str, Any]:
    """Tell how far a job is, and what came of it."""
    job = await app.job(job_id)
    told: dict[str, Any] = {"id": job.id, "status": job.status, "attempts": job.attempts}
    if job.status == "done":
        told["result"] = await job.result()
    elif job.status == "failed":
        try:
            await job.result()
        except TypedError as error:
            told["error"] = error.payload()
    return told


async def report(sse: EventStream, day: date, days: int) -> None:
    """It changes nothing, so it does no harm where a worker was killed and another one makes it again."""
    zones = sorted(await trio.to_thread.run_sync(zones_of_places))
    seen = changes = 0
    for area, found in groupby(zones, lambda zone: zone.partition("/")[0]):
        names = list(found)
        for change in await trio.to_thread.run_sync(find_changes, names, day, days):
            await sse.send(change, event="change")
            changes += 1
        seen += len(names)
        await sse.send({"area": area, "zones": seen, "of": len(zones)}, event="progress")
    await sse.send({"day": day, "days": days, "zones": seen, "changes": changes}, event="done")


# What is below reads files: it runs in a thread


def zones_of_places() -> set[str]:
    zones = {zone for zone in available_timezones() if zone.partition("/")[0] in AREAS}
    if not zones:
        raise TypedError("this machine has no time zones: pip install tzdata")
    return zones


def find_changes(names: list[str], day: date, days: int) -> list[dict[str, Any]]:
    """By zone: at which moment, and by how many hours."""
    start = datetime.combine(day, time(), UTC)
    return [
        {"zone": name, "at": at, "hours": moved / timedelta(hours=1)}
        for name in names
        for at, moved in changes_of(ZoneInfo(name), start, days)
    ]


def changes_of(zone: ZoneInfo, start: datetime, days: int) -> Iterator[tuple[datetime, timedelta]]:
    before = offset(start, zone)
    for number in range(days):
        low, high = start + timedelta(number), start + timedelta(number + 1)
        after = offset(high, zone)
        if after != before:
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if offset(middle, zone) == before else (low, middle)
            yield high.replace(microsecond=0), after - before
            before = after


def offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    """What the clocks of a zone are ahead of UTC."""
    return moment.astimezone(zone).utcoffset() or timedelta()
