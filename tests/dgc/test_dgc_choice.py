"""Whether brightness is kept in the spectra: chosen from the scenes, without labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spectrafuse.dgc.recipes import AUTO
from spectrafuse.dgc.training.choice import BRIGHTNESS, SHAPE, choose_normalization, resolve_normalization
from spectrafuse.io.cubes import Cube, array_cube
from spectrafuse.random import RandomStream


def blocks(seed: int, *, gains: tuple[float, float, float], contrast: float, light: float) -> np.ndarray:
    """Three materials in blocks, which differ by a gain and by `contrast` in shape, under smoothly varying light."""
    drawn = np.random.default_rng(seed)
    spectra = (1 + contrast * drawn.normal(size=(3, 20))) * np.array(gains)[:, None]
    labels = drawn.integers(0, 3, (8, 8)).repeat(8, axis=0).repeat(8, axis=1)
    field = gaussian_filter(drawn.normal(size=labels.shape), 12)
    shading = np.exp(light * (field - field.mean()) / field.std())
    return (spectra[labels].transpose(2, 0, 1) * shading + 0.01 * drawn.normal(size=(20, 64, 64))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_light_is_taken_out_and_brightness_that_tells_materials_is_kept(seed: int) -> None:
    lit = Cube(blocks(seed, gains=(1, 1, 1), contrast=0.1, light=0.4))
    bright = Cube(blocks(seed, gains=(0.3, 0.6, 1), contrast=0.005, light=0))
    assert choose_normalization([lit], 3, RandomStream(seed)).normalization == SHAPE
    chosen = choose_normalization([bright], 3, RandomStream(seed))
    assert chosen.normalization == BRIGHTNESS
    assert f"{chosen.brightness:.2f} with brightness, {chosen.shape:.2f} without" in chosen.reason
    assert choose_normalization([lit, lit], 3, RandomStream(seed)).normalization == SHAPE


def test_pixels_without_data_do_not_matter() -> None:
    cube = blocks(4, gains=(0.3, 0.6, 1), contrast=0.005, light=0)
    absent = np.zeros((64, 64), bool)
    absent[10:30, 5:60] = absent[40:, ::7] = True
    first, second = (
        choose_normalization(
            [array_cube("X", np.where(absent, np.float32(stored), cube), mask=absent, zeros="accept")],
            3,
            RandomStream(0),
        )
        for stored in (0.0, 50.0)
    )
    assert first == second
    assert first.normalization == BRIGHTNESS


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 9), (3, 40, 2)])
def test_without_evidence_brightness_is_taken_out(shape: tuple[int, ...]) -> None:
    """Scenes of one spectrum have no borders; one cluster has no other."""
    for clusters in (1, 3):
        method, reason = resolve_normalization(AUTO, [Cube(np.ones(shape, np.float32))], clusters, 0)
        assert method == SHAPE
        assert reason.startswith("Brightness is taken out")


def test_a_given_method_stays() -> None:
    assert resolve_normalization("snv", [], 3, 0) == ("snv", "")
