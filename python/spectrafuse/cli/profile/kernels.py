"""What every kernel of the package is called in a profile, and its work by count, from the arguments of a call.

Operations declare how their kernels are read (`spectrafuse.backends.Operation`); here are those of no operation: random
numbers, and torch's own convolutions and products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from spectrafuse import ops
from spectrafuse._runtime.counts import BYTES, Counts, KernelCall, Work, counts

Call = tuple[str, Work]
"""A label, and the work of one call."""
_RANDOM_NUMBERS, _LOSS = "random numbers", "loss of unmixing"


def _random_numbers(count: int) -> Call:
    """About 60 operations a number, most of them for its random words; it is written once."""
    return _RANDOM_NUMBERS, Work(60 * count, BYTES * count)


def _loss(sizes: Sequence[int], *others: Any) -> Call:
    """A residual, its square and its gradient for every number of the spectra."""
    numbers = sizes[0] * sizes[1]
    return _LOSS, Work(4 * numbers, 3 * BYTES * numbers)


EXTENSIONS: Mapping[str, KernelCall] = {
    "philox_words": lambda seed, step, count, *others: _random_numbers(count),
    "random_fill": lambda kind, seed, step, count, *others: _random_numbers(count),
    "unmixing_loss_gradient": _loss,
    **{name: call for operation in ops.operations().values() for name, call in operation.extension_calls.items()},
}
"""By their names in `_cpu` and `_cuda`, from the arguments behind the number of the type."""

TRITON: Mapping[str, Mapping[str, KernelCall]] = {
    name: operation.triton_calls for name, operation in ops.operations().items() if operation.triton_calls
}
"""Functions of `spectrafuse.kernels` that launch kernels, by file."""

_WITHOUT_TYPE = ("philox_words",)
_TYPED_ON_CUDA = ("ambiguity_penalty", "random_fill")
"""The kernels of `_cuda` that take a type; the others' arguments begin where those of `_cpu` go on."""


def extension_call(kernel: str, arguments: Sequence[Any], cuda: bool = False) -> Call:
    """What a call of a kernel of `_cpu` or `_cuda` is named, and does."""
    typed = kernel in _TYPED_ON_CUDA if cuda else kernel not in _WITHOUT_TYPE
    label, work = EXTENSIONS[kernel](*arguments[1 if typed else 0 :])
    # The counts are of four bytes a number; the type 1 is float64.
    wide = not cuda and typed and arguments[0] == 1 and kernel != "scene_spectra"
    return label, Work(work.operations, 2 * work.bytes) if wide else work


CONVOLUTION, PRODUCT = "convolution", "matrix product"
TORCH = (CONVOLUTION, PRODUCT)
"""How the labels of torch's own operations begin whose work is counted."""


GPU_KERNELS: Mapping[str, str] = {
    **{pattern: label for found in ops.operations().values() for pattern, label in found.gpu_kernels.items()},
    "UnmixingLoss": _LOSS,
    "random_fill_kernel": _RANDOM_NUMBERS,
}
"""Labels by what is found in the names of their kernels on a GPU."""


def label_on_device(kernel: str) -> str | None:
    """The label of a kernel that ran on a GPU, from its name; None for one of torch."""
    return next((label for pattern, label in GPU_KERNELS.items() if re.search(pattern, kernel)), None)


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


def _convolution(x: Sequence[int], weight: Sequence[int], out: Sequence[int] | None = None) -> Counts:
    """The package's convolutions keep an image's size, so that input and output have as many pixels."""
    taps = 1
    for size in weight[2:]:
        taps *= size
    pixels = 1
    for size in (x[0], *(out or x)[2:]):
        pixels *= size
    inputs, outputs = weight[1], weight[0]
    values, weights = pixels * (inputs + outputs), inputs * outputs * taps
    product = 2 * pixels * weights
    # Backward one product for the input and one for the weight; values are read and written once, the weights are few.
    return counts((product, 2 * product), (values + weights, 2 * values + 2 * weights))
