"""Tables of the README and the site, written from stored figures: `python benchmarks/figures.py [--check]`.

A table stands between `<!-- NAME, from FILE and FILE -->` and `<!-- end -->`; the files are what its figures are read
from. With `--check` nothing is written, and the exit code is 1 where a table is not what the stored figures give.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from spectrafuse.benchmarks import headline, history

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/kernels.md", "docs/guide/trust.md", "docs/scaling.md")
BLOCK = re.compile(r"<!-- ([a-z ]+), from ([^>]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)

Row = history.Row

SPEED = {
    ("training step published", "auto", "paper", "both"): "DGC, a training step of `published`",
    ("training step corrected", "auto", "paper", "both"): "DGC, a training step of `corrected`",
    ("scene inference", "auto", "paper", "forward"): "DGC, labels of a scene, 256 × 256 × 301",
    ("EB-gMCR epoch", "solver", "1024", "early"): "EB-gMCR, an epoch at its start, pool of 1024",
    ("EB-gMCR epoch", "solver", "1024", "late"): "EB-gMCR, an epoch at its end, pool of 1024",
}
"""Measured with the published code and good PyTorch in turns; the last two with the penalty and the evaluation."""


def speed(rows: Sequence[Row], unmixed: Sequence[Row], segmented: Sequence[Row]) -> list[str]:
    """Time of a step, an epoch and a scene's labels, and to the answer: here, published, and in good plain PyTorch."""
    found = history.latest(rows)
    lines = ["| | here ¹ | published code | good PyTorch |", "|---|---|---|---|"]
    for case, name in SPEED.items():
        row = found[case]
        ratios = (f"{_ratio(row[f'ratio_to_{other}'])} times as long" for other in ("reference", "torch"))
        lines.append(f"| {name} | {row['milliseconds']:.3g} ms | {' | '.join(ratios)} |")
    ours, trained = _of(unmixed, "paper-64-20dB"), _of(unmixed, "paper-64-20dB-trained")
    seconds = [f"{_range(runs, 'processor_seconds')} s, {_right(runs)} counts right" for runs in (ours, trained)]
    lines.append(f"| EB-gMCR, 64 components to the answer ² | {seconds[0]} | {seconds[1]} ³ | |")
    scenes = [
        [row for row in _of(segmented, "samson", "scene") if row["method"] == method and row["group"] == group]
        for method, group in (("default", "yardstick"), ("corrected", "yardstick"), ("published", "ablation"))
    ]
    seconds = [f"{_range(runs, 'processor_seconds')} s, mean IoU {_mean(runs):.2f}" for runs in scenes]
    lines.append(f"| DGC, Samson to the answer ² | {seconds[0]}; with a network {seconds[1]} | {seconds[2]} ⁴ | |")
    where = [_machine([found[case] for case in SPEED])]
    where += [
        _machine([row["machine"] for row in runs])
        for runs in ((*ours, *trained), [row for runs in scenes for row in runs])
    ]
    notes = [
        f"¹ On {where[0]}",
        f"² Processor seconds. Unmixing on {where[1]} Segmentation on {where[2]}",
        '³ `recipe="trained"`: networks as in the paper, trained on these kernels.',
        '⁴ `recipe="published"`: the published method on these kernels; every run ends in one cluster.',
    ]
    return [*lines, "", "<br>\n".join(notes)]


def segmentation(rows: Sequence[Row]) -> list[str]:
    """Mean IoU and seconds of k-means, the default and a network, and which of them to take."""
    lines = ["| scene | k-means | DGC, default | DGC, `network=True` | take |", "|---|---|---|---|---|"]
    shown = []
    for scene, name in (
        ("wheat", "wheat grains, 2 materials"),
        ("samson", "Samson, 3 materials"),
        ("moffett", "Moffett, 3 materials"),
        ("muufl", "MUUFL, 5 materials"),
        ("made_small", "made, clean, 4 materials"),
        ("made_noisy", "made, alike and noisy, 6 materials"),
        ("made_large", "made, noisy, 8 materials"),
        ("indian_pines", "Indian Pines, 16 classes"),
        ("made_largest", "made, 500 × 500, 10 materials"),
    ):
        runs = {
            method: [row for row in _of(rows, scene, "scene", "yardstick") if row["method"] == method]
            for method in ("k-means", "default", "corrected")
        }
        shown += [*runs["default"], *runs["corrected"]]
        scores = {method: _mean(runs[method]) for method in runs}
        clocks = {method: "seconds" if method == "k-means" else "processor_seconds" for method in runs}
        cells = [f"{scores[method]:.2f} in {_range(runs[method], clocks[method])} s" for method in runs]
        take = "DGC" if scores["default"] > scores["k-means"] + 0.02 else "either"
        if scores["corrected"] > scores["default"] + 0.02:
            take = "DGC, `network=True`"
        lines.append(f"| {name} | {' | '.join(cells)} | {take} |")
    return [
        *lines,
        "",
        _machine(
            [row["machine"] for row in shown],
            "mean IoU over the seeds and seconds (of DGC those of the processor), on ",
        ),
    ]


def unmixing(rows: Sequence[Row]) -> list[str]:
    """Counts and least cosines of MCR-ALS, told the count and searching for it, and of the default."""
    lines = [
        "| spectra | MCR-ALS, told the count | MCR-ALS, searching | EB-gMCR, default | take |",
        "|---|---|---|---|---|",
    ]
    shown = []
    for names, title in (
        (("16-20dB-MCR-ALS", "paper-16-20dB"), "16 random components, 20 dB"),
        (("32-20dB-MCR-ALS", "paper-32-20dB"), "32 random components, 20 dB"),
        (("carbs-MCR-ALS", "carbs"), "Raman, 3 carbohydrates"),
        (("carbs-MCR-ALS", "carbs-background"), "the same, `background=True` here"),
        (("als2004-MCR-ALS", "als2004"), "chromatograms, 4 substances"),
    ):
        told, searched, ours = _of(rows, names[0]), _of(rows, f"{names[0]}-searched"), _of(rows, names[1])
        shown += ours
        cells = [_found(told), f"{_right(searched)} right, {_found(searched)}", f"{_right(ours)} right, {_found(ours)}"]
        best = {name: min(min(row["cosines"]) for row in runs) for name, runs in (("MCR-ALS", told), ("EB-gMCR", ours))}
        gain = best["EB-gMCR"] - best["MCR-ALS"]
        take = "either" if abs(gain) < 0.002 else "EB-gMCR" if gain > 0 else "MCR-ALS, if the count is known"
        lines.append(f"| {title} | {' | '.join(cells)} | {take} |")
    words = "the least cosine with a true spectrum over the seeds, and processor seconds, on "
    return [*lines, "", _machine([row["machine"] for row in shown], words)]


def kernels(rows: Sequence[Row]) -> list[str]:
    """Both mean shifts at their published size, and how near their bound they are."""
    published = [row for row in headline.published(rows) if "mean_shift" in row["operation"]]
    lines = ["| | ms | published code | good PyTorch | peak MB | of the bound |", "|---|---|---|---|---|---|"]
    for row in published:
        ratios = (f"{_ratio(row[f'ratio_to_{other}'])} x" for other in ("reference", "torch"))
        share = f"{row['share_of_bound']:.0%} ({row['bound']})"
        cells = [f"{row['milliseconds']:.3g}", *ratios, f"{row['peak_memory_mb']:.3g}", share]
        lines.append(f"| `{row['operation']}`, {row['direction']} | {' | '.join(cells)} |")
    return [*lines, "", _machine(published)]


def scaling(rows: Sequence[Row]) -> list[str]:
    """Seconds and memory by the size of a scene in a file."""
    lines = ["| scene | file | labels in | memory for them | a training step | memory for training |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        seconds, memory = (f"{row['predict_seconds']:.2g} s", f"{row['predict_bytes'] / 2**20:.0f} MiB")
        step, training = f"{row['step_seconds']:.2g} s", f"{row['train_bytes'] / 2**20:.0f} MiB"
        size = f"{row['side']} × {row['side']} × {row['bands']} | {row['file_bytes'] / 2**20:.0f} MiB"
        lines.append(f"| {size} | {seconds} | {memory} | {step} | {training} |")
    return [*lines, "", _machine(rows)]


TABLES: dict[str, Callable[..., list[str]]] = {
    "speed": speed,
    "segmentation": segmentation,
    "unmixing": unmixing,
    "kernels": kernels,
    "scaling": scaling,
}


def _of(rows: Sequence[Row], name: str, key: str = "name", group: str | None = None) -> list[Row]:
    found = [row for row in rows if row.get(key) == name and group in (None, row["group"])]
    if not found:
        raise ValueError(f"There is no stored run of {name}.")
    return found


def _mean(runs: Sequence[Row]) -> float:
    return statistics.mean(row["mean_iou"] for row in runs)


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _right(runs: Sequence[Row]) -> str:
    return f"{sum(row['count'] == row['truth'] for row in runs)} of {len(runs)}"


def _found(runs: Sequence[Row]) -> str:
    return f"{min(min(row['cosines']) for row in runs):.3f} in {_range(runs, 'processor_seconds')} s"


def _range(runs: Sequence[Row], key: str) -> str:
    """Both ends, or one number where they are shown alike."""
    ends = [f"{end:.2f}" if end < 0.1 else f"{end:.1f}" if end < 9.95 else f"{end:.0f}" for end in _ends(runs, key)]
    return " to ".join(dict.fromkeys(ends))


def _ends(runs: Sequence[Row], key: str) -> tuple[float, float]:
    values = [row[key] for row in runs]
    return min(values), max(values)


def _machine(rows: Sequence[Row], words: str = "") -> str:
    """Where rows were taken, as a line under a table."""
    facts = [
        ", ".join(dict.fromkeys(str(row[key]) for row in rows))
        for key in ("processor", "instruction_set", "threads", "torch", "commit")
    ]
    processor, instructions, threads, torch, commits = facts
    line = f"{words}{processor}; {instructions}; threads: {threads}; torch {torch}; commit {commits}."
    return line[0].upper() + line[1:]


def renewed(text: str, root: Path = ROOT) -> str:
    """A page with its tables as the stored figures give them."""

    def table(match: re.Match[str]) -> str:
        name, files, _ = match.groups()
        lines = TABLES[name](*(history.read(root / file) for file in files.split(" and ")))
        return f"<!-- {name}, from {files} -->\n" + "\n".join(lines) + "\n<!-- end -->\n"

    return BLOCK.sub(table, text)


def outdated(root: Path = ROOT) -> dict[Path, str]:
    """Pages whose tables are not what the stored figures give, and what they should be."""
    pages = {root / page: (root / page).read_text(encoding="utf-8") for page in PAGES}
    texts = {page: renewed(text, root) for page, text in pages.items()}
    return {page: text for page, text in texts.items() if text != pages[page]}


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or say which are not right."""
    found = outdated()
    for page, text in found.items():
        print(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(text, encoding="utf-8")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
