"""What every test is run under."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import hypothesis
import pytest

# How long an example takes is the machine's matter; the timeout of the run bounds all of them together.
hypothesis.settings.register_profile("keryx", deadline=None)
hypothesis.settings.load_profile("keryx")

MEASURED = "measured"

NO_SKIP = "KERYX_TESTS_NO_SKIP"
"""Set where everything that the tests need is installed: there a skipped test is a fault of the machine."""


def pytest_configure() -> None:
    os.environ.pop("COLUMNS", None)  # the width of whoever runs the tests, which is not what they are of


def _skipped(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter and os.environ.get(NO_SKIP) else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # By way of the reports, which come from the processes that run the tests.
    reports = [report for found in terminalreporter.stats.values() for report in found]
    tests = [report for report in reports if getattr(report, "when", None) == "call"]
    lines = [line for report in tests for key, line in report.user_properties if key == MEASURED]
    if lines:
        terminalreporter.section(MEASURED)
        for line in lines:
            terminalreporter.line(line)
    reports = _skipped(config)
    if reports:
        terminalreporter.section(f"skipped, although {NO_SKIP} is set", red=True)
        for report in reports:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {reason}")


@pytest.fixture
def far_from_an_edge() -> None:
    """No window of a minute, or of half of one, ends while a short test counts calls in it."""
    left = 30 - time.time() % 30
    if left < 5:
        time.sleep(left)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was measured: it stands at the end of the run."""

    def say(line: str) -> None:
        request.node.user_properties.append((MEASURED, f"{request.node.name}: {line}"))

    return say
