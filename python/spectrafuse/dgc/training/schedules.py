"""Values that change over training (docs/algorithms/dgc.md, "Training")."""

from __future__ import annotations

from spectrafuse._runtime import checks


def warmup_decay(step: float, *, initial: float, peak: float, final: float, warmup: float, total: float) -> float:
    """Linear warm-up to `peak`, then linear decay to `final`, constant from step `total` on.

    Parameters
    ----------
    step : float
        Where to read the schedule; negative steps count as the start of the warm-up line.
    initial, peak, final : float
        Values at step 0, at step `warmup` and from step `total` on. Without warm-up the schedule starts at `peak`.
    warmup, total : float
        0 <= warmup <= total.
    """
    checks.number("warmup", warmup, minimum=0)
    checks.number("total", total, minimum=warmup)
    if step <= warmup:
        return peak if warmup == 0 else initial + step / warmup * (peak - initial)
    if step >= total:
        return final
    return peak + (step - warmup) / (total - warmup) * (final - peak)


def fading(epoch: int, value: float, epochs: int, *, final: float = 0.0) -> float:
    """A value in epoch 1, 2, .. that fades linearly to `final`: the kick and scheduled loss weights.

    The first two epochs use the full value, since the published schedule moves on after an epoch and starts one step
    early: epoch e reads step max(e - 2, 0) of `epochs`.
    """
    return warmup_decay(max(epoch - 2, 0), initial=value, peak=value, final=final, warmup=0, total=epochs)
