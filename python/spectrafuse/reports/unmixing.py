"""Pictures of an unmixing: components, concentrations, and the count of components against R2."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectrafuse.reports.style import (
    GRAY,
    LIGHT,
    PathLike,
    broken,
    grid_shape,
    new_figure,
    palette,
    panel_grid,
    spectral_positions,
    tidy,
    whole_numbers,
)

MOST_PANELS = 64
MOST_RESIDUALS = 200
MOST_MAP_PIXELS = 1000
TRUE_STYLE: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 3}
CHOSEN = "#d1495b"


def _largest(weights: np.ndarray) -> np.ndarray:
    """At most MOST_PANELS indices, those of the largest weights, in rising order."""
    return np.sort(np.argsort(-weights, kind="stable")[:MOST_PANELS])


def _title(text: str, shown: int, total: int) -> str:
    return text if shown == total else f"{text} (the {shown} of largest concentration out of {total})"


def save_components(
    path: PathLike,
    components: np.ndarray,
    *,
    axis: np.ndarray | None = None,
    axis_label: str = "band number",
    falling: bool = False,
    names: Sequence[str] | None = None,
    weights: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    match: Mapping[int, tuple[int, float]] | None = None,
    truth_names: Sequence[str] | None = None,
) -> None:
    """Every component spectrum in a panel of its own.

    Parameters
    ----------
    path : path
        The PNG to write.
    components : ndarray, shape (n, d)
    axis : ndarray, shape (d,), optional
        Wavelengths or the like.
    axis_label : str
    falling : bool
        Whether the axis is drawn from large to small, as that of IR spectra is.
    names : sequence of str, optional
        Names of the components.
    weights : ndarray, shape (n,), optional
        Mean concentrations: which 64 to show where there are more.
    truth : ndarray, shape (m, d), optional
        True spectra, drawn dashed over the component each is matched to, scaled to fit it.
    match : mapping of int to (int, float), optional
        Row of the true spectrum that each component is matched to, and their cosine.
    truth_names : sequence of str, optional
        Names of the true spectra.
    """
    n = len(components)
    if n == 0:
        _save_note(path, "No component was found.")
        return
    shown = _largest(weights if weights is not None else np.linalg.norm(components, axis=1))
    colors = palette(n)
    x, order = spectral_positions(axis, components.shape[1])
    shape = grid_shape(len(shown), most_columns=6 if len(shown) > 12 else 3)
    figure, axes = panel_grid(
        len(shown),
        shape,
        (6.5 if len(shown) == 1 else 2.9 if shape[1] <= 3 else 2.3, 1.4),
        title=_title("Component spectra", len(shown), n),
        xlabel=axis_label,
        ylabel="intensity",
    )
    dashed = None
    for ax, index in zip(axes, shown, strict=True):
        found = components[index]
        text = names[index] if names is not None else f"component {index}"
        if match is not None and truth is not None and index in match:
            true_index, cosine = match[index]
            true = truth[true_index]
            scale = float(found @ true) / max(float(true @ true), 1e-30)
            (dashed,) = ax.plot(*broken(x, scale * true[order]), **TRUE_STYLE)
            text += f" · cosine {cosine:.3f} with {_name(true_index, truth_names)}"
        width = 1.3 if len(found) <= 500 else 0.8
        ax.plot(*broken(x, found[order]), color=colors[index], linewidth=width)
        ax.set_title(text, fontsize=8, loc="left")
        ax.margins(x=0.01)
        if falling:
            ax.invert_xaxis()
    if dashed is not None:
        figure.legend([dashed], ["true spectrum, scaled"], loc="upper right", frameon=False, fontsize=8)
    figure.savefig(path)


def _name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names is not None else f"true {index}"


def save_concentrations(
    path: PathLike,
    concentrations: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    sample_label: str = "spectrum number",
    positions: np.ndarray | None = None,
    runs: Sequence[tuple[str, int]] = (),
) -> None:
    """Concentrations over the samples: lines for few components, a heat map for many.

    Parameters
    ----------
    path : path
        The PNG to write.
    concentrations : ndarray, shape (n, m)
        One sample a row, one component a column.
    names : sequence of str, optional
        Names of the components.
    sample_label : str
        What the spectra stand along.
    positions : ndarray, shape (n,), optional
        Time, pH or the like of each spectrum; without it they are counted from 1.
    runs : sequence of (str, int)
        Names of runs that stand one after another, and how many spectra each has: a line of its own for each.
    """
    samples, n = concentrations.shape
    if n == 0:
        _save_note(path, "No component was found, so there are no concentrations.")
        return
    labels = list(names) if names is not None else [f"component {i}" for i in range(n)]
    if n > 12 or (samples > 400 and positions is None):
        _save_heat_map(path, concentrations, labels, sample_label)
        return
    colors = palette(n)
    figure, axes = panel_grid(
        n,
        (n, 1),
        (7.2, 0.85),
        title="Concentration of each component",
        xlabel=sample_label,
        ylabel="concentration",
    )
    x = np.arange(1, samples + 1) if positions is None else positions
    ends = np.cumsum([size for _, size in runs] or [samples])
    for index, ax in enumerate(axes):
        values = concentrations[:, index]
        markers: dict[str, Any] = {"marker": "o", "markersize": 3.5} if samples <= 80 else {}
        for first, end in zip((0, *ends), ends, strict=False):
            order = first + np.argsort(x[first:end], kind="stable")
            ax.plot(x[order], values[order], color=colors[index], linewidth=1.1, **markers)
        for (name, _), first in zip(runs, (0, *ends), strict=False):
            ax.axvline(first + 0.5, color=LIGHT, linewidth=0.8, zorder=0)
            if index == 0:
                ax.annotate(
                    name, (first + 0.7, 1), xycoords=("data", "axes fraction"), va="top", fontsize=7, color=GRAY
                )
        ax.set_ylim(bottom=min(0.0, float(values.min())))
        ax.set_title(labels[index], fontsize=8, loc="left")
        ax.tick_params(labelbottom=index == n - 1)
        if positions is None:
            whole_numbers(ax)
    figure.savefig(path)


def _save_heat_map(path: PathLike, concentrations: np.ndarray, labels: list[str], sample_label: str) -> None:
    shown = _largest(concentrations.mean(axis=0))
    figure = new_figure(9.5, max(3.5, 1.3 + 0.2 * len(shown)), layout="constrained")
    figure.suptitle(
        _title("Concentration of each component", len(shown), concentrations.shape[1]),
        fontsize=11,
        x=0.01,
        ha="left",
    )
    ax = figure.subplots()
    samples = len(concentrations)
    image = ax.imshow(
        concentrations[:, shown].T,
        aspect="auto",
        interpolation="nearest" if samples < 1000 else "antialiased",
        cmap="viridis",
        extent=(0.5, samples + 0.5, len(shown) - 0.5, -0.5),
    )
    ax.set_yticks(np.arange(len(shown)), [labels[i] for i in shown], fontsize=7)
    ax.set_xlabel(sample_label, fontsize=9)
    ax.tick_params(colors=GRAY, labelsize=7)
    whole_numbers(ax)
    figure.colorbar(image, ax=ax, label="concentration", shrink=0.9)
    figure.savefig(path)


def save_against_truth(
    path: PathLike,
    concentrations: np.ndarray,
    truth: np.ndarray,
    match: Mapping[int, int],
    *,
    scores: Mapping[int, str] | None = None,
    names: Sequence[str] | None = None,
    truth_names: Sequence[str] | None = None,
) -> None:
    """Matched components against their true concentrations, each scaled by one positive factor.

    Parameters
    ----------
    path : path
        The PNG to write.
    concentrations : ndarray, shape (n, m)
        One sample a row, one component a column.
    truth : ndarray, shape (n, t)
        True concentrations.
    match : mapping of int to int
        Column of `truth` that each component is matched to.
    scores : mapping of int to str, optional
        A short text for the title of a component.
    names, truth_names : sequence of str, optional
        Names of the columns.
    """
    scores = scores or {}
    pairs = sorted(match.items(), key=lambda pair: pair[1])[:MOST_PANELS]
    colors = palette(concentrations.shape[1])
    figure, axes = panel_grid(
        len(pairs),
        grid_shape(len(pairs), most_columns=4),
        (2.4, 2.4),
        title="Found against true concentrations",
        gap=(0.75, 0.95),
        head=0.5,
        xlabel=" ",
    )
    for ax, (component, column) in zip(axes, pairs, strict=True):
        true, found = truth[:, column], concentrations[:, component]
        scale = max(0.0, float(found @ true)) / max(float(found @ found), 1e-30)
        top = 1.06 * max(float(true.max()), float((scale * found).max()), 1e-30)
        ax.plot([0, top], [0, top], color=LIGHT, linewidth=1.0, zorder=1)
        ax.scatter(
            true, scale * found, s=18, color=colors[component], edgecolor="white", lw=0.4, zorder=2, clip_on=False
        )
        text = names[component] if names is not None else f"component {component}"
        text += f" as {_name(column, truth_names)}"
        if component in scores:
            text += f"\n{scores[component]}"
        ax.set_title(text, fontsize=8, loc="left")
        ax.set(xlim=(0, top), ylim=(min(0.0, float((scale * found).min())), top), aspect="equal")
        ax.set_xlabel(f"true {_name(column, truth_names)}", fontsize=8)
        ax.set_ylabel("found, scaled by one factor", fontsize=8)
    figure.savefig(path)


def save_residuals(
    path: PathLike,
    data: np.ndarray,
    reconstruction: np.ndarray,
    *,
    axis: np.ndarray | None = None,
    axis_label: str = "band number",
    falling: bool = False,
    sample_label: str = "spectrum number",
    positions: np.ndarray | None = None,
    lack_of_fit: float,
) -> None:
    """What the components leave unexplained: residual spectra, and the lack of fit of every spectrum.

    Parameters
    ----------
    path : path
        The PNG to write.
    data, reconstruction : ndarray, shape (n, d)
        NaN in the data: a value that is missing.
    axis, axis_label, falling
        As in `save_components`.
    sample_label, positions
        As in `save_concentrations`.
    lack_of_fit : float
        Of all spectra, in percent.
    """
    absent = np.isnan(data)
    residual, data = np.where(absent, 0.0, data - reconstruction.astype(np.float64)), np.where(absent, 0.0, data)
    x, order = spectral_positions(axis, data.shape[1])
    figure = new_figure(8.0, 5.6, layout="constrained")
    title = f"Residuals (data minus reconstruction), lack of fit {lack_of_fit:.3g} %"
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    upper, lower = figure.subplots(2, 1)
    largest = np.argsort(-(residual**2).sum(axis=1), kind="stable")[:MOST_RESIDUALS]
    for row in largest:
        upper.plot(*broken(x, residual[row, order]), color=LIGHT, linewidth=0.6)
    rms = np.sqrt((residual**2).sum(axis=0) / np.maximum((~absent).sum(axis=0), 1))
    upper.plot(*broken(x, rms[order]), color="#1f5fa8", linewidth=1.3, label="root mean square")
    upper.axhline(0.0, color=GRAY, linewidth=0.6)
    upper.legend(loc="upper right", frameon=False, fontsize=8)
    upper.set_xlabel(axis_label, fontsize=9)
    of_all = "" if len(largest) == len(data) else f" (the {len(largest)} largest of {len(data)})"
    upper.set_ylabel(f"residual{of_all}", fontsize=9)
    if falling:
        upper.invert_xaxis()
    sizes = np.sqrt((data.astype(np.float64) ** 2).sum(axis=1))
    each = 100 * np.sqrt((residual**2).sum(axis=1)) / np.where(sizes > 0, sizes, 1.0)
    places = np.arange(1, len(data) + 1) if positions is None else positions
    lower.plot(places, each, color=CHOSEN, linewidth=0, marker="o", markersize=3 if len(data) <= 400 else 1)
    lower.set_ylim(bottom=0)
    lower.set_xlabel(sample_label, fontsize=9)
    lower.set_ylabel("lack of fit (%)", fontsize=9)
    for ax in (upper, lower):
        tidy(ax)
    figure.savefig(path)


def save_concentration_maps(path: PathLike, maps: np.ndarray, *, names: Sequence[str]) -> None:
    """A map of every component's concentration, on one page.

    Parameters
    ----------
    path : path
        The PNG to write.
    maps : ndarray, shape (m, rows, columns)
        NaN where there is no spectrum.
    names : sequence of str
        Names of the components.
    """
    if not len(maps):
        _save_note(path, "No component was found, so there are no concentrations.")
        return
    shown = _largest(np.nanmean(maps, axis=(1, 2)))
    rows, columns = maps.shape[1:]
    width = 2.6
    figure, axes = panel_grid(
        len(shown),
        grid_shape(len(shown), most_columns=4),
        (width, float(np.clip(width * rows / columns, 0.6, 6.0))),
        title=_title("Concentration of each component", len(shown), len(maps)),
        gap=(0.75, 0.4),
        right=0.5,
    )
    step = max(1, max(rows, columns) // MOST_MAP_PIXELS)
    for ax, index in zip(axes, shown, strict=True):
        image = ax.imshow(maps[index, ::step, ::step], cmap="viridis", interpolation="nearest")
        ax.set_title(names[index], fontsize=8, loc="left")
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7)
        # Long numbers would reach beyond the page.
        bar.ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
    figure.savefig(path)


def save_count_curve(
    path: PathLike,
    curve: Sequence[Mapping[str, Any]],
    *,
    chosen: tuple[float, int] | None,
    reason: str,
) -> None:
    """Number of components against the R2 it reaches, one point per interval of R2.

    Parameters
    ----------
    path : path
        The PNG to write.
    curve : sequence of mapping
        With `r2_from`, `r2_to`, `count` and `r2`.
    chosen : (float, int), optional
        R2 and number of components of what was chosen.
    reason : str
        Why, in words; becomes the title.
    """
    rows = sorted(range(len(curve)), key=lambda i: float(curve[i]["r2"]))
    if not rows:
        _save_note(path, reason or "No checkpoint reached the lowest interval of R², so there is no curve.")
        return
    figure = new_figure(8.0, 4.8, layout="constrained")
    figure.suptitle(textwrap.fill(reason, 105), fontsize=9.5, x=0.01, ha="left")
    ax = figure.subplots()
    r2 = np.array([float(curve[i]["r2"]) for i in rows])
    count = np.array([int(curve[i]["count"]) for i in rows])
    for i in rows:
        ax.axvspan(
            float(curve[i]["r2_from"]),
            float(curve[i]["r2_to"]),
            color="#f3f5f8",
            ec="white",
            lw=1.0,
            zorder=0,
        )
    ax.plot(
        r2,
        count,
        color="#1f5fa8",
        linewidth=1.2,
        marker="o",
        markersize=5,
        zorder=2,
        label="fewest in each interval of R²",
    )
    for a, b in zip(r2, count, strict=True):
        ax.annotate(str(b), (a, b), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    if chosen is not None:
        ax.scatter(
            *chosen,
            s=170,
            facecolor="none",
            edgecolor=CHOSEN,
            linewidth=2.0,
            zorder=3,
            label=f"chosen: {chosen[1]} components at R² {chosen[0]:.4f}",
        )
        count = np.append(count, chosen[1])
    low, high = int(count.min()), int(count.max())
    ax.set_ylim(max(0.0, low - 0.15 * (high - low) - 1), high + 0.15 * (high - low) + 1)
    ax.set_xlabel("R² of the reconstruction (shaded: intervals of R²)", fontsize=9)
    ax.set_ylabel("components in use", fontsize=9)
    whole_numbers(ax, "y")
    tidy(ax)
    ax.legend(loc="upper left", frameon=False, fontsize=8, labelspacing=0.8)
    figure.savefig(path)


def save_count_path(path: PathLike, rows: Sequence[Mapping[str, Any]], *, reason: str) -> None:
    """What the fit loses as components are removed one after another (backward elimination).

    Parameters
    ----------
    path : path
        The PNG to write.
    rows : sequence of mapping
        With `count`, `nmse` and `chosen`.
    reason : str
        Why that count was chosen, in words; becomes the title.
    """
    figure = new_figure(8.0, 4.4, layout="constrained")
    figure.suptitle(textwrap.fill(reason, 105), fontsize=9.5, x=0.01, ha="left")
    ax = figure.subplots()
    count = np.array([int(row["count"]) for row in rows])
    nmse = np.array([max(float(row["nmse"]), 1e-12) for row in rows])
    chosen = np.array([bool(row["chosen"]) for row in rows])
    ax.plot(count, nmse, color="#1f5fa8", linewidth=1.2, marker="o", markersize=4, zorder=2)
    ax.scatter(count[chosen], nmse[chosen], s=170, facecolor="none", edgecolor=CHOSEN, linewidth=2.0, zorder=3)
    ax.set_yscale("log")
    ax.set_xlabel("components left (ringed: chosen)", fontsize=9)
    ax.set_ylabel("nMSE of the reconstruction", fontsize=9)
    whole_numbers(ax, "x")
    tidy(ax)
    figure.savefig(path)


def _save_note(path: PathLike, text: str) -> None:
    figure = new_figure(6.5, 1.6)
    figure.text(0.5, 0.5, textwrap.fill(text, 75), ha="center", va="center", fontsize=10, color=GRAY)
    figure.savefig(path)
