"""Options of a run of the benchmarks, and the rows it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrafuse.benchmarks import harness, headline, history


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("spectrafuse")
    group.addoption("--quick", action="store_true", help="kernels only: small inputs timed, published sizes counted")
    group.addoption("--peers", action="store_true", help="torch.compile and other libraries beside the implementations")
    group.addoption("--rows", type=Path, help="file of JSON lines to add what was measured to")


def pytest_configure(config: pytest.Config) -> None:
    harness.settings.quick = config.getoption("--quick")
    harness.settings.peers = config.getoption("--peers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if harness.settings.quick:
        kept = [item for item in items if _is_quick(getattr(item, "callspec", None))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _is_quick(callspec: object) -> bool:
    given = getattr(callspec, "params", {})
    return given.get("implementation") not in (None, *harness.BASELINES) and given.get("size") != "large"


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Store what was measured at once: a run may be interrupted."""
    file = item.config.getoption("--rows")
    if file is not None:
        history.append(harness.ROWS, file)
        harness.ROWS.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    for sentence in headline.whole_methods([row for report in reports for _, row in report.user_properties]):
        terminalreporter.write_line(sentence)
