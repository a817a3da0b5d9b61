"""For every test: one thread, seeded draws, no uninitialized memory, and the rule that a skip must be expected."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Problems of tests are tiny, and more threads make them slower, the more so with several workers. It must be set before
# torch is imported; tests of threads ask for theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from helpers import seeds, unwritten

# Without a GPU, Triton kernels run in Triton's interpreter, on CPU tensors. It must be on before a kernel is imported;
# nothing takes it unless the triton implementation is forced.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell lets its background jobs ignore interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

THREADS = torch.get_num_threads()
EXPECTED_SKIPS = Path(__file__).parent / "expected_skips.txt"
_unexpected: list[str] = []


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; they are not part of the project."""
    folder = Path(os.environ.get("SPECTRAFUSE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("real data sets not found: set SPECTRAFUSE_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _unwritten_output_shows() -> Iterator[None]:
    with unwritten.filled():
        yield


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """What a test sets (the command line's --threads, too) does not stay in force for later ones."""
    yield
    torch.set_num_threads(THREADS)


def pytest_report_header() -> str:
    return f"random inputs: {seeds.VARIABLE}={seeds.SEED}"


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    seeds.restart(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    seeds.restart("test")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.failed:
        report.sections.append(("random inputs", f"{seeds.VARIABLE}={seeds.SEED} draws them again"))
    return report


def _allowed_reasons() -> list[str]:
    lines = EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _account(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        line = f"{report.nodeid}: {reason}"
        if line not in _unexpected and not any(allowed in reason for allowed in _allowed_reasons()):
            _unexpected.append(line)


# The process that gathers the workers' results sees the reports of all of them, of a skipped file once from each.
pytest_runtest_logreport = _account
pytest_collectreport = _account


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _unexpected and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unexpected:
        terminalreporter.section("skips that tests/expected_skips.txt does not list", red=True)
        for line in _unexpected:
            terminalreporter.write_line(line)
