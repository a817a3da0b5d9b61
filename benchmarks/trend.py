"""A page that shows how the figures of a machine moved from version to version."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks.history import Row, case_of

FIGURES = {"ratio_to_torch": "times as fast as PyTorch", "ratio_to_reference": "times as fast as the published code"}
_OURS = ("cpu", "triton", "cuda", "auto", "solver")


def series(rows: Iterable[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Rows of every case of ours that was timed, in their order."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["implementation"] in _OURS and FIGURES.keys() & row.keys():
            found.setdefault(case_of(row), []).append(row)
    return found


def write(rows: Sequence[Row], folder: Path, title: str) -> list[Path]:
    """Write `trend.png` and `trend.html` into a folder.

    Raises
    ------
    ValueError
        Where no row has a time.
    """
    found = series(rows)
    if not found:
        raise ValueError("No timed figures to show: `spectrafuse-bench run` makes some.")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "trend.png", folder / "trend.html"]
    files[0].write_bytes(_picture(found, title))
    files[1].write_text(_page(found, title, files[0].name), encoding="utf-8")
    return files


def _picture(found: dict[tuple[str, ...], list[Row]], title: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    operations = sorted({case[0] for case in found})
    columns = min(4, len(operations))
    lines = math.ceil(len(operations) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * lines + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, operation in zip(axes, operations, strict=False):
        for case, rows in found.items():
            if case[0] == operation:
                _line(axis, rows, " ".join(case[2:]))
        axis.set_title(operation, fontsize=9)
        axis.set_yscale("log")
        axis.axhline(1.0, color="0.6", linewidth=0.8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    for axis in axes[len(operations) :]:
        axis.set_axis_off()
    figure.suptitle(f"{title}: {FIGURES['ratio_to_torch']}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _line(axis: Any, rows: Sequence[Row], label: str) -> None:
    shown = [(str(row.get("commit", "")), row["ratio_to_torch"]) for row in rows if "ratio_to_torch" in row]
    if shown:
        axis.plot(range(len(shown)), [ratio for _, ratio in shown], marker="o", markersize=3, label=label)
        axis.set_xticks(range(len(shown)), [commit for commit, _ in shown], rotation=30)


def _page(found: dict[tuple[str, ...], list[Row]], title: str, picture: str) -> str:
    header = "".join(f"<th>{name}</th>" for name in ("case", "commit", "ms", *FIGURES.values(), "share of the bound"))
    body = "".join(_cells(case, row) for case, rows in sorted(found.items()) for row in rows)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.2em .8em;"
        "text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
        "img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><img alt='ratios' src='{picture}'>"
        f"<table><tr>{header}</tr>{body}</table></html>"
    )


def _cells(case: tuple[str, ...], row: Row) -> str:
    values = [" ".join(case), str(row.get("commit", "")), _number(row, "milliseconds")]
    values += [_number(row, figure) for figure in FIGURES]
    values.append(f"{row['share_of_bound']:.0%}" if "share_of_bound" in row else "")
    return "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in values) + "</tr>"


def _number(row: Row, key: str) -> str:
    return f"{row[key]:.3g}" if key in row else ""
