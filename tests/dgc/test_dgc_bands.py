"""The bands of a model: chosen in fit, kept in its folder, taken of every scene that is labeled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrafuse import DeepGlobalClustering
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import DataError, ReadingNote


def estimator(**options: Any) -> DeepGlobalClustering:
    return DeepGlobalClustering(2, max_epoch=1, crop_size=8, embed_dim=8, device="cpu", **options)


def scene(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((9, 14, 13)).astype("float32") + 0.1
    values[:, :, 6:] *= np.linspace(1, 3, 9, dtype="float32")[:, None, None]
    return values


def test_empty_bands_of_one_scene_are_left_out_of_all(tmp_path: Path) -> None:
    first, second = scene(0), scene(1)
    first[2], second[7] = 0, 0
    np.save(tmp_path / "second.npy", second)
    with pytest.warns(ReadingNote):
        model = estimator().fit([first, str(tmp_path / "second.npy")], layout="chw")
    assert (model.bands_.tolist(), model.n_bands_in_, model.n_features_in_) == ([0, 1, 3, 4, 5, 6, 8], 9, 7)
    # What lies in the others decides nothing, and they need not be empty.
    third = scene(2)
    labels = model.predict(third)
    third[[2, 7]] = 1e6
    np.testing.assert_array_equal(model.predict(third), labels)
    np.testing.assert_array_equal(model.predict(third[model.bands_]), labels)
    model.save(tmp_path / "model")
    loaded = DeepGlobalClustering.load(tmp_path / "model", device="cpu")
    assert (loaded.bands_.tolist(), loaded.n_bands_in_) == (model.bands_.tolist(), 9)
    np.testing.assert_array_equal(loaded.predict(third), labels)
    with pytest.raises(DataError, match="must have 7 bands like the model; got 8"):
        model.predict(third[:8])


@pytest.mark.parametrize("bands", ["0-2,7-", [0, 1, 2, 7, 8], "drop 3-6"])
def test_bands_that_are_asked_for(tmp_path: Path, bands: Any) -> None:
    cube = scene()
    model = estimator(bands=bands).fit(cube)
    assert model.bands_.tolist() == [0, 1, 2, 7, 8]
    expected = estimator().fit(cube[[0, 1, 2, 7, 8]])
    np.testing.assert_array_equal(model.cluster_centers_, expected.cluster_centers_)
    model.save(tmp_path / "model")
    assert DeepGlobalClustering.load(tmp_path / "model").n_bands_in_ == 9


def test_layout(tmp_path: Path) -> None:
    cube = scene()
    np.save(tmp_path / "x.npy", cube.transpose(1, 2, 0))
    model = estimator().fit(tmp_path / "x.npy", layout="hwc")
    labels = model.predict(cube)
    np.testing.assert_array_equal(model.predict(cube.transpose(1, 2, 0), layout="hwc"), labels)
    np.testing.assert_array_equal(model.predict(tmp_path / "x.npy", layout="hwc"), labels)


def test_a_mapped_file_with_bands_left_out_gives_the_labels_of_the_array(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((50, 14, 13)).astype("float32") + 0.1
    kept = np.setdiff1d(np.arange(50), [0, 17, 18, 33, 49])
    model = estimator(bands=kept).fit(cube)
    for name, axes in (("bsq", (0, 1, 2)), ("bil", (1, 0, 2)), ("bip", (1, 2, 0))):
        (tmp_path / "x.img").write_bytes(cube.transpose(axes).tobytes())
        (tmp_path / "x.hdr").write_text(
            f"ENVI\nsamples = 13\nlines = 14\nbands = 50\ndata type = 4\ninterleave = {name}\n"
        )
        np.testing.assert_array_equal(model.predict(tmp_path / "x.hdr"), model.predict(cube))


def test_a_scene_is_labeled_by_the_bands_that_lie_where_the_model_has_its_own(tmp_path: Path) -> None:
    cube = scene()
    axis = np.linspace(400, 800, 9)
    model = estimator().fit(Cube(cube, wavelengths=axis, wavelength_unit="nm"))
    labels = model.predict(cube)
    model.save(tmp_path / "model")
    model = DeepGlobalClustering.load(tmp_path / "model", device="cpu")
    assert model.axis_ is not None
    np.testing.assert_array_equal(model.axis_.values, axis)
    more = np.concatenate([np.full((2, 14, 13), 7, np.float32), cube, np.ones((1, 14, 13), np.float32)])
    longer = np.array([300, 350, *axis, 850]) / 1000
    np.testing.assert_array_equal(model.predict(Cube(more, wavelengths=longer, wavelength_unit="um")), labels)
    shifted = Cube(cube, wavelengths=axis + 20, wavelength_unit="nm")
    with pytest.raises(DataError, match="bands at 420 to 820 nm, and none at 400 nm, where the model has its band 0"):
        model.predict(shifted)
    with pytest.raises(DataError, match="none at 400 nm"):
        estimator().fit([Cube(cube, wavelengths=axis, wavelength_unit="nm"), shifted])
    with pytest.raises(DataError, match="in another order than the model"):
        model.predict(Cube(cube[::-1], wavelengths=axis[::-1], wavelength_unit="nm"))
