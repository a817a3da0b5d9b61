"""Tables and pictures from the rows of `paper_ebgmcr.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import paper_cases as cases

Row = dict[str, Any]

_HEAD = """# EB-gMCR: counts and components

Written by `python benchmarks/paper_ebgmcr.py` from `runs.jsonl`, a row a run with seed, versions and machine. "Found"
are true components with a partner at a cosine above 0.95. Seconds are wall time, and processor seconds beside them:
other processes were using the machine. A row names the commit that it ran at, which may be older. `untrained` starts
the refinement from one epoch of training.
"""


def write(folder: Path, rows: Sequence[Row], data: Path | None) -> None:
    """`README.md` and the pictures in a folder of results."""
    text = [_HEAD, *_synthetic_table(rows), *_real_table(rows), *_cautions(rows)]
    (folder / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    _curves(folder / "count_curves.png", rows)
    _times(folder / "seconds.png", rows)
    if data is not None and (folder / "carbs.npz").is_file():
        _carbs(folder, cases.carbs(data))


def _grouped(rows: Iterable[Row], real: bool) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if (row["group"] == "real") == real:
            groups[row["name"]].append(row)
    return groups


def _span(values: Iterable[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = (f"{value:.{digits}f}" for value in (min(known), max(known)))
    return low if low == high else f"{low} - {high}"


def _synthetic_table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| case | runs | true count | counts | exact | within 5 % | all found | least cosine | seconds | processor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in _grouped(rows, real=False).items():
        truth = runs[0]["truth"]
        off = [abs(run["count"] - truth) for run in runs]
        cells = [
            name,
            str(len(runs)),
            str(truth),
            ", ".join(str(run["count"]) for run in runs),
            f"{sum(o == 0 for o in off)} of {len(runs)}",
            f"{sum(o <= 0.05 * truth for o in off)} of {len(runs)}",
            f"{sum(run['found'] >= truth for run in runs)} of {len(runs)}",
            _span((min(run["cosines"]) for run in runs), 3),
            _span((run["seconds"] for run in runs), 0),
            _span((run.get("processor_seconds") for run in runs), 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _real_table(rows: Sequence[Row]) -> list[str]:
    groups = _grouped(rows, real=True)
    if not groups:
        return []
    lines = [
        "",
        "| real spectra | runs | true count | counts | cosines | concentration R2 (squared correlation) | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in groups.items():
        best = runs[0]
        cells = [
            name,
            str(len(runs)),
            "not known" if best["truth"] is None else str(best["truth"]),
            ", ".join(str(run["count"]) for run in runs),
            ", ".join(f"{value:.3f}" for value in best.get("cosines", [])) or "not known",
            ", ".join(f"{value:.3f}" for value in best["concentration_r2"]),
            _span((run["seconds"] for run in runs), 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nOther methods are told the true count, or (`searched`) look for the fewest components that fit to within a "
        "tenth of the noise level that EB-gMCR estimates, seconds of the search included. Cosines and R2 are those of "
        "the first seed; coffee's concentrations are its three origins, the fermentation's is glucose."
    )
    return lines


def _cautions(rows: Sequence[Row]) -> list[str]:
    told = {row["name"]: row.get("cautions") or [] for row in rows if row["group"] in ("rank", "real")}
    lines = ["", "What the estimator says it cannot tell:", ""] if any(told.values()) else []
    return lines + [f"- {name}: {' '.join(sentences)}" for name, sentences in told.items() if sentences]


def _figure(path: Path, size: tuple[float, float], columns: int = 1) -> tuple[Any, Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, axes, lambda: figure.savefig(path)


def _curves(path: Path, rows: Sequence[Row]) -> None:
    shown = [row for row in rows if row["group"] == "yardstick" and row["seed"] == 0 and row.get("path")]
    if not shown:
        return
    figure, axes, save = _figure(path, (4.2 * len(shown), 3.6), len(shown))
    for axis, row in zip(axes, shown, strict=True):
        near = [step for step in row["path"] if step["count"] <= 2 * row["truth"]]
        axis.plot([step["count"] for step in near], [1 - step["r2"] for step in near], ".-", color="#4477aa")
        for step in near:
            if step["chosen"]:
                axis.plot(step["count"], 1 - step["r2"], "o", color="#cc3311", label="chosen")
        axis.axvline(row["truth"], color="#888888", linewidth=0.8, label="true count")
        axis.set(title=row["name"], xlabel="components left open", yscale="log")
        axis.legend(frameon=False)
    axes[0].set_ylabel("1 - R²")
    figure.suptitle("Closing one component after another: what the fit loses")
    save()


def _times(path: Path, rows: Sequence[Row]) -> None:
    shown = [row for row in rows if row["group"] == "yardstick"]
    if not shown:
        return
    _, (axis,), save = _figure(path, (4.5, 3.4))
    axis.plot([row["truth"] for row in shown], [row["seconds"] for row in shown], "o", color="#4477aa", alpha=0.6)
    axis.set(xlabel="true components (pool four times as large)", ylabel="seconds", yscale="log", xscale="log")
    save()


def _carbs(folder: Path, case: cases.Case) -> None:
    from spectrafuse.mcr.matching import match_components, score_concentrations

    assert case.components is not None
    with np.load(folder / "carbs.npz") as arrays:
        components, concentrations = arrays["components"], arrays["concentrations"]
    match = match_components(components, case.components)
    count = len(match.true)
    _, axes, save = _figure(folder / "carbs_spectra.png", (4.5 * count, 3.2), count)
    for axis, found, true, cosine in zip(axes, match.found, match.true, match.cosine, strict=True):
        for values, label in ((case.components[true], "true"), (components[found], "found")):
            axis.plot(values / np.linalg.norm(values), label=label, linewidth=0.9)
        axis.set(title=f"cosine {cosine:.3f}", xlabel="channel")
        axis.legend(frameon=False)
    save()
    scale = score_concentrations(concentrations, case.concentrations, match).scale
    _, axes, save = _figure(folder / "carbs_concentrations.png", (3.2 * count, 3.2), count)
    for axis, found, true, factor in zip(axes, match.found, match.true, scale, strict=True):
        axis.plot(case.concentrations[:, true], factor * concentrations[:, found], "o", color="#4477aa")
        axis.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
        axis.set(xlabel="true", ylabel="found, scaled")
    save()
