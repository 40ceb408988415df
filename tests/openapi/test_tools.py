"""Tools of others read the document: linters, a tester, a generator of clients.

    nox -s openapi

They take long, and need node with npm: so they have a session of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.e2e.serving import ROOT, command, environment, serve_process

HERE = Path(__file__).parent
NPM = shutil.which("npm")
APPS = {
    "chat": "examples.chat:app",
    "members": "examples.members:app",
    "export": "examples.export:app",
    "progress": "examples.progress:app",
    "all_types": "tests.openapi.all_types:app",
}
LENIENT = "negative_data_rejection"
"""The check that is left out: text in a query or a form is coerced, so `on` is true where the document says boolean."""

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]
needs_npm = pytest.mark.skipif(NPM is None, reason="there is no npm: apt-get install nodejs npm")
needs_schemathesis = pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")


def run(*words: str | Path, cwd: Path, shown: bool = False, **variables: str) -> str:
    ran = subprocess.run(
        [*map(str, words)], cwd=cwd, env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240,
    )  # fmt: skip
    if shown:
        print(ran.stdout)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document of each application, in both versions."""
    folder = tmp_path_factory.mktemp("documents")
    for name, app in APPS.items():
        for version in ("3.2", "3.1"):
            words = command("keryx_trio", "openapi", app, "--version", version)
            made = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, check=True, timeout=60)
            (folder / f"{name}-{version}.json").write_bytes(made.stdout)
    return folder


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the tools of `npm/package.json` are installed, with what else is there."""
    folder = tmp_path_factory.mktemp("node") / "tools"
    shutil.copytree(HERE / "npm", folder)
    run(NPM or "npm", "install", "--no-fund", "--no-audit", "--loglevel=error", cwd=folder)
    yield folder
    shutil.rmtree(folder)


def test_a_validator_finds_nothing_wrong(documents):
    pytest.importorskip("openapi_spec_validator")
    shown = run(sys.executable, "-m", "openapi_spec_validator", *sorted(documents.iterdir()), cwd=documents, shown=True)
    assert shown.count(": OK") == 2 * len(APPS)


@needs_npm
def test_redoclys_linter_has_nothing_to_warn_of(documents, node):
    lint = ("node_modules/.bin/redocly", "lint", "--config", "redocly.yaml", "--max-problems", "1000")
    shown = run(*lint, *sorted(documents.iterdir()), cwd=node, shown=True, REDOCLY_SUPPRESS_UPDATE_NOTICE="true")
    assert "Your API descriptions are valid" in shown
    assert not re.search(r"\bwarnings?\b.*(?:rule|generated)|You have \d+ warning", shown)


@needs_npm
async def test_a_client_in_typescript_compiles_and_reads_a_stream(documents, node):
    page = (ROOT / "docs" / "how-to" / "clients.md").read_text()
    [client] = re.findall(r"^```ts\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (node / "client.ts").write_text(client)
    (node / "main.ts").write_text(
        'import { ask } from "./client.ts";\nconsole.log(JSON.stringify(await ask(process.argv[2]!, "lambda")));\n'
    )
    for name, target in (("chat", "api"), ("all_types", "all_types_api")):
        run("node_modules/.bin/openapi-typescript", documents / f"{name}-3.1.json", "-o", f"{target}.d.ts", cwd=node)
    options = (
        "--strict --noUncheckedIndexedAccess --module nodenext --moduleResolution nodenext --target es2023 "
        "--lib es2023,dom,dom.iterable,dom.asynciterable --types node --skipLibCheck "
        "--rewriteRelativeImportExtensions --outDir out"
    )
    files = ("client.ts", "main.ts", "all_types.ts")
    await trio.to_thread.run_sync(lambda: run("node_modules/.bin/tsc", *options.split(), *files, cwd=node))
    async with serve_process(APPS["chat"]) as server:
        shown = await trio.to_thread.run_sync(lambda: run("node", "out/main.js", server.url, cwd=node, NO_PROXY="*"))
    assert "lambda" in shown
    assert shown.endswith('{"done":true,"topic":"lambda"}\n')


@needs_schemathesis
@pytest.mark.parametrize(("name", "examples"), [("all_types", 25), ("chat", 15)])
async def test_schemathesis_finds_no_500_and_no_answer_outside_its_schema(name, examples, tmp_path):
    async with serve_process(APPS[name]) as server:
        options = ["--config-file", HERE / "schemathesis.toml"] if name == "all_types" else []
        words = [
            SCHEMATHESIS, *options, "run", f"{server.url}/api/openapi.json", "--exclude-checks", LENIENT,
            "--max-examples", str(examples), "--request-timeout", "5", "--no-color", "--seed", "1",
        ]  # fmt: skip
        if name == "all_types":
            async with server.client() as client:
                await client.post("/api/login", json={"name": "ada"})
                words += ["-H", f"Cookie: {'; '.join(f'{key}={value}' for key, value in client.cookies.items())}"]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.openapi.hooks", "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
        shown = await trio.to_thread.run_sync(lambda: run(*words, cwd=tmp_path, shown=True, **hooks))
    assert re.search(r"Test cases:\n +\d+ generated, \d+ passed", shown), shown


def test_schemathesis_would_find_an_event_that_does_not_fit():
    """The check of ours can fail."""
    pytest.importorskip("schemathesis")
    from types import SimpleNamespace

    import jsonschema

    from keryx_trio.openapi import document
    from tests.openapi import all_types, hooks

    told = document(all_types.app)
    raw = told["paths"]["/api/stream"]["get"]
    operation = SimpleNamespace(schema=SimpleNamespace(raw_schema=told), definition=SimpleNamespace(raw=raw))
    case = SimpleNamespace(operation=operation)

    def check(body: bytes) -> None:
        headers = {"content-type": ["text/event-stream"]}
        hooks.json_in_events_fits(None, SimpleNamespace(headers=headers, status_code=200, content=body), case)

    check(b'event: done\ndata: {"total":1,"mean":0}\n\n')
    with pytest.raises(jsonschema.ValidationError):
        check(b'event: done\ndata: {"total":"many"}\n\n')
