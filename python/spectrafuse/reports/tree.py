"""The picture of a segmentation at several numbers of clusters, with the tree in which clusters merge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spectrafuse.reports.maps import MOST_PIXELS, colored, transparent
from spectrafuse.reports.style import GRAY, LIGHT, PathLike, new_figure, palette


def save_tree(
    path: PathLike,
    labels: np.ndarray,
    merges: np.ndarray,
    levels: Sequence[tuple[int, Sequence[Sequence[int]], float | None]],
    *,
    title: str = "",
) -> None:
    """The map at several levels, side by side, above the tree of the clusters.

    Parameters
    ----------
    path : path
        The PNG to write.
    labels : ndarray of int, shape (H, W)
        Clusters 0 to K - 1; negative: no data.
    merges : ndarray, shape (K - 1, 4)
        The tree, as scipy's `linkage` describes it.
    levels : sequence of (int, sequence of sequences of int, float or None)
        Number of groups, the clusters of each, and how well halves of the scene agree on them.
    title : str
        Above all.
    """
    from scipy.cluster.hierarchy import dendrogram

    count = len(merges) + 1
    step = int(np.ceil((labels.size / MOST_PIXELS) ** 0.5)) if labels.size > MOST_PIXELS else 1
    labels = labels[::step, ::step]
    colors, pixels = palette(count), np.bincount(labels[labels >= 0], minlength=count)
    aspect = min(3.0, max(1 / 3, labels.shape[1] / labels.shape[0]))
    width = max(1.6, min(3.2, 2.6 * aspect))
    height = width / aspect
    total_width, total_height = len(levels) * (width + 0.25) + 0.6, height + 3.6
    figure = new_figure(total_width, total_height)
    if title:
        figure.text(0.3 / total_width, 1 - 0.22 / total_height, title, fontsize=12, weight="bold", va="center")
    for index, (level, groups, agreement) in enumerate(levels):
        # A group has the color of its largest cluster, so that colors stay from level to level.
        table = np.empty_like(colors)
        for group in groups:
            table[list(group)] = colors[max(group, key=lambda cluster: pixels[cluster])]
        left, bottom = 0.3 + index * (width + 0.25), total_height - 0.75 - height
        box = (left / total_width, bottom / total_height, width / total_width, height / total_height)
        axes = figure.add_axes(box)
        axes.imshow(transparent(colored(labels, table), labels < 0), interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(LIGHT)
        axes.set_title(f"{level} clusters", fontsize=10, loc="left")
        if agreement is not None:
            axes.set_xlabel(f"halves agree: {agreement:.2f}", fontsize=7.5, color=GRAY, loc="left")
    axes = figure.add_axes(((0.7 / total_width), 0.65 / total_height, 1 - 1.1 / total_width, 1.75 / total_height))
    drawn = dendrogram(merges, no_plot=True)
    for across, up in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axes.plot(across, up, color=GRAY, linewidth=1)
    places = 5 + 10 * np.arange(count)
    axes.scatter(places, np.zeros(count), c=colors[drawn["leaves"]], s=45, zorder=3, clip_on=False)
    axes.set_xticks(places, [str(leaf) for leaf in drawn["leaves"]], fontsize=8)
    axes.set_xlim(0, 10 * count)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cluster", fontsize=8)
    axes.set_ylabel("height of the merge", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
