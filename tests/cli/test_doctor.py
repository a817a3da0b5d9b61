"""`doctor` reports and never breaks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from spectrafuse import backends, ops
from spectrafuse.cli import doctor
from spectrafuse.cli.app import app


def test_json_names_versions_devices_and_every_operation() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["versions"]["torch"] == torch.__version__
    assert found["devices"][0]["device"] == "cpu"
    assert found["devices"][0]["threads"] == torch.get_num_threads()
    assert sorted({row["operation"] for row in found["operations"]}) == list(ops.operations())
    for row in found["operations"]:
        assert set(row["why_not"]) == set(backends.IMPLEMENTATIONS)
        assert row["why_not"][row["runs"]] is None


def _only_one_operation(monkeypatch: pytest.MonkeyPatch, reason: Callable[[str, str], str | None]) -> None:
    """An operation with kernels "cpu" and "cuda", of which `reason` says why they cannot run."""
    monkeypatch.setattr(backends, "_declared", {})
    monkeypatch.setattr(backends, "_kernel_reason", reason)
    backends.declare("an_operation", reference=abs, pytorch=abs, work=abs, kernels={"cpu": (), "cuda": ()})


def test_tables_show_what_runs_and_why_the_rest_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _only_one_operation(monkeypatch, lambda name, device: "the moon is [full]" if name == "cpu" else None)
    console = Console(record=True, width=200)
    doctor.print_examination(doctor.examine(), console)
    text = console.export_text()
    assert "the moon is [full]" in text
    row = next(line for line in text.splitlines() if "an_operation" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "an_operation",
        "cuda",
        "yes",
        "yes",
        "-",
        "-",
        "yes",
    ]


def test_a_broken_part_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(implementation: str, device: str) -> str | None:
        raise OSError("library torn in two")

    _only_one_operation(monkeypatch, broken)
    found = doctor.examine()
    assert "library torn in two" in found["operations"][0]["why_not"]["cpu"]
    assert "library torn in two" in found["operations"][0]["error"]

    def nothing() -> list[str]:
        raise RuntimeError("no operations today")

    monkeypatch.setattr(ops, "operations", nothing)
    found = doctor.examine()
    assert "no operations today" in found["operations_error"]
    console = Console(record=True, width=200)
    doctor.print_examination(found, console)
    assert "no operations today" in console.export_text()


def test_missing_packages_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package-anywhere"))
    found = doctor.versions()
    assert found["torch"]
    assert found["no-such-package-anywhere"] is None


def test_openmp_runtimes_of_this_process() -> None:
    """A library of its own may bring another one; torch's is always among them on Linux."""
    if sys.platform == "linux":
        assert any("torch" in path for path in doctor.openmp_runtimes())
