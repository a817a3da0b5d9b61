"""What the tests of the stand-in of `hsi_global_clustering` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectrafuse.compat import hsi_global_clustering as compat

SMALL: dict[str, Any] = {
    "num_bands": 6,
    "encoder_kwargs": {"embed_dim": 8, "bias": False},
    "mean_shift_kwargs": {"embed_dim": 8, "n_clusters": 3, "num_iters": 2},
}


class Items(Dataset):
    """A dataset of given items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def small_model(seed: int = 0, **changes: Any) -> compat.HyperspectralClusteringModel:
    torch.manual_seed(seed)
    return compat.HyperspectralClusteringModel(**(SMALL | changes))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_labels(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def small_trainer(folder: Path, *items: Any, **options: Any) -> compat.HSIClusteringTrainer:
    defaults: dict[str, Any] = {
        "augmentor": compat.AugmentationPipeline((8, 8)),
        "model_kwargs": SMALL,
        "num_workers": 0,
        "num_epochs": 2,
        "reuse_iter": 1,
        "batch_size": 2,
        "precision": "fp32",
        "log_dir": str(folder / "runs"),
        "ckpt_dir": str(folder / "checkpoints"),
    }
    return compat.HSIClusteringTrainer(Items(*items) if items else None, **(defaults | options))
