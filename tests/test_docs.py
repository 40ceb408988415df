"""The README and the docs: their Python runs, what they show of commands is what those show, their links lead
somewhere.

The blocks of a page share a namespace and run from top to bottom. One that begins with `# name.py` can be imported as
`name` by those below. A `console` block with `$ curl` is sent to the page's `app`; one with `keryx-trio` is run by a
shell, in a folder that has these files. `…` in what is shown stands for anything.
Functions named `test_...` run at the end. `<!-- not run: the reason -->` above a block leaves it out.

    python tests/test_docs.py       writes the table of the settings anew
"""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import attrs
import httpx
import pytest
import trio

from keryx_trio.config import Config, settings
from keryx_trio.testing import open_client
from tests.e2e.serving import environment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_what_a_page_shows_is_so(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    module = ModuleType(page.stem)
    text = page.read_text()
    for found in BLOCK.finditer(text):
        if found["reason"]:
            continue
        if found["kind"] == "python":
            if name := re.match(r"# (\w+)\.py\n", found["code"]):
                monkeypatch.setitem(sys.modules, name[1], module)
                with (tmp_path / f"{name[1]}.py").open("a") as file:
                    file.write(found["code"])
            line = text[: found.start("code")].count("\n")
            exec(compile("\n" * line + found["code"], page, "exec", dont_inherit=True), vars(module))
        elif found["kind"] == "console":
            for command, shown in commands(found["code"]):
                pattern = ".*".join(map(re.escape, shown.split("…")))
                ran = run(curl, module, command, jump=0.02) if "curl " in command else run_shell(command, tmp_path)
                assert re.fullmatch(pattern, ran, re.DOTALL), ran
    for name, test in list(vars(module).items()):
        if name.startswith("test_"):
            offered = {"tmp_path": tmp_path, "monkeypatch": monkeypatch, "autojump_clock": None}
            run(test, *(offered[wanted] for wanted in inspect.signature(test).parameters))


def commands(code: str) -> list[tuple[str, str]]:
    """The commands of a block that are run, and what is shown of each: of `curl`, and where `keryx-trio` is, of all."""
    wanted = ".*" if "keryx-trio" in code else "curl .*"
    return re.findall(rf"^\$ ({wanted})\n((?:(?!\$ ).*\n)*)", code, re.MULTILINE)


def run_shell(command: str, folder: Path) -> str:
    """What a command of the shell prints."""
    tool = shlex.join([sys.executable, "-m", "keryx_trio"])
    done = subprocess.run(
        ["bash", "-c", f'keryx-trio() {{ {tool} "$@"; }}\n{command}'],
        cwd=folder, env=environment(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.replace("python -m keryx_trio", "keryx-trio")


def run(function: Any, *args: Any, jump: float = 0) -> Any:
    """Run it on a clock that jumps when all tasks wait for `jump` seconds; a thread at work is no reason to jump."""
    return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=jump))


async def curl(page: ModuleType, command: str) -> str:
    """What `curl` would show."""
    request, with_head = parse(command)
    target, headers = request.url.raw_path.decode(), dict(request.headers)
    async with (
        open_client(page.app) as client,
        client.stream(request.method, target, content=request.content, headers=headers) as answer,
    ):
        text = (await answer.read()).decode().replace("\r\n", "\n")
    head = "".join(f"{name}: {value}\n" for name, value in answer.headers.raw)
    return (f"HTTP/1.1 {answer.status}\n{head}\n" if with_head else "") + text


def parse(command: str) -> tuple[httpx.Request, bool]:
    """The request that a command makes, and whether it shows the head; as much of curl as the pages use."""
    words = iter(shlex.split(command)[1:])
    method, url, data, with_head = None, "", None, False
    headers: list[tuple[str, str]] = []
    files: dict[str, tuple[str | None, bytes]] = {}
    for word in words:
        match word:
            case "-N":
                pass
            case "-i":
                with_head = True
            case "-X":
                method = next(words)
            case "-H":
                name, value = next(words).split(": ", 1)
                headers.append((name, value))
            case "-d":
                data = next(words)
            case "-F":
                name, value = next(words).split("=", 1)
                path = Path(value[1:])
                files[name] = (path.name, path.read_bytes()) if value[0] == "@" else (None, value.encode())
            case _:
                url = f"http://{word}"
    if data is not None and "Content-Type" not in dict(headers):
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
    method = method or ("GET" if data is None and not files else "POST")
    request = httpx.Request(method, url, headers=headers, content=data, files=files or None)
    request.read()
    return request, with_head


def slugs(text: str) -> Iterator[str]:
    for heading in re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        yield re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


def test_the_links_of_a_page_lead_somewhere(page: Path):
    text = BLOCK.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in slugs(target.read_text()), link


def test_the_readme_has_one_command_to_run_and_one_to_test():
    text = (ROOT / "README.md").read_text()
    for title in ("Run", "Test"):
        [section] = re.findall(rf"^## {title}$(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
        [block] = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert len(block.splitlines()) == 1


SETTINGS = ROOT / "docs" / "how-to" / "configuration.md"
TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def settings_table() -> str:
    def told(value: Any) -> str:
        value = value.factory() if isinstance(value, attrs.Factory) else value
        text = (
            ",".join(value)
            if isinstance(value, tuple)
            else str(value).lower()
            if isinstance(value, bool)
            else f"{value}"
        )
        return f"`{text}`" if text else "(empty)"

    rows = ["| Variable | Default | What it is |", "|---|---|---|"]
    for each in settings(Config):
        words = [word for word in get_args(each.type) if isinstance(word, str)]
        choice = f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""
        rows.append(f"| `{each.env}` | {told(each.default)} | {each.description}{choice} |")
    return "\n" + "\n".join(rows) + "\n\n"


def test_the_table_of_the_settings_is_the_class():
    assert TABLE.findall(SETTINGS.read_text()) == [settings_table()], "run: python tests/test_docs.py"


if __name__ == "__main__":
    SETTINGS.write_text(TABLE.sub(lambda _: settings_table(), SETTINGS.read_text()))
