"""What a training prints and logs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


def print_epoch_summary(
    epoch: int,
    train_loss: float,
    sup_metrics: dict[str, float] | None = None,
    unsup_metrics: dict[str, float] | None = None,
    total_epochs: int | None = None,
) -> None:
    """Print an epoch's loss and scores in one line."""
    parts = [f"Epoch {epoch}/{total_epochs}" if total_epochs else f"Epoch {epoch}", f"TrainLoss={train_loss:.4f}"]
    if sup_metrics is not None:
        parts += [f"{name}={sup_metrics[name]:.{digits}f}" for name, digits in (("IoU", 3), ("Dice", 3), ("RMSE", 4))]
    if unsup_metrics is not None:
        named = (("Ent", "entropy"), ("NMI", "NMI"), ("VI", "VI"))
        parts += [f"{name}={unsup_metrics[key]:.3f}" for name, key in named]
    print(" | ".join(parts), flush=True)


class _NoWriter:
    """Takes what a TensorBoard writer takes, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


def make_writer(folder: str) -> Any:
    """A TensorBoard writer, or one that does nothing where tensorboard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "The package tensorboard is missing, so no logs are written; `pip install tensorboard` adds them.",
            stacklevel=3,
        )
        return _NoWriter()
    return SummaryWriter(folder)
