"""`spectrafuse-bench`: compare two versions, and check that the comparison itself can be trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from builds import ROOT, Build, build
from compare import Case, Outcome, cases, compare, tests_pass, workers

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 120)
CACHE = ROOT / "build" / "versions"

Operations = Annotated[list[str] | None, typer.Option("--operation", "-k", help="Only this one; may be repeated.")]
Sizes = Annotated[list[str], typer.Option("--size", help="Sizes to measure; may be repeated.")]


@app.callback()
def main_help() -> None:
    """Measure versions of spectrafuse against each other."""


@app.command("compare")
def compare_command(
    base: Annotated[str, typer.Argument(help="A commit, '.', or 'installed'.")],
    head: Annotated[str, typer.Argument(help="A commit, '.', or 'installed'.")] = ".",
    operation: Operations = None,
    size: Sizes = ["small", "paper"],  # noqa: B006
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outcomes as JSON.")] = None,
) -> None:
    """Say what got slower from BASE to HEAD; ends with 1 if anything did.

    Both are built, each in a folder of its own, and measured in turns on one thread's processor time.
    """
    versions = build(base, CACHE), build(head, CACHE)
    outcomes = []
    with workers(*versions) as (one, other):
        for case in cases(operation, size):
            outcomes.append(compare(one, other, case))
            console.print(sentence(outcomes[-1]), highlight=False)
    broken = broken_operations(versions[1], outcomes)
    console.print(table(outcomes, broken))
    if output is not None:
        output.write_text(json.dumps([as_row(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
    regressed = sorted({outcome.case.operation for outcome in outcomes if outcome.regressed})
    if regressed:
        console.print(f"Got worse from {versions[0].name} to {versions[1].name}: {', '.join(regressed)}.")
    if broken:
        console.print(f"Tests fail in {versions[1].name}, so no speed-up counts: {', '.join(sorted(broken))}.")
    raise typer.Exit(1 if regressed or broken else 0)


def broken_operations(head: Build, outcomes: Sequence[Outcome]) -> set[str]:
    """Operations that got faster and whose tests fail."""
    faster = {outcome.case.operation for outcome in outcomes if outcome.verdict == "faster"}
    return {operation for operation in faster if not tests_pass(head, operation)}


def name(case: Case) -> str:
    return f"{case.operation} {case.implementation} {case.size} {case.direction}"


def sentence(outcome: Outcome) -> str:
    """An outcome in words."""
    if outcome.ratio is None:
        return f"{name(outcome.case)}: skipped, {outcome.reason}"
    low, median, high = outcome.ratio
    return f"{name(outcome.case)}: {outcome.verdict}, {median:.3f} times base ({low:.3f} to {high:.3f})"


def table(outcomes: Sequence[Outcome], broken: set[str]) -> Table:
    """All outcomes that have figures."""
    made = Table("case", "base", "head", "head / base", "99.7 %", "peak MB", "verdict", title="one thread")
    for outcome in outcomes:
        if outcome.ratio is None or outcome.seconds is None or outcome.memory is None:
            continue
        word = outcome.verdict + (", more memory" if outcome.memory_grew else "")
        if outcome.verdict == "faster" and outcome.case.operation in broken:
            word = "tests fail"
        made.add_row(
            name(outcome.case),
            *(f"{1e3 * seconds:.3f} ms" for seconds in outcome.seconds),
            f"{outcome.ratio.median:.3f}",
            f"{outcome.ratio.low:.3f} .. {outcome.ratio.high:.3f}",
            " -> ".join(f"{peak / 2**20:.1f}" for peak in outcome.memory),
            word,
        )
    return made


def as_row(outcome: Outcome) -> dict[str, object]:
    """An outcome as plain values."""
    ratio = None if outcome.ratio is None else outcome.ratio._asdict()
    return {**vars(outcome), "case": vars(outcome.case), "ratio": ratio, "regressed": outcome.regressed}


@app.command("trust")
def trust_command(
    trials: Annotated[int, typer.Option(help="Comparisons of each kind and case.", min=1)] = 20,
    percent: Annotated[int, typer.Option(help="Work repeated inside the kernels.", min=1, max=100)] = 15,
    operation: Operations = None,
    size: Sizes = ["paper"],  # noqa: B006
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the counts as JSON.")] = None,
) -> None:
    """See how often identical code is called slower, and how often repeated work inside the kernels is noticed."""
    plain = build("HEAD", CACHE)
    slow = build("HEAD", CACHE, SPECTRAFUSE_SLOWER_PERCENT=str(percent))
    counts: dict[str, dict[str, int]] = {}
    for case in cases(operation, size):
        found = {"same_called_slower": 0, "slower_noticed": 0, "trials": 0}
        for _ in range(trials):
            with workers(plain, plain, slow) as (one, two, three):
                outcome = compare(one, two, case)
                if outcome.ratio is None:
                    break
                found["trials"] += 1
                found["same_called_slower"] += outcome.verdict == "slower"
                found["slower_noticed"] += compare(one, three, case).verdict == "slower"
        if found["trials"]:
            counts[name(case)] = found
            console.print(f"{name(case)}: {found}", highlight=False)
    if output is not None:
        output.write_text(json.dumps(counts, indent=1), encoding="utf-8")


def main() -> None:
    """Run the command."""
    try:
        app()
    except ValueError as error:
        console.print(str(error), style="red", highlight=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
