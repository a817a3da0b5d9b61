"""Cautions say what the result holds: thresholds that were used, components of single spectra."""

from __future__ import annotations

import numpy as np
import pytest

from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.count_search import Outcome, Step
from spectrafuse.mcr.refinement.factors import Factors


def _outcome(concentrations: np.ndarray, components: np.ndarray, excess: float = 1.0) -> Outcome:
    factors = Factors(concentrations, components, np.arange(len(components)))
    path = [Step(len(components), 1.0, 1.0, np.ones(len(concentrations)))]
    price = excess * len(concentrations) * components.shape[1]
    return Outcome(factors, path, 0, 100.0 * price, price, excess, 1.0, 1.0)


def _cautions(outcome: Outcome, noise: NoiseLevel) -> str:
    return " ".join(evidence.cautions(outcome, noise.nmse, len(outcome.factors.ids), noise))


@pytest.mark.parametrize(("excess", "said"), [(1.0, "more than 0.001 of"), (6.5, "more than 0.0065 of")])
def test_the_threshold_that_is_said_is_the_one_that_was_used(excess: float, said: str) -> None:
    noise = NoiseLevel(0.1, 0.001, "assumed", structured=True)
    told = _cautions(_outcome(np.ones((9, 2)), np.eye(2, 6), excess), noise)
    assert f"Only what explains {said} the sum of squares was counted" in told
    assert f"counted (the level assumed for the noise, 0.001, times {excess:.3g});" in told


def test_a_component_of_one_or_two_spectra_is_named_with_them_and_its_bands() -> None:
    concentrations, components = np.ones((9, 3)), np.zeros((3, 12))
    concentrations[:, 1:] = 0.0
    concentrations[[2, 7], 1] = concentrations[4, 2] = 3.0
    components[0], components[1, 4:6], components[2, 10] = 1.0, 0.7, 1.0
    noise = NoiseLevel(0.1, 0.01, "given")
    told = _cautions(_outcome(concentrations, components), noise)
    assert "Component 1 occurs only in spectra 3 and 8, strongest at bands 5 to 6 (counted from 1)" in told
    assert "Component 2 occurs only in spectrum 5, strongest at band 11 (counted from 1)" in told
    assert "Component 0 occurs only" not in told
    few = _cautions(_outcome(concentrations[:5], components), noise)
    assert "occurs only" not in few
