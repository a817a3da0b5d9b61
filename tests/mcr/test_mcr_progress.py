"""What a callback hears while components are searched."""

from __future__ import annotations

import pytest

from spectrafuse.mcr.refinement import refine


def test_searches_are_counted_and_the_time_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], list[str]()
    monkeypatch.setattr(refine.time, "monotonic", lambda: now[0])
    report = refine._Reporter(lambda progress: said.append(progress.message))
    report.begins_search(0, 6)
    now[0] = 104.0
    report(5)
    for count in (4, 4, 4):
        report(count)
    now[0] = 106.0
    report(4)
    now[0] = 108.0
    report.begins_search(1, 6)
    now[0] = 112.0
    report(7)
    assert said == [
        "refining on hard gates for 4 s, search 1 of at most 6, trying 5 components",
        # 50 trials for each of 5 candidates, of which 5 took 6 s.
        "refining on hard gates for 6 s, search 1 of at most 6, about 294 s left if no other is needed, "
        "trying 4 components",
        "refining on hard gates for 12 s, search 2 of at most 6, about 36 s left if all are needed, "
        "trying 7 components",
    ]
