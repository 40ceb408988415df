"""`keryx-trio openapi`, as a shell runs it."""

from __future__ import annotations

import json
import subprocess

import pytest

from keryx_trio.openapi import document
from tests.e2e.serving import ROOT, command, environment
from tests.openapi import all_types

APP = "tests.openapi.all_types:app"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("keryx_trio", "openapi", *words),
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["3.2", "3.1"])
def test_the_document_is_all_that_is_printed(version):
    shown = run(APP, "--version", version)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout) == json.loads(json.dumps(document(all_types.app, version)))
    assert shown.stdout.startswith('{\n  "openapi"')


def test_it_is_the_newer_version_where_nobody_says():
    assert '"openapi": "3.2.0"' in run(APP).stdout


def test_an_application_that_is_not_there_is_wrong_usage():
    shown = run("tests.openapi.nothing:app")
    assert shown.returncode == 2
    assert "there is no module" in shown.stderr


def test_a_version_that_is_not_there_is_wrong_usage():
    shown = run(APP, "--version", "2.0")
    assert shown.returncode == 2
    assert "'3.2', '3.1'" in shown.stderr
