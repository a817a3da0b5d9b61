"""Labels without a network: the nearest spectral prototype of every pixel, made to agree with its like around it.

The labels of single pixels are noise where pixels are. A network learns to average over that; here it is done without
learning: labels are those of a Potts model whose borders are cheap where spectra change, by mean-field iterations
(Kraehenbuehl & Koltun 2011, arXiv 1210.5644, with the pixels of a window as neighbours instead of all).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectrafuse._runtime import checks
from spectrafuse.dgc.model import kept_clusters
from spectrafuse.dgc.neighbours import smoothed
from spectrafuse.dgc.training.prototypes import DIRECTIONS
from spectrafuse.ops.mean_shift_assign import MeanShiftResult

# Side of the window of a pixel's neighbours.
_WINDOW = 5
# How much a pixel's like around it count together, against its own spectrum; and the iterations.
_COUPLING, _SWEEPS = 16.0, 8
# Numbers that an iteration works on at a time: few enough for the processor's cache.
_BLOCK_NUMBERS = 1 << 17


class PrototypeModel(nn.Module):
    """Maps spectra to soft assignments of their pixels to spectral prototypes; nothing in it is trained.

    Parameters
    ----------
    projection : Tensor (bands, R)
        The linear map that prototypes lie behind.
    means : Tensor (K, R)
        Prototypes.
    bandwidth : Tensor ()
        Distance of most neighbours behind the map, positive.
    variance : Tensor ()
        Of the noise in each of the R directions, positive.

    Notes
    -----
    With the distance d_ik of a pixel's own spectrum to prototype k, the variance v, and weights w_ij of the other
    pixels of its 5 x 5 window, q_ik is proportional to exp(-d_ik^2 / 2v + 16 sum_j w_ij q_jk), eight times over, from
    the first term alone. The weights are proportional to exp(-|z_i - z_j|^2 / 2h^2), with the bandwidth h and spectra z
    averaged with alike neighbours, and sum to 1.
    """

    dense = False
    """No more than the window of every pixel counts, unlike in some `SegmentationModel`."""
    raster_reach = 0
    """Places along the flattened pixels beyond which the first stage does not look."""
    spatial_reach = (_SWEEPS + 1) * (_WINDOW // 2)
    """Rows and columns beyond which the second stage does not look."""

    def __init__(self, projection: Tensor, means: Tensor, bandwidth: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.projection = nn.Parameter(projection, requires_grad=False)
        self.means = nn.Parameter(means, requires_grad=False)
        self.bandwidth = nn.Parameter(bandwidth, requires_grad=False)
        self.variance = nn.Parameter(variance, requires_grad=False)

    @property
    def n_bands(self) -> int:
        """Bands of the cubes the model takes."""
        return len(self.projection)

    @property
    def n_clusters(self) -> int:
        """Clusters K there are now."""
        return len(self.means)

    @property
    def centers(self) -> Tensor:
        """Prototypes (K, R)."""
        return self.means

    @property
    def channels(self) -> int:
        """Numbers R of a pixel between the two stages."""
        return self.projection.shape[1]

    @property
    def working_numbers(self) -> int:
        """Numbers of a pixel that the second stage holds at most."""
        return 6 * self.channels + _WINDOW**2 + 4 * self.n_clusters

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds: the sizes of the tensors."""
        return {"network": False, "num_bands": self.n_bands, "n_clusters": self.n_clusters, "directions": self.channels}

    @classmethod
    def of_sizes(cls, n_bands: int, n_clusters: int, directions: int | None = None) -> PrototypeModel:
        """A model whose tensors are zero; without `directions`, with as many as prototypes have at most."""
        checks.integer("n_clusters", n_clusters, maximum=10_000)
        most = min(DIRECTIONS * n_clusters, n_bands) if directions is None else directions
        return cls(torch.zeros(n_bands, most), torch.zeros(n_clusters, most), torch.zeros(()), torch.zeros(()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PrototypeModel:
        """The model that `config` describes, with tensors of zeros.

        Raises
        ------
        ValueError, TypeError
            If a size is missing or no positive integer.
        """
        names = ("num_bands", "n_clusters", "directions")
        return cls.of_sizes(*(checks.integer(name, config.get(name), maximum=1_000_000) for name in names))

    def spectral(self, spectra: Tensor) -> Tensor:
        """The first stage: (pixels, R) of spectra (1, pixels, at least bands); bands beyond these are left out."""
        found: Tensor = spectra[0, :, : self.n_bands] @ self.projection
        return found

    def spatial(self, channels: Tensor) -> Tensor:
        """What `assign` takes, of channels (n, R, rows, columns): the same."""
        return channels

    @torch.no_grad()
    def assign(self, channels: Tensor) -> MeanShiftResult:
        """Averaged channels and assignments of images (n, R, rows, columns)."""
        averaged = smoothed(channels, self.bandwidth, _WINDOW)
        probs = [self._mean_field(*images) for images in zip(channels, averaged, strict=True)]
        return MeanShiftResult(averaged, torch.stack(probs).permute(0, 2, 3, 1))

    def margins(self, found: MeanShiftResult, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Most probable clusters, and how clear they are, both (n, rows, columns), of what `assign` gives.

        The iterations leave hardly any doubt: what is clear is told by the averaged spectrum instead, as one less its
        distance to the prototypes of its group over that to the others, at least 0.

        Parameters
        ----------
        groups : Tensor (K,)
            Clusters with the same number count as one.
        """
        clusters = found.probs.argmax(-1)
        distances = torch.cdist(found.shifted.permute(0, 2, 3, 1), self.means)
        own = groups == groups[clusters].unsqueeze(-1)
        nearest, others = (distances.masked_fill(out, torch.inf).amin(-1) for out in (~own, own))
        return clusters, (1 - nearest / others.clamp_min(torch.finfo(others.dtype).tiny)).clamp_min(0)

    def forward(self, cubes: Tensor) -> MeanShiftResult:
        """Averaged channels (n, R, rows, columns) and `probs` (n, rows, columns, K) of cubes (n, bands, rows, ...)."""
        return self.assign((cubes.permute(0, 2, 3, 1) @ self.projection).permute(0, 3, 1, 2))

    def labels(self, cubes: Tensor) -> Tensor:
        """Most probable cluster of every pixel of cubes (n, bands, rows, columns), (n, rows, columns) int64."""
        return self(cubes).probs.argmax(-1)

    def labels_of(self, channels: Tensor) -> Tensor:
        """Most probable cluster of every pixel of images (n, R, rows, columns), (n, rows, columns) int64."""
        return self.assign(channels).probs.argmax(-1)

    def _mean_field(self, own: Tensor, averaged: Tensor) -> Tensor:
        """Assignments (K, rows, columns) of an image (R, rows, columns), also given averaged."""
        squares = self.means.square().sum(dim=1)[:, None, None] - 2 * torch.einsum("kr,rhw->khw", self.means, own)
        unary = squares.div_(-2 * self.variance)
        unary -= unary.amax(dim=0)
        weights = self._weights(averaged)
        probs = unary.softmax(dim=0)
        for _ in range(_SWEEPS):
            around = F.pad(probs, (_WINDOW // 2,) * 4)
            for rows in self._blocks(probs.shape):
                field = unary[:, rows].clone()
                for weight, (down, right) in zip(weights, _offsets(), strict=True):
                    near = around[:, rows.start + down : rows.stop + down, right : right + probs.shape[2]]
                    field.addcmul_(weight[rows], near)
                torch.softmax(field, dim=0, out=probs[:, rows])
        return probs

    def _weights(self, averaged: Tensor) -> Tensor:
        """Of the neighbours of every pixel (24, rows, columns), with the sum `_COUPLING` if there are any."""
        _, height, width = averaged.shape
        around = F.pad(averaged, (_WINDOW // 2,) * 4)
        inside = F.pad(torch.ones_like(averaged[0]), (_WINDOW // 2,) * 4)
        weights = averaged.new_empty(_WINDOW**2 - 1, height, width)
        for weight, (down, right) in zip(weights, _offsets(), strict=True):
            place = slice(down, down + height), slice(right, right + width)
            distance = (around[:, place[0], place[1]] - averaged).square_().sum(dim=0)
            torch.mul(torch.exp(distance.div_(-2 * self.bandwidth.square())), inside[place], out=weight)
        # A pixel may have no neighbour that is anything like it.
        return weights.div_(weights.sum(dim=0).clamp_min(torch.finfo(weights.dtype).tiny)).mul_(_COUPLING)

    @staticmethod
    def _blocks(shape: torch.Size) -> Iterator[slice]:
        """Rows of images (K, rows, columns) that are worked on at a time."""
        clusters, height, width = shape
        step = max(1, _BLOCK_NUMBERS // (clusters * width))
        return (slice(start, min(start + step, height)) for start in range(0, height, step))

    def prune(self, mass: Tensor, threshold: float) -> list[int]:
        """`SegmentationModel.prune`."""
        kept = kept_clusters(mass, threshold, self.n_clusters)
        self.means = nn.Parameter(self.means[kept].clone(), requires_grad=False)
        return kept


def _offsets() -> list[tuple[int, int]]:
    """Where the neighbours of a pixel begin in an image that is padded by half a window."""
    middle = _WINDOW // 2
    return [(y, x) for y in range(_WINDOW) for x in range(_WINDOW) if (y, x) != (middle, middle)]
