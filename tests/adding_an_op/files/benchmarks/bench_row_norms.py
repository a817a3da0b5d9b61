"""row_norms: time, memory and share of the bound of every implementation that runs here."""

from __future__ import annotations

from typing import NamedTuple

from spectrafuse import RandomStream
from spectrafuse.benchmarks import harness
from spectrafuse.ops import row_norms


class Size(NamedTuple):
    rows: int
    columns: int


ROW_NORMS = harness.Operation(
    name="row_norms",
    sizes={"small": Size(100, 200), "paper": Size(10_000, 200), "large": Size(100_000, 500)},
    inputs=lambda size: (RandomStream(0).normal(size),),
    call=row_norms,
    leaves=(0,),
)


@harness.over(ROW_NORMS)
def test_row_norms(benchmark, implementation, size, direction):
    harness.run(benchmark, ROW_NORMS, implementation, size, direction)
