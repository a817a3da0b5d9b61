"""What is said against a label map, and that nothing is said against a good one."""

from __future__ import annotations

import numpy as np

from spectrafuse.dgc.doubt import doubts
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.io.cubes import Cube

LABELS = np.arange(60)[None, :].repeat(40, axis=0) // 20
SURE = np.ones(LABELS.shape, np.float32)


def scene() -> np.ndarray:
    drawn = np.random.default_rng(0)
    spectra = drawn.random((3, 8)) + 0.5
    return (spectra[LABELS].transpose(2, 0, 1) + 0.02 * drawn.normal(size=(8, *LABELS.shape))).astype(np.float32)


def said(cube: np.ndarray, labels: np.ndarray, confidence: np.ndarray = SURE) -> list[str]:
    return doubts(Cube(cube), labels, confidence, Normalization("meanstd"), 3).cautions


def test_nothing_against_a_good_map() -> None:
    found = doubts(Cube(scene()), LABELS, SURE, Normalization("meanstd"), 3)
    assert found.cautions == []
    assert found.confidence == [1, 1, 1]
    assert found.place == [[0, 39, 0, 19], [0, 39, 20, 39], [0, 39, 40, 59]]
    assert found.explained > 0.9
    assert abs(found.explained - found.explained_by_k_means) < 0.01
    assert found.record["small_patches"] == 0
    assert min(found.found_again) > 0.95
    assert found.parted_by_place == []


def test_each_sentence_and_its_figure() -> None:
    cube = scene()
    half = np.where(np.arange(60) % 2, SURE, np.float32(0.05))
    assert said(cube, LABELS, half) == ["50% of the pixels fit two clusters nearly alike (confidence below 0.1)."]
    lots = LABELS.copy()
    lots[:, 40:] = 2
    lots[:20, 40:] = 1
    assert "Cluster 2 is not found again by a search in half of the pixels" in said(cube, lots)[-1]
    specks = LABELS.copy()
    specks[::3, ::3] = (specks[::3, ::3] + 1) % 3
    assert said(cube, specks)[0].startswith("11% of the pixels lie in patches of one or two pixels")
    stripes = np.arange(40)[:, None].repeat(60, axis=1) * 3 // 40
    assert "The clusters explain 0% of the variance of the normalized spectra, k-means 9" in said(cube, stripes)[0]
    cube[5] = np.random.default_rng(1).normal(size=LABELS.shape)
    assert said(cube, LABELS) == ["Bands that hold mostly noise: 5 (from 0). Results may gain from leaving them out."]


def test_clusters_that_light_or_the_atmosphere_parts() -> None:
    drawn = np.random.default_rng(0)
    spectra = np.array([[1, 1, 1, 1], [1.0, 1, 1.02, 1], [3, 1, 0, 2], [0, 2, 3, 1]])
    labels = np.arange(60)[None, :].repeat(40, axis=0) // 30
    labels[:8], labels[30:] = 2, 3
    cube = spectra[labels].transpose(2, 0, 1) + 0.001 * drawn.normal(size=(4, 40, 60))
    found = doubts(Cube(cube.astype(np.float32)), labels, SURE, Normalization("meanstd"), 4)
    assert found.parted_by_place == [(0, 1, "columns")]
    assert found.cautions == [
        "Clusters 0 and 1 have the most alike spectra and share hardly any columns of the scene: "
        "light or the atmosphere may part them instead of a material."
    ]
    side_by_side = doubts(Cube(cube.swapaxes(1, 2).astype(np.float32)), labels.T, SURE.T, Normalization("meanstd"), 4)
    assert side_by_side.parted_by_place == [(0, 1, "rows")]
    spectra[1] = spectra[2] * 0.8
    cube = spectra[labels].transpose(2, 0, 1) + 0.001 * drawn.normal(size=(4, 40, 60))
    assert doubts(Cube(cube), labels, SURE, Normalization("meanstd"), 4).parted_by_place == []


def test_clusters_that_are_merged_are_found_again() -> None:
    merged = np.where(LABELS == 2, 1, LABELS)
    assert min(doubts(Cube(scene()), merged, SURE, Normalization("meanstd"), 2, 3).found_again) > 0.95
    assert min(doubts(Cube(scene()), merged, SURE, Normalization("meanstd"), 2).found_again) < 0.8


def test_scenes_without_anything_to_say() -> None:
    empty = np.full(LABELS.shape, -1)
    found = doubts(Cube(scene()), empty, np.full(LABELS.shape, np.nan, np.float32), Normalization("meanstd"), 3)
    assert found.place == [None] * 3
    assert found.record["explained"] is None
    assert doubts(Cube(np.ones((2, 1, 1))), np.zeros((1, 1), int), np.ones((1, 1)), Normalization(), 3).cautions == []
