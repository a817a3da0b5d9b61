"""The rules that steer a training run, against the published numbers and against their words."""

from __future__ import annotations

import math

import pytest

from helpers import golden
from spectrafuse.mcr.recipes import Recipe, corrected, published, resolve
from spectrafuse.mcr.training.rules import (
    EnergyStopRule,
    PatienceStopRule,
    SparsityRule,
    band_of,
    make_bands,
    temperature_at,
)


def test_sparsity_weights_are_the_published_ones() -> None:
    values = golden("ebgmcr_training_rules")
    rule = SparsityRule(values["pool"], ratio=values["ratio"])
    rows = zip(values["nmse"], values["mse"], values["mean_energy"], strict=True)
    weights = [rule.step(float(nmse), float(mse), float(energy)) for nmse, mse, energy in rows]
    assert weights == pytest.approx(values["l1_coef"].tolist(), rel=1e-12, abs=0)


def test_sparsity_rule_is_off_above_its_margin_and_without_components() -> None:
    rule = SparsityRule(100, ratio=10.0, margin=0.02, smoothing=0.5)
    assert rule.step(0.02, 1.0, 10) == 0.0
    assert rule.step(0.01, 1.0, 0) == 0.0
    assert rule.step(0.01, 1.0, 10) == pytest.approx(0.5 * 1.0 * 10.0 / 0.1)
    assert rule.step(0.5, 1.0, 10) == pytest.approx(25.0)


def test_sparsity_ratio_grows_while_the_fit_holds_and_falls_back() -> None:
    rule = SparsityRule(10, ratio=2.0, margin=0.02, smoothing=0.0, growth=1.5)
    fits = [0.01, 0.01, 0.01, 0.5, 0.01, 0.5, 0.5, 0.5, 0.5, 0.01]
    factors = [1.0, 1.5, 2.25, None, 2.25, None, None, None, None, 1.0]
    for nmse, factor in zip(fits, factors, strict=True):
        assert rule.step(nmse, 1.0, 5) == pytest.approx(0.0 if factor is None else 1.0 * 2.0 * factor / 0.5)


@pytest.mark.parametrize(("criterion", "threshold", "interval"), [("R2", 0.97, 0.005), ("nMSE", 0.03, 0.005)])
def test_bands_have_the_published_names(criterion: str, threshold: float, interval: float) -> None:
    names = golden("ebgmcr_training_rules")["regions_r2" if criterion == "R2" else "regions_nmse"]
    bands = make_bands(criterion, threshold, interval)
    assert [band.name for band in bands] == names
    assert [band.name for band in bands] == [f"{band.start}[->]{band.end}" for band in bands]


def test_band_edges() -> None:
    bands = make_bands("R2", 0.97, 0.005)
    assert band_of(0.97, "R2", bands) == bands[0]
    assert band_of(bands[0].end, "R2", bands) == bands[1]
    assert band_of(0.9699, "R2", bands) is None
    assert band_of(1.0, "R2", bands) is None
    assert band_of(math.nan, "R2", bands) is None
    bands = make_bands("nMSE", 0.03, 0.005)
    assert band_of(0.03, "nMSE", bands) == bands[0]
    assert band_of(bands[0].end, "nMSE", bands) == bands[1]
    assert band_of(0.031, "nMSE", bands) is None


def test_temperature_falls_in_steps_to_its_floor() -> None:
    assert temperature_at(0) == temperature_at(99) == 1.0
    assert temperature_at(100) == 1.0 - 0.01
    assert temperature_at(299) == 1.0 - 0.01 - 0.01
    assert temperature_at(10**7) == 0.4
    assert temperature_at(10**7, every=0) == 1.0
    published, value = [], 1.0
    for _ in range(100):
        published.append(value)
        value = max(value - 0.01, 0.4)
    assert [temperature_at(100 * i) for i in range(100)] == published


def _drive(rule: EnergyStopRule, epochs: list[tuple[float, float]]) -> int | None:
    for epoch, (nmse, energy) in enumerate(epochs, start=1):
        if rule.step(nmse, energy, 5) is not None:
            return epoch
    return None


def test_published_stop_needs_all_three_conditions() -> None:
    window = 4
    start = [(0.5, 2.0), (0.005, 1.0)]  # mean energy up to the first good epoch: 1.5
    left = [(0.02, 1.0)] * window
    quiet = [(0.001, 0.3)] * 3

    def rule() -> EnergyStopRule:
        return EnergyStopRule(nmse=0.01, energy_ratio=0.25, window=window)

    # Left the good region (latched), and later the energy is at most 0.375.
    assert _drive(rule(), start + left + quiet) == 7
    # Exactly at the ratio counts.
    assert _drive(rule(), [*start, *left, (0.001, 0.375)]) == 7
    assert _drive(rule(), [*start, *left, (0.001, 0.376)]) is None
    # Never good; never left; a window that is not full yet.
    assert _drive(rule(), [(0.5, 2.0), (0.02, 1.0), *left, *quiet]) is None
    assert _drive(rule(), start + [(0.001, 0.1)] * 20) is None
    assert _drive(rule(), start + left[:3]) is None
    # The window starts the epoch after the first good one.
    assert _drive(rule(), [*start, *([(0.02, 0.1)] * window)]) == 2 + window


def test_published_stop_survives_saving() -> None:
    epochs = [(0.5, 2.0), (0.005, 1.0), *([(0.02, 1.0)] * 3), (0.02, 0.1), (0.001, 0.1)]
    whole = EnergyStopRule(window=4)
    expected = _drive(whole, epochs)
    assert expected is not None
    for cut in range(1, expected):
        first = EnergyStopRule(window=4)
        assert _drive(first, epochs[:cut]) is None
        second = EnergyStopRule(window=4)
        second.load_state(first.state())
        rest = _drive(second, epochs[cut:])
        assert rest is not None
        assert cut + rest == expected


def test_patience_waits_for_the_count_and_says_why() -> None:
    rule = PatienceStopRule(accept=0.01, patience=3, fit_patience=2)
    assert rule.step(0.5, 0.0, 9) is None
    assert rule.step(0.4, 0.0, 9) is None
    assert rule.step(0.009, 0.0, 8) is None
    assert rule.step(0.5, 0.0, 3) is None  # fewer, but it does not fit
    assert rule.step(0.01, 0.0, 7) is None  # improves: the wait starts anew
    assert rule.step(0.001, 0.0, 7) is None
    assert rule.step(0.001, 0.0, 7) is None
    reason = rule.step(0.001, 0.0, 7)
    assert reason is not None
    assert "fewer than 7 components" in reason


def test_patience_gives_up_where_the_noise_level_is_never_reached() -> None:
    rule = PatienceStopRule(accept=0.01, patience=3, fit_patience=2)
    assert rule.step(0.5, 0.0, 9) is None
    assert rule.step(0.499, 0.0, 9) is None  # less than a hundredth better
    reason = rule.step(0.4999, 0.0, 9)
    assert reason is not None
    assert "never reached" in reason


def test_recipes_resolve_by_name() -> None:
    assert resolve("published") is published
    assert resolve(corrected) is corrected
    with pytest.raises(ValueError, match="'published', 'corrected'"):
        resolve("best")
    with pytest.raises(TypeError, match="recipe"):
        resolve(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stop"):
        Recipe(name="own", stop="never")
