"""Matching found components with known ones, and scoring their concentrations."""

from __future__ import annotations

import numpy as np
import pytest

from spectrafuse.mcr.matching import cosine_matrix, match_components, score_concentrations


@pytest.fixture(params=[0, 1, 2])
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_permuted_and_scaled_components_are_found_again(rng: np.random.Generator) -> None:
    true = rng.random((7, 31))
    order = rng.permutation(7)
    match = match_components(true[order] * rng.uniform(0.1, 9, (7, 1)), true)
    assert match.true.tolist() == list(range(7))
    assert order[match.found].tolist() == list(range(7))
    assert match.cosine == pytest.approx(np.ones(7))
    assert match.unmatched_found.size == match.unmatched_true.size == 0


def test_the_sum_of_cosines_decides_not_the_best_single_pair() -> None:
    # Greedy pairing would take 0-0 (cosine 0.99) and be left with 1-1 (cosine 0).
    found = np.array([[1.0, 0.0], [0.95, np.sqrt(1 - 0.95**2)]])
    true = np.array([[0.99, np.sqrt(1 - 0.99**2)], [0.0, 1.0]])
    cosines = cosine_matrix(found, true)
    best = max(cosines[0, 0] + cosines[1, 1], cosines[0, 1] + cosines[1, 0])
    assert match_components(found, true).cosine.sum() == pytest.approx(best)


@pytest.mark.parametrize(("m", "k"), [(5, 3), (3, 5), (1, 4), (0, 3), (3, 0)])
def test_unmatched_rows_are_counted(m: int, k: int, rng: np.random.Generator) -> None:
    match = match_components(rng.random((m, 6)), rng.random((k, 6)))
    pairs = min(m, k)
    assert len(match.found) == len(match.true) == len(match.cosine) == pairs
    assert len(match.unmatched_found) == m - pairs
    assert len(match.unmatched_true) == k - pairs


def test_zero_rows_have_cosine_zero() -> None:
    assert cosine_matrix(np.zeros((1, 3)), np.ones((2, 3))).tolist() == [[0.0, 0.0]]


def test_concentrations_are_scored_after_scaling(rng: np.random.Generator) -> None:
    true_components, true = rng.random((3, 20)), rng.random((11, 3))
    found_components = true_components[[2, 0, 1]]
    found = true[:, [2, 0, 1]] / np.array([2.0, 5.0, 0.25])
    scores = score_concentrations(found, true, match_components(found_components, true_components))
    assert scores.scale == pytest.approx([5.0, 0.25, 2.0])
    assert scores.rmse == pytest.approx(np.zeros(3), abs=1e-12)
    assert scores.r2 == pytest.approx(np.ones(3))
    assert scores.nmse == pytest.approx(np.zeros(3), abs=1e-12)


def test_scores_equal_their_definitions(rng: np.random.Generator) -> None:
    components = rng.random((4, 9))
    true, found = rng.random((13, 4)), rng.random((13, 4))
    scores = score_concentrations(found, true, match_components(components, components))
    for j in range(4):
        t, f = true[:, j], found[:, j]
        scale = (t @ f) / (f @ f)
        error = scale * f - t
        assert scores.rmse[j] == pytest.approx(np.sqrt(np.mean(error**2)))
        assert scores.r2[j] == pytest.approx(1 - (error**2).sum() / ((t - t.mean()) ** 2).sum())
        assert scores.nmse[j] == pytest.approx((error**2).sum() / (t**2).sum())


def test_scale_is_never_negative() -> None:
    true = np.array([[1.0], [2.0]])
    match = match_components(np.ones((1, 4)), np.ones((1, 4)))
    scores = score_concentrations(-true, true, match)
    assert scores.scale.tolist() == [0.0]
    assert scores.nmse.tolist() == [1.0]


def test_constant_true_column_is_defined() -> None:
    match = match_components(np.ones((1, 4)), np.ones((1, 4)))
    assert score_concentrations(np.ones((3, 1)), np.ones((3, 1)), match).r2.tolist() == [1.0]
    assert score_concentrations(np.array([[1.0], [2.0], [3.0]]), np.ones((3, 1)), match).r2.tolist() == [0.0]


def test_wrong_shapes_are_named(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="second"):
        match_components(rng.random((2, 3)), rng.random((2, 4)))
    match = match_components(rng.random((2, 3)), rng.random((2, 3)))
    with pytest.raises(ValueError, match="found"):
        score_concentrations(rng.random((4, 2)), rng.random((5, 2)), match)
