"""Work in the background keeps its order, its bounds and its errors."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from spectrafuse._ahead import ahead


def test_results_are_in_order_and_come_from_one_other_thread() -> None:
    jobs: list[Callable[[], tuple[int, int]]] = [lambda i=i: (i, threading.get_ident()) for i in range(7)]  # type: ignore[misc]
    results = list(ahead(jobs))
    assert [i for i, _ in results] == list(range(7))
    assert len({thread for _, thread in results} | {threading.get_ident()}) == 2
    assert list(ahead([])) == []
    assert next(iter(ahead(jobs[:1])))[0] == 0


def test_two_results_exist_at_most() -> None:
    alive: set[int] = set()
    most = 0

    def job(i: int) -> np.ndarray:
        nonlocal most
        alive.add(i)
        most = max(most, len(alive))
        made = np.zeros(3)
        weakref.finalize(made, alive.discard, i)
        return made

    results = ahead(lambda i=i: job(i) for i in range(20))  # type: ignore[misc]
    for _ in range(20):
        result = next(results)
        del result
    assert most == 2


def test_errors_are_raised_in_their_place_and_the_thread_ends() -> None:
    def wrong() -> int:
        raise ValueError("in the background")

    before = threading.active_count()
    results = ahead([lambda: 1, wrong, lambda: 3])
    assert next(results) == 1
    with pytest.raises(ValueError, match="in the background"):
        next(results)
    closed = ahead([lambda: 1, lambda: 2, lambda: 3])
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
