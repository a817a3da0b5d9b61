"""Lazy tensors behave like the tensors they stand for."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.compat.ebgmcr.recipes import GatedComponents, RefinedEnergies, SparsityGates
from spectrafuse.ops.gate import Langevin

INDICES: list[Any] = [
    0,
    -1,
    slice(1, 3),
    (slice(None), 1),
    (0, torch.tensor([True, False, True, True, False])),
    (..., 1),
    (slice(None), None, 1),
    torch.tensor([2, 0]),
    (torch.tensor([0, 2]), torch.tensor([1, 1])),
    torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.5,
    [0, 1],
]


def make(kind: str, requires_grad: bool = False) -> tuple[LazyTensor, Tensor]:
    """A lazy tensor of shape (3, 5, 4[, 2]) and the same tensor, built."""
    spectra = torch.rand(5, 4, dtype=torch.float64, requires_grad=requires_grad)
    factor = torch.rand(3, 5, dtype=torch.float64)
    gates = SparsityGates(torch.rand(5, 4, 2).double(), torch.tensor([9, 1]), 3, 0.5, Langevin())
    if kind == "plain":
        recipe: Any = GatedComponents(spectra, 3)
        whole = spectra.expand(3, 5, 4)
    elif kind == "dense":
        recipe = GatedComponents(spectra, factor)
        whole = spectra * factor.unsqueeze(-1)
    elif kind == "sparse":
        recipe = GatedComponents(spectra, factor, gates)
        whole = spectra * factor.unsqueeze(-1) * torch.stack([gates.sample(b)[0] for b in range(3)])
    else:
        recipe = RefinedEnergies(gates)
        whole = torch.stack([gates.sample(b)[1] for b in range(3)])
    return LazyTensor(recipe), whole


KINDS = ["plain", "dense", "sparse", "energies"]


@pytest.mark.parametrize("kind", KINDS)
def test_looks_like_the_tensor_without_being_built(kind: str) -> None:
    lazy, whole = make(kind)
    assert isinstance(lazy, Tensor)
    assert torch.is_tensor(lazy)
    assert lazy.shape == whole.shape
    assert (lazy.dim(), lazy.ndim, len(lazy), lazy.numel()) == (whole.dim(), whole.ndim, len(whole), whole.numel())
    assert (lazy.dtype, lazy.device, lazy.size(1), lazy.requires_grad) == (torch.float64, whole.device, 5, False)
    assert lazy.detach().cpu().shape == whole.shape
    assert hash(lazy) == hash(lazy)
    assert lazy._whole is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(kind: str, index: Any) -> None:
    lazy, whole = make(kind)
    actual = lazy[index]
    assert type(actual) is Tensor
    assert lazy._whole is None
    torch.testing.assert_close(actual, whole[index])
    _ = lazy + 1
    torch.testing.assert_close(lazy[index], whole[index])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x * torch.arange(x.shape[-1]),
        lambda x: x.sum(),
        lambda x: x.sum(1),
        lambda x: x.sum(dim=-2),
        lambda x: x.sum(1, keepdim=True),
        lambda x: torch.sum(x, (0, 1)),
        lambda x: torch.cat([x, x], dim=0),
        lambda x: torch.cat([x, x], dim=1),
        lambda x: torch.cat([x], dim=1),
        lambda x: torch.stack([x[0], x[1]]),
        lambda x: x.reshape(3, -1).T,
        lambda x: torch.linalg.vector_norm(x),
        lambda x: torch.from_numpy(np.asarray(x)),
        lambda x: torch.tensor(x.numpy()),
        lambda x: torch.stack(list(x)),
        lambda x: x.float().cpu(),
        lambda x: copy.deepcopy(x),
        lambda x: x.clone().mul_(3),
        lambda x: torch.where(x > 0.3, x, 0.0),
        lambda x: (torch.full((3, 5) + (1,) * (x.dim() - 2), 2.0, dtype=torch.float64) * x).sum(1),
    ],
)
def test_functions(kind: str, function: Any) -> None:
    lazy, whole = make(kind)
    actual, expected = function(lazy), function(whole)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual + 0, expected)


def test_products_sums_and_concatenations_stay_unbuilt() -> None:
    (first, whole), (second, other) = make("dense"), make("plain")
    factor = torch.rand(3, 5, 1).double()
    product = factor * first
    assert isinstance(product, LazyTensor)
    torch.testing.assert_close(product.sum(1), (factor * whole).sum(1))
    both = torch.cat([first, second], dim=1)
    assert isinstance(both, LazyTensor)
    assert all(lazy._whole is None for lazy in (first, second, product))
    torch.testing.assert_close(both + 0, torch.cat([whole, other], dim=1))


@pytest.mark.parametrize("kind", ["plain", "dense", "sparse"])
def test_gradients_reach_what_it_is_made_of(kind: str) -> None:
    lazy, whole = make(kind, requires_grad=True)
    assert lazy.requires_grad
    assert not lazy.detach().requires_grad
    spectra = lazy.recipe.like
    weight = torch.rand(lazy.shape).double()
    with torch.no_grad():
        _ = lazy.max()
    (lazy * weight).sum().backward()
    torch.testing.assert_close(spectra.grad, torch.autograd.grad((whole * weight).sum(), spectra)[0])


def test_changes_in_place_stay() -> None:
    lazy, whole = make("dense")
    lazy[0] = 5.0
    lazy.mul_(2)
    whole[0] = 5.0
    torch.testing.assert_close(lazy + 0, 2 * whole)
    torch.testing.assert_close(lazy.sum(1), 2 * whole.sum(1))
    torch.testing.assert_close(lazy[0], 2 * whole[0])


def test_saved_as_an_ordinary_tensor() -> None:
    lazy, whole = make("sparse")
    buffer = io.BytesIO()
    torch.save({"components": lazy}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)["components"]
    assert type(loaded) is Tensor
    torch.testing.assert_close(loaded, whole)
    assert repr(whole)[:10] == repr(lazy)[:10]


@pytest.mark.parametrize("kind", ["plain", "dense", "sparse"])
def test_no_samples(kind: str) -> None:
    gates = SparsityGates(torch.rand(5, 4, 2), torch.tensor([9, 1]), 0, 0.5, None) if kind == "sparse" else None
    lazy = LazyTensor(GatedComponents(torch.rand(5, 4), 0 if kind == "plain" else torch.rand(0, 5), gates))
    assert lazy.shape == (0, 5, 4)
    assert (lazy + 1).shape == (0, 5, 4)
    assert (lazy.sum(1)).shape == (0, 4)
