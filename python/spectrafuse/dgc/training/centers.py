"""Where the cluster centres start, and their update after a step (docs/algorithms/dgc.md, "Training")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.random import RandomStream

_START_PIXELS = 4096
_START_ITERATIONS = 10
# Of the published code: what is added to the mass of a cluster and to what sums are divided by, and the mass up to
# which a center is pushed.
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
    arXiv 2512.24172, the exponential moving average of its published code; docs/algorithms/dgc.md, "Training".
    """
    mass = (mass + MASS_EPS).unsqueeze(1)
    moved = decay * centers + (1 - decay) * sums / (mass + eps)
    pushed = nn.functional.normalize(centers + kick * kick_noise, p=2, dim=1)
    return nn.functional.normalize(torch.where(mass > min_mass, moved, pushed), p=2, dim=1)


@torch.no_grad()
def move_centers(
    model: SegmentationModel, mass: Tensor, sums: Tensor, *, decay: float, kick: float | Tensor, noise: Tensor
) -> None:
    """Move the model's centres in place towards the mean embeddings of their pixels; nothing waits for a GPU.

    Without any mass, which a batch without a pixel with data gives, they stay.

    Parameters
    ----------
    mass : Tensor (K,)
        Sum of the assignments of every cluster, over both views.
    sums : Tensor (K, D)
        Assignment-weighted sums of the shifted, unnormalised embeddings.
    decay : float
        Share of the old centre.
    kick : float or Tensor ()
        Size of the random push of clusters without mass.
    noise : Tensor (K, D)
        Standard normal numbers of the push.
    """
    centers = model.centers
    moved = update_centers(centers, mass.to(centers), sums.to(centers), decay, kick, noise)
    centers.copy_(torch.where(mass.sum() > 0, moved, centers))


@torch.no_grad()
def start_centers(
    model: SegmentationModel, batch: CropBatch, stream: RandomStream, labels: Tensor | None = None
) -> None:
    """Put the centres among the embeddings of some pixels: spherical k-means, started as k-means++ does.

    The encoder's ReLU leaves all embeddings in one orthant, close together. Random centres lie elsewhere: one of them
    is nearest to every pixel, the assignment is saturated, and training starts collapsed.

    Parameters
    ----------
    batch : CropBatch
        Normalised crops. Pixels without data are left out, unless there is no other.
    stream : RandomStream
        Source of the choice of pixels.
    labels : Tensor (2, B h w) int64, optional
        Clusters of the pixels. A centre starts at the mean of its own pixels then, if there are any.
    """
    shifted = model(batch.padded).shifted.permute(0, 2, 3, 1).flatten(0, 2)
    points = nn.functional.normalize(shifted, dim=1, eps=1e-12)
    labels = None if labels is None else labels.flatten()
    if batch.valid is not None and batch.valid.any():
        kept = batch.valid.flatten()
        points, labels = points[kept], None if labels is None else labels[kept]
    everyone = points
    chosen = stream.integers(0, len(points) - 1, (_START_PIXELS,), device="cpu").to(points.device)
    points = points[chosen]
    centers = points[:1]
    for _ in range(1, model.n_clusters):
        distance = (1 - points @ centers.t()).amin(dim=1).clamp_min(0).double()
        # A draw with probability proportional to the squared chord; any pixel where all are the same.
        level = stream.uniform((), dtype=torch.float64, device="cpu").to(distance) * distance.sum()
        index = int((distance.cumsum(0) < level).sum().clamp_max(len(points) - 1))
        centers = torch.cat((centers, points[index : index + 1]))
    for _ in range(_START_ITERATIONS):
        centers = _means(points, (points @ centers.t()).argmax(1), centers)
    if labels is not None:
        centers = _means(everyone, labels, centers)
    model.centers.copy_(centers)


def _means(points: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Directions of the means of the points of every cluster; the centre as it is where there are none."""
    members = nn.functional.one_hot(labels, len(centers)).to(points)
    means = nn.functional.normalize(members.t() @ points, dim=1, eps=1e-12)
    return torch.where(members.sum(0)[:, None] > 0, means, centers)
