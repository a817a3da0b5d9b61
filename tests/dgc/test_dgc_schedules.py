"""Schedules: golden values and the fading of the published training."""

from __future__ import annotations

import pytest
import torch

from helpers import GOLDEN_RTOL, golden
from spectrafuse.dgc.training.schedules import fading, warmup_decay


def test_golden() -> None:
    values = golden("dgc_metrics")
    initial, peak, final, warmup, total = values["schedule_args"].tolist()
    actual = [
        warmup_decay(step, initial=initial, peak=peak, final=final, warmup=warmup, total=total)
        for step in range(len(values["schedule"]))
    ]
    torch.testing.assert_close(torch.tensor(actual, dtype=torch.float64), values["schedule"], rtol=GOLDEN_RTOL, atol=0)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert warmup_decay(0, initial=0.1, peak=2.0, final=0.0, warmup=0, total=4) == 2.0
    assert warmup_decay(-3, initial=0.1, peak=2.0, final=0.0, warmup=0, total=4) == 2.0
    assert warmup_decay(9, initial=0.1, peak=2.0, final=0.5, warmup=0, total=4) == 0.5
    assert warmup_decay(1, initial=0.1, peak=2.0, final=0.5, warmup=0, total=0) == 0.5


def test_the_published_kick() -> None:
    expected = [0.05, 0.05, 0.045, 0.04, 0.035, 0.03, 0.025, 0.02, 0.015, 0.01]
    assert [fading(epoch, 0.05, 10) for epoch in range(1, 11)] == pytest.approx(expected)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`total`"):
        warmup_decay(1, initial=0, peak=1, final=0, warmup=3, total=2)
    with pytest.raises(ValueError, match="`warmup`"):
        warmup_decay(1, initial=0, peak=1, final=0, warmup=-1, total=2)
