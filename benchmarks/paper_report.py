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
other processes were using the machine, and runs were halted for minutes at times, so that the latter are what counts. A
row names the commit that it ran at, which may be older. `trained` is `recipe="trained"`, whose networks give the
candidates that the default takes from the spectra. `bound` is least squares from the true concentrations: no method
that has to find them can be expected to come closer, and a component that occurs in few spectra keeps much of their
noise.
"""


_GROUPS = {
    "yardstick": "the paper's mixtures, a pool of 4 times the truth",
    "few": "16 components in 24, 28, 32 and 40 spectra",
    "pool": "the same, a pool of 1024",
    "noise": "noise given: half, exact, double",
    "correlated": "components at cosines of 0.8 to 0.9",
    "sparse": "sparse components (90 % zeros)",
    "rank": "what the rank cannot tell",
}


def write(folder: Path, rows: Sequence[Row], data: Path | None, quick: str) -> None:
    """`README.md` and the pictures in a folder of results; `quick` says how long `--quick` takes."""
    text = [
        _HEAD,
        *_summary(rows),
        *_trained_table(rows),
        *_synthetic_table(rows),
        *_real_table(rows),
        *_cautions(rows),
    ]
    text += ["", quick, "", *(f"![{path.stem}]({path.name})" for path in sorted(folder.glob("*.png")))]
    (folder / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    _curves(folder / "count_curves.png", rows)
    _times(folder / "seconds.png", rows)
    if data is not None and (folder / "carbs.npz").is_file():
        _carbs(folder, cases.carbs(data))


def _grouped(rows: Iterable[Row], real: bool) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    order = list(_GROUPS)
    for row in sorted(rows, key=lambda row: order.index(row["group"]) if row["group"] in order else len(order)):
        if row["group"] != "trained" and (row["group"] == "real") == real:
            groups[row["name"]].append(row)
    return groups


def _span(values: Iterable[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = (f"{value:.{digits}f}" for value in (min(known), max(known)))
    return low if low == high else f"{low} - {high}"


def _scored(runs: Sequence[Row]) -> list[str]:
    """In how many runs the count is exact, within 5 %, and all components are found, at cosines of 0.95 and 0.99."""
    hits = [
        [run["count"] == run["truth"] for run in runs],
        [abs(run["count"] - run["truth"]) <= 0.05 * run["truth"] for run in runs],
        [run["found"] >= run["truth"] for run in runs],
        [run["found_99"] >= run["truth"] for run in runs],
    ]
    return [f"{sum(hit)} of {len(runs)}" for hit in hits]


def _summary(rows: Sequence[Row]) -> list[str]:
    lines = ["| | exact | within 5 % | all found | all above 0.99 |", "|---|---|---|---|---|"]
    for group, words in _GROUPS.items():
        for noise in ("20dB", "30dB", "40dB"):
            runs = [row for row in rows if row["group"] == group and noise in row["name"]]
            if runs:
                lines.append("| " + " | ".join([f"{words}, {noise[:2]} dB", *_scored(runs)]) + " |")
    return [*lines, ""]


def _trained_table(rows: Sequence[Row]) -> list[str]:
    """The default beside the recipe with training, over the seeds that both have."""
    by_name: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        by_name[row["name"]][row["seed"]] = row
    lines = []
    for name, trained in by_name.items():
        base = by_name.get(name.removesuffix("-trained"), {})
        seeds = sorted(trained.keys() & base.keys())
        if not name.endswith("-trained") or not seeds:
            continue
        cells = [name.removesuffix("-trained"), "" if base[seeds[0]]["truth"] is None else str(base[seeds[0]]["truth"])]
        for found in (base, trained):
            runs = [found[seed] for seed in seeds]
            cells += [
                ", ".join(str(run["count"]) for run in runs),
                _span((min(run["cosines"]) for run in runs if run.get("cosines")), 3),
                _span((run.get("processor_seconds") for run in runs), 1),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return []
    head = (
        "| case | true count | counts | least cosine | processor seconds | counts, trained | least cosine, trained "
        "| processor seconds, trained |"
    )
    return ["Without and with training, the same seeds:", "", head, "|---|---|---|---|---|---|---|---|", *lines, ""]


def _synthetic_table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| case | true count | counts | exact | within 5 % | all found | all above 0.99 | least cosine "
        "| least concentration R2 | seconds | processor |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in _grouped(rows, real=False).items():
        cells = [
            name,
            str(runs[0]["truth"]),
            ", ".join(str(run["count"]) for run in runs),
            *_scored(runs),
            _span((min(run["cosines"]) for run in runs), 3),
            _span((min(run["concentration_r2"]) for run in runs), 3),
            _span((run["seconds"] for run in runs), 1),
            _span((run.get("processor_seconds") for run in runs), 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _real_table(rows: Sequence[Row]) -> list[str]:
    groups = _grouped(rows, real=True)
    if not groups:
        return []
    lines = [
        "",
        "| real spectra | true count | counts | cosines | least of each seed "
        "| concentration R2 (squared correlation) | seconds | processor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in groups.items():
        best = runs[0]
        cells = [
            name,
            "not known" if best["truth"] is None else str(best["truth"]),
            ", ".join(str(run["count"]) for run in runs),
            ", ".join(f"{value:.3f}" for value in best.get("cosines", [])) or "not known",
            ", ".join(f"{min(run['cosines']):.3f}" for run in runs if run.get("cosines")),
            ", ".join(f"{value:.3f}" for value in best["concentration_r2"]),
            _span((run["seconds"] for run in runs), 1),
            _span((run.get("processor_seconds") for run in runs), 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nOther methods are told the true count, or (`searched`) look for the fewest components that fit to within a "
        "tenth of the noise that EB-gMCR estimates for each degree of freedom left, seconds of the search included. "
        "Cosines and R2 are those of the first seed, the least cosine that of each; coffee's concentrations are its "
        "three origins, the fermentation's is glucose."
    )
    return lines


def _cautions(rows: Sequence[Row]) -> list[str]:
    told = {row["name"]: row.get("cautions") or [] for row in rows if row["group"] in ("rank", "real")}
    lines = ["", "What the estimator says it cannot tell:", ""] if any(told.values()) else []
    return lines + [f"- {name}: {' '.join(sentences)}" for name, sentences in told.items() if sentences]


def _figure(path: Path, size: tuple[float, float], columns: int = 1, lines: int = 1) -> tuple[Any, Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    return figure, axes, lambda: figure.savefig(path)


def _curves(path: Path, rows: Sequence[Row]) -> None:
    names = {"carbs", "als2004", *(row["name"] for row in rows if row["group"] == "yardstick")}
    shown = [row for row in rows if row["name"] in names and row["seed"] == 0 and row.get("path")]
    if not shown:
        return
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes, save = _figure(path, (4.0 * columns, 3.2 * lines), columns, lines)
    for axis, row in zip(axes, shown, strict=False):
        near = [step for step in row["path"] if step["count"] <= 2 * row["truth"]]
        axis.plot([step["count"] for step in near], [1 - step["r2"] for step in near], ".-", color="#4477aa")
        for step in near:
            if step["chosen"]:
                axis.plot(step["count"], 1 - step["r2"], "o", color="#cc3311", label="chosen")
        axis.axvline(row["truth"], color="#888888", linewidth=0.8, label="true count")
        axis.set(title=row["name"], xlabel="components left open", ylabel="1 - R²", yscale="log")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
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
        axis.set(title=f"cosine {cosine:.3f}", xlabel="band")
        axis.legend(frameon=False)
    save()
    scale = score_concentrations(concentrations, case.concentrations, match).scale
    _, axes, save = _figure(folder / "carbs_concentrations.png", (3.2 * count, 3.2), count)
    for axis, found, true, factor in zip(axes, match.found, match.true, scale, strict=True):
        axis.plot(case.concentrations[:, true], factor * concentrations[:, found], "o", color="#4477aa")
        axis.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
        axis.set(xlabel="true", ylabel="found, scaled")
    save()
