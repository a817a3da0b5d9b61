"""All-pairs mean shift: every pixel of an image moves to the weighted mean of all of them.

An iteration reads a (dim, columns) tile of the embeddings for every tile of rows, from the second-level cache, and
writes dim + 1 values a pixel; weights exist in registers only. Forward 4 N dim operations and N exponentials a pixel
and iteration (two products), backward 10 N dim (five products, everything recomputed): bound by float32 operations.

Embeddings are held as differences to their image's mean: distances do not change, and |a|^2 + |b|^2 - 2 ab loses
fewer digits. A pixel's distance to itself is exactly zero: rounding in that sum, over a small bandwidth, would give it
another weight forward than backward, where tiles differ. The mean itself enters only through the small number that is
added to the sum of the weights.
An image lies in memory as (DIM, pitch), with zeros beyond its dim and pixels, so that tiles need no masks.
The barriers before the products keep the compiler from loading all operands of the next ones early, into registers
it does not have.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrafuse.kernels import LAUNCH, CompileCase

_WEIGHT_EPS = 1e-6


@triton.jit
def _shift(
    before,  # (B, DIM, pitch)
    after,  # (B, DIM, pitch)
    weight_sum,  # (B, pitch)
    origin,  # (B, DIM): the mean that was taken off
    bandwidth,  # ()
    pixels,
    pitch,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIM: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    width = tl.load(bandwidth).to(tl.float32)
    scale = -0.7213475204444817 / (width * width)  # weights are 2^(scale d^2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dimension = tl.arange(0, DIM)
    lines = image * DIM * pitch + dimension.to(tl.int64) * pitch
    point = tl.load(before + lines[None, :] + row[:, None])
    norm = tl.sum(point * point, 1)
    total = tl.zeros((ROWS, DIM), tl.float32)
    weights = tl.zeros((ROWS,), tl.float32)
    for start in range(0, pixels, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        other = tl.load(before + lines[:, None] + column[None, :])
        tl.debug_barrier()
        product = tl.dot(point, other, input_precision="ieee")
        distance = norm[:, None] + tl.sum(other * other, 0)[None, :] - 2 * product
        distance = tl.where(row[:, None] == column[None, :], 0.0, distance)
        weight = tl.where(column[None, :] < pixels, tl.exp2(scale * distance), 0.0)
        weights += tl.sum(weight, 1)
        tl.debug_barrier()
        total = tl.dot(weight, tl.trans(other), total, input_precision="ieee")
    mean = tl.load(origin + image * DIM + dimension)
    moved = (total - EPS * mean[None, :]) / (weights + EPS)[:, None]
    tl.store(after + lines[None, :] + row[:, None], moved)
    tl.store(weight_sum + image * pitch + row, weights)


@triton.jit
def _shift_backward(
    before,  # (B, DIM, pitch)
    pull,  # (B, DIM, pitch): gradient of the moved embeddings over (sum of the weights + EPS)
    pull_dot,  # (B, pitch): its product with the moved embedding
    bandwidth,  # ()
    grad,  # (B, DIM, pitch)
    spread,  # (B, pitch): sum of the weights' gradients times weight times squared distance, both ways
    pixels,
    pitch,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIM: tl.constexpr,
):
    # A pixel moves others as their neighbour and is moved by them; as the weights are symmetric, both ways of a pair
    # are gathered by the pixel: grad_k = sum_j w u_j + m (p_j - p_k) / bandwidth^2 with the pull u, and
    # m = w (u_k p_j - u_k z_k + u_j p_k - u_j z_j) for the moved embeddings z.
    image = tl.program_id(1).to(tl.int64)
    width = tl.load(bandwidth).to(tl.float32)
    inverse = 1.0 / (width * width)
    scale = -0.7213475204444817 * inverse
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    lines = image * DIM * pitch + tl.arange(0, DIM).to(tl.int64) * pitch
    point = tl.load(before + lines[None, :] + row[:, None])
    own = tl.load(pull + lines[None, :] + row[:, None])
    own_dot = tl.load(pull_dot + image * pitch + row)
    norm = tl.sum(point * point, 1)
    total = tl.zeros((ROWS, DIM), tl.float32)
    mixed_sum = tl.zeros((ROWS,), tl.float32)
    distance_sum = tl.zeros((ROWS,), tl.float32)
    for start in range(0, pixels, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        other = tl.load(before + lines[:, None] + column[None, :])
        other_pull = tl.load(pull + lines[:, None] + column[None, :])
        other_dot = tl.load(pull_dot + image * pitch + column)
        tl.debug_barrier()
        product = tl.dot(point, other, input_precision="ieee")
        distance = norm[:, None] + tl.sum(other * other, 0)[None, :] - 2 * product
        # In all tiles, the comparison would spill registers.
        if (start < first + ROWS) & (start + COLUMNS > first):
            distance = tl.where(row[:, None] == column[None, :], 0.0, distance)
        weight = tl.where(column[None, :] < pixels, tl.exp2(scale * distance), 0.0)
        tl.debug_barrier()
        both_ways = tl.dot(own, other, input_precision="ieee")
        tl.debug_barrier()
        both_ways = tl.dot(point, other_pull, both_ways, input_precision="ieee")
        mixed = weight * (both_ways - own_dot[:, None] - other_dot[None, :])
        mixed_sum += tl.sum(mixed, 1)
        distance_sum += tl.sum(mixed * distance, 1)
        tl.debug_barrier()
        total = tl.dot(weight, tl.trans(other_pull), total, input_precision="ieee")
        tl.debug_barrier()
        total = tl.dot(mixed * inverse, tl.trans(other), total, input_precision="ieee")
    # Beyond the pixels weight sums are arbitrary, and a gradient would grow with every iteration.
    total = tl.where((row < pixels)[:, None], total - point * (mixed_sum * inverse)[:, None], 0.0)
    tl.store(grad + lines[None, :] + row[:, None], total)
    tl.store(spread + image * pitch + row, distance_sum)


def _form(padded_dim: int, backward: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tile sizes, and options of the launch."""
    if padded_dim <= 32:
        constants, warps = ({"ROWS": 64, "COLUMNS": 32}, 4) if backward else ({"ROWS": 64, "COLUMNS": 64}, 8)
    else:
        constants, warps = {"ROWS": 32, "COLUMNS": 2048 // padded_dim if backward else 32}, 8
    if not backward:
        constants["EPS"] = _WEIGHT_EPS
    return {**constants, "DIM": padded_dim}, {"num_warps": warps, "num_stages": 1}


def _pad(rows: Tensor) -> Tensor:
    """(..., N, dim) as float32 (..., DIM, pitch), with zeros beyond."""
    pixels, dim = rows.shape[-2:]
    padded = rows.new_zeros(
        (*rows.shape[:-2], max(16, triton.next_power_of_2(dim)), triton.cdiv(pixels, 64) * 64), dtype=torch.float32
    )
    padded[..., :dim, :pixels] = rows.transpose(-1, -2)
    return padded


def forward(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Move embeddings (B, dim, H, W); float32, bfloat16 or float16.

    Returns
    -------
    tuple of Tensor
        The moved embeddings. In float32: what they are before every iteration and after the last as differences to
        the image's mean (num_iters + 1, B, H W, dim); the sums of weights (num_iters, B, H W).
    """
    rows = embeddings.flatten(2).transpose(1, 2)
    batch, pixels, dim = rows.shape
    mean = rows.mean(1, keepdim=True, dtype=torch.float32)
    first = _pad(rows - mean)
    states = first.new_empty((num_iters + 1, *first.shape))
    states[0] = first
    weight_sums = first.new_empty((num_iters, batch, first.shape[2]))
    origin = first.new_zeros(first.shape[:2])
    origin[:, :dim] = mean.squeeze(1)
    if rows.numel() > 0:
        constants, options = _form(first.shape[1], backward=False)
        grid = (triton.cdiv(pixels, constants["ROWS"]), batch)
        with torch.cuda.device_of(rows):
            for before, after, weight_sum in zip(states[:-1], states[1:], weight_sums, strict=True):
                _shift[grid](
                    before, after, weight_sum, origin, bandwidth, pixels, first.shape[2],
                    **constants, **options, **LAUNCH,
                )  # fmt: skip
    kept = states[..., :dim, :pixels].transpose(2, 3).contiguous()
    return _image(kept[-1] + mean, embeddings), kept, weight_sums[..., :pixels].contiguous()


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """Rows (B, H W, dim) as a contiguous image of the shape and type of `like`."""
    return like.new_empty(like.shape).copy_(rows.transpose(1, 2).reshape(like.shape))


def backward(grad: Tensor, bandwidth: Tensor, states: Tensor, weight_sums: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the embeddings (B, dim, H, W) and of the bandwidth from that of the moved ones."""
    rows = grad.flatten(2).transpose(1, 2)
    pixels, dim = rows.shape[1:]
    flow = _pad(rows)
    padded_dim, pitch = flow.shape[1:]
    totals = torch.nn.functional.pad(weight_sums, (0, pitch - pixels))
    padded = _pad(states)
    spread = torch.zeros_like(totals)
    constants, options = _form(padded_dim, backward=True)
    grid = (triton.cdiv(pixels, constants["ROWS"]), len(grad))
    with torch.cuda.device_of(grad):
        for iteration in reversed(range(len(totals) if grad.numel() > 0 else 0)):
            pull = flow / (totals[iteration] + _WEIGHT_EPS).unsqueeze(1)
            pull_dot = (pull * padded[iteration + 1]).sum(1)
            flow = torch.empty_like(pull)
            _shift_backward[grid](
                padded[iteration], pull, pull_dot, bandwidth, flow, spread[iteration], pixels, pitch,
                **constants, **options, **LAUNCH,
            )  # fmt: skip
    grad_bandwidth = spread[..., :pixels].sum(dtype=torch.float64) / (2 * bandwidth.double() ** 3)
    return _image(flow[:, :dim, :pixels].transpose(1, 2), grad), grad_bandwidth.to(bandwidth.dtype)


def compile_cases() -> list[CompileCase]:
    """Narrow embeddings are widened when their mean is taken off, so every type runs the same code."""
    cases = []
    for dim in (32, 128):
        for kernel, name in ((_shift, "forward"), (_shift_backward, "backward")):
            constants, options = _form(dim, backward=name == "backward")
            kinds = {"pixels": "i32", "pitch": "i32:16"}
            arguments = [argument for argument in kernel.arg_names if argument not in constants]
            signature = {argument: kinds.get(argument, "*fp32:16") for argument in arguments}
            cases.append(CompileCase(f"{name} D={dim}", kernel, signature, constants, options, paper=dim == 32))
    return cases
