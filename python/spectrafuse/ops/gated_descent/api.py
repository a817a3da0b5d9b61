"""Coordinate descent on a mixture whose gates are closed for most spectra, in float64 and in place."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import BYTES, Work, labeled
from spectrafuse.ops.gated_descent import pytorch, reference, registration


def gated_descent(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, *, sweeps: int = 1, tolerance: float = 0.0
) -> Tensor:
    """Sweeps of coordinate descent over the gated concentrations of every spectrum, all components given.

    Each concentration in turn takes the value that lowers the squared residual most, or 0 if that is below the
    component's smallest: with `sqrt(price / power)`, a gate opens only for what lowers the residual by `price`.

    Parameters
    ----------
    along : Tensor (n, k), float64
        Products of spectra and components; -inf closes a gate for good.
    overlap : Tensor (k, k), float64
        Products of components with each other; one with 0 on the diagonal is left out.
    concentrations : Tensor (n, k), float64
        Where the descent begins and ends: changed in place.
    smallest : Tensor (k,), float64, >= 0
    sweeps : int
        At most.
    tolerance : float
        A spectrum is done once a sweep changes none of its concentrations by more.

    Returns
    -------
    Tensor (n, k)
        `concentrations`.
    """
    count = along.shape[1] if along.ndim == 2 else 0
    _check(("along", along, (len(along), count)), ("overlap", overlap, (count, count)),
           ("concentrations", concentrations, tuple(along.shape)), ("smallest", smallest, (count,)))  # fmt: skip
    operation(along, overlap, concentrations, smallest, checks.integer("sweeps", sweeps, minimum=0), float(tolerance))
    return concentrations


def descend_open_gates(
    spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, *, sweeps: int = 1
) -> Tensor:
    """The same over open gates only, from spectra and components: gates close, none opens.

    Parameters
    ----------
    spectra : Tensor (n, d), float64
    concentrations : Tensor (n, k), float64
        Changed in place; those of 0 stay.
    components : Tensor (k, d), float64
    smallest : Tensor (k,), float64, >= 0
    sweeps : int

    Returns
    -------
    Tensor (n, k)
        `concentrations`.
    """
    _check(*_mixture(spectra, concentrations, components), ("smallest", smallest, (len(components),)))
    _open_gates(spectra, concentrations, components, smallest, checks.integer("sweeps", sweeps, minimum=0))
    return concentrations


def descend_components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, *, non_negative: bool, price: float = 0.0,
    held: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One sweep of coordinate descent over components, the concentrations given.

    Parameters
    ----------
    spectra : Tensor (n, d), float64
    concentrations : Tensor (n, k), float64
    components : Tensor (k, d), float64
        Changed in place. One without concentrations stays as it is.
    non_negative : bool
        What would be negative becomes 0.
    price : float
        A band that lowers the squared residual by less becomes 0.
    held : Tensor (k,), bool, optional
        Components that keep their shape.

    Returns
    -------
    Tensor (k, d)
        `components`.
    """
    _check(*_mixture(spectra, concentrations, components))
    if held is None:
        held = torch.zeros(len(components), dtype=torch.bool, device=spectra.device)
    checks.tensor("held", held, shape="(k,)", ndim=1, dtypes=(torch.bool,))
    if len(held) != len(components):
        raise checks.fail("held", f"of shape ({len(components)},)", f"shape {tuple(held.shape)}")
    _components(spectra, concentrations, components, held, bool(non_negative), float(price))
    return components


def mixture_residual(spectra: Tensor, concentrations: Tensor, components: Tensor) -> Tensor:
    """What a mixture leaves of spectra: (n, d), without the work for closed gates. Arguments as above."""
    return _residual(spectra, concentrations, components, True)


def residual_power(spectra: Tensor, concentrations: Tensor, components: Tensor) -> Tensor:
    """Sum of squares of what a mixture leaves of each spectrum: (n,). Arguments as above."""
    return _residual(spectra, concentrations, components, False)


def _residual(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool) -> Tensor:
    _check(*_mixture(spectra, concentrations, components))
    left: Tensor = _mixture_residual(spectra, concentrations, components, whole)
    return left


def _mixture(
    spectra: Tensor, concentrations: Tensor, components: Tensor
) -> tuple[tuple[str, Tensor, tuple[int, ...]], ...]:
    count = len(components)
    return (
        ("spectra", spectra, tuple(spectra.shape)),
        ("concentrations", concentrations, (len(spectra), count)),
        ("components", components, (count, spectra.shape[-1])),
    )


def _check(*arrays: tuple[str, Tensor, tuple[int, ...]]) -> None:
    for name, array, shape in arrays:
        right = isinstance(array, Tensor) and array.dtype == torch.float64 and array.shape == shape
        if right and array.is_contiguous():
            continue
        checks.tensor(name, array, shape=str(shape), ndim=len(shape), dtypes=(torch.float64,))
        if tuple(array.shape) != shape:
            raise checks.fail(name, f"of shape {shape}", f"shape {tuple(array.shape)}")
        if not array.is_contiguous():
            raise checks.fail(name, "contiguous, as it may be changed in place", f"strides {array.stride()}")


def work(samples: int, components: int) -> Work:
    """A look at every gate: products are read, concentrations written. What open gates cost depends on the data."""
    return Work(2 * samples * components, BYTES * components * (2 * samples + components))


def _of_mixture(sizes: tuple[int, int, int], *others: object) -> Work:
    """As if each spectrum had one gate open: two operations a band."""
    samples, bands, components = sizes
    return Work(2 * samples * bands, BYTES * (bands + components) * samples + BYTES * components * bands)


operation = backends.declare(
    "gated_descent",
    reference=reference.descend_concentrations,
    pytorch=pytorch.descend_concentrations,
    kernel=registration.descend_concentrations,
    kernels={"cpu": ()},
    work=work,
    extension_calls={
        "descend_concentrations": labeled(
            "gated_descent", lambda samples, components, *others: work(samples, components)
        ),
        "descend_open_gates": labeled("gated_descent of open gates", _of_mixture),
        "descend_components": labeled("gated_descent of components", _of_mixture),
        "mixture_residual": labeled("gated_descent residual", _of_mixture),
    },
)
_open_gates = operation.variant(
    reference=reference.descend_open_gates,
    pytorch=pytorch.descend_open_gates,
    kernel=registration.descend_open_gates,
)
_components = operation.variant(
    reference=reference.descend_components,
    pytorch=pytorch.descend_components,
    kernel=registration.descend_components,
)
_mixture_residual = operation.variant(
    reference=reference.mixture_residual,
    pytorch=reference.mixture_residual,
    kernel=registration.mixture_residual,
)
