"""`spectrafuse-bench`: measure, compare two versions, and check that the comparison itself can be trusted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from spectrafuse.benchmarks import builds, headline, history, stored, trend, trust
from spectrafuse.benchmarks.compare import Outcome, cases, compare, tests_pass, workers

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def say(sentence: str) -> None:
    """Show a sentence as it is, whatever brackets it has."""
    console.print(sentence, markup=False, soft_wrap=True)


Operations = Annotated[list[str] | None, typer.Option("--operation", "-k", help="Only this one; may be repeated.")]
Sizes = Annotated[list[str], typer.Option("--size", help="Sizes to measure; may be repeated.")]
Folder = Annotated[Path, typer.Option("--history", help="Folder of stored figures.")]


@app.callback()
def main_help() -> None:
    """Measure versions of spectrafuse against each other."""


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_command(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Kernels only, small inputs timed.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File of rows; else this machine's.")] = None,
    folder: Folder = history.FOLDER,
) -> None:
    """Measure, and add the figures to the history; further arguments go to pytest (`-k gate`, `--peers`)."""
    import pytest
    import pytest_benchmark  # noqa: F401  # its options are given below

    file = history.of_this_machine(folder) if output is None else output
    # A checkout has more of them than what is installed: some need its sources.
    here = Path("benchmarks")
    if not (here / "harness.py").exists():
        here = Path(__file__).parent
    benches = sorted(map(str, here.glob("bench_*.py")))
    # Settings of a project around the current folder, or around where this is installed, are not meant for these.
    alone = [f"--config-file={os.devnull}", f"--rootdir={here}", "-p", "no:cacheprovider"]
    shown = ["-q", *alone, "--benchmark-columns=median,iqr", "--benchmark-sort=name"]
    if quick:
        shown += ["--benchmark-quiet", "--quick"]
    raise typer.Exit(int(pytest.main([*benches, *shown, f"--rows={file}", *context.args])))


@app.command("compare")
def compare_command(
    base: Annotated[
        str, typer.Argument(help="A file of rows, 'history', 'history@COMMIT', a commit, '.', or 'installed'.")
    ],
    head: Annotated[str, typer.Argument(help="As BASE.")] = ".",
    operation: Operations = None,
    size: Sizes = ["deciding", "paper"],  # noqa: B006
    counted: Annotated[bool, typer.Option("--counted", help="Files: decide on counted quantities only.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outcomes as JSON.")] = None,
    folder: Folder = history.FOLDER,
) -> None:
    """Say what got worse from BASE to HEAD; ends with 1 if anything did.

    Files are compared by the ratios to PyTorch or to the published code within each run, and by counted quantities.
    Versions are built, each in a folder of its own, and measured in turns on one thread's processor time.
    """
    given = [_is_rows(name) for name in (base, head)]
    if given[0] != given[1]:
        raise ValueError(f"Two files or two versions can be compared; got {base} and {head}.")
    tested = None
    if given[0]:
        rows = _rows_of(base, folder), _rows_of(head, folder)
        outcomes, grown = [] if counted else stored.compare_rows(*rows), history.grown(*rows)
        new = history.added(*rows)
        if counted:  # a baseline that lacks what there is would never notice that it grows
            grown += [f"{case}: the baseline lacks it" for case in new]
    else:
        outcomes, grown, tested = _of_versions(base, head, operation, size)
    broken = broken_operations(outcomes, tested)
    if outcomes:
        console.print(table(outcomes, broken))
    for found in grown:
        say(f"Grew: {found}.")
    if given[0]:
        say_uncompared(history.uncompared(*rows))
        if new and not counted:
            say(f"Only in {head}: {shortened(new)}.")
    if grown and counted:
        say("Where that is meant, `spectrafuse-bench baseline` (`make baseline`) makes it the new baseline.")
    if output is not None:
        made = {"outcomes": [as_row(outcome) for outcome in outcomes], "grown": grown}
        output.write_text(json.dumps(made, indent=1), encoding="utf-8")
    slower = sorted({outcome.case.operation for outcome in outcomes if outcome.regressed})
    base, head = ("this checkout" if name == "." else name for name in (base, head))
    if slower:
        console.print(f"Got worse from {base} to {head}: {', '.join(slower)}.")
    if broken:
        console.print(f"Tests of {head} fail or cannot be run, so no speed-up counts: {', '.join(sorted(broken))}.")
    if not (slower or grown or broken):
        compared = not outcomes or any(outcome.verdict != "skipped" for outcome in outcomes)
        say(f"{'Nothing got worse' if compared else 'No times could be compared'} from {base} to {head}.")
    raise typer.Exit(1 if slower or grown or (broken and tested is not None) else 0)


def say_uncompared(missing: Sequence[str]) -> None:
    """Tell of what cannot be compared: an operation, a tool or the same compiler may be missing."""
    if missing:
        say(f"Not compared: {shortened(missing)}.")


def shortened(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_rows(name: str) -> bool:
    """Whether an argument names figures, not a version."""
    return name.endswith((".json", ".jsonl")) or name.partition("@")[0] == "history"


def _rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """The figures that an argument names: a file's, or this machine's, all of them or those of a commit."""
    if name.endswith((".json", ".jsonl")):
        return history.read(Path(name), *history.CASE)
    commit = name.removeprefix("history").removeprefix("@")
    rows = history.read(history.of_this_machine(folder), *history.CASE)
    found = [row for row in rows if str(row.get("commit", "")).startswith(commit)]
    if not found:
        known = ", ".join(dict.fromkeys(str(row.get("commit")) for row in rows))
        raise ValueError(f"The history of this machine has no figures of {commit}; it has those of {known}.")
    return found


def _of_versions(
    base: str, head: str, operation: Sequence[str] | None, size: Sequence[str]
) -> tuple[list[Outcome], list[str], builds.Build | None]:
    versions = builds.build(base, say), builds.build(head, say)
    outcomes = []
    with workers(*versions) as (one, other):
        for case in cases(operation, size):
            outcomes.append(compare(one, other, case))
            say(sentence(outcomes[-1]))
    before, after = (version.sources for version in versions)
    if before is None or after is None:
        console.print("GPU kernels are compared by the tables in two checkouts: not here.")
        return outcomes, [], versions[1]
    return outcomes, stored.resources_grown(before, after), versions[1]


def broken_operations(outcomes: Sequence[Outcome], head: builds.Build | None) -> set[str]:
    """Operations that got faster and whose tests fail, or cannot be run since only figures are at hand."""
    faster = {outcome.case.operation for outcome in outcomes if outcome.verdict == "faster"}
    return {operation for operation in faster if head is None or not tests_pass(head, operation)}


def sentence(outcome: Outcome) -> str:
    """An outcome in words."""
    if outcome.ratio is None:
        return f"{outcome.case}: {outcome.verdict}, {outcome.reason}"
    low, median, high = outcome.ratio
    return f"{outcome.case}: {outcome.verdict}, {median:.3f} times base ({low:.3f} to {high:.3f})"


def table(outcomes: Sequence[Outcome], broken: set[str]) -> Table:
    """All outcomes that have figures."""
    made = Table("case", "base", "head", "head / base", "interval", "peak MB", "verdict")
    for outcome in outcomes:
        if outcome.ratio is None or outcome.seconds is None:
            made.add_row(str(outcome.case), "", "", "", "", "", f"{outcome.verdict}: {outcome.reason}")
            continue
        word = outcome.verdict + (", more memory" if outcome.memory_grew else "")
        if outcome.verdict == "faster" and outcome.case.operation in broken:
            word = "tests do not pass"
        made.add_row(
            str(outcome.case),
            *(f"{1e3 * seconds:.3f} ms" for seconds in outcome.seconds),
            f"{outcome.ratio.median:.3f}",
            f"{outcome.ratio.low:.3f} .. {outcome.ratio.high:.3f}",
            " -> ".join(f"{peak / 2**20:.1f}" for peak in outcome.memory or ()),
            word,
        )
    return made


def as_row(outcome: Outcome) -> dict[str, object]:
    """An outcome as plain values."""
    ratio = None if outcome.ratio is None else outcome.ratio._asdict()
    return {**vars(outcome), "case": vars(outcome.case), "ratio": ratio, "regressed": outcome.regressed}


@app.command("baseline")
def baseline_command(
    rows: Annotated[Path, typer.Argument(help="Rows of a run.")],
    folder: Folder = history.FOLDER,
) -> None:
    """Make the counted quantities of a run the ones that later versions must not exceed."""
    found = history.counted(history.read(rows, *history.CASE))
    file = folder / history.BASELINE
    file.unlink(missing_ok=True)
    history.append(found, file)
    console.print(f"{len(found)} cases in {file}")


@app.command("trend")
def trend_command(
    rows: Annotated[Path | None, typer.Argument(help="Rows; else this machine's history.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("trend"),
    folder: Folder = history.FOLDER,
) -> None:
    """Write a page (HTML and PNG) of how the figures moved from version to version."""
    file = history.of_this_machine(folder) if rows is None else rows
    for written in trend.write(history.read(file, *history.CASE), output, file.stem):
        console.print(str(written))


@app.command("headline")
def headline_command(
    rows: Annotated[Path | None, typer.Argument(help="Rows; else this machine's history.")] = None,
    readme: Annotated[Path, typer.Option(help="File with the markers of the table.")] = Path("benchmarks/README.md"),
    folder: Folder = history.FOLDER,
) -> None:
    """Write the table of the published sizes into the README; ends with 1 where a slow operation is not explained."""
    file = history.of_this_machine(folder) if rows is None else rows
    unexplained = headline.write(history.read(file, *history.CASE), readme)
    limits = f"{headline.RATIO} times PyTorch or {headline.SHARE:.0%} of its bound"
    for operation in unexplained:
        console.print(f"{operation}: below {limits}, and not explained")
    raise typer.Exit(1 if unexplained else 0)


@app.command("trust")
def trust_command(
    output: Annotated[Path, typer.Argument(help="Trials; those that are there are not repeated.")],
    trials: Annotated[int, typer.Option(help="Comparisons of each kind and case.", min=1)] = 20,
    percent: Annotated[
        int, typer.Option(help="How much longer calls take by work repeated inside the kernels.", min=1, max=100)
    ] = 15,
    beside: Annotated[int, typer.Option(help="Processes that stream through memory meanwhile.", min=0)] = 0,
    operation: Operations = None,
    size: Sizes = ["deciding"],  # noqa: B006
    direction: Annotated[list[str], typer.Option(help="Directions; may be repeated.")] = ["forward"],  # noqa: B006
    version: Annotated[str, typer.Option(help="The commit whose kernels are measured.")] = "HEAD",
) -> None:
    """See how often identical code is called slower, and how often repeated work inside the kernels is noticed."""
    built = builds.build(version, SPECTRAFUSE_REPEAT_WORK="ON")
    facts = {"percent": percent, "beside": beside, "version": built.name}
    with trust.streaming(beside):
        trust.run(built, percent, cases(operation, size, direction), trials, output, facts, console.print)
    rows = trust.read(output)
    made = Table("case", "identical: silent", f"{percent} % slower: noticed", "trials")
    for case, count in trust.counts(rows).items():
        made.add_row(case, *(str(count[key]) for key in ("silent", "noticed", "trials")))
    silent, noticed = trust.whole_trials(rows)
    made.add_row("every case in one trial", str(silent), str(noticed), str(len(rows)))
    console.print(made)


def main() -> None:
    """Run the command."""
    try:
        app()
    except (ValueError, ModuleNotFoundError) as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing not in ("pytest", "pytest_benchmark"):
            raise
        text = f"{missing} is not installed: `pip install 'spectrafuse[bench]'` brings it." if missing else str(error)
        console.print(text, style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
