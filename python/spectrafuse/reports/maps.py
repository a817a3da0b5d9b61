"""Pictures of a scene: pseudo-color, cluster map, true labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectrafuse.io.units import nanometers, unit_of
from spectrafuse.reports.style import (
    DPI,
    GRAY,
    LIGHT,
    PathLike,
    new_figure,
    palette,
    percent,
    shares,
    spectral_positions,
)

UNLABELED = (0.93, 0.93, 0.93)
# Larger scenes are thinned before they are drawn: a figure has far fewer pixels.
MOST_PIXELS = 1 << 24


def thinned_band(cube: Any, band: int, step: int) -> np.ndarray:
    """Every `step`-th row and column of a band.

    Parameters
    ----------
    cube : ndarray or Cube, shape (C, H, W)
        Of a scene in a file no more is held than the result.
    band : int
        Counted from 0.
    step : int
        At least 1.

    Returns
    -------
    ndarray, shape (H / step, W / step), float64
    """
    rows = step * max(1, MOST_PIXELS // (step * cube.shape[2]))
    starts = range(0, cube.shape[1], rows)
    parts = (np.asarray(cube[band : band + 1, y : y + rows])[0, ::step, ::step] for y in starts)
    return np.concatenate([part.astype(np.float64) for part in parts])


def pseudo_color(
    cube: Any, wavelengths: np.ndarray | None = None, *, unit: str | None = None, step: int = 1
) -> tuple[np.ndarray, str]:
    """A color picture of a cube, of every `step`-th row and column.

    With wavelengths that cover the visible range: the bands nearest 640, 550 and 460 nm; else three bands
    spread over the range, the longest as red. Each is stretched between its 2nd and 98th percentile (of the pixels
    with data, where the cube is a `Cube` that has others).

    Parameters
    ----------
    cube : ndarray or Cube, shape (C, H, W)
    wavelengths : ndarray, shape (C,), optional
    unit : str, optional
        Of the wavelengths; the likely one without it.
    step : int

    Returns
    -------
    picture : ndarray, shape (H / step, W / step, 3), float64
        Red, green, blue from 0 to 1.
    caption : str
        The bands it shows.
    """
    bands = cube.shape[0]
    shown_unit = unit_of(wavelengths, unit)
    light = None if wavelengths is None else nanometers(wavelengths, shown_unit)
    _, order = spectral_positions(wavelengths if light is None else light, bands)
    if light is not None and light.min() <= 500.0 and light.max() >= 620.0:
        chosen = [int(np.argmin(np.abs(light - target))) for target in (640.0, 550.0, 460.0)]
    else:
        chosen = [int(order[min(bands - 1, int(bands * share))]) for share in (0.8, 0.45, 0.15)]
    planes = [thinned_band(cube, band, step) for band in chosen]
    picture = np.empty((*planes[0].shape, 3), dtype=np.float64)
    valid = getattr(cube, "valid", None)
    valid = None if valid is None else valid[::step, ::step]
    for color, plane in enumerate(planes):
        shown = plane if valid is None or not valid.any() else plane[valid]
        low, high = np.percentile(shown, (2.0, 98.0))
        if high <= low:
            low, high = float(shown.min()), float(shown.max())
        picture[..., color] = np.clip((plane - low) / (high - low), 0.0, 1.0) if high > low else 0.5
    if wavelengths is None:
        names = [str(band + 1) for band in chosen]
        return picture, "bands {} (red), {} (green), {} (blue)".format(*names)
    names = [f"{float(wavelengths[band]):.4g} {shown_unit or ''}".rstrip() for band in chosen]
    return picture, "{} (red), {} (green), {} (blue)".format(*names)


def colored(labels: np.ndarray, colors: np.ndarray, unlabeled: int | None = None) -> np.ndarray:
    """Labels as a picture.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
    colors : ndarray, shape (k, 3)
        Of the labels 0 to k - 1; others are light gray.
    unlabeled : int, optional
        A label that is light gray too.

    Returns
    -------
    ndarray, shape (H, W, 3)
    """
    table = np.vstack((colors, UNLABELED))
    outside = (labels < 0) | (labels >= len(colors))
    if unlabeled is not None:
        outside |= labels == unlabeled
    return table[np.where(outside, len(colors), labels)]


def transparent(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) as (H, W, 4), transparent `where` that is true; itself where it is true nowhere."""
    return np.dstack((picture, np.where(where, 0.0, 1.0))) if where.any() else picture


def save_panels(
    path: PathLike,
    panels: Sequence[tuple[str, np.ndarray, str]],
    legend: Sequence[tuple[Any, str]],
    *,
    title: str = "",
) -> None:
    """Pictures in a row (wide scenes: in a column), with a legend beside them.

    Panel sizes are worked out in inches, so that any shape of scene and any number of legend rows fit.

    Parameters
    ----------
    path : path
        The PNG to write.
    panels : sequence of (str, ndarray, str)
        Title, picture of shape (H, W, 3) or (H, W, 4), and caption.
    legend : sequence of (color, str)
    title : str
        Above all panels.
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
        ax.set_xlabel(wrapped, fontsize=7.5, color=GRAY, loc="left")
    if legend:
        handles = [Patch(facecolor=color, edgecolor=GRAY, linewidth=0.4, label=text) for color, text in legend]
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
    unit: str | None = None,
    truth: np.ndarray | None = None,
    unlabeled: int | None = None,
    match: Mapping[int, int] | None = None,
    truth_names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """The scene in pseudo-color beside its cluster map and, if given, the true labels.

    Parameters
    ----------
    path : path
        The PNG to write.
    labels : ndarray of int, shape (H, W)
        Cluster of every pixel, 0 to k - 1; negative: no data, drawn transparent.
    cube : ndarray or Cube, shape (C, H, W)
    k : int
        Number of clusters.
    wavelengths : ndarray, shape (C,), optional
    unit : str, optional
        Of the wavelengths; the likely one without it.
    truth : ndarray of int, shape (H, W), optional
        True labels; a label takes the color of the cluster it is matched to, others get their own.
    unlabeled : int, optional
        The value in `truth` that means no label; drawn light gray.
    match : mapping of int to int, optional
        Cluster of each true label that has one.
    truth_names : sequence of str, optional
        Names of the labels 0, 1, ...
    title : str
        Above the panels.
    """
    part = shares(labels, k, labels >= 0)
    step = math.isqrt((labels.size - 1) // MOST_PIXELS) + 1
    picture, caption = pseudo_color(cube, wavelengths, unit=unit, step=step)
    labels, truth = labels[::step, ::step], None if truth is None else truth[::step, ::step]
    absent = labels < 0
    match = dict(match or {})
    true_values: list[int] = []
    if truth is not None:
        true_values = [int(v) for v in np.unique(truth) if v != unlabeled and v >= 0]
    alone = [value for value in true_values if value not in match]
    colors = palette(max(1, k + len(alone)))
    clusters = transparent(colored(labels, colors[:k]), absent)
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
        legend.append((colors[cluster], text))
    if truth is not None:
        table = np.tile(np.asarray(UNLABELED), (max(true_values, default=0) + 1, 1))
        for value in true_values:
            table[value] = colors[match[value]] if value in match else colors[k + alone.index(value)]
        note = "light gray: no label" if unlabeled is not None else ""
        panels.append(("true labels", colored(truth, table, unlabeled), note))
        legend += [(table[value], f"no cluster · {_label_name(value, truth_names)}") for value in alone]
    save_panels(path, panels, legend, title=title)


def _label_name(value: int, names: Sequence[str] | None) -> str:
    return names[value] if names is not None and value < len(names) else f"label {value}"
