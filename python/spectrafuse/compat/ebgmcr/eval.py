"""Metrics of the published package (its `eval.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse.mcr.metrics import nmse_of, r2_of

__all__ = ["StreamingMetrics"]


class StreamingMetrics:
    """nMSE and R2 over batches.

    Parameters
    ----------
    dim : int
        Length of a spectrum.
    mode : {"dense", "mask", "threshold"}
        "mask": residuals only where the spectrum is not zero. "threshold": entries where both spectra are below `eps`
        count as zero.
    eps : float

    Attributes
    ----------
    ssr, sst_num : float
        Sums of squared residuals and of squares.
    mu_sum : Tensor, shape (dim,)
        Column sums.
    n : int
        Spectra seen.

    Notes
    -----
    Sums are taken in the spectra's dtype, as published; `spectrafuse.mcr.metrics.FitMetrics` takes them in float64.
    """

    def __init__(self, dim: int, mode: str = "dense", eps: float = 1e-3) -> None:
        self.dim, self.mode, self.eps = dim, mode, eps
        self.ssr = 0.0
        self.sst_num = 0.0
        self.mu_sum = torch.zeros(dim)
        self.n = 0

    @torch.no_grad()
    def update(self, X: Tensor, X_hat: Tensor) -> None:
        """Add a batch of spectra and their reconstruction, both (B, dim)."""
        if self.mode == "threshold":
            kept = (X.abs() >= self.eps) | (X_hat.abs() >= self.eps)
            X, X_hat = X * kept, X_hat * kept
        elif self.mode == "mask":
            X_hat = torch.where(X != 0, X_hat, 0.0)
        residual, power = torch.stack(((X_hat - X).square().sum(), X.square().sum())).tolist()
        self.ssr += residual
        self.sst_num += power
        self.mu_sum += X.sum(dim=0).cpu()
        self.n += X.shape[0]

    def compute(self) -> tuple[float, float]:
        """(nMSE, R2 against the column means) of everything seen so far."""
        means = self.mu_sum / max(self.n, 1)
        total = self.sst_num - float(means.square().sum()) * self.n
        return nmse_of(self.ssr, self.sst_num), r2_of(self.ssr, total)
