"""Inputs of `mean_shift_assign`, and its results and gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from helpers import seeds
from spectrafuse import use_backend
from spectrafuse.ops import mean_shift_assign


def inputs(batch, dim, height, width, clusters, dtype, seed=None):
    """Fresh random inputs."""
    seed = seeds.fresh_seed() if seed is None else seed
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    embeddings = F.normalize(normal(batch, dim, height, width), dim=1).to(dtype)
    centers = normal(clusters, dim).to(dtype)
    bandwidth = (0.4 + torch.rand((), generator=generator, dtype=torch.float64)).to(dtype)
    grads = normal(batch, dim, height, width).to(dtype), normal(batch, height, width, clusters).to(dtype)
    return embeddings, centers, bandwidth, grads


def evaluate(backend, embeddings, centers, bandwidth, grads, **options):
    """Both outputs and all gradients of sum(shifted * g0) + sum(probs * g1)."""
    leaves = [x.detach().clone().requires_grad_() for x in (embeddings, centers, bandwidth)]
    with use_backend(backend):
        shifted, probs = mean_shift_assign(*leaves, **options)
        ((shifted * grads[0]).sum() + (probs * grads[1]).sum()).backward()
    return [shifted.detach(), probs.detach(), *(leaf.grad for leaf in leaves)]
