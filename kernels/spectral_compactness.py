"""Distance of spectra to their cluster's mean spectrum: products with the assignments and row norms in one pass.

Forward reads every spectrum and its assignments once and writes one number a pixel and block of bands, and sums of a
few pixel groups; the gradient of the assignments reads the spectra once more. Two operations a value read and
cluster: bound by bytes. PyTorch's products would need centred copies of the spectra, five passes more.
Spectra are taken around an `origin` near all of them; else two large numbers would cancel.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrafuse.kernels import LAUNCH, CompileCase

_LARGEST_GROUPS = 64


@triton.jit
def _centered(place, origin, valid, pixel, band, pixels, bands, pixel_stride, band_stride, HAS_VALID: tl.constexpr):
    """Spectra (PIXELS, BANDS) of one sample around the origin; zero where a pixel takes no part."""
    inside = (pixel < pixels)[:, None] & (band < bands)[None, :]
    if HAS_VALID:
        inside = inside & (tl.load(valid + pixel, mask=pixel < pixels, other=0) != 0)[:, None]
    places = place + pixel.to(tl.int64)[:, None] * pixel_stride + band.to(tl.int64)[None, :] * band_stride
    values = tl.load(places, mask=inside, other=0.0).to(tl.float32)
    middle = tl.load(origin + band, mask=band < bands, other=0.0)
    return tl.where(inside, values - middle[None, :], 0.0)


@triton.jit
def _sums(
    spectra,  # (B, C, N), any strides
    probs,  # (B, N, K)
    valid,  # (B, N) bytes, or anything without HAS_VALID
    origin,  # (C)
    products,  # (groups, C, K): sum of q_ik x_i
    mass,  # (groups, K): sum of q_ik
    norms,  # (band blocks, B, N): |x_i|^2 over the bands of a block
    batch,
    pixels,
    bands,
    clusters,
    sample_stride,
    band_stride,
    pixel_stride,
    HAS_VALID: tl.constexpr,
    PIXELS: tl.constexpr,
    BANDS: tl.constexpr,
    CLUSTERS: tl.constexpr,
):
    group, block = tl.program_id(0), tl.program_id(1)
    band = block * BANDS + tl.arange(0, BANDS)
    cluster = tl.arange(0, CLUSTERS)
    tiles = (pixels + PIXELS - 1) // PIXELS
    product = tl.zeros((BANDS, CLUSTERS), tl.float32)
    weight = tl.zeros((CLUSTERS,), tl.float32)
    for tile in range(group, batch * tiles, tl.num_programs(0)):
        sample = (tile // tiles).to(tl.int64)
        pixel = tile % tiles * PIXELS + tl.arange(0, PIXELS)
        place, sample_valid = spectra + sample * sample_stride, valid + sample * pixels
        x = _centered(place, origin, sample_valid, pixel, band, pixels, bands, pixel_stride, band_stride, HAS_VALID)
        inside = (pixel < pixels)[:, None] & (cluster < clusters)[None, :]
        if HAS_VALID:
            inside = inside & (tl.load(sample_valid + pixel, mask=pixel < pixels, other=0) != 0)[:, None]
        row = (sample * pixels + pixel)[:, None] * clusters + cluster[None, :]
        q = tl.load(probs + row, mask=inside, other=0.0).to(tl.float32)
        weight += tl.sum(q, 0)
        norm = norms + (block.to(tl.int64) * batch + sample) * pixels + pixel
        tl.store(norm, tl.sum(x * x, 1), mask=pixel < pixels)
        tl.debug_barrier()
        product = tl.dot(tl.trans(x), q, product, input_precision="ieee")
    place = (group * bands + band)[:, None] * clusters + cluster[None, :]
    tl.store(products + place, product, mask=(band < bands)[:, None] & (cluster < clusters)[None, :])
    if block == 0:
        tl.store(mass + group * clusters + cluster, weight, mask=cluster < clusters)


@triton.jit
def _distances(
    spectra,  # (B, C, N), any strides
    valid,  # (B, N) bytes, or anything without HAS_VALID
    origin,  # (C)
    means,  # (C, K), around the origin
    squared_norm,  # (B, N)
    scale,  # ()
    out,  # (B, N, K): scale |x_i - mu_k|^2
    pixels,
    bands,
    clusters,
    sample_stride,
    band_stride,
    pixel_stride,
    HAS_VALID: tl.constexpr,
    PIXELS: tl.constexpr,
    BANDS: tl.constexpr,
    CLUSTERS: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    cluster = tl.arange(0, CLUSTERS)
    place, sample_valid = spectra + sample * sample_stride, valid + sample * pixels
    product = tl.zeros((PIXELS, CLUSTERS), tl.float32)
    mean_norm = tl.zeros((CLUSTERS,), tl.float32)
    for first in range(0, bands, BANDS):
        band = first + tl.arange(0, BANDS)
        x = _centered(place, origin, sample_valid, pixel, band, pixels, bands, pixel_stride, band_stride, HAS_VALID)
        inside = (band < bands)[:, None] & (cluster < clusters)[None, :]
        mean = tl.load(means + band[:, None] * clusters + cluster[None, :], mask=inside, other=0.0)
        mean_norm += tl.sum(mean * mean, 0)
        tl.debug_barrier()
        product = tl.dot(x, mean, product, input_precision="ieee")
    norm = tl.load(squared_norm + sample * pixels + pixel, mask=pixel < pixels, other=0.0)
    distance = tl.maximum(norm[:, None] + mean_norm[None, :] - 2 * product, 0.0) * tl.load(scale)
    if HAS_VALID:
        takes_part = tl.load(sample_valid + pixel, mask=pixel < pixels, other=0) != 0
        distance = tl.where(takes_part[:, None], distance, 0.0)
    row = (sample * pixels + pixel)[:, None] * clusters + cluster[None, :]
    tl.store(out + row, distance, mask=(pixel < pixels)[:, None] & (cluster < clusters)[None, :])


def _form(clusters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tile sizes, and options of the launch."""
    padded = max(16, triton.next_power_of_2(clusters))
    bands, warps = (32, 4) if padded <= 64 else (16, 8)
    return {"PIXELS": 32, "BANDS": bands, "CLUSTERS": padded}, {"num_warps": warps, "num_stages": 1}


def _origin(spectra: Tensor, valid: Tensor | None) -> Tensor:
    """Mean spectrum (C) of at most some hundred pixels a sample, float32; 0 where none of them takes part."""
    step = max(1, spectra.shape[2] // 256)
    some = spectra[:, :, ::step].to(torch.float32)
    if valid is None:
        return some.mean((0, 2))
    kept = valid[:, None, ::step]
    return torch.where(kept, some, 0.0).sum((0, 2)) / kept.sum().clamp_min(1)


def forward(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value () float64, and in float32 origin (C), means around it (C, K) and squared norms (B, N).

    `spectra` (B, C, N) may have any strides; `probs` is (B, N, K), `valid` (B, N) bool. B, C, N, K at least 1.
    """
    batch, bands, pixels = spectra.shape
    clusters = probs.shape[2]
    constants, options = _form(clusters)
    origin = _origin(spectra, valid)
    groups = min(_LARGEST_GROUPS, batch * triton.cdiv(pixels, constants["PIXELS"]))
    blocks = triton.cdiv(bands, constants["BANDS"])
    products, mass = origin.new_empty((groups, bands, clusters)), origin.new_empty((groups, clusters))
    norms = origin.new_empty((blocks, batch, pixels))
    with torch.cuda.device_of(spectra):
        _sums[groups, blocks](
            spectra, probs.contiguous(), origin if valid is None else valid.contiguous().view(torch.uint8), origin,
            products, mass, norms, batch, pixels, bands, clusters, *spectra.stride(),
            HAS_VALID=valid is not None, **constants, **options, **LAUNCH,
        )  # fmt: skip
    squared_norm = norms.sum(0)
    total_mass = mass.sum(0, dtype=torch.float64).clamp_min(torch.finfo(torch.float32).tiny)
    total = products.sum(0, dtype=torch.float64)
    shares = probs.sum(2, dtype=torch.float32)
    if valid is not None:
        shares = shares.masked_fill(~valid, 0.0)
    within = (shares * squared_norm).sum(dtype=torch.float64) - (total.square() / total_mass).sum()
    count = pixel_count(spectra, valid)
    # Rounding alone can push the difference of the two sides below zero.
    value = within.clamp_min(0.0) / (count * bands)
    return value, origin, (total / total_mass).to(torch.float32), squared_norm


def pixel_count(spectra: Tensor, valid: Tensor | None) -> Tensor | int:
    """Number of pixels that take part, at least 1; not read on the host."""
    return spectra.shape[0] * spectra.shape[2] if valid is None else valid.sum().clamp_min(1)


def grad_probs(
    grad: Tensor, spectra: Tensor, valid: Tensor | None, origin: Tensor, means: Tensor, squared_norm: Tensor
) -> Tensor:
    """Gradient (B, N, K), float32, of the assignments."""
    batch, bands, pixels = spectra.shape
    clusters = means.shape[1]
    constants, options = _form(clusters)
    scale = (grad.to(torch.float32) / (pixel_count(spectra, valid) * bands)).contiguous()
    out = origin.new_empty((batch, pixels, clusters))
    with torch.cuda.device_of(spectra):
        _distances[triton.cdiv(pixels, constants["PIXELS"]), batch](
            spectra, origin if valid is None else valid.contiguous().view(torch.uint8), origin, means, squared_norm,
            scale, out, pixels, bands, clusters, *spectra.stride(),
            HAS_VALID=valid is not None, **constants, **options, **LAUNCH,
        )  # fmt: skip
    return out


def compile_cases() -> list[CompileCase]:
    """Four and 256 clusters, spectra stored by band or by pixel, with a mask; narrow types are read as they are."""
    cases = []
    for kernel, name in ((_sums, "forward"), (_distances, "backward")):
        for dtype in ("fp32", "bf16"):
            for clusters, contiguous in ((4, "band_stride"), (4, "pixel_stride"), (256, "band_stride")):
                constants, options = _form(clusters)
                constants.update({"HAS_VALID": True, contiguous: 1})
                pointers = {"spectra": f"*{dtype}:16", "probs": f"*{dtype}:16", "valid": "*u8:16"}
                floats = ("origin", "products", "mass", "norms", "means", "squared_norm", "scale", "out")
                pointers.update(dict.fromkeys(floats, "*fp32:16"))
                signature = {key: pointers.get(key, "i32") for key in kernel.arg_names if key not in constants}
                layout = "by pixel" if contiguous == "band_stride" else "by band"
                full_name = f"{name} {dtype} K={clusters}, {layout}"
                cases.append(CompileCase(full_name, kernel, signature, constants, options, paper=clusters == 4))
    return cases
