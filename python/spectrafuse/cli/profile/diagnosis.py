"""The diagnosis of a run: what limits it and what would help, in one sentence."""

from __future__ import annotations

from spectrafuse.cli.profile.bounds import Bounds
from spectrafuse.cli.profile.table import OTHER, REST, Measured, Row

_NEAR = 0.5
"""Share of the bound from which on an operation is said to run at it."""

_BEYOND = 1.2
"""Above this share of the arithmetic that was measured, that was not at its best."""

_FAR = 0.05
"""Below this share it is not the work that takes the time."""

# Label: what it is called, whether that is more than one, and what would help where it is at its bound.
_NAMES: dict[str, tuple[str, str]] = {
    "adamw_outer": (
        "The optimizer's step, which reads and writes every weight and both its moments,",
        "a smaller --pool-size or fewer steps (a larger --batch-size)",
    ),
    "ambiguity_penalty": ("The penalty on components that resemble each other", "a smaller --pool-size"),
    "clustering_objective": ("The mean shift and the losses on its clusters", "a smaller --crop-size or --batch-size"),
    "convolution": ("The encoder's convolutions", "a smaller encoder, fewer bands or a faster processor or GPU"),
    "extract_crop_pairs": ("Cutting the training crops", "fewer bands"),
    "gate": ("The gates of the components", "a smaller --pool-size"),
    "gated_mixture": ("Mixing the components", "a smaller --pool-size or fewer bands"),
    "matrix product": ("Matrix products", "a smaller --pool-size or a faster processor or GPU"),
    "mean_shift_assign": ("The mean shift of the embeddings", "a smaller window or fewer iterations of the mean shift"),
    "optimizer step": ("The optimizer's step", "fewer steps"),
    "random numbers": ("Drawing random numbers", "a smaller --pool-size"),
    "scene_spectra": ("Normalizing the scene's spectra", "fewer bands"),
    "skinny_linear": ("The layers of the two networks", "a smaller --pool-size or fewer steps (a larger --batch-size)"),
    "sparse_gated_mixture": ("The gates of single bands", "a smaller --pool-size or no --sparse"),
    "spectral_compactness": ("The distance of spectra from their cluster's mean", "fewer bands"),
}
_PLURAL = ("The encoder's convolutions", "The gates", "The layers", "Matrix products", "The mean shift and the losses")


def operation(label: str) -> str:
    """The operation that a row belongs to: its label without the direction."""
    name, _, last = label.rpartition(" ")
    return name if last in ("forward", "backward") else label


def by_operation(measured: Measured) -> list[Row]:
    """The rows with both directions of an operation together, those that take longest first."""
    groups: dict[str, Row] = {}
    for row in measured.rows:
        name = operation(row.label)
        group = groups.setdefault(name, Row(name))
        group.calls += row.calls
        group.seconds += row.seconds
        if row.work is not None:
            group.add(row.work)
    return sorted(groups.values(), key=lambda row: -row.seconds)


def limit(measured: Measured, bounds: Bounds, phase: str) -> str:
    """The sentence about a recording: the operation that takes longest, how fast it is, and what would help.

    Parameters
    ----------
    phase : str
        "training" or "prediction".
    """
    top = by_operation(measured)[0]
    share = f"{100 * top.seconds / measured.seconds:.0f} % of the time of {phase}"
    if top.label == REST:
        return (
            f"No operation limits it: {share} passes between operations, in Python and in waiting for files or the "
            "device. Larger batches would help, not a faster kernel."
        )
    if top.label == OTHER:
        return f"No single operation limits it: {share} goes to {OTHER}, each of which takes little."
    words = _NAMES[top.label][0] if top.label in _NAMES else "torch's operation"
    plural = words.startswith(_PLURAL)
    # A clause behind the name ends in a comma, and the label comes before it.
    name, comma, clause = words.partition(",")
    subject = f"{name} ({top.label}){comma}{clause}"
    return f"{subject} {'take' if plural else 'takes'} {share}{_how_fast(top, bounds, plural=plural)}"


def _how_fast(row: Row, bounds: Bounds, *, plural: bool) -> str:
    if row.work is None or row.seconds <= 0:
        return "; how fast it could be is not known."
    it = "they run" if plural else "it runs"
    reached = bounds.seconds(*row.work) / row.seconds
    helps = _NAMES[row.label][1]
    arithmetic = bounds.is_arithmetic(*row.work)
    against = "the fastest arithmetic measured here" if arithmetic else "a large copy in memory"
    if reached > 1 and not arithmetic:
        return f"; {it} faster than {against}, because the data stay in the cache, so {helps} is what would help."
    why = f"; {it} at {100 * reached:.0f} % of the speed of {against}"
    if reached > _BEYOND:
        lower = "they compute" if plural else "it computes"
        return f"{why}: {lower} in lower precision, or other programs held that back while it was measured."
    if reached >= _NEAR:
        return f"{why}, so {helps} is what would help."
    if reached < _FAR:
        return f"{why}: too little at a time, or other programs take the processor; fewer --threads may help."
    return f"{why}, which leaves room for faster code; {helps} would help as well."
