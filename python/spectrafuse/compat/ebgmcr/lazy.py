"""Tensors of size (B, N, d) that exist only when somebody reads them.

The published model returns gated components and, in the sparse form, energies for every sample. A `LazyTensor` stands
for such a tensor: it knows its shape, hands out single entries, and multiplies and sums without being built; any other
use builds it once, with its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse.compat.ebgmcr.recipes import GatedComponents, Recipe, RefinedEnergies


class LazyTensor(Tensor):
    """A tensor that is made from its recipe when it is first read as a whole.

    Parameters
    ----------
    recipe : Recipe

    Notes
    -----
    Every function of torch takes it: shape and the like are answered without building it; so are single entries,
    products with factors (B, N, 1), the sum over components and concatenations of components. Results of anything
    else are ordinary tensors.
    """

    recipe: Recipe
    _whole: Tensor | None

    @staticmethod
    def __new__(cls, recipe: Recipe) -> LazyTensor:
        like = recipe.like
        return Tensor._make_wrapper_subclass(
            cls,
            recipe.shape,
            dtype=like.dtype,
            device=like.device,
            requires_grad=recipe.requires_grad and torch.is_grad_enabled(),
        )

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._whole = None

    def materialize(self) -> Tensor:
        """The tensor itself, ordinary; built once."""
        if self._whole is None:
            with torch.set_grad_enabled(self.requires_grad):
                self._whole = self.recipe.whole()
        return self._whole

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        special = _SPECIAL.get(func)
        if special is not None:
            result = special(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*_ordinary(tuple(args)), **_ordinary(dict(kwargs)))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # Reached only by code that goes around torch functions.
        return func(*_ordinary(tuple(args)), **_ordinary(dict(kwargs or {})))


def _ordinary(value: Any) -> Any:
    """The same nested value with every lazy tensor built."""
    if isinstance(value, LazyTensor):
        return value.materialize()
    if isinstance(value, dict):
        return {key: _ordinary(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_ordinary(entry) for entry in value)
    return value


def _components(value: Any) -> GatedComponents | None:
    """The recipe of lazy components that nobody has built (a built one may have been changed)."""
    if isinstance(value, LazyTensor) and value._whole is None and isinstance(value.recipe, GatedComponents):
        return value.recipe
    return None


def _get(lazy: Any, index: Any) -> Any:
    if not isinstance(lazy, LazyTensor) or lazy._whole is not None:
        return NotImplemented
    with torch.set_grad_enabled(lazy.requires_grad and torch.is_grad_enabled()):
        return lazy.recipe.item(_ordinary(index))


def _detach(lazy: Any) -> Any:
    if not isinstance(lazy, LazyTensor) or lazy._whole is not None:
        return NotImplemented
    return LazyTensor(lazy.recipe.moved(Tensor.detach))


def _cpu(lazy: Any, **options: Any) -> Any:
    if not isinstance(lazy, LazyTensor) or lazy._whole is not None or options:
        return NotImplemented
    return lazy if lazy.device.type == "cpu" else LazyTensor(lazy.recipe.moved(Tensor.cpu))


def _multiply(first: Any, second: Any, **options: Any) -> Any:
    recipe, factor = (_components(first), second) if isinstance(first, LazyTensor) else (_components(second), first)
    if recipe is None or options or not isinstance(factor, Tensor) or isinstance(factor, LazyTensor):
        return NotImplemented
    if tuple(factor.shape) != (*recipe.shape[:2], 1) or not factor.is_floating_point():
        return NotImplemented
    if torch.promote_types(factor.dtype, recipe.like.dtype) != recipe.like.dtype:
        return NotImplemented
    return LazyTensor(recipe.scaled(factor.squeeze(-1)))


def _sum(lazy: Any, dim: Any = None, *rest: Any, **options: Any) -> Any:
    if rest or options or not isinstance(lazy, LazyTensor) or lazy._whole is not None:
        return NotImplemented
    if isinstance(lazy.recipe, RefinedEnergies) and dim is None:
        return lazy.recipe.summed()
    if isinstance(lazy.recipe, GatedComponents) and dim in (1, -2, (1,), [1], (-2,), [-2]):
        return lazy.recipe.summed()
    return NotImplemented


def _concatenate(tensors: Any, dim: int = 0, **options: Any) -> Any:
    if len(tensors) == 1 and not options:
        return tensors[0]
    recipes = [_components(tensor) for tensor in tensors]
    known = [r for r in recipes if r is not None and r.sparsity is None]
    if options or dim not in (1, -2) or len(known) < len(recipes):
        return NotImplemented
    if len({(r.batch, r.like.shape[1], r.like.dtype, r.like.device) for r in known}) > 1:
        return NotImplemented
    factors = torch.cat([r._factors() for r in known], dim=1)
    return LazyTensor(GatedComponents(torch.cat([r.spectra for r in known]), factors))


_PROPERTIES = ("shape", "dtype", "device", "ndim", "requires_grad", "layout", "is_cuda", "is_sparse", "itemsize")
_METHODS = (
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "is_contiguous", "is_floating_point",
    "is_complex", "__len__", "__hash__",
)  # fmt: skip
_METADATA: set[Any] = {
    *(getattr(Tensor, name).__get__ for name in _PROPERTIES),
    *(getattr(Tensor, name) for name in _METHODS),
    torch.numel,
    torch.is_floating_point,
    torch.is_complex,
}
_SPECIAL: dict[Any, Callable[..., Any]] = {
    Tensor.__getitem__: _get,
    Tensor.detach: _detach,
    torch.detach: _detach,
    Tensor.cpu: _cpu,
    Tensor.mul: _multiply,
    Tensor.multiply: _multiply,
    torch.mul: _multiply,
    torch.multiply: _multiply,
    Tensor.sum: _sum,
    torch.sum: _sum,
    torch.cat: _concatenate,
    torch.concat: _concatenate,
    torch.concatenate: _concatenate,
}
