"""A training step on inputs that stay at one place in memory, replayed as a CUDA graph where there is a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Inputs = TypeVar("Inputs", bound="StepInputs")


class StepInputs(Protocol):
    """Everything that differs from step to step."""

    def mapped(self: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The inputs with every tensor changed."""


def _tensors(inputs: StepInputs) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    inputs.mapped(keep)
    return found


class StaticStep(Generic[Inputs]):
    """Runs a step on copies of its inputs that are made once.

    The first call is an ordinary step: it makes the optimizer's state, loads libraries and compiles kernels. On a GPU
    the second call records the step as a CUDA graph, and it and all later ones replay it. Inputs of other shapes, as a
    smaller last batch has, are stepped as they are. Where recording fails, a warning says why, once, and steps stay
    ordinary.

    Parameters
    ----------
    step : callable
        Takes `StepInputs` and returns a tensor; trains in place. On a GPU it must not wait for it.
    record : bool
        Whether to record a graph; False where there is no GPU.
    """

    def __init__(self, step: Callable[[Inputs], Tensor], *, record: bool) -> None:
        self._step, self._record = step, record
        self._inputs: Inputs | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def __call__(self, inputs: Inputs) -> Tensor:
        """The step's result; a replay overwrites the one before."""
        if self._inputs is None:
            self._inputs = inputs.mapped(torch.clone)
            return self._first()
        given, held = _tensors(inputs), _tensors(self._inputs)
        if [x.shape for x in given] != [x.shape for x in held]:
            return self._step(inputs)
        for buffer, value in zip(held, given, strict=True):
            buffer.copy_(value, non_blocking=True)
        if self._record and self._graph is None:
            self._make_graph()
        if self._graph is None or self._result is None:
            return self._step(self._inputs)
        self._graph.replay()
        return self._result

    def _first(self) -> Tensor:
        assert self._inputs is not None
        if not self._record:
            return self._step(self._inputs)
        # What a recording replays must not have been set up on the stream it is recorded from.
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = self._step(self._inputs)
        current.wait_stream(side)
        return result

    def _make_graph(self) -> None:
        assert self._inputs is not None
        try:
            graph = torch.cuda.CUDAGraph()
            # The thread that reads ahead may copy to the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._result = self._step(self._inputs)
        except Exception as error:
            self._record = False
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"The training step could not be recorded as a CUDA graph ({reason}); it runs without one.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._graph = graph
