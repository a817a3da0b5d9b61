"""The segmentation model: encoder, mean shift, soft assignment to cluster centres.

docs/algorithms/dgc.md, "Encoder" and "Mean shift and assignment".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.dgc.encoder import Encoder
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.mean_shift_assign import MOST_WINDOW, MeanShiftResult, mean_shift_assign, mean_shift_labels
from spectrafuse.random import RandomStream

# What a published configuration means where it does not name a value (the classes' own defaults).
_PUBLISHED_ENCODER = {"n_spectral_layers": 3, "spectral_kernel_size": 3, "embed_dim": 32, "bias": True}
_PUBLISHED_MEAN_SHIFT = {
    "embed_dim": 32,
    "n_clusters": 4,
    "num_iters": 5,
    "learn_bandwidth": True,
    "init_bandwidth": 1.0,
    "temp": 0.05,
    "use_approx": True,
    "kernel_size": 5,
}

# Of two 3 x 3 convolutions.
_SPATIAL_RADIUS = 2


class Clusters(nn.Module):
    """Cluster centres (K, D) and the bandwidth of the mean shift.

    Both carry the published names: `cluster_centers`, and `log_bandwidth`, whose softplus is the bandwidth.
    """

    log_bandwidth: Tensor

    def __init__(
        self, n_clusters: int, embed_dim: int, bandwidth: float, learn_bandwidth: bool, stream: RandomStream
    ) -> None:
        super().__init__()
        value = torch.tensor(math.log(math.expm1(bandwidth)), dtype=torch.float32)
        if learn_bandwidth:
            self.log_bandwidth = nn.Parameter(value)
        else:
            self.register_buffer("log_bandwidth", value)
        centers = stream.normal((n_clusters, embed_dim))
        self.cluster_centers = nn.Parameter(nn.functional.normalize(centers, dim=1, eps=1e-12))

    @property
    def bandwidth(self) -> Tensor:
        """Positive bandwidth, ()."""
        return nn.functional.softplus(self.log_bandwidth)


class SegmentationModel(nn.Module):
    """Maps cubes to soft cluster assignments of their pixels.

    Parameters
    ----------
    n_bands, embed_dim, n_clusters : int
        Bands, embedding length D, clusters K.
    n_spectral_layers, spectral_kernel_size, bias
        Of the `Encoder`.
    num_iters, window : int
        Mean-shift iterations and odd side of the window, in pixels.
    temperature, bandwidth : float
        Of the softmax over cosine similarities, and the initial bandwidth; both positive.
    learn_bandwidth : bool
        Whether the bandwidth is trained.
    dense : bool
        All pixels of an image are neighbours, instead of a window.
    stream : RandomStream, optional
        Where initial values are drawn from; seed 0 without it.
    loss_weights : mapping, optional
        Kept in `config` for files in the published format; no effect here.

    Notes
    -----
    arXiv 2512.24172, sec. 3. Parameters carry the published names.
    """

    def __init__(
        self,
        n_bands: int,
        embed_dim: int = 32,
        n_clusters: int = 4,
        *,
        n_spectral_layers: int = 3,
        spectral_kernel_size: int = 9,
        bias: bool = False,
        num_iters: int = 5,
        window: int = 5,
        temperature: float = 0.05,
        bandwidth: float = 1.0,
        learn_bandwidth: bool = True,
        dense: bool = False,
        stream: RandomStream | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        checks.integer("n_clusters", n_clusters, maximum=10_000)
        self.num_iters = checks.integer("num_iters", num_iters, maximum=1000)
        self.window = checks.integer("window", window, maximum=MOST_WINDOW)
        if window % 2 == 0:
            raise checks.fail("window", "an odd integer", window)
        self.temperature = checks.number("temperature", temperature, above=0)
        self.initial_bandwidth = checks.number("bandwidth", bandwidth, above=0, maximum=1e6)
        self.learn_bandwidth = bool(learn_bandwidth)
        self.dense = bool(dense)
        self.loss_weights = dict(loss_weights or {})
        stream = RandomStream(0) if stream is None else stream
        self.encoder = Encoder(
            n_bands,
            embed_dim,
            n_spectral_layers=n_spectral_layers,
            spectral_kernel_size=spectral_kernel_size,
            bias=bias,
            stream=stream,
        )
        self.cluster = Clusters(n_clusters, embed_dim, bandwidth, self.learn_bandwidth, stream)

    @property
    def n_bands(self) -> int:
        """Bands of the cubes the model takes."""
        return self.encoder.n_bands

    @property
    def n_clusters(self) -> int:
        """Clusters K there are now."""
        return self.cluster.cluster_centers.shape[0]

    @property
    def centers(self) -> Tensor:
        """Cluster centres (K, D)."""
        return self.cluster.cluster_centers

    @property
    def channels(self) -> int:
        """Numbers D of a pixel between the two stages: the convolutions along the pixels, and those over the image."""
        return self.encoder.embed_dim

    @property
    def raster_reach(self) -> int:
        """Places along the flattened pixels beyond which the first stage does not look."""
        return self.encoder.n_spectral_layers * (self.encoder.spectral_kernel_size // 2)

    @property
    def spatial_reach(self) -> int:
        """Rows and columns beyond which the 3 x 3 convolutions and the mean-shift window do not look."""
        return self.window // 2 + _SPATIAL_RADIUS

    @property
    def working_numbers(self) -> int:
        """Numbers of a pixel that the second stage holds at most, the assignments apart."""
        return 10 * self.channels

    @property
    def bandwidth(self) -> Tensor:
        """Bandwidth of the mean shift, ()."""
        return self.cluster.bandwidth

    @property
    def config(self) -> dict[str, Any]:
        """What a published `config.json` holds: num_bands, encoder_kwargs, mean_shift_kwargs, loss_weights."""
        return {
            "num_bands": self.n_bands,
            "encoder_kwargs": {
                "n_spectral_layers": self.encoder.n_spectral_layers,
                "spectral_kernel_size": self.encoder.spectral_kernel_size,
                "embed_dim": self.encoder.embed_dim,
                "bias": self.encoder.bias,
            },
            "mean_shift_kwargs": {
                "embed_dim": self.encoder.embed_dim,
                "n_clusters": self.n_clusters,
                "num_iters": self.num_iters,
                "learn_bandwidth": self.learn_bandwidth,
                "init_bandwidth": self.initial_bandwidth,
                "temp": self.temperature,
                "use_approx": not self.dense,
                "kernel_size": self.window,
            },
            "loss_weights": dict(self.loss_weights),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, stream: RandomStream | None = None) -> SegmentationModel:
        """A model for a published configuration; values it does not name take the published defaults.

        Raises
        ------
        ValueError
            For unknown names, or an embedding length that differs between the two parts.
        """
        encoder = dict(_PUBLISHED_ENCODER) | _known("encoder_kwargs", config, (*_PUBLISHED_ENCODER, "inplace"))
        shift = dict(_PUBLISHED_MEAN_SHIFT) | _known("mean_shift_kwargs", config, _PUBLISHED_MEAN_SHIFT)
        if encoder["embed_dim"] != shift["embed_dim"]:
            raise InvalidValueError(
                f"`embed_dim` must be the same in encoder_kwargs and mean_shift_kwargs; got {encoder['embed_dim']} "
                f"and {shift['embed_dim']}."
            )
        return cls(
            config.get("num_bands", 301),
            encoder["embed_dim"],
            shift["n_clusters"],
            n_spectral_layers=encoder["n_spectral_layers"],
            spectral_kernel_size=encoder["spectral_kernel_size"],
            bias=encoder["bias"],
            num_iters=shift["num_iters"],
            window=shift["kernel_size"],
            temperature=shift["temp"],
            bandwidth=shift["init_bandwidth"],
            learn_bandwidth=shift["learn_bandwidth"],
            dense=not shift["use_approx"],
            loss_weights=config.get("loss_weights"),
            stream=stream,
        )

    def spectral(self, spectra: Tensor) -> Tensor:
        """The first stage: channels (pixels, D) of spectra (1, pixels, at least bands); bands beyond are zero."""
        found: Tensor = self.encoder.spectral_net(spectra.transpose(1, 2))[0].T
        return found

    def spatial(self, channels: Tensor) -> Tensor:
        """Embeddings (n, D, rows, columns) from what the first stage gives, in the shape of the image."""
        return self.encoder.spatial(channels)

    def assign(self, embeddings: Tensor) -> MeanShiftResult:
        """Mean shift and assignment of embeddings (n, D, rows, columns)."""
        if self.dense:
            shifted = dense_mean_shift(embeddings, self.bandwidth, num_iters=self.num_iters)
            directions = nn.functional.normalize(shifted, dim=1, eps=1e-12).permute(0, 2, 3, 1)
            return MeanShiftResult(shifted, (directions @ self.centers.t() / self.temperature).softmax(-1))
        return mean_shift_assign(
            embeddings,
            self.centers,
            self.bandwidth,
            num_iters=self.num_iters,
            window=self.window,
            temperature=self.temperature,
        )

    def margins(self, found: MeanShiftResult, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Most probable clusters, and how clear they are, both (n, rows, columns), of what `assign` gives.

        How clear: the probability of the cluster less that of the best one of another group, from 0 to 1.

        Parameters
        ----------
        groups : Tensor (K,)
            Clusters with the same number count as one.
        """
        best, clusters = found.probs.max(-1)
        others = found.probs.masked_fill(groups == groups[clusters].unsqueeze(-1), 0.0).amax(-1)
        return clusters, best - others

    def forward(self, cubes: Tensor) -> MeanShiftResult:
        """Mean shift and assignment of cubes (n, bands, rows, columns).

        Returns
        -------
        MeanShiftResult
            `shifted` embeddings (n, D, rows, columns), not normalised, and `probs` (n, rows, columns, K).
        """
        return self.assign(self.encoder(cubes))

    @torch.no_grad()
    def labels(self, cubes: Tensor) -> Tensor:
        """Most probable cluster of every pixel of cubes (n, bands, rows, columns), (n, rows, columns) int64."""
        return self.labels_of(self.encoder(cubes))

    @torch.no_grad()
    def labels_of(self, embeddings: Tensor) -> Tensor:
        """Most probable cluster of every embedding (n, D, rows, columns), (n, rows, columns) int64."""
        if self.dense:
            return self.assign(embeddings).probs.argmax(-1)
        return mean_shift_labels(
            embeddings,
            self.centers,
            self.bandwidth,
            num_iters=self.num_iters,
            window=self.window,
            temperature=self.temperature,
        )

    def prune(self, mass: Tensor, threshold: float) -> list[int]:
        """Remove clusters with less than `threshold` of the mass.

        Parameters
        ----------
        mass : Tensor (K,)
            Mean probability of every cluster over the pixels, in [0, 1].
        threshold : float
            In [0, 1].

        Returns
        -------
        list of int
            Old numbers of the clusters that are left; their centres and order are unchanged.

        Raises
        ------
        ValueError
            If no cluster would be left.
        """
        kept = kept_clusters(mass, threshold, self.n_clusters)
        centers = self.centers.detach()[kept].clone()
        self.cluster.cluster_centers = nn.Parameter(centers, requires_grad=self.centers.requires_grad)
        return kept


def kept_clusters(mass: Tensor, threshold: float, n_clusters: int) -> list[int]:
    """Clusters with at least `threshold` of the mass (K,): `SegmentationModel.prune`."""
    checks.number("threshold", threshold, minimum=0, maximum=1)
    if tuple(mass.shape) != (n_clusters,):
        raise checks.fail("mass", f"of shape ({n_clusters},)", f"shape {tuple(mass.shape)}")
    kept = [k for k, value in enumerate(mass.tolist()) if value >= threshold]
    if not kept:
        raise InvalidValueError(
            f"`threshold` must leave at least one cluster; the largest has a share of "
            f"{float(mass.max()):.4g}, below {threshold:g}."
        )
    return kept


def _known(part: str, config: Mapping[str, Any], names: Any) -> dict[str, Any]:
    given = dict(config.get(part) or {})
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise InvalidValueError(f"`{part}` knows {', '.join(names)}; got {', '.join(unknown)} as well.")
    return given
