"""The sparse form of the mixture: a second, input-free gate per component and band (arXiv 2510.20364)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, counts
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.ops import _self_test
from spectrafuse.ops._gating import GateNoise, Langevin, check_langevin, check_noise, noise_of
from spectrafuse.ops._mixture import check_mixture
from spectrafuse.ops.sparse_gated_mixture import pytorch, reference, registration
from spectrafuse.random import philox_words


class SparseMixtureResult(NamedTuple):
    """What `sparse_gated_mixture` returns.

    Attributes
    ----------
    mixture : Tensor (B, d)
    energy_sum, energy_square_sum : Tensor ()
        Sum and sum of squares, over all samples, of the negated refined sparsity energies (B, N, d, 2); with
        gradient; float32 for 16-bit inputs.
    """

    mixture: Tensor
    energy_sum: Tensor
    energy_square_sum: Tensor


def draw_sparsity_noise(
    rng: Tensor,
    sample: int,
    shape: tuple[int, int],
    langevin: Langevin | None,
    *,
    dtype: torch.dtype = torch.float32,
) -> GateNoise:
    """The noise of one sample's sparsity gates.

    Parameters
    ----------
    rng : Tensor (2,) int64
        Seed and step.
    sample : int
        Index of the sample in its batch.
    shape : (int, int)
        (N, d), components and bands.
    langevin : Langevin or None
        Refinement whose noise is drawn; None or no steps: none.
    dtype : torch.dtype

    Returns
    -------
    GateNoise
        `langevin` (N, d, 2) or None and `gumbel` (N, d), the difference of both classes.

    Notes
    -----
    Element i = n d + j uses one Philox block, words 4i .. 4i+3 of the stream (seed, step + (sample + 1)
    2^32): the first two make the Langevin pair (Box-Muller), the third the logistic number; the fourth is
    not used. A `RandomStream` counts its steps from 0, so none of its own draws meets these.
    """
    seed, step = (int(v) for v in rng.tolist())
    components, bands = shape
    count = components * bands
    words = philox_words(seed, step + ((sample + 1) << 32), 4 * count, rng.device).view(count, 4)
    working = torch.float64 if dtype == torch.float64 else torch.float32
    # 23 bits and a half: exact in float32, inside (0, 1), the same number in every dtype and on every device.
    unit = ((words[:, :3] >> 9).to(working) + 0.5) * 2.0**-23
    gumbel = (torch.log(unit[:, 2]) - torch.log1p(-unit[:, 2])).view(shape).to(dtype)
    if langevin is None or langevin.steps == 0:
        return GateNoise(None, gumbel)
    radius = torch.sqrt(-2.0 * torch.log(unit[:, 0])) * (langevin.noise * math.sqrt(langevin.steps))
    angle = (2.0 * math.pi) * unit[:, 1]
    pair = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
    return GateNoise(pair.view(*shape, 2).to(dtype), gumbel)


def _whole_noise(
    rng: Tensor, batch_size: int, shape: tuple[int, int], langevin: Langevin, dtype: torch.dtype
) -> GateNoise:
    """All samples' noise at once, for the implementation that stores it."""
    if batch_size == 0:
        refinement = torch.empty((0, *shape, 2), dtype=dtype, device=rng.device)
        return GateNoise(refinement if langevin.steps else None, refinement[..., 0])
    draws = [draw_sparsity_noise(rng, b, shape, langevin, dtype=dtype) for b in range(batch_size)]
    refinements = [d.langevin for d in draws if d.langevin is not None]
    return GateNoise(torch.stack(refinements) if refinements else None, torch.stack([d.gumbel for d in draws]))


def sparse_gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    *,
    rng: Tensor | None = None,
    noise: GateNoise | None = None,
    tau: float,
    langevin: Langevin | None,
    non_negative: bool = True,
    norm: int | None = 2,
) -> SparseMixtureResult:
    """`y_bj = sum_n c_bn s_bn^2 S_nj h_bnj`, with gates h drawn anew for each sample.

    Parameters
    ----------
    concentration, select_prob : Tensor (B, N)
        c and s, as for `spectrafuse.ops.gated_mixture`.
    components : Tensor (N, d)
        V, the raw component parameters.
    sparsity_energy : Tensor (N, d, 2)
        Energies of both classes of each component and band, the same for every sample.
    rng : Tensor (2,) int64, optional
        Seed and step; the operation draws inside and again in backward (`draw_sparsity_noise` says how) and
        never stores a sample's numbers.
    noise : GateNoise, optional
        The numbers themselves: `langevin` (B, N, d, 2) or None, `gumbel` (B, N, d, 2) or (B, N, d).
        Neither `rng` nor `noise`: deterministic gates, no refinement.
    tau : float
        Temperature, above 0.
    langevin : Langevin or None
        Refinement (training); None: evaluation, no refinement.
    non_negative : bool
        Take absolute values of `components`.
    norm : {2, 1, None}
        Divide each row of the components by its norm of this order, before the gate.

    Returns
    -------
    SparseMixtureResult

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or option is wrong, or both `rng` and `noise` are given.

    Notes
    -----
    arXiv 2510.20364. h stays soft in evaluation; only s is thresholded. Zero rows as for `gated_mixture`.
    """
    check_mixture(concentration, select_prob, components, norm)
    shape = (components.shape[0], components.shape[1])
    checks.tensor("sparsity_energy", sparsity_energy, shape="(N, d, 2)", ndim=3, like=components)
    if tuple(sparsity_energy.shape) != (*shape, 2):
        raise checks.fail("sparsity_energy", f"a tensor {(*shape, 2)}", f"shape {tuple(sparsity_energy.shape)}")
    if rng is not None:
        if noise is not None:
            raise InvalidValueError("`rng` and `noise` must not both be given; got both.")
        checks.tensor("rng", rng, shape="(2,)", ndim=1, dtypes=(torch.int64,))
        if rng.shape[0] != 2:
            raise checks.fail("rng", "a tensor (2,)", f"shape {tuple(rng.shape)}")
        if rng.device != components.device:
            raise checks.fail("rng", f"on {components.device} like the other inputs", f"a tensor on {rng.device}")
    noise = check_noise(noise, (concentration.shape[0], *shape, 2), components)
    options = check_langevin(langevin)
    checks.number("tau", tau, above=0.0)
    mixed = operation(
        concentration,
        select_prob,
        components,
        sparsity_energy,
        rng,
        *noise_of(noise, langevin),
        tau=tau,
        options=options,
        non_negative=bool(non_negative),
        norm=norm,
    )
    return SparseMixtureResult(*mixed)


def _reference(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    rng: Tensor | None,
    gumbel: Tensor | None,
    refinement: Tensor | None,
    *,
    options: Langevin,
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """By the published formulation, with all samples' noise at once."""
    if rng is not None:
        shape = (components.shape[0], components.shape[1])
        refinement, gumbel = _whole_noise(rng, len(concentration), shape, options, components.dtype)
    inputs = (concentration, select_prob, components, sparsity_energy)
    return reference.sparse_gated_mixture(
        *inputs, gumbel, refinement, step_size=options.step_size, steps=options.steps, **others
    )


def _pytorch(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    rng: Tensor | None,
    gumbel: Tensor | None,
    refinement: Tensor | None,
    *,
    options: Langevin,
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """With one sample's noise at a time."""

    def draw(sample: int) -> tuple[Tensor, Tensor | None]:
        if rng is not None:
            shape = (components.shape[0], components.shape[1])
            drawn = draw_sparsity_noise(rng, sample, shape, options, dtype=components.dtype)
            return drawn.gumbel, drawn.langevin
        assert gumbel is not None
        return gumbel[sample], None if refinement is None else refinement[sample]

    inputs = (concentration, select_prob, components, sparsity_energy)
    drawing = None if rng is None and gumbel is None else draw
    return pytorch.sparse_gated_mixture(*inputs, drawing, step_size=options.step_size, steps=options.steps, **others)


def work(batch: int, components: int, bands: int) -> Counts:
    """About 300 a gate in each direction, most of them random words; three tensors like the components."""
    gates, values = batch * components * bands, 3 * components * bands
    return counts((300 * gates, 300 * gates), (values, 2 * values))


def self_test(device: str) -> list[Tensor]:
    """Gates drawn inside."""
    leaves = _self_test.numbers(device, (5, 37), (5, 37), (37, 131), (37, 131, 2))
    rng = torch.tensor([7, 3], device=device)
    return _self_test.with_gradients(sparse_gated_mixture(*leaves, rng=rng, tau=0.5, langevin=Langevin()), leaves)


_FORWARD, _BACKWARD = "sparse_gated_mixture forward", "sparse_gated_mixture backward"
operation = backends.declare(
    "sparse_gated_mixture",
    reference=_reference,
    pytorch=_pytorch,
    kernel=registration.sparse_gated_mixture,
    kernels={"cpu": (), "cuda": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={
        "sparse_gated_mixture_forward": lambda sizes, *others: (_FORWARD, work(*sizes).forward),
        "sparse_gated_mixture_backward": lambda sizes, *others: (_BACKWARD, work(*sizes).backward),
    },
    gpu_kernels={"sparse_backward_kernel": _BACKWARD, "sparse_kernel|add_part_sums_kernel": _FORWARD},
)
