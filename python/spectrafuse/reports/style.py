"""Pictures of a fit: the style all of them share, cluster spectra and training curves.

Every function takes plain arrays and writes one PNG. Figures are made with matplotlib's objects, never with
pyplot, so nothing global is touched and any thread may draw. The color of cluster i is
`spectrafuse.io.results.colors(k)[i]` in every picture.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse._runtime.text import in_picture
from spectrafuse.io.units import axis_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
GRAY = "#5f6368"
LIGHT = "#c9ccd1"
OVERLAY_LIMIT = 6
PathLike = str | os.PathLike[str]
_empty_pictures = ContextVar("empty_pictures", default=False)


@contextmanager
def empty_pictures() -> Iterator[None]:
    """Lay out all text of what is saved and leave an empty file: it shows whether names can be drawn."""
    token = _empty_pictures.set(True)
    try:
        yield
    finally:
        _empty_pictures.reset(token)


def palette(k: int) -> np.ndarray:
    """Colors of k clusters or components, ndarray of shape (k, 3), from 0 to 1."""
    from spectrafuse.io.results import colors

    rgb = np.asarray(colors(k))
    return rgb[:, :3] / 255.0 if np.issubdtype(rgb.dtype, np.integer) else rgb[:, :3].astype(float)


def new_figure(width: float, height: float, *, layout: Any = "none") -> Figure:
    """A white figure of the given size in inches, which draws names as they are: a dollar sign begins no formula."""
    return _figure_class()(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)


@cache
def _figure_class() -> type[Figure]:
    from matplotlib import figure
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    def texts(artist: Artist) -> Iterator[Text]:
        """All but the numbers at the axes, which are matplotlib's own: formulas where the scale is logarithmic."""
        if isinstance(artist, Text):
            yield artist
        parts = [artist.label, artist.offsetText] if isinstance(artist, Axis) else artist.get_children()
        for part in parts:
            yield from texts(part)

    class PlainFigure(figure.Figure):
        def savefig(self, fname: Any, **settings: Any) -> None:
            own = list(texts(self))
            for text in own:
                text.set_text(in_picture(text.get_text()))
            if _empty_pictures.get():
                renderer = FigureCanvasAgg(self).get_renderer()
                for text in own:
                    text.get_window_extent(renderer)
                Path(fname).touch()
                return
            engine = self.get_layout_engine()
            if engine is not None:  # else matplotlib draws all of it once more to lay it out
                engine.execute(self)
                self.set_layout_engine("none")
            super().savefig(fname, **settings)

    return PlainFigure


def tidy(ax: Axes, *, grid: bool = True) -> None:
    """Take away what only frames the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(LIGHT)
    ax.tick_params(colors=GRAY, labelsize=8)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#eceef1", linewidth=0.8)


def grid_shape(count: int, *, most_columns: int = 8) -> tuple[int, int]:
    """Rows and columns of `count` small panels, slightly wider than high."""
    columns = min(most_columns, max(1, count), max(3, math.ceil(math.sqrt(count * 1.2))))
    return max(1, math.ceil(count / columns)), columns


def panel_grid(
    count: int,
    shape: tuple[int, int],
    size: tuple[float, float],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    gap: tuple[float, float] = (0.5, 0.42),
    head: float = 0.32,
    right: float = 0.2,
    share: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of one size in inches, in rows and columns of the given shape.

    Margins are fixed in inches: an automatic layout takes seconds for 64 panels. `head` is the
    room for the titles of the top panels, `right` that beside the last ones. `share` shares both axes' limits;
    then only panels at the left and with none below have tick labels.
    """
    rows, columns = shape
    left, bottom = (0.85 if ylabel else 0.6), (0.65 if xlabel else 0.35)
    width = left + columns * size[0] + (columns - 1) * gap[0] + right
    heading = textwrap.wrap(title, max(20, int(width * 11)))
    top = head + 0.2 * len(heading)
    height = top + rows * size[1] + (rows - 1) * gap[1] + bottom
    figure = new_figure(width, height)
    if heading:
        text = "\n".join(heading)
        figure.text(0.15 / width, 1 - 0.08 / height, text, fontsize=10.5, ha="left", va="top")
    if xlabel:
        figure.text((left + (width - left - right) / 2) / width, 0.1 / height, xlabel, fontsize=9, ha="center")
    if ylabel:
        middle = (bottom + (height - bottom - top) / 2) / height
        figure.text(0.1 / width, middle, ylabel, fontsize=9, rotation=90, va="center")
    axes: list[Axes] = []
    for index in range(count):
        row, column = divmod(index, columns)
        x = left + column * (size[0] + gap[0])
        y = bottom + (rows - 1 - row) * (size[1] + gap[1])
        first = axes[0] if share and axes else None
        box = (x / width, y / height, size[0] / width, size[1] / height)
        ax = figure.add_axes(box, sharex=first, sharey=first)
        tidy(ax)
        if share:
            ax.tick_params(labelbottom=index + columns >= count, labelleft=column == 0)
        axes.append(ax)
    return figure, axes


def spectral_positions(axis: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the bands in rising order, and the order that sorts the bands.

    Sensors of several spectrometers overlap, so wavelengths in a file need not rise.
    """
    if axis is None:
        return np.arange(1, count + 1, dtype=float), np.arange(count)
    order = np.argsort(axis, kind="stable")
    return np.asarray(axis, dtype=float)[order], order


def gaps(x: np.ndarray) -> np.ndarray:
    """Indices before which a line must be broken: steps far wider than usual (removed absorption bands)."""
    steps = np.diff(x)
    if steps.size < 8:
        return np.empty(0, dtype=int)
    return np.flatnonzero(steps > 5.0 * np.median(steps)) + 1


def broken(x: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """x and value arrays with NaN inserted at gaps, so that no line bridges bands that were not measured."""
    at = gaps(x)
    return (np.insert(x, at, np.nan), *(np.insert(np.asarray(v, dtype=float), at, np.nan) for v in values))


def shares(labels: np.ndarray, k: int, valid: np.ndarray | None = None) -> np.ndarray:
    """Share of the pixels in each of k clusters, ndarray of shape (k,); `labels` and `valid` have shape (H, W)."""
    flat = labels[valid] if valid is not None else labels.reshape(-1)
    return np.bincount(flat.reshape(-1), minlength=k)[:k] / max(1, flat.size)


def percent(share: float) -> str:
    """A share from 0 to 1 in words: "none", "< 0.1 %" or "12.3 %"."""
    return "none" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def cluster_statistics(cube: Any, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Size, mean spectrum and standard deviation of each cluster.

    Parameters
    ----------
    cube : ndarray or Cube, shape (C, H, W)
        Read by blocks of rows.
    labels : ndarray of int, shape (H, W)
        Negative ones are left out.
    k : int
        Number of clusters.

    Returns
    -------
    pixels : ndarray of int, shape (k,)
    mean, std : ndarray, shape (k, C), float64
        NaN for clusters without pixels.
    """
    from spectrafuse.io.nodata import row_blocks

    pixels = np.bincount(labels[labels >= 0].reshape(-1), minlength=k)[:k]
    mean = np.full((k, cube.shape[0]), np.nan)
    std = np.full((k, cube.shape[0]), np.nan)
    present = np.flatnonzero(pixels)
    mean[present], std[present] = 0.0, 0.0
    # Means first: sums of squares would lose the variance of large numbers to rounding.
    for start, stop in row_blocks(cube.shape):
        block, part = np.asarray(cube[:, start:stop]), labels[start:stop]
        for cluster in present:
            mean[cluster] += block[:, part == cluster].astype(np.float64).sum(axis=1) / pixels[cluster]
    for start, stop in row_blocks(cube.shape):
        block, part = np.asarray(cube[:, start:stop]), labels[start:stop]
        for cluster in present:
            apart = block[:, part == cluster].astype(np.float64) - mean[cluster][:, None]
            std[cluster] += np.square(apart).sum(axis=1) / pixels[cluster]
    return pixels, mean, np.sqrt(std)


def save_cluster_spectra(
    path: PathLike,
    mean: np.ndarray,
    std: np.ndarray,
    pixels: np.ndarray,
    *,
    wavelengths: np.ndarray | None = None,
    unit: str | None = None,
    title: str = "Mean spectrum of each cluster (shaded: ± one standard deviation)",
) -> None:
    """Mean spectra, with one standard deviation shaded.

    Up to six clusters share one plot; more get a panel each, the other means in gray behind.

    Parameters
    ----------
    path : path
        The PNG to write.
    mean, std : ndarray, shape (k, C)
    pixels : ndarray of int, shape (k,)
        Size of each cluster; empty ones are left out.
    wavelengths : ndarray, shape (C,), optional
    unit : str, optional
        Of the wavelengths; the likely one without it.
    title : str
    """
    k, bands = mean.shape
    colors = palette(k)
    x, order = spectral_positions(wavelengths, bands)
    part = pixels / max(1, pixels.sum())
    present = np.flatnonzero(pixels)
    overlay = len(present) <= OVERLAY_LIMIT
    count = 1 if overlay else len(present)
    figure, axes = panel_grid(
        count,
        (1, 1) if overlay else grid_shape(count),
        (6.2, 3.6) if overlay else (1.75, 1.15),
        title=title,
        xlabel=axis_title(wavelengths, unit),
        ylabel="value (units of the file)",
        gap=(0.3, 0.4),
        share=True,
    )
    if overlay:
        # Room for the legend beside the plot.
        figure.set_figwidth(9.0)
        axes[0].set_position((0.85 / 9.0, axes[0].get_position().y0, 6.2 / 9.0, axes[0].get_position().height))
    behind = [broken(x, mean[cluster][order]) for cluster in present]
    separator = np.array([np.nan])
    gray = [np.concatenate([piece for line in behind for piece in (line[i], separator)]) for i in (0, 1)]
    style: dict[str, Any] = {"marker": "o", "markersize": 4} if bands == 1 else {}
    for panel, cluster in enumerate(present):
        ax = axes[0 if overlay else panel]
        xs, m, low, high = broken(x, mean[cluster][order], (mean - std)[cluster][order], (mean + std)[cluster][order])
        name = f"cluster {cluster} · {percent(part[cluster])}"
        if not overlay:
            ax.plot(*gray, color=LIGHT, linewidth=0.4)
            ax.set_title(name, fontsize=8, loc="left")
        ax.fill_between(xs, low, high, color=colors[cluster], alpha=0.2, linewidth=0)
        ax.plot(xs, m, color=colors[cluster], linewidth=1.6, label=name, **style)
    if overlay:
        axes[0].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
        axes[0].margins(x=0.01)
    figure.savefig(path)


def whole_numbers(ax: Axes, which: str = "x") -> None:
    """Tick labels without fractions."""
    from matplotlib.ticker import MaxNLocator

    (ax.xaxis if which == "x" else ax.yaxis).set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))


def save_curves(
    path: PathLike,
    history: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str] | None = None,
    logarithmic: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """One small panel per quantity of a training history, over epochs.

    Parameters
    ----------
    path : path
        The PNG to write.
    history : sequence of mapping
        One for each epoch. "epoch" is the horizontal axis where it is there; entries that are no numbers are left out.
    keys : sequence of str, optional
        Quantities to draw, in this order. Default: all.
    logarithmic : sequence of str
        Quantities drawn on a logarithmic scale, as far as they are positive.
    names : mapping of str to str, optional
        What quantities are called in the picture.
    title : str
    """
    names = names or {}
    if keys is None:
        keys = list(dict.fromkeys(key for row in history for key in row if key != "epoch"))
    series: dict[str, np.ndarray] = {}
    for key in keys:
        values = np.array([_number(row.get(key)) for row in history], dtype=float)
        # A term that is zero throughout takes no part in this training.
        if np.isfinite(values).any() and np.nanmax(np.abs(values)) > 0:
            series[key] = values
    epochs = np.array([_number(row.get("epoch", index + 1)) for index, row in enumerate(history)], dtype=float)
    shape = grid_shape(max(1, len(series)), most_columns=4)
    figure, axes = panel_grid(len(series), shape, (2.5, 1.55), title=title, xlabel="epoch", gap=(0.6, 0.5))
    for ax, (key, values) in zip(axes, series.items(), strict=True):
        few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 20 else {}
        ax.plot(epochs, values, color="#1f5fa8", linewidth=1.3, **few)
        if key in logarithmic and np.nanmin(values) > 0 and np.nanmax(values) > 10 * np.nanmin(values):
            ax.set_yscale("log")
        elif (values == np.round(values)).all():
            whole_numbers(ax, "y")
        ax.set_title(names.get(key, key.replace("_", " ")), fontsize=8.5, loc="left")
    figure.savefig(path)


def _number(value: Any) -> float:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value)
    return math.nan
