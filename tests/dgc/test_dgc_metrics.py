"""Scores of label maps: golden values, counting by hand, and what the published code gets wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from helpers import golden
from spectrafuse.dgc import metrics

PUBLISHED_RTOL = 1e-6  # the published metrics are float32


@pytest.fixture(scope="module")
def values() -> dict:
    return golden("dgc_metrics")


def maps(seed: int, shape: tuple[int, ...], n_first: int, n_second: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_first, shape), rng.integers(0, n_second, shape)


@pytest.mark.parametrize(
    ("key", "score"),
    [
        ("iou", metrics.mean_iou),
        ("dice", lambda a, b: metrics.mean_dice(a, b, published=True)),
        ("area_rmse", metrics.area_rmse),
        ("entropy", lambda a, b: metrics.entropy(a)),
        ("mi", metrics.mutual_information),
        ("nmi", metrics.normalized_mutual_information),
        ("vi", metrics.variation_of_information),
    ],
)
def test_golden(values: dict, key: str, score: object) -> None:
    assert score(values["pred"], values["target"]) == pytest.approx(values[key], rel=PUBLISHED_RTOL)  # type: ignore[operator]


def test_dice_by_counting() -> None:
    pred, target = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    # class 0: tp 1, fp 1, fn 0; class 1: tp 2, fp 0, fn 2; class 2: tp 0, fp 1
    assert metrics.mean_dice(pred, target) == pytest.approx((2 / 3 + 4 / 6 + 0) / 3)
    assert metrics.mean_iou(pred, target) == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert metrics.mean_dice(pred, target, published=True) == pytest.approx(2 * metrics.mean_iou(pred, target))


def test_classes_that_occur_nowhere_do_not_count() -> None:
    pred, target = np.array([0, 5]), np.array([0, 5])
    assert metrics.mean_iou(pred, target) == 1.0
    iou, dice = metrics.class_scores(pred, target)
    assert iou.isnan().tolist() == dice.isnan().tolist() == [False, True, True, True, True, False]


def test_unknown_pixels_are_ignored() -> None:
    pred, target = maps(3, (13, 7), 4, 4)
    hidden = np.random.default_rng(4).random((13, 7)) < 0.4
    covered = np.where(hidden, -1, target)
    for score in (
        metrics.mean_iou,
        metrics.mean_dice,
        metrics.area_rmse,
        metrics.accuracy,
        metrics.mutual_information,
        metrics.normalized_mutual_information,
        metrics.variation_of_information,
    ):
        assert score(pred, covered) == pytest.approx(score(pred[~hidden], target[~hidden]))
    assert metrics.entropy(covered) == pytest.approx(metrics.entropy(target[~hidden]))


def test_information_of_known_maps() -> None:
    a = np.repeat([0, 1, 2, 3], 5)
    assert metrics.entropy(a) == pytest.approx(math.log(4))
    assert metrics.variation_of_information(a, 3 - a) == pytest.approx(0, abs=1e-12)
    assert metrics.normalized_mutual_information(a, 3 - a) == pytest.approx(1)
    one = np.zeros_like(a)
    assert metrics.normalized_mutual_information(a, one) == 0.0
    assert metrics.variation_of_information(a, one) == pytest.approx(math.log(4))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("clusters", "labels"), [(4, 4), (5, 3), (3, 5)])
def test_matching_is_the_best_one_to_one_mapping(seed: int, clusters: int, labels: int) -> None:
    pred, target = maps(seed, (23, 9), clusters, labels)
    counts = metrics.confusion(pred, target).numpy()
    big = max(clusters, labels)
    padded = np.zeros((big, big))
    padded[:clusters, :labels] = counts
    best = max(padded[range(big), order].sum() for order in itertools.permutations(range(big)))
    mapping = metrics.match_clusters(pred, target)
    assert sorted(c for members in mapping.values() for c in members) == list(range(clusters))
    assert metrics.accuracy(metrics.apply_mapping(pred, mapping), target) * target.size == pytest.approx(best)


def test_matching_undoes_a_cyclic_permutation() -> None:
    """The published mapping is inverted, which shows only when the permutation is not its own inverse."""
    target = np.random.default_rng(0).integers(0, 3, (11, 5))
    pred = (target + 1) % 3
    scores = metrics.evaluate([pred], [target])
    assert scores["mean_iou"] == scores["mean_dice"] == scores["accuracy"] == 1.0
    assert scores["mapping"] == {0: [1], 1: [2], 2: [0]}
    assert metrics.evaluate([pred], [target], match=False)["mean_iou"] == 0.0


def test_left_over_clusters_are_wrong_but_no_class() -> None:
    target = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    pred = np.array([0, 0, 0, 2, 1, 1, 1, 1])
    scores = metrics.evaluate([pred], [target])
    assert scores["iou_class_0"] == pytest.approx(3 / 4)
    assert scores["mean_iou"] == pytest.approx((3 / 4 + 1) / 2)
    assert scores["accuracy"] == pytest.approx(7 / 8)


def test_explicit_mapping() -> None:
    target = np.array([[0, 0, 1, 1]])
    pred = np.array([[3, 1, 0, 0]])
    scores = metrics.evaluate([pred], [target], mapping={0: [1, 3], 1: [0]})
    assert scores["accuracy"] == 1.0
    with pytest.raises(ValueError, match="lacks 3"):
        metrics.evaluate([pred], [target], mapping={0: [1], 1: [0]})
    with pytest.raises(ValueError, match="names cluster 1 twice"):
        metrics.apply_mapping(pred, {0: [1, 3], 1: [0, 1]})
    assert metrics.apply_mapping(np.array([1, -1, 0]), {7: [0], 4: [1]}).tolist() == [4, -1, 7]


def test_scores_are_averaged_over_images() -> None:
    a, b = np.array([0, 1]), np.array([0, 0, 1, 1])
    target_b = np.array([1, 0, 1, 1])
    scores = metrics.evaluate([a, b], [a, target_b], mapping={0: [0], 1: [1]})
    assert scores["mean_iou"] == pytest.approx((1.0 + (1 / 2 + 2 / 3) / 2) / 2)
    assert scores["dice_class_0"] == pytest.approx(2 * 2 / 5)
    unknown = np.full(3, -1)
    assert metrics.evaluate([a, b, unknown], [a, target_b, unknown], mapping={0: [0], 1: [1]}) == scores


def test_tensors_and_arrays_agree() -> None:
    pred, target = maps(8, (1, 1), 2, 2)
    assert metrics.mean_iou(torch.from_numpy(pred), target) == metrics.mean_iou(pred, torch.from_numpy(target))


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="integer labels"):
        metrics.mean_iou(np.array([0.5]), np.array([1]))
    with pytest.raises(ValueError, match="got 2 and 3 pixels"):
        metrics.mean_iou(np.array([0, 1]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.evaluate([np.array([0])], [np.array([-1])])
    with pytest.raises(ValueError, match="got 1 and 2"):
        metrics.evaluate([np.array([0])], [np.array([0]), np.array([0])])


def test_a_label_that_occurs_nowhere_takes_no_cluster():
    target = np.array([1, 1, 1, 2, 2, 2])
    pred = np.array([0, 0, 0, 0, 1, 1])
    assert metrics.match_clusters(pred, target) == {1: [0], 2: [1]}
    assert metrics.evaluate([pred[None]], [target[None]])["mean_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
