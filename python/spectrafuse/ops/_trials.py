"""A small call of every operation that has kernels for a GPU: `backends` tries a kernel by it before it is taken.

Each takes a device and returns outputs and gradients, from the same numbers every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse import ops


def _numbers(device: str, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Leaves uniform in (0, 1), the same on every device, whatever the caller's default type and device are."""
    generator = torch.Generator("cpu").manual_seed(5)
    made = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for shape in shapes]
    return [tensor.to(device).requires_grad_() for tensor in made]


def _with_gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs and the gradients of their squares' sum."""
    loss = torch.stack([output.square().sum() for output in outputs if output.requires_grad]).sum()
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def _noise(device: str, shape: tuple[int, ...]) -> ops.GateNoise:
    langevin, gumbel = _numbers(device, (*shape, 2), shape)
    return ops.GateNoise(langevin.detach(), 4 * gumbel.detach() - 2)


def gate(device: str) -> list[Tensor]:
    """Two blocks of components."""
    (energy,) = leaves = _numbers(device, (3, 70, 2))
    return _with_gradients(ops.gate(energy, _noise(device, (3, 70)), tau=0.5, langevin=ops.Langevin()), leaves)


def energy_gate(device: str) -> list[Tensor]:
    """A product of few rows and the gate of it."""
    hidden, weight, bias = leaves = _numbers(device, (3, 37), (2 * 70, 37), (2 * 70,))
    noise = _noise(device, (3, 70))
    return _with_gradients(ops.energy_gate(hidden, weight, bias, noise, tau=0.5, langevin=ops.Langevin()), leaves)


def gated_mixture(device: str) -> list[Tensor]:
    """Two parts of components, two blocks of bands, two tiles of samples, both norms."""
    leaves = _numbers(device, (17, 37), (17, 37), (37, 131))
    return _with_gradients([ops.gated_mixture(*leaves, norm=norm) for norm in (1, 2)], leaves)


def sparse_gated_mixture(device: str) -> list[Tensor]:
    """Gates drawn inside."""
    leaves = _numbers(device, (5, 37), (5, 37), (37, 131), (37, 131, 2))
    rng = torch.tensor([7, 3], device=device)
    return _with_gradients(ops.sparse_gated_mixture(*leaves, rng=rng, tau=0.5, langevin=ops.Langevin()), leaves)


def skinny_linear(device: str) -> list[Tensor]:
    """Every activation, values of both signs."""
    x, weight, bias = leaves = _numbers(device, (17, 37), (11, 37), (11,))
    signed = weight - 0.5
    names = ("none", "tanh", "relu", "abs")
    return _with_gradients([ops.skinny_linear(x, signed, bias, name) for name in names], leaves)


def adamw_outer(device: str) -> list[Tensor]:
    """A third step."""
    shapes = ((17, 37), (17, 11), (11, 37), (11, 37), (11, 37))
    x, grad_y, weight, exp_avg, exp_avg_sq = (tensor.detach() for tensor in _numbers(device, *shapes))
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
    ops.adamw_outer(x, grad_y, weight, exp_avg, exp_avg_sq, **options, step=3)
    return [weight, exp_avg, exp_avg_sq]


def ambiguity_penalty(device: str) -> list[Tensor]:
    """A kernel of squared distances, one of absolute distances, one of products."""
    (components,) = leaves = _numbers(device, (37, 19))
    return _with_gradients([ops.ambiguity_penalty(components, name) for name in ("rbf", "laplacian", "poly")], leaves)


def mean_shift_assign(device: str) -> list[Tensor]:
    """Two images, all iterations."""
    embeddings, centers, bandwidth = leaves = _numbers(device, (2, 5, 7, 9), (3, 5), ())
    labels = ops.mean_shift_labels(embeddings, centers, bandwidth)
    return [labels, *_with_gradients(ops.mean_shift_assign(embeddings, centers, bandwidth), leaves)]


def clustering_objective(device: str) -> list[Tensor]:
    """Two pairs of views with masks, aligned."""
    *leaves, place = _numbers(device, (4, 5, 7, 9), (3, 5), (), (4, 7, 9))
    embeddings, centers, bandwidth = leaves
    identity = torch.tensor([0.0, 0, 1, 0, 0, 0, 1, 0, 0], device=device)
    geometry = identity.expand(2, 2, 9).contiguous()
    labels = (torch.arange(2 * 2 * 7 * 9, device=device) % 3).view(2, -1)
    valid = place.detach() > 0.1
    terms = ops.clustering_objective(embeddings, centers, bandwidth, geometry, pseudo_labels=labels, valid=valid)
    return _with_gradients([term for term in terms if term is not None], leaves)


def dense_mean_shift(device: str) -> list[Tensor]:
    """All pairs of two small images."""
    leaves = _numbers(device, (2, 5, 7, 9), ())
    return _with_gradients([ops.dense_mean_shift(*leaves)], leaves)


def spectral_compactness(device: str) -> list[Tensor]:
    """Two images with a mask."""
    spectra, probs, place = _numbers(device, (2, 19, 7, 9), (2, 7, 9, 3), (2, 7, 9))
    return _with_gradients([ops.spectral_compactness(spectra, probs, place.detach() > 0.1)], [spectra, probs])


def extract_crop_pairs(device: str) -> list[Tensor]:
    """Crops that are rotated, reach beyond the scene and shift their bands."""
    (cubes,) = _numbers(device, (2, 5, 9, 11))
    geometry = torch.tensor([0.0, 1, 0.9, -0.3, 0.1, 0.3, 0.9, -0.1, 2], device=device).expand(2, 2, 9).contiguous()
    return [ops.extract_crop_pairs(cubes.detach(), geometry, (7, 9))]
