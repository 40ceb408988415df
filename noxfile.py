"""Every check of the project, each in an environment of its own.

`nox` installs the package and runs its tests with this Python, its types and its style. Where `CI` is set it runs
everything, with every Python that is found. `nox -l` lists the sessions, `nox -s types` runs one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = sorted({"3.11", "3.12", "3.13", "3.14", HERE}, key=lambda version: int(version.split(".")[1]))

AT_ONCE = ["-n", str((os.cpu_count() or 1) + 1)]
"""How many tests run at once: most of their time they wait."""

BROWSERS = ["tests/e2e/test_browser.py", "tests/e2e/test_chat_page.py", "tests/e2e/test_docs_page.py"]

# Run in the wheel's environment, far from the source tree.
SMOKE_TEST = """
import importlib.resources
import keryx_trio, trio
from keryx_trio.testing import open_client

assert "site-packages" in keryx_trio.__file__, keryx_trio.__file__
assert importlib.resources.files(keryx_trio).joinpath("py.typed").is_file()

app = keryx_trio.Keryx()

@app.action("hello", web=keryx_trio.Web("/hello"))
async def hello(name: str) -> str:
    return "Hello, " + name

async def main() -> None:
    async with open_client(app) as client:
        answer = await client.get("/api/hello?name=wheel")
        print(answer.status, answer.json())
        assert answer.status == 200
        for path in ("/api/openapi.json", "/api/docs", "/api/docs/docs.js"):
            assert (await client.get(path)).status == 200, path

trio.run(main)
"""


def interpreters() -> Iterator[tuple[str, str]]:
    """Each supported Python of this machine that runs, with its path.

    A name on the PATH proves nothing: a version manager leaves there the names of versions that it then refuses to
    run. So each candidate is run, and must have what a virtual environment and the tests need.
    """
    probe = "import ssl, sqlite3, venv, sys; print('%d.%d' % sys.version_info[:2])"
    for version in VERSIONS:
        on_path = [shutil.which(f"python{version}", path=folder) for folder in os.get_exec_path()]
        managed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)
        here = [sys.executable] if version == HERE else []
        for path in [*here, *filter(None, on_path), *map(str, managed)]:
            run = subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False)
            if run.returncode == 0 and run.stdout.strip() == version:
                yield version, path
                break


def run_tests(session: nox.Session) -> None:
    """The tests, with one Python; what they show of browsers is the same with any, so one is enough."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "tests"))
    browsers = [] if session.name == f"tests-{HERE}" else [f"--ignore={path}" for path in BROWSERS]
    session.run("pytest", *AT_ONCE, *browsers, *session.posargs)


TESTS = []
for version, path in interpreters():
    TESTS.append(f"tests-{version}")
    nox.session(name=TESTS[-1], python=path)(run_tests)


@nox.session
def types(session: nox.Session) -> None:
    """The types of the package, of its examples, and of what its users write."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "types"))
    session.run("mypy", "keryx_trio", "tests/typing", "examples", "benchmarks")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, the rules of async code, and the direction of imports."""
    session.install("-e", ".", *nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("flake8")
    session.run("lint-imports", "--no-logo")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation's pages; a broken link fails."""
    if not (ROOT / "mkdocs.yml").exists():
        session.skip("there are no docs yet")
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, run as its reader would."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "tests"))
    session.run("pytest", "tests/test_examples.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """What takes minutes and proves endurance; no other session runs it."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "tests"))
    session.run("pytest", *(session.posargs or map(str, sorted(Path("tests/soak").glob("soak_*.py")))))


@nox.session
def openapi(session: nox.Session) -> None:
    """Tools of others read the OpenAPI document: linters, schemathesis, a generated client. Needs node with npm."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "openapi"))
    session.run("pytest", "-m", "tools", "-s", "tests/openapi/test_tools.py", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """This project beside others, for half an hour; `-- --quick` to see that it runs, `-- growth` for how cost grows.

    Needs Linux, a C compiler and wrk, and says so before anything is installed.
    """
    module, options = ("growth", session.posargs[1:]) if session.posargs[:1] == ["growth"] else ("run", session.posargs)
    command = ["python", "-m", f"benchmarks.{module}", *options]
    session.run(*command, "--prepare")
    session.install("-r", "benchmarks/requirements.txt", "-e", ".")
    session.run(*command, env={"BENCH_VENV": session.virtualenv.location})


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests again, and the lines and branches that they leave out; too many fail."""
    session.install("-e", ".[all]", *nox.project.dependency_groups(GROUPS, "coverage"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *AT_ONCE, *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """The wheel, built, and installed where nothing else is."""
    folder = Path(session.create_tmp()).resolve()
    for old in folder.glob("*.whl"):
        old.unlink()
    session.run("pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    session.install(*map(str, folder.glob("*.whl")))
    session.chdir(folder)
    session.run("python", "-c", SMOKE_TEST)
    session.run("hypercorn", "--help", silent=True)


# Where everything runs, `coverage` is the tests of this Python.
nox.options.sessions = (
    [*(name for name in TESTS if name != f"tests-{HERE}"), "types", "lint", "docs", "coverage", "wheel"]
    if os.environ.get("CI")
    else [f"tests-{HERE}", "types", "lint"]
)
