"""Watches a run: some steps to warm up, some that are recorded, then it ends.

The kernels of the package are called past torch's dispatcher in places, so the extension modules are replaced by ones
that name and count every call while a run is recorded; torch's own operations are seen by `torch.profiler`. Nothing of
this is in the package's own code: without a profile every call goes where it always goes.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from spectrafuse._runtime import cuda_graph, extensions, registration
from spectrafuse._runtime.counts import Work
from spectrafuse.cli.profile import kernels
from spectrafuse.cli.profile.table import MARK, Measured, collect

WARM_STEPS, WARM_SECONDS = 5, 0.2
RECORDED_SECONDS = 3.0
"""A run is recorded for no longer, beyond its traced steps and the steps that take more by themselves."""
TRACED_STEPS = 3
_MOST_EVENTS = 40_000
"""Reading them takes two or three seconds."""


class Enough(Exception):
    """A recording is complete, and the run is not needed any more."""


class Recorder:
    """Counts steps of a run, and records some of them; a context, at whose end it records no more.

    Steps must end outside of `torch.profiler.record_function`: the profiler crashes where it is stopped inside of one.

    First come steps to warm up, at least `WARM_STEPS` of them, the later half timed as they are; then `TRACED_STEPS`
    for the Chrome trace; then as many as fit into `RECORDED_SECONDS`. After these `step_done` raises `Enough`.

    Parameters
    ----------
    device : torch.device
    trace : path
        Where the Chrome trace goes.

    Attributes
    ----------
    measured : Measured or None
        What the recorded steps did, once there are some.
    steps : int
        Seen so far, the warm ones included.
    """

    def __init__(self, device: torch.device, trace: Path) -> None:
        self.device, self.trace = device, trace
        self.measured: Measured | None = None
        self.steps = 0
        self.active = False
        self._work: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._profiler: Any = None
        self._marks: list[float] = [time.perf_counter()]
        self._usual = float("nan")
        self._traced = False
        self._from, self._wanted = 0, 0
        self._start, self._thread = 0.0, get_ident()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        """Where a run failed, its recording is dropped."""
        self.active = False
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def note(self, call: kernels.Call) -> None:
        """Count a call of a kernel."""
        label, work = call
        total = self._work[label]
        total[0] += 1
        total[1] += work.operations
        total[2] += work.bytes

    def step_done(self) -> None:
        """A step of the run has ended.

        Raises
        ------
        Enough
            If it was the last one that is wanted.
        """
        self.steps += 1
        if self._profiler is None:
            self._marks.append(time.perf_counter())
            if self.steps >= WARM_STEPS and self._marks[-1] - self._marks[0] >= WARM_SECONDS:
                # The first steps allocate, compile and, on a GPU, record.
                half = len(self._marks) // 2
                self._wait()
                self._usual = (time.perf_counter() - self._marks[half]) / (len(self._marks) - 1 - half)
                self._begin(TRACED_STEPS)
        elif self.steps - self._from >= self._wanted:
            self._end()
            if self.measured is not None:
                raise Enough
            self._begin(self._steps_to_record())

    def counting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step that is counted when it has ended."""

        def run(*arguments: Any) -> Any:
            result = step(*arguments)
            self.step_done()
            return result

        return run

    def finish(self) -> None:
        """The run has ended by itself: keep what there is, if any step was recorded."""
        if self._profiler is None:
            return
        self._wanted = self.steps - self._from
        self._end(final=True)

    def _begin(self, steps: int) -> None:
        self._from, self._wanted = self.steps, steps
        self._work.clear()
        self._wait()
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch_profile(activities=activities, record_shapes=True, profile_memory=True, acc_events=True)
        self._profiler.start()
        with record_function(MARK):
            pass
        self.active, self._start = True, time.perf_counter()

    def _end(self, *, final: bool = False) -> None:
        """Take in a recording: the first is traced, and tells how many events a step has."""
        self._wait()
        seconds = time.perf_counter() - self._start
        self.active = False
        self._profiler.stop()
        if not self._traced:
            self._profiler.export_chrome_trace(str(self.trace))
            self._events = len(self._profiler.events()) / max(self._wanted, 1)
            self._seconds = seconds / max(self._wanted, 1)
        if self._wanted and (self._traced or final):
            work = {label: (calls, Work(*total)) for label, (calls, *total) in self._work.items()}
            self.measured = collect(
                self._profiler.events(), work, seconds, self._wanted, self.steps - self._wanted + 1, self._usual,
                self.device.type,
            )  # fmt: skip
        self._traced = True
        self._profiler = None

    def _steps_to_record(self) -> int:
        by_time = RECORDED_SECONDS / max(self._seconds, 1e-9)
        return max(1, int(min(by_time, _MOST_EVENTS / max(self._events, 1.0))))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def named(self, call: Callable[..., Any], describe: Callable[..., kernels.Call]) -> Callable[..., Any]:
        """A function that names and counts its calls while steps are recorded."""

        @functools.wraps(call)
        def run(*arguments: Any) -> Any:
            # Threads that read ahead work beside the run; a GPU's backward pass has a thread of its own.
            if not self.active or (self.device.type == "cpu" and get_ident() != self._thread):
                return call(*arguments)
            described = describe(*arguments)
            self.note(described)
            with record_function(described[0]), self._range(described[0]):
                return call(*arguments)

        return run

    @contextmanager
    def _range(self, label: str) -> Iterator[None]:
        """An NVTX range, which Nsight shows."""
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.nvtx.range_push(label)
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()


class _Named:
    """An extension module whose kernels are named and counted."""

    def __init__(self, module: Any, recorder: Recorder) -> None:
        self._module, self._recorder = module, recorder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found):
            return found
        cuda = self._module.__name__.endswith("_cuda")
        made = found
        if name in kernels.EXTENSIONS:
            made = self._recorder.named(found, lambda *a: kernels.extension_call(name, a, cuda))
        setattr(self, name, made)
        return made


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[Any]:
    """An attribute with another value while the block runs; gives the usual one."""
    usual = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield usual
    finally:
        setattr(owner, name, usual)


@contextmanager
def watching(recorder: Recorder) -> Iterator[None]:
    """While the block runs, every kernel of the package is known to the recorder."""
    with ExitStack() as stack:
        for which in ("cpu", "cuda"):
            usual = getattr(extensions, which)
            stack.enter_context(replaced(extensions, which, _once(usual, recorder)))
        if recorder.device.type == "cuda":
            registration.triton_function.cache_clear()
            stack.callback(registration.triton_function.cache_clear)
            for file, functions in kernels.TRITON.items():
                module = importlib.import_module(f"spectrafuse.kernels.{file}")
                for name, describe in functions.items():
                    made = recorder.named(getattr(module, name), describe)
                    stack.enter_context(replaced(module, name, made))
            stack.enter_context(_ordinary_while_recorded(recorder))
        yield


def _once(usual: Callable[[], Any], recorder: Recorder) -> Callable[[], Any]:
    """Gives the same module at every call."""
    made: list[_Named] = []

    def module() -> Any:
        if not made:
            made.append(_Named(usual(), recorder))
        return made[0]

    return module


def _ordinary_while_recorded(recorder: Recorder) -> Any:
    """A recorded CUDA graph would hide which operation a kernel belongs to, and its work."""
    usual = cuda_graph.StaticStep.__call__

    def call(self: Any, inputs: Any) -> Any:
        return self._step(inputs) if recorder.active else usual(self, inputs)

    return replaced(cuda_graph.StaticStep, "__call__", call)
