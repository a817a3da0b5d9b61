"""Fixtures, and the rule that a skip must be expected."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton kernels run in Triton's interpreter, on CPU tensors. It must be on before a kernel is imported;
# nothing takes it unless the triton implementation is forced.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell lets its background jobs ignore interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXPECTED_SKIPS = Path(__file__).parent / "expected_skips.txt"
_unexpected: list[str] = []


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; they are not part of the project."""
    folder = Path(os.environ.get("SPECTRAFUSE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("real data sets not found: set SPECTRAFUSE_DATA to their folder")
    return folder


def _allowed_reasons() -> list[str]:
    lines = EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in _allowed_reasons()):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _unexpected and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unexpected:
        terminalreporter.section("skips that tests/expected_skips.txt does not list", red=True)
        for line in _unexpected:
            terminalreporter.write_line(line)
