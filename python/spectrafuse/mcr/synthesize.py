"""Synthetic mixtures with known components, as EB-gMCR's paper draws them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import checks
from spectrafuse.random import RandomStream

_SMALLEST_INTENSITY = 1e-6
"""Dense non-negative spectra are clamped here, sparse ones at 0 (the paper's generator)."""


class Mixtures(NamedTuple):
    """Synthetic spectra and what they are made of.

    Attributes
    ----------
    spectra : Tensor, (n, d)
        With noise, clamped.
    components : Tensor, (N, d)
    concentrations : Tensor, (n, N)
        0 where a component is not in a sample.
    noise : Tensor, (n,)
        Standard deviation of the noise in each sample, in the spectra's unit; 0 without noise.
    """

    spectra: Tensor
    components: Tensor
    concentrations: Tensor
    noise: Tensor


class MixtureSynthesizer:
    """Draws mixtures of random components.

    Parameters
    ----------
    num_components : int
        Number of true components N.
    num_features : int
        Length d of a spectrum.
    sparsity : float
        Share of zeros in the components, in [0, 1); no component is all zero.
    non_negative : bool
        Components are absolute values and spectra are clamped.
    orthogonal : bool
        Start from orthogonal rows instead of normal numbers. After the absolute value they are not orthogonal any
        more: pairwise cosines lie around 2 / pi.
    norm : int or None
        Rows are divided by this p-norm.
    min_mixing, max_mixing : int, int or None
        Fewest and most distinct components in a sample, drawn uniformly; None: all.
    concentration_range : tuple of float
        Concentrations are uniform in it.
    snr_db : float or None
        Signal-to-noise ratio of each sample in dB; None: no noise.
    components : Tensor, (N, d), optional
        Use these instead of drawing them; the options that describe components are then ignored, except that
        `non_negative` and `sparsity` still decide the clamping.
    random_state : int
        Seed. Every `generate` goes on from the last.

    Notes
    -----
    arXiv 2507.23600, section on synthetic data, and its public code. The noise has the variance (mean square over the
    sample's non-zero entries) / 10^(snr_db / 10) and falls on non-zero entries only.

    Examples
    --------
    >>> from spectrafuse.mcr import MixtureSynthesizer
    >>> mixtures = MixtureSynthesizer(4, 100, max_mixing=2, snr_db=20.0).generate(16)
    >>> mixtures.spectra.shape, int((mixtures.concentrations > 0).sum(1).max())
    (torch.Size([16, 100]), 2)
    """

    def __init__(
        self,
        num_components: int,
        num_features: int,
        *,
        sparsity: float = 0.0,
        non_negative: bool = True,
        orthogonal: bool = True,
        norm: int | None = 2,
        min_mixing: int = 1,
        max_mixing: int | None = None,
        concentration_range: tuple[float, float] = (1.0, 10.0),
        snr_db: float | None = None,
        components: Tensor | None = None,
        random_state: int = 0,
    ) -> None:
        self.num_components = checks.integer("num_components", num_components)
        self.num_features = checks.integer("num_features", num_features)
        self.sparsity = checks.number("sparsity", sparsity, minimum=0.0, maximum=1.0)
        self.non_negative = non_negative
        self.orthogonal = orthogonal
        self.norm = None if norm is None else checks.integer("norm", norm)
        self.min_mixing = checks.integer("min_mixing", min_mixing)
        self.max_mixing = num_components if max_mixing is None else checks.integer("max_mixing", max_mixing)
        if not self.min_mixing <= self.max_mixing <= self.num_components:
            raise checks.fail(
                "max_mixing",
                f"between `min_mixing` = {self.min_mixing} and `num_components` = {self.num_components}",
                self.max_mixing,
            )
        low, high = concentration_range
        self.concentration_range = (
            checks.number("concentration_range[0]", low, minimum=0.0),
            checks.number("concentration_range[1]", high, minimum=low),
        )
        self.snr_db = None if snr_db is None else checks.number("snr_db", snr_db)
        self.stream = RandomStream(random_state)
        if components is None:
            components = self._draw_components()
        else:
            checks.tensor("components", components, shape="(num_components, num_features)", ndim=2)
            if tuple(components.shape) != (num_components, num_features):
                raise checks.fail("components", f"of shape ({num_components}, {num_features})", tuple(components.shape))
        self.components: Tensor = components.float()

    def _draw_components(self) -> Tensor:
        rows, columns = self.num_components, self.num_features
        components = self.stream.normal((rows, columns), dtype=torch.float64)
        if self.orthogonal:
            tall = components if rows >= columns else components.T
            q, r = torch.linalg.qr(tall)
            q = q * r.diagonal().sign()
            components = q if rows >= columns else q.T
        if self.non_negative:
            components = components.abs()
        if self.sparsity > 0:
            components = components * self._draw_mask()
        if self.norm is not None:
            components = components / torch.linalg.vector_norm(components, ord=self.norm, dim=1, keepdim=True)
        return components.contiguous()

    def _draw_mask(self) -> Tensor:
        rows, columns = self.num_components, self.num_features
        zeros = int(rows * columns * self.sparsity)
        if zeros > rows * (columns - 1):
            raise checks.fail(
                "sparsity", f"low enough to leave every component one of {columns} entries", self.sparsity
            )
        mask = torch.ones(rows, columns, dtype=torch.float64)
        kept = self.stream.integers(0, columns - 1, (rows,))
        # One entry of each row is out of the draw, so no row can come out all zero.
        free = torch.ones(rows, columns, dtype=torch.bool)
        free[torch.arange(rows), kept] = False
        places = free.flatten().nonzero().squeeze(1)
        mask.view(-1)[places[self.stream.permutation(len(places))[:zeros]]] = 0.0
        return mask

    def generate(self, num_samples: int) -> Mixtures:
        """Draw `num_samples` mixtures of the same components."""
        n = checks.integer("num_samples", num_samples)
        how_many = self.stream.integers(self.min_mixing, self.max_mixing, (n,))
        order = self.stream.uniform((n, self.num_components), dtype=torch.float64).argsort(dim=1)
        rank = order.argsort(dim=1)
        low, high = self.concentration_range
        concentrations = self.stream.uniform((n, self.num_components), low, high)
        concentrations = concentrations * (rank < how_many[:, None])
        spectra = concentrations @ self.components
        sigma = torch.zeros(n)
        if self.snr_db is not None:
            signal = spectra != 0
            power = spectra.square().sum(1) / signal.sum(1).clamp(min=1)
            sigma = (power / math.pow(10.0, self.snr_db / 10.0)).sqrt()
            spectra = spectra + self.stream.normal((n, self.num_features)) * sigma[:, None] * signal
        if self.non_negative:
            spectra = spectra.clamp(min=0.0 if self.sparsity > 0 else _SMALLEST_INTENSITY)
        return Mixtures(spectra, self.components, concentrations, sigma)
