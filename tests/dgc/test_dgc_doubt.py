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


def test_each_sentence_and_its_figure() -> None:
    cube = scene()
    half = np.where(np.arange(60) % 2, SURE, np.float32(0.05))
    assert said(cube, LABELS, half) == ["50% of the pixels fit two clusters nearly alike (confidence below 0.1)."]
    specks = LABELS.copy()
    specks[::3, ::3] = (specks[::3, ::3] + 1) % 3
    assert said(cube, specks)[0].startswith("11% of the pixels lie in patches of one or two pixels")
    stripes = np.arange(40)[:, None].repeat(60, axis=1) * 3 // 40
    assert "The clusters explain 0% of the variance of the normalized spectra, k-means 9" in said(cube, stripes)[0]
    cube[5] = np.random.default_rng(1).normal(size=LABELS.shape)
    assert said(cube, LABELS) == ["Bands that hold mostly noise: 5 (from 0). Results may gain from leaving them out."]


def test_scenes_without_anything_to_say() -> None:
    empty = np.full(LABELS.shape, -1)
    found = doubts(Cube(scene()), empty, np.full(LABELS.shape, np.nan, np.float32), Normalization("meanstd"), 3)
    assert found.place == [None] * 3
    assert found.record["explained"] is None
    assert doubts(Cube(np.ones((2, 1, 1))), np.zeros((1, 1), int), np.ones((1, 1)), Normalization(), 3).cautions == []
