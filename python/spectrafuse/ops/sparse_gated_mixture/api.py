"""The sparse form of the mixture: a second, input-free gate per component and band (arXiv 2510.20364)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

import spectrafuse.ops.sparse_gated_mixture.registration  # noqa: F401  registers the kernel
from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.gate import GateNoise, Langevin
from spectrafuse.ops.gate.api import check_langevin, check_noise
from spectrafuse.ops.gated_mixture.api import check_mixture
from spectrafuse.ops.sparse_gated_mixture.pytorch import sparse_gated_mixture as composed
from spectrafuse.ops.sparse_gated_mixture.reference import sparse_gated_mixture as reference
from spectrafuse.random import philox_words

backends.declare(
    "sparse_gated_mixture",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.sparse_gated_mixture,
)


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
            raise ValueError("`rng` and `noise` must not both be given; got both.")
        checks.tensor("rng", rng, shape="(2,)", ndim=1, dtypes=(torch.int64,))
        if rng.shape[0] != 2:
            raise checks.fail("rng", "a tensor (2,)", f"shape {tuple(rng.shape)}")
        if rng.device != components.device:
            raise checks.fail("rng", f"on {components.device} like the other inputs", f"a tensor on {rng.device}")
    batch_size = concentration.shape[0]
    noise = check_noise(noise, (batch_size, *shape, 2), components)
    options = check_langevin(langevin)
    checks.number("tau", tau, above=0.0)
    limits = {"cuda": triton.dtype_reason(components.dtype)}
    chosen = backends.choose("sparse_gated_mixture", components.device.type, limits)
    inputs = (concentration, select_prob, components, sparsity_energy)

    if chosen in ("cpu", "cuda"):
        refinement = None if noise is None or langevin is None or options.steps == 0 else noise.langevin
        gumbel = None if noise is None else noise.gumbel
        working = extensions.working_dtype(components.dtype)
        mixture, *sums = torch.ops.spectrafuse.sparse_gated_mixture(
            *(t.to(working) for t in inputs), rng, None if gumbel is None else gumbel.to(working),
            None if refinement is None else refinement.to(working), float(tau), options.step_size * options.steps,
            options.noise * math.sqrt(options.steps), bool(non_negative), norm or 0,
        )  # fmt: skip
        return SparseMixtureResult(mixture.to(components.dtype), *sums)
    if chosen == "reference":
        if rng is not None:
            noise = _whole_noise(rng, batch_size, shape, options, components.dtype)
        return SparseMixtureResult(
            *reference(
                *inputs,
                None if noise is None else noise.gumbel,
                None if noise is None or langevin is None else noise.langevin,
                tau=tau,
                step_size=options.step_size,
                steps=options.steps,
                non_negative=non_negative,
                norm=norm,
            )
        )

    def draw(sample: int) -> tuple[Tensor, Tensor | None]:
        if noise is None:
            assert rng is not None
            drawn = draw_sparsity_noise(rng, sample, shape, options, dtype=components.dtype)
            return drawn.gumbel, drawn.langevin
        refinement = noise.langevin if langevin is not None else None
        return noise.gumbel[sample], None if refinement is None else refinement[sample]

    return SparseMixtureResult(
        *composed(
            *inputs,
            None if rng is None and noise is None else draw,
            tau=tau,
            step_size=options.step_size,
            steps=options.steps,
            non_negative=non_negative,
            norm=norm,
        )
    )
