"""Pictures of a scene: pseudo-colour, cluster map, true labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectrafuse.reports.style import (
    DPI,
    GREY,
    LIGHT,
    PathLike,
    new_figure,
    palette,
    percent,
    shares,
    spectral_positions,
    wavelength_label,
)

UNLABELLED = (0.93, 0.93, 0.93)
# Larger scenes are thinned before they are drawn: a figure has far fewer pixels.
MOST_PIXELS = 1 << 24


def thinned_band(cube: Any, band: int, step: int) -> np.ndarray:
    """Every `step`-th row and column of a band, float64; of a scene in a file no more is held."""
    rows = step * max(1, MOST_PIXELS // (step * cube.shape[2]))
    starts = range(0, cube.shape[1], rows)
    parts = (np.asarray(cube[band : band + 1, y : y + rows])[0, ::step, ::step] for y in starts)
    return np.concatenate([part.astype(np.float64) for part in parts])


def pseudo_colour(cube: Any, wavelengths: np.ndarray | None = None, *, step: int = 1) -> tuple[np.ndarray, str]:
    """A picture `(H, W, 3)` in 0..1 of a cube `(C, H, W)`, and a caption naming its bands.

    Of every `step`-th row and column.

    With wavelengths that cover the visible range: the bands nearest 640, 550 and 460 nm; else three bands
    spread over the range, the longest as red. Each is stretched between its 2nd and 98th percentile (of the pixels
    with data, where the cube is a `CubeSource` that has others).
    """
    bands = cube.shape[0]
    positions, order = spectral_positions(wavelengths, bands)
    unit = ""
    if wavelengths is not None:
        unit = {"wavelength (nm)": " nm", "wavelength (µm)": " µm"}.get(wavelength_label(wavelengths), "")
    nanometres = positions * (1000.0 if unit == " µm" else 1.0)
    if unit and nanometres[0] <= 500.0 and nanometres[-1] >= 620.0:
        chosen = [int(order[np.argmin(np.abs(nanometres - target))]) for target in (640.0, 550.0, 460.0)]
    else:
        chosen = [int(order[min(bands - 1, int(bands * share))]) for share in (0.8, 0.45, 0.15)]
    planes = [thinned_band(cube, band, step) for band in chosen]
    picture = np.empty((*planes[0].shape, 3), dtype=np.float64)
    valid = getattr(cube, "valid", None)
    valid = None if valid is None else valid[::step, ::step]
    for channel, plane in enumerate(planes):
        shown = plane if valid is None or not valid.any() else plane[valid]
        low, high = np.percentile(shown, (2.0, 98.0))
        if high <= low:
            low, high = float(shown.min()), float(shown.max())
        picture[..., channel] = np.clip((plane - low) / (high - low), 0.0, 1.0) if high > low else 0.5
    if wavelengths is None:
        names = [str(band + 1) for band in chosen]
        return picture, "bands {} (red), {} (green), {} (blue)".format(*names)
    names = [f"{float(wavelengths[band]):.4g}{unit}" for band in chosen]
    return picture, "{} (red), {} (green), {} (blue)".format(*names)


def coloured(labels: np.ndarray, colours: np.ndarray, unlabelled: int | None = None) -> np.ndarray:
    """Labels `(H, W)` as a picture `(H, W, 3)`; the unlabelled value and labels outside 0..k-1 light grey."""
    table = np.vstack((colours, UNLABELLED))
    outside = (labels < 0) | (labels >= len(colours))
    if unlabelled is not None:
        outside |= labels == unlabelled
    return table[np.where(outside, len(colours), labels)]


def transparent(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A picture `(H, W, 3)` as `(H, W, 4)` without colour in some places; itself where there are none."""
    return np.dstack((picture, np.where(where, 0.0, 1.0))) if where.any() else picture


def save_panels(
    path: PathLike,
    panels: Sequence[tuple[str, np.ndarray, str]],
    legend: Sequence[tuple[Any, str]],
    *,
    title: str = "",
) -> None:
    """Pictures `(title, (H, W, 3 or 4), caption)` in a row (wide scenes: in a column), with a legend outside them.

    Panel sizes are worked out in inches, so that any shape of scene and any number of legend rows fit.
    """
    from matplotlib.patches import Patch

    height, width = panels[0][1].shape[:2]
    aspect = min(12.0, max(1 / 12.0, width / height))
    stacked = aspect > 2.2
    panel_width = min(9.0, max(1.5, 4.4 * aspect)) if not stacked else 9.0
    panel_height = panel_width / aspect
    if panel_height > 8.0:
        panel_height, panel_width = 8.0, max(1.5, 8.0 * aspect)
    gap, head, foot, side = 0.3, 0.35, 0.5, 0.25
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    body = rows * (panel_height + head + foot)
    legend_rows = max(4, int(body / 0.19) - 1)
    legend_columns = math.ceil(len(legend) / legend_rows) if legend else 0
    longest = max((len(text) for _, text in legend), default=0)
    legend_width = legend_columns * (0.55 + 0.064 * longest)
    top = 0.45 if title else 0.0
    total_width = side + columns * (panel_width + gap) + legend_width + side
    total_height = body + top
    figure = new_figure(total_width, total_height)
    if title:
        figure.text(side / total_width, 1 - 0.28 / total_height, title, fontsize=12, weight="bold", va="center")
    for index, (name, picture, caption) in enumerate(panels):
        row, column = (index, 0) if stacked else (0, index)
        left = side + column * (panel_width + gap)
        bottom = total_height - top - (row + 1) * (panel_height + head + foot) + foot
        box = (
            left / total_width,
            bottom / total_height,
            panel_width / total_width,
            panel_height / total_height,
        )
        ax = figure.add_axes(box)
        shrinks = max(picture.shape[0] / (panel_height * DPI), picture.shape[1] / (panel_width * DPI)) > 1
        ax.imshow(picture, interpolation="antialiased" if shrinks else "nearest", aspect="auto")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color(LIGHT)
        ax.set_title(name, fontsize=10, loc="left")
        wrapped = textwrap.fill(caption, max(16, int(panel_width * 15)))
        ax.set_xlabel(wrapped, fontsize=7.5, color=GREY, loc="left")
    if legend:
        handles = [Patch(facecolor=colour, edgecolor=GREY, linewidth=0.4, label=text) for colour, text in legend]
        x = (side + columns * (panel_width + gap)) / total_width
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(x, 1 - (top + head) / total_height),
            ncols=legend_columns,
            fontsize=8,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handlelength=1.2,
            handleheight=1.0,
            labelspacing=0.35,
            columnspacing=1.2,
        )
    figure.savefig(path)


def save_map(
    path: PathLike,
    labels: np.ndarray,
    cube: Any,
    *,
    k: int,
    wavelengths: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    unlabelled: int | None = None,
    match: Mapping[int, int] | None = None,
    truth_names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """The scene in pseudo-colour beside its cluster map and, if given, the true labels.

    Parameters
    ----------
    labels : int array (H, W)
        Cluster of every pixel, 0 .. k-1; negative: no data, drawn transparent.
    cube : array (C, H, W) or `CubeSource`
    truth : int array (H, W), optional
        True labels; a label takes the colour of the cluster it is matched to, others get their own.
    unlabelled : int, optional
        The value in `truth` that means no label; drawn light grey.
    match : mapping of label to cluster, optional
    truth_names : names of the labels 0, 1, .., optional
    """
    part = shares(labels, k, labels >= 0)
    step = math.isqrt((labels.size - 1) // MOST_PIXELS) + 1
    picture, caption = pseudo_colour(cube, wavelengths, step=step)
    labels, truth = labels[::step, ::step], None if truth is None else truth[::step, ::step]
    absent = labels < 0
    match = dict(match or {})
    true_values: list[int] = []
    if truth is not None:
        true_values = [int(v) for v in np.unique(truth) if v != unlabelled and v >= 0]
    alone = [value for value in true_values if value not in match]
    colours = palette(max(1, k + len(alone)))
    clusters = transparent(coloured(labels, colours[:k]), absent)
    panels = [
        ("scene", transparent(picture, absent), caption),
        ("clusters", clusters, "transparent: no data" if absent.any() else ""),
    ]
    named = {cluster: value for value, cluster in match.items()}
    legend: list[tuple[Any, str]] = []
    for cluster in range(k):
        text = f"cluster {cluster} · {percent(part[cluster])}"
        if cluster in named and truth is not None:
            text += f" · {_label_name(named[cluster], truth_names)}"
        legend.append((colours[cluster], text))
    if truth is not None:
        table = np.tile(np.asarray(UNLABELLED), (max(true_values, default=0) + 1, 1))
        for value in true_values:
            table[value] = colours[match[value]] if value in match else colours[k + alone.index(value)]
        note = "light grey: no label" if unlabelled is not None else ""
        panels.append(("true labels", coloured(truth, table, unlabelled), note))
        legend += [(table[value], f"no cluster · {_label_name(value, truth_names)}") for value in alone]
    save_panels(path, panels, legend, title=title)


def _label_name(value: int, names: Sequence[str] | None) -> str:
    return names[value] if names is not None and value < len(names) else f"label {value}"
