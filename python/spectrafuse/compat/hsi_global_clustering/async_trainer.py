"""The published asynchronous trainer: cubes come from a process that reads ahead."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from spectrafuse.compat.hsi_global_clustering.data_server import DataServer
from spectrafuse.compat.hsi_global_clustering.trainer import HSIClusteringTrainer

__all__ = ["AsyncHSIClusteringTrainer"]

_WAIT = 0.005


class AsyncHSIClusteringTrainer(HSIClusteringTrainer):
    """Trains on the newest batch a `DataServer` has ready, and on the last one again while none is.

    Parameters
    ----------
    train_dataset, val_dataset : Dataset
        Without the second, nothing is validated.
    steps_per_epoch : int, optional
        Steps of an epoch; as many as batches in the dataset without it.
    *args, **kwargs
        As for `HSIClusteringTrainer`, from `augmentor` on; one step per batch unless `reuse_iter` says otherwise.
    """

    def __init__(
        self,
        train_dataset: Dataset,
        val_dataset: Dataset | None = None,
        steps_per_epoch: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(None, val_dataset, *args, **({"reuse_iter": 1} | kwargs))
        self.dataset = train_dataset
        self.server = DataServer(train_dataset, queue_size=self.batch_size)
        batches = math.ceil(len(train_dataset) / self.batch_size)  # type: ignore[arg-type]
        self.steps_per_epoch = steps_per_epoch or batches
        self._last: Tensor | None = None

    def train(self) -> None:
        """Train as `HSIClusteringTrainer.train` does; the reading process has ended when it returns or raises."""
        try:
            self.server.start()
            self._run(self.steps_per_epoch)
        finally:
            self.server.stop()
        print("HSIClustering training done !!")

    def _batches(self) -> Iterator[Tensor]:
        for _ in range(self.steps_per_epoch):
            _, cubes, _ = self.server.get_batch(self.batch_size)
            while cubes is None and self._last is None:
                time.sleep(_WAIT)
                _, cubes, _ = self.server.get_batch(self.batch_size)
            if cubes is not None:
                self._last = cubes.to(self.device)
            assert self._last is not None
            yield self._last
