"""What holds for the source tree as a whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keryx_trio

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keryx_trio"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOT_OURS = {".git", ".venv", ".nox", "build", "dist", "htmlcov"}
TEXTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".yml", ".cfg", ".txt", ".html", ".js"} or path.parent.name == ".ci"
    if path.is_file() and not any(part in NOT_OURS or "cache" in part for part in path.relative_to(ROOT).parts)
)
# Written in parts, so that this file does not name them itself.
REGISTRY = re.compile(
    "|".join([r"py" + r"pi\.org", r"python" + r"hosted", r"registry\.npm" + "js", r"npm" + r"js\.com"])
)


def test_imports_point_down_the_house():
    # In a process of its own: it configures logging, which would disable the loggers that other tests read.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_the_host_of_a_package_registry(path):
    assert not REGISTRY.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_error_is_dropped_without_a_word(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    assert not [node.lineno for node in handlers if all(isinstance(line, ast.Pass) for line in node.body)]


def test_the_front_door_needs_no_optional_part():
    code = (
        "import sys, keryx_trio\n"
        "optional = {'httpx', 'httpx_sse', 'trio_websocket', 'mcp', 'coredis', 'flask', 'mkdocs', 'pytest'}\n"
        "print(*sorted(optional & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout.split() == []


def test_the_front_door_opens_on_names_that_exist():
    names = getattr(keryx_trio, "__all__", ())
    assert [name for name in names if not hasattr(keryx_trio, name)] == []
    assert len(set(names)) == len(names)
