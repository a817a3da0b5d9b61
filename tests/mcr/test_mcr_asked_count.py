"""As many components as the user asks for, and what the spectra say to that."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrafuse.io.spectra import read_spectra
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.asked_count import AskedCount
from spectrafuse.mcr.refinement.count_search import Outcome, Step
from spectrafuse.mcr.refinement.factors import Factors
from spectrafuse.mcr.synthesize import MixtureSynthesizer

SPECTRA = MixtureSynthesizer(4, 60, max_mixing=3, snr_db=30.0, random_state=0).generate(24).spectra.numpy()


def _nmse(fitted: EBgMCR, spectra: np.ndarray) -> float:
    residual = spectra - fitted.C_opt_.astype(np.float64) @ fitted.components_
    return float((residual**2).sum() / (spectra.astype(np.float64) ** 2).sum())


def _of_each_count(spectra: np.ndarray, counts: range) -> list[EBgMCR]:
    """Fits of every count, each the one that was asked for, with a path that ends there and a falling residual."""
    found = [EBgMCR(n_components=count).fit(spectra) for count in counts]
    for count, fitted in zip(counts, found, strict=True):
        (chosen,) = (row for row in fitted.count_evidence_["path"] if row["chosen"])
        assert fitted.n_components_ == len(fitted.components_) == chosen["count"] == count
        assert chosen["nmse"] == pytest.approx(_nmse(fitted, spectra), rel=1e-3)
        assert fitted.count_evidence_["asked"] == {"exactly": count, "most": None}
    errors = [_nmse(fitted, spectra) for fitted in found]
    assert (np.diff(errors) < 0).all(), errors
    return found


@pytest.mark.slow
def test_exactly_so_many_components_of_synthetic_spectra() -> None:
    found = _of_each_count(SPECTRA, range(3, 6))
    assert [fitted.count_evidence_["by_the_spectra"] for fitted in found] == [4] * 3


@pytest.mark.slow
def test_exactly_so_many_components_of_measured_spectra(shared_data: Path) -> None:
    spectra = read_spectra(shared_data / "carbs" / "carbs_D_spectra.csv").data[:, ::8]
    found = _of_each_count(spectra, range(1, 9))
    assert [fitted.count_evidence_["by_the_spectra"] for fitted in found] == [3] * 8


def _said_of(fitted: EBgMCR) -> float:
    """How many times what noise explains the difference is worth, as the reason says."""
    match = re.search(r"explains? (?:on average )?([\d.e+-]+) times", fitted.chosen_reason_)
    assert match, fitted.chosen_reason_
    return float(match[1])


@pytest.mark.slow
def test_the_reason_says_what_the_spectra_ask_for_and_what_the_difference_explains() -> None:
    two, four, five = (EBgMCR(n_components=count).fit(SPECTRA) for count in (2, 4, 5))
    assert two.chosen_reason_.startswith("2 components, as asked for, nMSE ")
    assert "The spectra ask for 4: the 2 left out explain on average " in two.chosen_reason_
    assert "The spectra ask for 4: the one more explains " in five.chosen_reason_
    assert four.chosen_reason_.startswith("4 components, as asked for and as the spectra say, nMSE ")
    assert "without the least of them" in four.chosen_reason_
    assert _said_of(two) > 10
    assert 0 < _said_of(five) < 2


@pytest.mark.parametrize(
    ("size", "said"), [(1, "the 2 left out explain on average 3.5"), (4, "the one more explains 2")]
)
def test_what_the_difference_explains_is_that_of_the_path(size: int, said: str) -> None:
    steps = {1: 100.0, 3: 30.0, 4: 10.0}
    path = [Step(count, steps[count], 0.0, np.zeros(1)) for count in (3, size)]
    nothing = Factors(np.zeros((1, 0)), np.zeros((0, 1)), np.zeros(0, np.int64))
    found = Outcome(nothing, path[:1], 0, math.inf, 10.0, 1.0, 1.0, 0.0)
    asked = found._replace(path=path, chosen=1, found=found)
    reason = evidence.reason(size, 0.1, asked, NoiseLevel(0.1, 0.01, "given"), AskedCount(exactly=size))
    assert f"The spectra ask for 3: {said} times what noise explains (noise given, 0.01 of" in reason


@pytest.mark.slow
def test_at_most_so_many_components() -> None:
    limited, free = EBgMCR(max_components=3).fit(SPECTRA), EBgMCR(max_components=9).fit(SPECTRA)
    assert limited.n_components_ == 3
    assert limited.count_evidence_["by_the_spectra"] == 4
    assert limited.chosen_reason_.startswith("3 components, the most asked for, nMSE ")
    assert free.n_components_ == 4
    assert free.chosen_reason_ == EBgMCR().fit(SPECTRA).chosen_reason_


@pytest.mark.slow
def test_more_components_than_the_pool_has_places_and_a_background_beside() -> None:
    fitted = EBgMCR(2, n_components=5, background=True).fit(SPECTRA + 1)
    assert fitted.n_components_ == 5
    assert fitted.background_row_ == 5


@pytest.mark.slow
def test_known_spectra_that_stay_are_among_them() -> None:
    known = MixtureSynthesizer(4, 60, max_mixing=3, snr_db=30.0, random_state=0).generate(24).components.numpy()[:2]
    fitted = EBgMCR(n_components=3).fit(SPECTRA, components=known, fixed=[0, 1])
    assert fitted.n_components_ == 3
    assert fitted.component_ids_[:2].tolist() == [0, 1]


@pytest.mark.slow
def test_a_saved_estimator_knows_what_was_asked_for(tmp_path: Path) -> None:
    fitted = EBgMCR(n_components=5).fit(SPECTRA)
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert (loaded.n_components, loaded.n_components_) == (5, 5)
    assert loaded.count_evidence_ == fitted.count_evidence_
    assert (loaded.transform(SPECTRA) == fitted.transform(SPECTRA)).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_components": 2, "recipe": "published"}, "`n_components` needs a recipe that refines"),
        ({"max_components": 2, "aggregate": lambda a, b: a}, "`max_components` needs plain mixing"),
        ({"n_components": 2, "max_components": 2}, "not both"),
        ({"n_components": 0}, "n_components"),
        ({"max_components": 1.5}, "max_components"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        EBgMCR(**options).fit(SPECTRA)


def test_fewer_than_the_fixed_spectra_or_more_than_there_is_are_refused() -> None:
    with pytest.raises(ValueError, match="`n_components` must be at least 2, the number of fixed spectra; got 1"):
        EBgMCR(n_components=1).fit(SPECTRA, components=SPECTRA[:2].clip(0), fixed=[0, 1])
    with pytest.raises(ValueError, match="`n_components` must be at most 1 for these spectra"):
        EBgMCR(n_components=3).fit(np.outer([1.0, 2.0, 4.0], [1.0, 0.0, 2.0, 1.0]))
