"""The generator of load reads a real server's streams whole, and tells when they are not."""

from __future__ import annotations

import json

import pytest
import trio

from benchmarks.app import app
from benchmarks.clients import LOADGEN, build_loadgen
from keryx_trio import EventStream, Keryx, StreamingResponse, Web
from tests.benchmarks.loadgen import needs_loadgen, read
from tests.e2e.serving import serve

pytestmark = needs_loadgen

PROTOCOLS = pytest.mark.parametrize("protocol", ["sse", "h2", "ws"])


def asked(protocol: str, url: str, action: str, **params: object) -> tuple[str, list[str]]:
    """Where loadgen has to ask for an action, and with which options."""
    if protocol == "ws":
        message = {"messageType": "action", "messageId": 1, "action": action, "params": params}
        return f"{url}/api/ws", ["--message", json.dumps(message)]
    query = "&".join(f"{name}={value}" for name, value in params.items())
    return f"{url}/api/{action}?{query}", []


@PROTOCOLS
@pytest.mark.parametrize(("streams", "n", "size"), [(1, 3000, 32), (20, 100, 32), (2, 20, 65536)])
async def test_a_firehose_comes_whole_and_in_order(protocol, streams, n, size):
    async with serve(app) as server:
        url, options = asked(protocol, server.url, "firehose", n=n, size=size)
        code, said = await read(protocol, url, "--streams", str(streams), "--expect", str(n), *options)
    assert code == 0, said
    assert said["events"] == streams * n
    assert said["bytes"] > streams * n * size
    assert (said["errors"], said["unfinished"], said["bad_streams"], said["disorder"]) == (0, 0, 0, 0)


@PROTOCOLS
async def test_lone_events_tell_when_they_were_sent_and_when_they_were_due(protocol):
    async with serve(app) as server:
        url, options = asked(protocol, server.url, "ticks", n=5, ms=20)
        code, said = await read(protocol, url, "--streams", "10", "--expect", "5", *options)
    assert code == 0, said
    assert 0 <= said["lat_ms_p50"] <= said["due_ms_p50"] + 1 < 1000
    assert said["seconds"] >= 0.1
    assert said["ttfe_ms_p50"] >= 20


async def test_streams_of_http2_share_connections_and_wait_for_room():
    async with serve(app, h2_max_concurrent_streams=4) as server:
        url, options = asked("h2", server.url, "ticks", n=2, ms=20)
        code, said = await read("h2", url, "--streams", "24", "--connections", "2", "--expect", "2", *options)
    assert code == 0, said
    assert (said["connections"], said["events"]) == (2, 48)
    assert said["seconds"] >= 3 * 0.04


@PROTOCOLS
async def test_what_is_out_of_order_or_missing_is_told(protocol):
    broken = Keryx()

    @broken.action("broken", web=Web("/broken", streaming=True))
    async def action() -> StreamingResponse:
        async def produce(stream: EventStream) -> None:
            for number in (0, 1, 3):
                await stream.send({"i": number}, id=str(number))

        return StreamingResponse.sse(produce)

    async with serve(broken) as server:
        url, options = asked(protocol, server.url, "broken")
        code, said = await read(protocol, url, "--expect", "4", *options)
    assert code == 1
    assert (said["events"], said["bad_streams"], said["disorder"], said["errors"]) == (3, 1, 1, 0)


@PROTOCOLS
async def test_an_answer_that_is_no_stream_is_an_error_with_its_reason(protocol):
    async with serve(app) as server:
        url, options = asked(protocol, server.url, "nothing")
        code, said = await read(protocol, url, *options)
    assert (code, said["errors"], said["events"]) == (1, 1, 0)
    assert (
        said["first_error"]
        == {
            "sse": "the server answered with status 404",
            "h2": "the server answered with a status that is not 200",
            "ws": "a message is neither an event nor the end of the stream",
        }[protocol]
    )


async def test_nobody_there_is_an_error():
    code, said = await read("sse", "http://127.0.0.1:1/")
    assert (code, said["first_error"]) == (1, "Connection refused")


async def test_a_steady_state_leaves_out_how_it_came_about():
    async with serve(app) as server:
        url, _ = asked("sse", server.url, "ticks", n=1000, ms=20)
        code, said = await read("sse", url, "--streams", "5", "--settle", "0.5", "--steady", "0.1")
    assert code == 0, said
    assert said["seconds"] >= 0.1
    # All that came would be 150; what comes late from before, when the machine is busy, is in it.
    assert 0 < said["events"] < 5 * (said["seconds"] / 0.02 + 10)
    assert said["unfinished"] == 5


@pytest.mark.parametrize("options", [["--streams", "x"], ["--url", "ftp://x"], ["--colour", "red"], ["--streams", "0"]])
async def test_wrong_usage_is_told(options):
    build_loadgen()
    run = await trio.run_process(
        [LOADGEN, "sse", "--url", "http://127.0.0.1:1/", *options], check=False, capture_stderr=True
    )
    assert run.returncode == 2
    assert run.stderr.startswith(b"loadgen: ")
    assert b"usage: loadgen sse|ws|h2" in run.stderr
