"""Where training starts: a model as a recipe wants it, its encoder, its cluster centres, and its bandwidth.

The mean shift averages a pixel with those of its window whose embeddings are closer than about the bandwidth. Where
pixels are noisy that is most of what the network adds to their spectra; where they are clean it only blurs borders. So
the bandwidth is measured: what differs between most neighbours is noise, since most are of the same material.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse._runtime import ranks
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.neighbours import neighbour_distances
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.training.batches import CropBatch, CropBatches
from spectrafuse.dgc.training.centers import start_centers
from spectrafuse.dgc.training.prototypes import Prototypes
from spectrafuse.random import RandomStream

# Of torch's default initialisation; what is left of it breaks the symmetry between channels.
_RANDOM_SHARE = 0.1
# Of the median distance between neighbours, and the least: neighbours may be equal.
_BANDWIDTH = 2.0
_LEAST_BANDWIDTH = 0.05


def new_model(recipe: Recipe, n_bands: int, n_clusters: int, stream: RandomStream, **shape: Any) -> SegmentationModel:
    """A model that is not trained.

    Parameters
    ----------
    recipe : Recipe
        Says whether there are biases, and what the bandwidth is.
    n_bands, n_clusters : int
        Bands and clusters.
    stream : RandomStream
        Where initial values are drawn from.
    **shape
        Other arguments of `SegmentationModel`.
    """
    return SegmentationModel(
        n_bands,
        n_clusters=n_clusters,
        bias=recipe.bias,
        bandwidth=1.0 if recipe.bandwidth is None else recipe.bandwidth,
        learn_bandwidth=recipe.bandwidth is not None,
        loss_weights=recipe.loss_weights,
        stream=stream,
        **shape,
    )


def start_training(
    model: SegmentationModel, recipe: Recipe, batches: CropBatches, prototypes: Prototypes | None, stream: RandomStream
) -> None:
    """Put encoder and centres where the recipe starts them, in place."""
    if not recipe.start_from_data:
        return
    with closing(batches.epoch(0, whole=True)) as first:
        batch: CropBatch = next(first)
        if prototypes is not None and recipe.spectral_start:
            start_encoder(model, prototypes, batch.views)
        start_centers(model, batch, stream, None if prototypes is None else prototypes.labels(batch))


@torch.no_grad()
def start_encoder(model: SegmentationModel, prototypes: Prototypes, spectra: Tensor) -> None:
    """Make the encoder a classifier of single spectra: a channel for every prototype.

    With the means m_k and a spectrum y behind the prototypes' map, channel k holds m_k . y - |m_k|^2 / 2 and a
    constant, so that the channel of the nearest prototype is the largest. The constant makes the smallest of the
    channels 0 where y is 0. The other layers along the spectra subtract the mean of these channels, so that ReLU leaves
    only those above it: embeddings are compared by their angle, which is small where all channels are alike. All other
    weights pass the channels on, with a little of the random start.

    An encoder without biases leaves the second term and the constant out; one with fewer channels than there are
    clusters has none for the last ones.

    Parameters
    ----------
    spectra : Tensor (B, bands, h, w)
        Some that are trained on; decide the scale.
    """
    encoder = model.encoder
    projection, means = prototypes.projection, prototypes.means
    means = means[: encoder.embed_dim]
    squares = means.square().sum(dim=1)
    weights, offset = means @ projection.t(), (squares.max() - squares) / 2
    largest = (spectra.permute(0, 2, 3, 1) @ weights.t() + offset).amax(dim=-1)
    # Of order 1, as the random start expects its input.
    scale = 1 / largest.square().mean().sqrt().clamp_min(torch.finfo(weights.dtype).tiny ** 0.5)
    convolutions = [m for m in encoder.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))]
    identity = torch.eye(encoder.embed_dim).to(weights)
    for layer in convolutions:
        layer.weight.mul_(_RANDOM_SHARE)
        if layer.bias is not None:
            layer.bias.zero_()
        taps = layer.weight.view(*layer.weight.shape[:2], -1)
        middle = taps[:, :, taps.shape[2] // 2]
        if layer is convolutions[0]:
            taps[: len(means)] = 0
            middle[: len(means)] = scale * weights
            if layer.bias is not None:
                layer.bias[: len(means)] = scale * offset
        else:
            middle += identity
            if isinstance(layer, nn.Conv1d) and len(means) > 1:
                middle[: len(means), : len(means)] -= 1 / len(means)


@torch.no_grad()
def measure_bandwidth(model: SegmentationModel, batch: CropBatch) -> None:
    """Set the model's bandwidth, in place, from the embeddings of a batch; it stays without a pair of neighbours."""
    own = neighbour_distances(model.encoder(batch.padded), batch.valid)
    distances = torch.cat([part.to(own.device) for part in ranks.gathered(own.cpu())]) if ranks.together() else own
    if len(distances):
        bandwidth = (_BANDWIDTH * distances.median()).clamp_min(_LEAST_BANDWIDTH)
        model.cluster.log_bandwidth.copy_(bandwidth.expm1().log())
