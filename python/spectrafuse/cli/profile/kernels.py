"""What every kernel of the package is called in a profile, and its work by count, from the arguments of a call."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spectrafuse import counts
from spectrafuse.counts import BYTES, Work

Call = tuple[str, Work]
"""A label, and the work of one call."""


def _adamw_outer(arguments: Sequence[Any]) -> Call:
    works = [counts.adamw_outer(batch, columns, rows) for batch, rows, columns, *_ in arguments[1]]
    return "adamw_outer", Work(sum(w.operations for w in works), sum(w.bytes for w in works))


def _penalty(arguments: Sequence[Any], gradient: int) -> Call:
    (count, dim), kind = arguments[1], arguments[2]
    counted = counts.ambiguity_penalty(count, dim, kind == "laplacian")
    return "ambiguity_penalty", counted.both if arguments[gradient] else counted.forward


def _component_penalty(arguments: Sequence[Any]) -> Call:
    (count, dim), kind, used = arguments[1], arguments[2], arguments[10]
    # Only components that are in use are compared: one flag of a byte each.
    active = ctypes.string_at(used, count).count(1) if used else count
    counted = counts.ambiguity_penalty(active, dim, kind == "laplacian")
    return "ambiguity_penalty", counted.both if arguments[12] else counted.forward


def _windowed(operation: str, direction: str) -> Callable[[Sequence[Any]], Call]:
    """Of a kernel that shifts pixels in windows; backward goes through one iteration."""

    def work(arguments: Sequence[Any]) -> Call:
        batch, dim, height, width, clusters = arguments[1]
        iterations, window = arguments[3:5] if direction == "forward" else (1, arguments[3])
        counted = getattr(counts, operation)(batch * height * width, dim, clusters, iterations, window)
        return f"{operation} {direction}", counted.of(direction)

    return work


def _dense_iteration(arguments: Sequence[Any]) -> Call:
    batch, pixels, dim = arguments[1]
    direction = "backward" if arguments[6] else "forward"
    return f"dense_mean_shift {direction}", counts.dense_mean_shift(batch, dim, pixels, 1).of(direction)


def _crops(arguments: Sequence[Any]) -> Call:
    batch, bands, _, _, height, width = arguments[1]
    return "extract_crop_pairs", counts.extract_crop_pairs(batch, bands, height * width)


def _scene_spectra(arguments: Sequence[Any]) -> Call:
    bands, rows, columns = arguments[1]
    return "scene_spectra", counts.scene_spectra(bands, rows * columns, arguments[4])


def _compactness(direction: str) -> Callable[[Sequence[Any]], Call]:
    def work(arguments: Sequence[Any]) -> Call:
        batch, bands, pixels, clusters = arguments[1]
        counted = counts.spectral_compactness(batch * pixels, bands, clusters)
        return f"spectral_compactness {direction}", counted.of(direction)

    return work


def _of_sizes(name: str, direction: str) -> Callable[[Sequence[Any]], Call]:
    def work(arguments: Sequence[Any]) -> Call:
        return f"{name} {direction}", getattr(counts, name)(*arguments[1]).of(direction)

    return work


def _layer(direction: str) -> Callable[[Sequence[Any]], Call]:
    """Backward makes the gradient of the input, one product as forward."""
    return lambda arguments: (f"skinny_linear {direction}", counts.skinny_linear(*arguments[1:4]).forward)


NATIVE: Mapping[str, Callable[[Sequence[Any]], Call]] = {
    "adamw_outer": _adamw_outer,
    "ambiguity_penalty": lambda arguments: _penalty(arguments, 8),
    "clustering_backward": _windowed("clustering_objective", "backward"),
    "clustering_forward": _windowed("clustering_objective", "forward"),
    "component_penalty": _component_penalty,
    "dense_mean_shift_iteration": _dense_iteration,
    "extract_crop_pairs": _crops,
    "gate_backward": _of_sizes("gate", "backward"),
    "gate_forward": _of_sizes("gate", "forward"),
    "gated_mixture_backward": _of_sizes("gated_mixture", "backward"),
    "gated_mixture_forward": _of_sizes("gated_mixture", "forward"),
    "mean_shift_backward": _windowed("mean_shift_assign", "backward"),
    "mean_shift_forward": _windowed("mean_shift_assign", "forward"),
    "philox_words": lambda arguments: ("random numbers", counts.random_fill(arguments[2])),
    "random_fill": lambda arguments: ("random numbers", counts.random_fill(arguments[4])),
    "scene_spectra": _scene_spectra,
    "skinny_linear_backward": _layer("backward"),
    "skinny_linear_forward": _layer("forward"),
    "sparse_gated_mixture_backward": _of_sizes("sparse_gated_mixture", "backward"),
    "sparse_gated_mixture_forward": _of_sizes("sparse_gated_mixture", "forward"),
    "spectral_compactness_backward": _compactness("backward"),
    "spectral_compactness_forward": _compactness("forward"),
}
"""By their names in `_cpu`; the arguments begin with the number of the type."""


def _typed(work: Callable[[Sequence[Any]], Call]) -> Callable[[Sequence[Any]], Call]:
    return lambda arguments: work((0, *arguments))


CUDA: Mapping[str, Callable[[Sequence[Any]], Call]] = {
    # No kernel of `_cuda` but this one takes a type; the others' arguments begin where those of `_cpu` go on.
    "ambiguity_penalty": lambda arguments: _penalty(arguments, 11),
    **{
        name: _typed(work)
        for name, work in NATIVE.items()
        if name.startswith(("adamw_outer", "gate", "skinny_linear", "sparse_gated_mixture"))
    },
}
"""By their names in `_cuda`."""


_WITHOUT_TYPE = ("philox_words", "scene_spectra")


def native_call(kernel: str, arguments: Sequence[Any]) -> Call:
    """What a call of a kernel of `_cpu` is named, and does."""
    label, work = NATIVE[kernel](arguments)
    # The counts are of four bytes a number; the type 1 is float64.
    wide = arguments[0] == 1 and kernel not in _WITHOUT_TYPE
    return label, Work(work.operations, 2 * work.bytes) if wide else work


def _embedded(counted: Callable[..., counts.Counts], name: str, direction: str, first: int) -> Callable[..., Call]:
    """From the embeddings (B, D, H, W) and centers (K, D) at `first`, iterations and window behind the tensors."""

    def work(*arguments: Any) -> Call:
        embeddings, centers = arguments[first], arguments[first + 1]
        numbers = [value for value in arguments[first + 2 :] if type(value) is int]
        iterations, window = numbers[:2] if direction == "forward" else (1, numbers[0])
        pixels = embeddings.numel() // embeddings.shape[1]
        made = counted(pixels, embeddings.shape[1], centers.shape[0], iterations, window)
        return f"{name} {direction}", made.of(direction)

    return work


def _dense(direction: str) -> Callable[..., Call]:
    def work(first: Any, bandwidth: Any, *rest: Any) -> Call:
        batch, dim, height, width = first.shape
        iterations = rest[0] if direction == "forward" else rest[1].shape[0]
        made = counts.dense_mean_shift(batch, dim, height * width, iterations)
        return f"dense_mean_shift {direction}", made.of(direction)

    return work


def _triton_crops(cubes: Any, geometry: Any, out: Any) -> Call:
    return "extract_crop_pairs", counts.extract_crop_pairs(cubes.shape[0], cubes.shape[1], out[0, 0, 0].numel())


def _triton_compactness(direction: str, spectra_at: int) -> Callable[..., Call]:
    def work(*arguments: Any) -> Call:
        batch, bands, pixels = arguments[spectra_at].shape
        clusters = arguments[1].shape[2] if direction == "forward" else arguments[4].shape[1]
        made = counts.spectral_compactness(batch * pixels, bands, clusters)
        return f"spectral_compactness {direction}", made.of(direction)

    return work


TRITON: Mapping[str, Mapping[str, Callable[..., Call]]] = {
    "clustering_objective": {
        "forward": _embedded(counts.clustering_objective, "clustering_objective", "forward", 0),
        "backward": _embedded(counts.clustering_objective, "clustering_objective", "backward", 6),
    },
    "dense_mean_shift": {"forward": _dense("forward"), "backward": _dense("backward")},
    "extract_crop_pairs": {"extract": _triton_crops},
    "mean_shift_assign": {
        "forward": _embedded(counts.mean_shift_assign, "mean_shift_assign", "forward", 0),
        "labels": _embedded(counts.mean_shift_assign, "mean_shift_assign", "forward", 0),
        "backward": _embedded(counts.mean_shift_assign, "mean_shift_assign", "backward", 2),
    },
    "spectral_compactness": {
        "forward": _triton_compactness("forward", 0),
        "grad_probs": _triton_compactness("backward", 1),
    },
}
"""Functions of `spectrafuse.kernels` that launch kernels, by file."""

CONVOLUTION, PRODUCT = "convolution", "matrix product"
TORCH = (CONVOLUTION, PRODUCT)
"""How the labels of torch's own operations begin whose work is counted."""

_ON_DEVICE: Sequence[tuple[str, str]] = (
    (r"adamw_outer_kernel", "adamw_outer"),
    (r"(pair|mean|gradient)_kernel<.*AmbiguityPenalty", "ambiguity_penalty"),
    (r"sparse_backward_kernel", "sparse_gated_mixture backward"),
    (r"sparse_kernel|add_part_sums_kernel", "sparse_gated_mixture forward"),
    (r"mixture_backward_kernel", "gated_mixture backward"),
    (r"mixture(_weights)?_kernel|add_parts_kernel\(float const\*, long", "gated_mixture forward"),
    (r"gate_backward_kernel", "gate backward"),
    (r"gate_kernel|add_blocks_kernel", "gate forward"),
    (r"forward_kernel\(.*SkinnyLinear", "skinny_linear forward"),
    (r"backward_kernel\(.*SkinnyLinear|add_parts_kernel\(float const\*, float", "skinny_linear backward"),
    (r"^(assign|compare)_kernel$", "clustering_objective forward"),
    # Shared with the backward pass of `mean_shift_assign`, which training does not call.
    (r"^(upstream|gather)_kernel$", "clustering_objective backward"),
    (r"^forward_kernel$", "mean_shift_assign forward"),
    (r"^_shift$", "dense_mean_shift forward"),
    (r"^_shift_backward$", "dense_mean_shift backward"),
    (r"^_extract$", "extract_crop_pairs"),
    (r"^_sums$", "spectral_compactness forward"),
    (r"^_distances$", "spectral_compactness backward"),
)


def label_on_device(kernel: str) -> str | None:
    """The label of a kernel that ran on a GPU, from its name; None for one of torch."""
    return next((label for pattern, label in _ON_DEVICE if re.search(pattern, kernel)), None)


_PRODUCTS = {"aten::mm": (0, 1), "aten::addmm": (1, 2), "aten::bmm": (0, 1), "aten::baddbmm": (1, 2)}
_CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::convolution")


def torch_call(name: str, shapes: Sequence[Any], concrete: Sequence[Any]) -> Call | None:
    """What a convolution or product of torch does, from the shapes of its arguments; None for other operations."""
    if name in _PRODUCTS:
        a, b = (shapes[i] for i in _PRODUCTS[name])
        batch = a[0] if len(a) == 3 else 1
        rows, inner, columns = a[-2], a[-1], b[-1]
        numbers = rows * inner + inner * columns + rows * columns
        return PRODUCT, Work(2 * batch * rows * inner * columns, BYTES * batch * numbers)
    if name in _CONVOLUTIONS:
        return f"{CONVOLUTION} forward", _convolution(shapes[0], shapes[1]).forward
    if name == "aten::convolution_backward":
        grad, x, weight = shapes[:3]
        one = _convolution(x, weight, grad).forward
        wanted = concrete[-1] if concrete and isinstance(concrete[-1], (list, tuple)) else (True, True)
        made = sum(bool(flag) for flag in wanted[:2])
        return f"{CONVOLUTION} backward", Work(made * one.operations, made * one.bytes)
    return None


def _convolution(x: Sequence[int], weight: Sequence[int], out: Sequence[int] | None = None) -> counts.Counts:
    """The package's convolutions keep an image's size, so that input and output have as many pixels."""
    taps = 1
    for size in weight[2:]:
        taps *= size
    pixels = 1
    for size in (x[0], *(out or x)[2:]):
        pixels *= size
    return counts.convolution(pixels, weight[1], weight[0], taps)
