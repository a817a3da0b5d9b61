"""Picture of feasible bands: how far each component's spectrum and concentrations could be others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse.reports.style import LIGHT, PathLike, broken, new_figure, palette, spectral_positions, tidy

if TYPE_CHECKING:
    from spectrafuse.mcr.feasible_bands import FeasibleBands

_MOST_PANELS = 12


def save_feasible_bands(
    path: PathLike,
    bands: FeasibleBands,
    *,
    names: Sequence[str] | None = None,
    axis: np.ndarray | None = None,
    axis_label: str = "band number",
    falling: bool = False,
    sample_label: str = "spectrum number",
) -> None:
    """Every component's bands in a row of its own: its spectrum on the left, its concentrations on the right.

    Parameters
    ----------
    path : path
        The PNG to write.
    bands : FeasibleBands
        Of more than 12 components those with the widest range of contributions are drawn.
    names : sequence of str, optional
        Names of the components.
    axis : ndarray, shape (d,), optional
        Wavelengths or the like.
    axis_label, sample_label : str
    falling : bool
        Draw the axis from large to small.
    """
    width = bands.highest - bands.lowest
    shown = np.sort(np.argsort(-width, kind="stable")[:_MOST_PANELS])
    colors = palette(len(width))
    x, order = spectral_positions(axis, bands.spectra_lower.shape[1])
    samples = np.arange(1, len(bands.concentrations_lower) + 1)
    figure = new_figure(9.0, 0.9 + 1.6 * len(shown), layout="constrained")
    figure.suptitle(
        "Feasible bands: all that fits as well (dashed: least contribution, line: largest)",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    axes = figure.subplots(len(shown), 2, squeeze=False, sharex="col")
    for (left, right), k in zip(axes, shown, strict=True):
        color = colors[k]
        _fill(left, x, bands.spectra_lower[k][order], bands.spectra_upper[k][order], color)
        _fill(right, samples, bands.concentrations_lower[:, k], bands.concentrations_upper[:, k], color)
        for style, spectrum, profile in (
            ("--", bands.spectra_lowest[k], bands.concentrations_lowest[:, k]),
            ("-", bands.spectra_highest[k], bands.concentrations_highest[:, k]),
        ):
            left.plot(*broken(x, spectrum[order]), style, color=color, linewidth=0.9)
            right.plot(samples, profile, style, color=color, linewidth=0.9)
        name = f"component {bands.component_ids[k]}" if names is None else names[k]
        left.set_title(name, fontsize=8, loc="left")
        text = f"relative contribution {bands.lowest[k]:.2f} to {bands.highest[k]:.2f}, cosine {bands.cosine[k]:.3f}"
        right.set_title(text, fontsize=8, loc="left")
        for ax, label in ((left, "intensity"), (right, "concentration")):
            ax.axhline(0.0, color=LIGHT, linewidth=0.8, zorder=0)
            ax.set_ylabel(label, fontsize=8)
            ax.margins(x=0.01)
            tidy(ax)
    if falling:
        axes[0, 0].invert_xaxis()
    axes[-1, 0].set_xlabel(axis_label, fontsize=9)
    axes[-1, 1].set_xlabel(sample_label, fontsize=9)
    figure.savefig(path)


def _fill(ax: Any, x: np.ndarray, lower: np.ndarray, upper: np.ndarray, color: Any) -> None:
    ax.fill_between(x, lower, upper, color=color, alpha=0.25, linewidth=0)
