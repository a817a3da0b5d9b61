"""How the tests run a command, and what most commands are given."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from spectrafuse.cli.app import app

SEGMENT = ["--n-clusters", "3", "--crop-size", "8", "--batch-size", "2", "--device", "cpu"]
UNMIX = ["--pool-size", "5", "--max-epoch", "60", "--device", "cpu"]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fails_with(result: Result, *parts: str) -> None:
    """Exit code 2 and one line on stderr that holds the parts."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in result.output
