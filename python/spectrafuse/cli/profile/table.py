"""From recorded events to the rows of a table: calls, time, work and memory of every operation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType

from spectrafuse._runtime.counts import Work
from spectrafuse.cli.profile import kernels

REST, OTHER = "everything else", "other torch operations"
MARK = "spectrafuse profile"
_LEAST_SHARE = 0.005
"""Of the time: rarer operations of torch are one row."""


@dataclass
class Row:
    """One operation.

    Attributes
    ----------
    seconds : float
        Its own, without the operations it calls that have rows; on a GPU of its kernels.
    work : Work or None
        Of all calls; None where nothing counts it.
    memory : int
        Bytes that the largest of its calls left allocated, its results.
    """

    label: str
    calls: int = 0
    seconds: float = 0.0
    work: Work | None = None
    memory: int = 0

    def add(self, work: Work) -> None:
        """Count work of another call."""
        before = self.work or Work(0, 0)
        self.work = Work(before.operations + work.operations, before.bytes + work.bytes)


@dataclass
class Measured:
    """What some steps of a run did.

    Attributes
    ----------
    rows : list of Row
        Those that take longest first; the last one, `REST`, is what passed outside of all operations.
    seconds : float
        What the rows add up to.
    steps, first_step : int
    step_seconds : float
        Of a step while it is recorded.
    """

    rows: list[Row]
    seconds: float
    steps: int
    first_step: int
    step_seconds: float


def collect(
    events: Iterable[Any],
    work: Mapping[str, tuple[int, Work]],
    seconds: float,
    steps: int,
    first_step: int,
    step_seconds: float,
    device: str,
) -> Measured:
    """The table of a recording.

    Parameters
    ----------
    events : iterable of torch.autograd.profiler_util.FunctionEvent
        One of them named `MARK`, of the thread that the run is in.
    work : mapping
        Calls and work of the package's kernels, by label.
    seconds : float
        The recording took.
    steps, first_step : int
        That were recorded.
    step_seconds : float
        Of a step that is not recorded.
    device : str
        Its type.
    """
    events = list(events)
    host = _Host(work, on_device=device != "cpu")
    host.add(events)
    rows = host.rows
    if device != "cpu":
        _add_kernels(events, rows)
    for label, (calls, total) in work.items():
        rows[label].calls, rows[label].work = calls, total
    for label, row in rows.items():
        row.label = label
    inside = sum(row.seconds for row in rows.values())
    # The recorder takes time between the operations, and on a GPU steps usually run as a graph: a usual step counts.
    recorded, seconds = seconds, max(inside, min(seconds, step_seconds * steps))
    shown: list[Row] = []
    others: list[Row] = []
    for row in sorted(rows.values(), key=lambda row: -row.seconds):
        large = row.label != OTHER and (row.work is not None or row.seconds >= _LEAST_SHARE * seconds)
        (shown if large else others).append(row)
    small = Row(OTHER, sum(row.calls for row in others), sum(row.seconds for row in others))
    rest = Row(REST, 0, max(0.0, seconds - inside))
    return Measured([*shown, small, rest], seconds, steps, first_step, recorded / max(steps, 1))


class _Host:
    """Rows from what the processor did; where the kernels ran on another device, only that device's time counts."""

    def __init__(self, work: Mapping[str, Any], *, on_device: bool) -> None:
        self.rows: dict[str, Row] = defaultdict(lambda: Row(""))
        self._ours, self._on_device = work, on_device

    def add(self, events: Sequence[Any]) -> None:
        """Take in the events of the run's thread; other threads work beside it."""
        thread = next((event.thread for event in events if event.name == MARK), None)
        for event in events:
            beside = event.thread != thread and not self._on_device
            if event.cpu_parent is None and event.device_type == DeviceType.CPU and not beside:
                self._visit(event, None, False)

    def _visit(self, event: Any, owner: str | None, final: bool) -> None:
        """An event and what it called; `final`: the owner's operation takes in everything below it."""
        if not final:
            label, final = self._label(event)
            if label is not None and (owner is None or final):
                owner = label
                row = self.rows[label]
                row.calls += 1
                row.memory = max(row.memory, event.device_memory_usage if self._on_device else event.cpu_memory_usage)
                called = kernels.torch_call(event.name, event.input_shapes, event.concrete_inputs)
                if called is not None:
                    row.add(called[1])
                    if self._on_device:
                        row.seconds += 1e-6 * event.device_time_total
        if not self._on_device:
            self.rows[owner or OTHER].seconds += 1e-6 * event.self_cpu_time_total
        for child in event.cpu_children:
            self._visit(child, owner, final)

    def _label(self, event: Any) -> tuple[str | None, bool]:
        """The label of an event, if it has one, and whether it is final."""
        if event.name in self._ours:
            return event.name, True
        if event.name.startswith("spectrafuse::"):
            return self._first_of_ours(event) or event.name.removeprefix("spectrafuse::"), True
        called = kernels.torch_call(event.name, event.input_shapes, event.concrete_inputs)
        if called is not None:
            return called[0], True
        if event.name.startswith("aten::"):
            return event.name.removeprefix("aten::"), False
        return ("optimizer step", False) if event.name.startswith("Optimizer.step") else (None, False)

    def _first_of_ours(self, event: Any) -> str | None:
        for child in event.cpu_children:
            found = child.name if child.name in self._ours else self._first_of_ours(child)
            if found is not None:
                return found
        return None


def _add_kernels(events: Sequence[Any], rows: dict[str, Row]) -> None:
    """Seconds of the kernels that ran on a GPU: ours by their names, torch's products by what launched them."""
    other = 0.0
    for event in events:
        # Ranges are shown on the device as well, over the kernels inside them.
        if event.device_type == DeviceType.CPU or getattr(event, "is_user_annotation", False):
            continue
        seconds = 1e-6 * event.time_range.elapsed_us()
        label = kernels.label_on_device(event.name)
        if label is None:
            other += seconds
        else:
            rows[label].seconds += seconds
    products = sum(row.seconds for label, row in rows.items() if label.startswith(kernels.TORCH))
    rows[OTHER].seconds = max(0.0, other - products)
