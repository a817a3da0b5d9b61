"""Terms of the loss where a batch is shared among processes: each has its part, and the parts add up to the terms.

Means over pixels are divided by the pixels of all processes. The balance and the spectral term depend on the pixels in
other ways: with what all processes' pixels add up to, the marginals and the clusters' mean spectra, their gradient is
again a sum over pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse.ops.clustering_objective import ClusteringTerms

# Of `clustering_objective`.
_PROB_EPS = 1e-6


class SharedTerms(NamedTuple):
    """This process's part of every term, ()."""

    compactness: Tensor
    uniform: Tensor
    orthogonality: Tensor
    balance: Tensor
    consistency: Tensor
    spectral: Tensor


def shared_terms(
    terms: ClusteringTerms, spectra: Tensor | None, valid: Tensor | None, pseudo_labels: Tensor | None
) -> SharedTerms:
    """The parts of this process.

    Parameters
    ----------
    terms : ClusteringTerms
        Of this process's pairs, without pseudo-labels and with assignments.
    spectra : Tensor (2B, bands, h, w) or None
        Of the pairs, for the spectral term.
    valid : Tensor (2B, h, w) bool or None
        Pixels that count.
    pseudo_labels : Tensor (2, B h w) int64 or None
        Of the pairs.
    """
    working, (views, height, width, clusters) = terms.compactness.dtype, terms.probs.shape
    probs = terms.probs.to(working).reshape(2, views // 2 * height * width, clusters)
    valid = None if valid is None else valid.reshape(probs.shape[:2])
    counted = probs if valid is None else torch.where(valid.unsqueeze(-1), probs, 0.0)
    sums = counted.sum(1)
    own = terms.counts.to(counted.device, torch.float64)
    totals = [own.clone(), counted.detach().sum(1, dtype=torch.float64)]
    if spectra is not None:
        rows = spectra.permute(0, 2, 3, 1).flatten(0, 2).to(working)
        if valid is not None:
            rows = torch.where(valid.flatten().unsqueeze(1), rows, 0.0)
        assigned = counted.detach().flatten(0, 1)
        totals += [(assigned.t() @ rows).double(), rows.sum(0, dtype=torch.float64)]
    ranks.add(totals)
    counts, mass = totals[:2]
    at_least_one = counts.clamp_min(1)
    pixels = at_least_one[:2, None]
    parts = own / at_least_one

    marginal = mass / pixels + _PROB_EPS
    entropy = torch.where(counts[:2] > 0, -(marginal * marginal.log()).sum(1), 0.0).mean() / ranks.count()
    slope = (-(marginal.log() + 1) / pixels / 2).to(working)
    through = (slope * sums).sum()
    balance = through - through.detach() + entropy.to(working)

    uniform = balance.new_zeros(())
    if pseudo_labels is not None:
        likelihood = probs.gather(2, pseudo_labels.unsqueeze(2)).squeeze(2)
        surprise = -likelihood.clamp_min(_PROB_EPS).log()
        if valid is not None:
            surprise = torch.where(valid, surprise, 0.0)
        uniform = (surprise.sum(1) / pixels[:, 0].to(working)).mean()

    spectral = balance.new_zeros(())
    if spectra is not None:
        origin = totals[3] / at_least_one[:2].sum()
        # A cluster without mass has no pixel whose distance counts.
        means = totals[2] / mass.sum(0).clamp_min(torch.finfo(working).tiny)[:, None] - origin
        centered, means = rows - origin.to(working), means.to(working)
        distance = centered.square().sum(1, keepdim=True) - 2 * centered @ means.t() + means.square().sum(1)
        spectral = (counted.flatten(0, 1) * distance.clamp_min(0)).sum()
        spectral = spectral / (at_least_one[:2].sum() * rows.shape[1]).to(working)
    return SharedTerms(
        (terms.compactness * parts[:2].to(working)).sum(),
        uniform,
        terms.orthogonality * (ranks.number() == 0),
        balance,
        terms.consistency * parts[2].to(working),
        spectral,
    )
