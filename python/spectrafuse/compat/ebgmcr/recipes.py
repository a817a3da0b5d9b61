"""How the lazy tensors of size (B, N, d) are made, whole or in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from spectrafuse.ops.gate import GateNoise, Langevin, gate
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.sparse_gated_mixture import draw_sparsity_noise, sparse_gated_mixture


class Recipe(Protocol):
    """How a lazy tensor is made."""

    @property
    def like(self) -> Tensor:
        """A tensor of the result's dtype and device."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def requires_grad(self) -> bool: ...

    def whole(self) -> Tensor: ...

    def item(self, index: Any) -> Tensor:
        """What indexing the whole would give."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> Recipe:
        """The same with `move` applied to every tensor in it."""


class SparsityGates:
    """The sparse form's gates h (B, N, d), drawn for each sample from energies (N, d, 2) that all samples share.

    Parameters
    ----------
    energy : Tensor, shape (N, d, 2)
    source : Tensor, shape (2,) int64, or GateNoise
        Seed and step from which each sample's numbers are drawn, again whenever they are needed; or the numbers.
    batch : int
        Number of samples B.
    tau : float
    langevin : Langevin or None
        Refinement; None: evaluation.
    """

    def __init__(
        self, energy: Tensor, source: Tensor | GateNoise, batch: int, tau: float, langevin: Langevin | None
    ) -> None:
        self.energy, self.source, self.batch, self.tau, self.langevin = energy, source, batch, tau, langevin
        self.energy_sum: Tensor | None = None
        """Sum of the refined energies, once a mixture has been made of these gates."""

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Gates (N, d) and negated refined energies (N, d, 2) of one sample."""
        if isinstance(self.source, GateNoise):
            refinement = self.source.langevin
            noise = GateNoise(None if refinement is None else refinement[index], self.source.gumbel[index])
        else:
            shape = (self.energy.shape[0], self.energy.shape[1])
            noise = draw_sparsity_noise(self.source, index, shape, self.langevin, dtype=self.energy.dtype)
        result = gate(self.energy, noise, tau=self.tau, langevin=self.langevin)
        return result.select_prob, result.select_energy

    def moved(self, move: Callable[[Tensor], Tensor]) -> SparsityGates:
        source = self.source
        if isinstance(source, GateNoise):
            source = GateNoise(None if source.langevin is None else move(source.langevin), move(source.gumbel))
        else:
            source = move(source)
        gates = SparsityGates(move(self.energy), source, self.batch, self.tau, self.langevin)
        gates.energy_sum = None if self.energy_sum is None else move(self.energy_sum)
        return gates


class GatedComponents:
    """Components (N, d) of each sample, times a factor of each sample and component, times sparsity gates.

    Parameters
    ----------
    spectra : Tensor, shape (N, d)
        As they are mixed; must not change afterwards.
    factor : Tensor, shape (B, N), or int
        Factors, or the number of samples B where all factors are 1.
    sparsity : SparsityGates, optional
    """

    def __init__(self, spectra: Tensor, factor: Tensor | int, sparsity: SparsityGates | None = None) -> None:
        self.spectra, self.factor, self.sparsity = spectra, factor, sparsity

    @property
    def like(self) -> Tensor:
        return self.spectra

    @property
    def batch(self) -> int:
        return self.factor if isinstance(self.factor, int) else self.factor.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, *self.spectra.shape)

    @property
    def requires_grad(self) -> bool:
        tensors = [self.spectra] if isinstance(self.factor, int) else [self.spectra, self.factor]
        if self.sparsity is not None:
            tensors.append(self.sparsity.energy)
        return any(t.requires_grad for t in tensors)

    def _factors(self) -> Tensor:
        if isinstance(self.factor, int):
            return self.spectra.new_ones(()).expand(self.factor, self.spectra.shape[0])
        return self.factor.to(self.spectra.dtype)

    def whole(self) -> Tensor:
        if self.sparsity is not None:
            rows = [self.sparsity.sample(b)[0] for b in range(self.batch)]
            gates = torch.stack(rows) if rows else self.spectra.new_empty(self.shape)
            return self.spectra * gates * self._factors().unsqueeze(-1)
        whole = self.spectra.expand(self.shape)
        return whole if isinstance(self.factor, int) else whole * self._factors().unsqueeze(-1)

    def item(self, index: Any) -> Tensor:
        if self.sparsity is not None:
            return self.whole()[index]
        # Both views have the full shape, so any index picks matching entries and nothing else is computed.
        return self.spectra.expand(self.shape)[index] * self._factors().unsqueeze(-1).expand(self.shape)[index]

    def moved(self, move: Callable[[Tensor], Tensor]) -> GatedComponents:
        factor = self.factor if isinstance(self.factor, int) else move(self.factor)
        return GatedComponents(move(self.spectra), factor, self.sparsity and self.sparsity.moved(move))

    def scaled(self, factor: Tensor) -> GatedComponents:
        """Times one more factor (B, N)."""
        if not isinstance(self.factor, int):
            factor = self.factor * factor
        return GatedComponents(self.spectra, factor, self.sparsity)

    def mixture(self, concentration: Tensor, select_prob: Tensor) -> Tensor:
        """Spectra (B, d): these components, gated, times gated concentrations, summed."""
        spectra = self.spectra
        weight = concentration if isinstance(self.factor, int) else concentration * self.factor
        weight = weight.to(spectra.dtype)
        select_prob = select_prob.to(spectra.dtype)
        if self.sparsity is None:
            return gated_mixture(weight, select_prob, spectra, non_negative=False, norm=None)
        sparsity = self.sparsity
        drawn = isinstance(sparsity.source, Tensor)
        result = sparse_gated_mixture(
            weight,
            select_prob,
            spectra,
            sparsity.energy,
            rng=sparsity.source if isinstance(sparsity.source, Tensor) else None,
            noise=None if drawn else sparsity.source,  # type: ignore[arg-type]
            tau=sparsity.tau,
            langevin=sparsity.langevin,
            non_negative=False,
            norm=None,
        )
        sparsity.energy_sum = result.energy_sum
        return result.mixture

    def summed(self) -> Tensor:
        """Sum over the components, (B, d)."""
        ones = self.spectra.new_ones(()).expand(self.batch, self.spectra.shape[0])
        return self.mixture(ones, ones)


class RefinedEnergies:
    """Negated refined energies (B, N, d, 2) of sparsity gates."""

    def __init__(self, sparsity: SparsityGates) -> None:
        self.sparsity = sparsity

    @property
    def like(self) -> Tensor:
        return self.sparsity.energy

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.sparsity.batch, *self.sparsity.energy.shape)

    @property
    def requires_grad(self) -> bool:
        return self.sparsity.energy.requires_grad

    def whole(self) -> Tensor:
        rows = [self.sparsity.sample(b)[1] for b in range(self.sparsity.batch)]
        return torch.stack(rows) if rows else self.sparsity.energy.new_empty(self.shape)

    def item(self, index: Any) -> Tensor:
        return self.whole()[index]

    def moved(self, move: Callable[[Tensor], Tensor]) -> RefinedEnergies:
        return RefinedEnergies(self.sparsity.moved(move))

    def summed(self) -> Tensor:
        """Sum of all entries, ()."""
        if self.sparsity.energy_sum is not None:
            return self.sparsity.energy_sum
        sums = [self.sparsity.sample(b)[1].sum() for b in range(self.sparsity.batch)]
        return torch.stack(sums).sum() if sums else self.sparsity.energy.new_zeros(())


class SelectedComponents:
    """Components (N, d) picked for each sample by indices (n, k)."""

    def __init__(self, spectra: Tensor, indices: Tensor) -> None:
        self.spectra, self.indices = spectra, indices

    @property
    def like(self) -> Tensor:
        return self.spectra

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.indices.shape, self.spectra.shape[1])

    @property
    def requires_grad(self) -> bool:
        return self.spectra.requires_grad

    def whole(self) -> Tensor:
        return self.spectra[self.indices]

    def item(self, index: Any) -> Tensor:
        return self.whole()[index]

    def moved(self, move: Callable[[Tensor], Tensor]) -> SelectedComponents:
        return SelectedComponents(move(self.spectra), move(self.indices))
