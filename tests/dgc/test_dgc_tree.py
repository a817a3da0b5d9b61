"""Fewer clusters without another training: the tree they merge in, and how well halves of a scene agree on a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from helpers.dgc_training import striped
from spectrafuse import DeepGlobalClustering
from spectrafuse.dgc.training.prototypes import SpectraSample
from spectrafuse.dgc.tree import agreement, groups_at, merges
from spectrafuse.random import RandomStream

MEANS = np.array([[0.0, 0], [10, 0], [1, 0], [10, 2], [50, 50]])


def test_the_nearest_clusters_merge_first() -> None:
    tree = merges(MEANS)
    assert groups_at(tree, 5) == [[0], [1], [2], [3], [4]]
    assert groups_at(tree, 4) == [[0, 2], [1], [3], [4]]
    assert groups_at(tree, 3) == [[0, 2], [1, 3], [4]]
    assert groups_at(tree, 2) == [[0, 1, 2, 3], [4]]
    assert groups_at(tree, 1) == [[0, 1, 2, 3, 4]]
    assert (np.diff(tree[:, 2]) > 0).all()
    assert merges(MEANS[:1]).shape == (0, 4)
    with pytest.raises(ValueError, match="`n_clusters` must be"):
        groups_at(tree, 6)


def test_clusters_of_one_size_merge_as_in_the_usual_tree() -> None:
    means = np.random.default_rng(3).normal(size=(12, 4))
    found, usual = merges(means), linkage(means, "ward")
    np.testing.assert_allclose(found[:, [0, 1, 3]], usual[:, [0, 1, 3]])
    np.testing.assert_allclose(found[:, 2] * np.sqrt(2), usual[:, 2])


def test_small_clusters_merge_before_large_ones() -> None:
    means = np.array([[0.0], [3.0], [7.0]])
    assert groups_at(merges(means, np.array([0.5, 0.5, 0.5])), 2) == [[0, 1], [2]]
    assert groups_at(merges(means, np.array([0.5, 0.49, 0.01])), 2) == [[0], [1, 2]]


def test_halves_agree_on_what_is_there() -> None:
    cube, _ = striped(2, 100, 97)
    sample = SpectraSample([cube], 5)
    found = agreement(sample, 5, (3, 5), RandomStream(0))
    assert found[3] > 0.99
    assert found[5] < found[3]  # there are three materials
    assert found[5] >= -1


def test_an_estimator_gives_fewer_clusters_and_keeps_its_tree(tmp_path: Path) -> None:
    cube, _ = striped(5, 40, 33)
    options = {"embed_dim": 8, "crop_size": 12, "batch_size": 2, "max_epoch": 1, "reuse_iter": 1, "device": "cpu"}
    fitted = DeepGlobalClustering(4, **options).fit(cube.numpy())
    labels, fewer = fitted.predict(cube.numpy()), fitted.at(2)
    expected = np.empty(4, int)
    for label, members in enumerate(groups_at(fitted.merges_, 2)):
        expected[members] = label
    np.testing.assert_array_equal(fewer.predict(cube.numpy()), expected[labels])
    np.testing.assert_array_equal(fitted.predict(cube.numpy()), labels)
    assert fitted.cluster_mapping_ is None
    assert set(fitted.level_agreement((2, 4))) == {2, 4}
    fitted.save(tmp_path / "model")
    loaded = DeepGlobalClustering.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.merges_, fitted.merges_)
    assert loaded.level_agreement((2,)) == {}
    loaded.prune(0.0, cube.numpy())
    np.testing.assert_allclose(loaded.merges_, fitted.merges_)
    by_centres = DeepGlobalClustering(3, recipe="published", **options).fit(cube.numpy())
    assert by_centres.merges_.shape == (2, 4)
