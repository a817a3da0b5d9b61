"""The published update of the cluster centers after a training step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASS_EPS = 1e-8
DIVISION_EPS = 1e-6
MIN_MASS = 1e-3


@torch.no_grad()
def update_centers(
    centers: Tensor,
    mass: Tensor,
    sums: Tensor,
    decay: float,
    kick: float | Tensor,
    kick_noise: Tensor,
    *,
    min_mass: float = MIN_MASS,
    eps: float = DIVISION_EPS,
) -> Tensor:
    """Move centers with mass towards the mean of their pixels, push the others at random, normalise all.

    Parameters
    ----------
    centers : Tensor (K, D)
    mass : Tensor (K,)
        Sum of the assignments q_ik over all pixels i.
    sums : Tensor (K, D)
        sum_i q_ik z_i.
    decay : float
        Share of the old center, 0 to 1.
    kick : float or Tensor ()
        Size of the push.
    kick_noise : Tensor (K, D)
        Standard normal numbers.
    min_mass, eps : float
        Mass up to which a center is pushed, and what is added to the mass that sums are divided by.

    Returns
    -------
    Tensor (K, D)
        New centers of unit norm; the inputs stay as they are, and nothing carries a gradient.

    Notes
    -----
    Source: the public code of arXiv 2512.24172, exponential moving average of the centers.
    """
    mass = (mass + MASS_EPS).unsqueeze(1)
    moved = decay * centers + (1 - decay) * sums / (mass + eps)
    pushed = F.normalize(centers + kick * kick_noise, p=2, dim=1)
    return F.normalize(torch.where(mass > min_mass, moved, pushed), p=2, dim=1)
