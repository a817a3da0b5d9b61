"""How well spectra are reconstructed, accumulated batch by batch where the data are."""

from __future__ import annotations

import torch
from torch import Tensor


def r2_of(residual: float, total: float) -> float:
    """1 - residual / total; without any variation 1 for a perfect fit and else 0."""
    if total > 0:
        return 1.0 - residual / total
    return 1.0 if residual == 0 else 0.0


def nmse_of(residual: float, power: float) -> float:
    """Residual / power; without any signal 0 for a perfect fit and else infinity."""
    if power > 0:
        return residual / power
    return 0.0 if residual == 0 else float("inf")


class FitMetrics:
    """Streaming nMSE, R2 and MSE of a reconstruction.

    Parameters
    ----------
    num_features : int
        Number of bands d.
    threshold : float or None
        Entries where both |x| and |y| are below it count as zero in both before every sum (the sparse form's metrics);
        None: all entries count.
    device : torch.device or str
        Where the sums are kept; nothing is read from it before `compute`.

    Notes
    -----
    nMSE = sum of squared residuals / sum of squares. R2 compares with the column means. MSE is the unweighted mean of
    the batches' mean squared errors and ignores the threshold, as in the public code of arXiv 2507.23600. Sums are
    kept in float64. `docs/algorithms/ebgmcr.md`, "Training".
    """

    def __init__(
        self, num_features: int, *, threshold: float | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.threshold = threshold
        self.count = 0
        self.batches = 0
        self._column_sum = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, batch_size: int | None = None) -> None:
        """Add spectra `x` and reconstruction `y`, both (B, d): one batch, or several of `batch_size` rows each."""
        x, y = x.double(), y.double()
        squares = (x - y).square_()
        batches = squares.split(batch_size or max(len(x), 1))
        mse = torch.stack([batch.mean() for batch in batches]).sum()
        if self.threshold is not None:
            kept = (x.abs() >= self.threshold) | (y.abs() >= self.threshold)
            x, squares = x * kept, squares * kept
        self._sums += torch.stack((squares.sum(), x.square().sum(), mse))
        self._column_sum += x.sum(0)
        self.count += x.shape[0]
        self.batches += len(batches)

    def packed(self) -> Tensor:
        """(4,) float64 on the device: residual, power, power of the column means, mean MSE. No transfer."""
        means = (self._column_sum / max(self.count, 1)).square().sum() * self.count
        residual, power, mse = self._sums
        return torch.stack((residual, power, means, mse / max(self.batches, 1)))

    @staticmethod
    def unpack(residual: float, power: float, means: float, mse: float) -> tuple[float, float, float]:
        """(nMSE, R2, MSE) from the numbers of `packed` once they are on the host."""
        return nmse_of(residual, power), r2_of(residual, power - means), mse

    def compute(self) -> tuple[float, float, float]:
        """(nMSE, R2, MSE) over everything seen so far; one transfer from the device."""
        return self.unpack(*self.packed().tolist())
