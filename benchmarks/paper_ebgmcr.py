"""Does EB-gMCR find the right number of components, and the right ones? One default, many spectra.

`python benchmarks/paper_ebgmcr.py [--quick] [--only GROUP ...] [--counts N ...] [--data FOLDER] [--seeds N]`

Each run is a row in `results/ebgmcr/runs.jsonl`, with seed, versions and machine; a run that is there already is not
repeated, so a run of this program can be stopped and continued. `--quick` takes the smallest problems, one seed each,
but none with a pool of 1024. The group `trained` repeats the runs of EB-gMCR with `recipe="trained"`, which takes
hours. `--report` writes tables and pictures from the rows alone. Real spectra are read from `--data` (folders `carbs`,
`nir` and `als2004`), which is not part of this package, and from the package chemotools where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import history
import measure
import paper_cases as cases

FOLDER = Path(__file__).parent / "results" / "ebgmcr"
GROUPS = ("yardstick", "few", "pool", "noise", "correlated", "sparse", "rank", "real", "others", "trained")
QUICK_GROUPS = tuple(group for group in GROUPS if group not in ("pool", "trained"))
TRAINED = "EB-gMCR, trained"
_LARGE, _FEW = 64, (24, 28, 32, 40)
"""Larger counts have the paper's mixtures alone, two seeds of them; so many spectra hold 16 components."""
QUICK_SECONDS = 1200.0


class Run(NamedTuple):
    """One fit: what names it, its spectra, and how it is made."""

    name: str
    group: str
    truth: int | None
    seed: int
    case: Any
    options: dict[str, Any]
    method: str = "EB-gMCR"


def runs(groups: tuple[str, ...], counts: tuple[int, ...], seeds: int, data: Path | None) -> Iterator[Run]:
    """All runs of some groups, the smallest problems first."""
    for count in counts:
        for seed in range(seeds if count <= _LARGE else min(seeds, 2)):
            yield from _chosen(_synthetic(count, seed), groups)
    if data is not None:
        yield from _chosen(_real(data, seeds), groups)


def _chosen(all_runs: Iterable[Run], groups: tuple[str, ...]) -> Iterator[Run]:
    """Those of some groups, and those of EB-gMCR once more with training where these are asked for."""
    for run in all_runs:
        if run.group in groups:
            yield run
        if "trained" in groups and run.method == "EB-gMCR" and (run.truth or 0) <= _LARGE and run.group != "few":
            options = {**run.options, "recipe": "trained"}
            yield run._replace(name=f"{run.name}-trained", group="trained", options=options, method=TRAINED)


def _synthetic(count: int, seed: int) -> Iterator[Run]:
    pool = {"pool_size": 4 * count}
    for snr in (20, 30):
        case = cases.paper, (count, snr, seed)
        yield from _with_bound(Run(f"paper-{count}-{snr}dB", "yardstick", count, seed, case, pool))
        if count > _LARGE:
            continue
        if seed < 2:
            yield Run(f"pool1024-{count}-{snr}dB", "pool", count, seed, case, {"pool_size": 1024})
            if count <= 32:
                for factor in (0.5, 1.0, 2.0):
                    name = f"noise-{count}-{snr}dB-times-{factor:g}"
                    yield Run(name, "noise", count, seed, case, {**pool, "noise": factor})
        if count == 16 or seed == 0:
            alike = cases.correlated, case[1]
            yield from _with_bound(Run(f"correlated-{count}-{snr}dB", "correlated", count, seed, alike, pool))
        if seed < 3:
            methods = cases.METHODS if count <= 32 else ("NMF", "ICA")
            yield from _others(f"{count}-{snr}dB", "others", count, seed, case, methods)
    if count > _LARGE:
        return
    case = cases.paper, (count, 20, seed)
    if count <= 32 and seed < 3:
        options = {**pool, "sparse": True}
        yield Run(f"sparse-{count}-20dB", "sparse", count, seed, (_sparse, case[1]), options)
    if count == 16:
        for make in (cases.together, cases.never_alone, cases.nonlinear, cases.coloured):
            truth = count - 1 if make is cases.together else count
            if seed < 2:
                yield Run(f"{make.__name__}-{count}-20dB", "rank", truth, seed, (make, case[1]), pool)
        for samples in _FEW:
            for snr in (20, 30, 40):
                few = cases.paper, (count, snr, seed, samples)
                truth = cases.paper(*few[1]).concentrations.shape[1]
                yield Run(f"few-{count}-in-{samples}-{snr}dB", "few", truth, seed, few, pool)


def _with_bound(run: Run) -> Iterator[Run]:
    """A run, and what could be found by one who knows the concentrations."""
    yield run
    yield run._replace(name=f"{run.name}-bound", group="others", options={}, method=cases.BOUND)


def _others(name: str, group: str, truth: int | None, seed: int, case: Any, methods: tuple[str, ...]) -> Iterator[Run]:
    """Other methods, told how many components there are and searching for it."""
    for method in methods:
        if truth is not None:
            yield Run(f"{name}-{method}", group, truth, seed, case, {}, method)
        yield Run(f"{name}-{method}-searched", group, truth, seed, case, {}, method)


def _sparse(count: int, snr: float, seed: int) -> cases.Case:
    return cases.paper(count, snr, seed, sparsity=0.9)


def _real(data: Path, seeds: int) -> Iterator[Run]:
    sets: list[tuple[Any, int | None, bool]] = [
        (cases.carbs, 3, False),
        (cases.nir, 2, True),
        (cases.als2004, 4, False),
    ]
    if importlib.util.find_spec("chemotools") is not None:
        sets += [(cases.coffee, None, False), (cases.fermentation, None, True)]
    for make, truth, signed in sets:
        case = make, (data,)
        options = {"pool_size": 128, "non_negative": not signed}
        for seed in range(seeds if truth is not None else min(seeds, 2)):
            yield Run(make.__name__, "real", truth, seed, case, options)
        if make is cases.carbs:
            for seed in range(seeds):
                yield Run("carbs-background", "real", truth, seed, case, {**options, "background": True})
        methods = tuple(method for method in cases.METHODS if not (signed and method == "NMF"))
        yield from _others(make.__name__, "real", truth, 0, case, methods)


def execute(run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The row of a run, and arrays for pictures."""
    make, arguments = run.case
    case = make(*arguments)
    if run.method not in ("EB-gMCR", TRAINED):
        worked = time.process_time()
        if run.method == cases.BOUND:
            components, concentrations, seconds = cases.known_concentrations(case)
        elif run.name.endswith("searched"):
            components, concentrations, seconds = cases.searched(run.method, case, run.seed)
        else:
            assert run.truth is not None
            components, concentrations, seconds = cases.baseline(run.method, case, run.truth, run.seed)
        worked = time.process_time() - worked
        row = {**cases.scores(case, components, concentrations), "seconds": seconds, "processor_seconds": worked}
        return row, {"components": components, "concentrations": concentrations}
    import spectrafuse as sf

    options = dict(run.options)
    if "noise" in options:
        options["noise"] *= case.noise
    begin, worked = time.perf_counter(), time.process_time()
    estimator = sf.EBgMCR(random_state=run.seed, **options).fit(case.spectra.astype(np.float32))
    seconds = time.perf_counter() - begin
    worked = time.process_time() - worked
    evidence = estimator.count_evidence_ or {}
    components, concentrations = estimator.components_.astype(float), estimator.C_opt_.astype(float)
    row = {
        **cases.scores(case, components, concentrations, estimator.background_row_),
        "seconds": seconds,
        "processor_seconds": worked,
        "epochs": estimator.n_iter_,
        "noise": estimator.noise_.sigma,
        "true_noise": case.noise,
        **{key: evidence.get(key) for key in ("trained_count", "rise", "rank_check", "residual_excess")},
        **{key: evidence.get(key) for key in ("residual_colour", "cautions", "path")},
    }
    return row, {"components": estimator.components_, "concentrations": estimator.C_opt_}


def quick_time(rows: Iterable[dict[str, Any]]) -> str:
    """A sentence: how many rows of `--quick` there are, and how long they took."""
    quick = {(run.name, run.seed) for run in runs(QUICK_GROUPS, (16,), 1, FOLDER)}
    taken = [row for row in rows if (row["name"], row["seed"]) in quick]
    minutes = sum(row.get("processor_seconds", row["seconds"]) for row in taken) / 60
    return f"Of `--quick`'s {len(quick)} rows, {len(taken)} are here after {minutes:.0f} minutes of one processor."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--counts", nargs="+", type=int, default=(16, 32, 64, 128, 256), help="true components")
    parser.add_argument("--data", type=Path, help="folder that holds carbs/, nir/ and als2004/")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--report", action="store_true", help="tables and pictures only")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "runs.jsonl"
    done = {(row["name"], row["seed"]) for row in history.read(file)} if file.is_file() else set()
    begin = time.perf_counter()
    groups, counts, seeds = tuple(arguments.only), tuple(arguments.counts), arguments.seeds
    if arguments.quick:
        groups, counts, seeds = tuple(group for group in groups if group in QUICK_GROUPS), (16,), 1
    for run in () if arguments.report else runs(groups, counts, seeds, arguments.data):
        if (run.name, run.seed) in done:
            continue
        if arguments.quick and time.perf_counter() - begin > QUICK_SECONDS:
            print("The time for --quick is over; the same command goes on.", file=sys.stderr)
            break
        values, arrays = execute(run)
        row = {
            **{"name": run.name, "group": run.group, "method": run.method, "truth": run.truth, "seed": run.seed},
            **values,
            "machine": measure.machine(),
        }
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        if run.group == "real" and run.seed == 0 and not run.name.endswith("searched"):
            np.savez_compressed(arguments.output / f"{run.name}.npz", **{k: np.float32(v) for k, v in arrays.items()})
        print(f"{run.name} seed {run.seed}: {row['count']} of {run.truth}, {row['seconds']:.0f} s", flush=True)
    if file.is_file():
        import paper_report

        rows = history.read(file)
        paper_report.write(arguments.output, rows, arguments.data, quick_time(rows))


if __name__ == "__main__":
    main()
