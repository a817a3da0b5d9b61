"""Where the cluster centres start, and their update after a step (spec "Training")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.random import RandomStream
from spectrafuse.reference.centers import update_centers

_START_PIXELS = 4096
_START_ITERATIONS = 10


@torch.no_grad()
def move_centers(
    model: SegmentationModel, mass: Tensor, sums: Tensor, *, decay: float, kick: float, stream: RandomStream
) -> None:
    """Move the model's centres in place towards the mean embeddings of their pixels.

    Parameters
    ----------
    mass : Tensor (K,)
        Sum of the assignments of every cluster, over both views.
    sums : Tensor (K, D)
        Assignment-weighted sums of the shifted, unnormalised embeddings.
    decay, kick : float
        Share of the old centre, and size of the random push of clusters without mass.
    stream : RandomStream
        Source of the push; one draw whether a cluster is pushed or not.
    """
    centers = model.centers
    noise = stream.normal(tuple(centers.shape), device="cpu").to(centers)
    centers.copy_(update_centers(centers, mass.to(centers), sums.to(centers), decay, kick, noise))


@torch.no_grad()
def start_centers(model: SegmentationModel, views: Tensor, stream: RandomStream) -> None:
    """Put the centres among the embeddings of some pixels: spherical k-means, started as k-means++ does.

    The encoder's ReLU leaves all embeddings in one orthant, close together. Random centres lie elsewhere: one of them
    is nearest to every pixel, the assignment is saturated, and training starts collapsed.

    Parameters
    ----------
    views : Tensor (B, C, h, w)
        Normalised crops.
    stream : RandomStream
        Source of the choice of pixels.
    """
    shifted = model(views).shifted.permute(0, 2, 3, 1).flatten(0, 2)
    points = nn.functional.normalize(shifted, dim=1, eps=1e-12)
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
        members = nn.functional.one_hot((points @ centers.t()).argmax(1), len(centers)).to(points)
        means = members.t() @ points
        centers = torch.where(members.sum(0)[:, None] > 0, nn.functional.normalize(means, dim=1, eps=1e-12), centers)
    model.centers.copy_(centers)
