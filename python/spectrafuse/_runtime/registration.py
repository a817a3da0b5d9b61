"""Operations registered with torch: schema, kernels, shapes and gradient in one call.

torch picks the kernel by the tensors' device, traces the operation under `torch.compile` by its `fake`, and
differentiates it by its `backward`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from spectrafuse import backends


@functools.cache
def triton_function(name: str) -> Callable[..., Any]:
    """A function of `spectrafuse.kernels`, "file.function", imported when it is first asked for."""
    module, function = name.split(".")
    return getattr(importlib.import_module(f"spectrafuse.kernels.{module}"), function)


def register(
    name: str,
    cpu: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    cuda: Callable[..., Any] | None = None,
    triton: Callable[..., Any] | str | None = None,
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    mutates: Sequence[str] = (),
) -> Callable[..., Any]:
    """Register `spectrafuse::<name>`.

    Parameters
    ----------
    name : str
    cpu : callable
        Takes CPU tensors. Its annotations are the schema: tensors, numbers, strings, each perhaps None; it returns a
        tensor, a tuple of tensors of fixed length, or None.
    fake : callable
        Returns empty tensors of the shapes and types of the results.
    cuda, triton : callable, optional
        Takes CUDA tensors; `triton` is "file.function" of `spectrafuse.kernels` or a function that calls one. While
        one of these implementations is forced it takes CPU tensors too: in Triton's interpreter, or where tests run
        the CUDA kernels without a GPU.
    backward, setup_context : callable, optional
        As `torch.library.register_autograd` takes them.
    mutates : sequence of str
        Arguments that are written to.

    Returns
    -------
    callable
        The registered operation.
    """
    full = f"spectrafuse::{name}"
    torch.library.define(full, torch.library.infer_schema(cpu, mutates_args=tuple(mutates)))

    def on_triton(*arguments: Any) -> Any:
        return (triton_function(triton) if isinstance(triton, str) else triton)(*arguments)  # type: ignore[misc]

    for_gpu = {"triton": on_triton} if triton is not None else {"cuda": cuda} if cuda is not None else {}
    torch.library.impl(full, "CPU", lambda *arguments: for_gpu.get(backends.forced(), cpu)(*arguments))
    for kernel in for_gpu.values():
        torch.library.impl(full, "CUDA", kernel)
    torch.library.register_fake(full, fake)
    if backward is not None:
        torch.library.register_autograd(full, backward, setup_context=setup_context)
    return getattr(torch.ops.spectrafuse, name)
