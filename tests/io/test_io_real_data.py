"""The readers on real files, with what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from spectrafuse.io.arrays import open_arrays
from spectrafuse.io.cubes import open_cube, read_cube
from spectrafuse.io.envi import open_envi
from spectrafuse.io.errors import DataError
from spectrafuse.io.labels import read_labels
from spectrafuse.io.spectra import read_spectra


def test_samson(shared_data: Path) -> None:
    path = shared_data / "samson" / "Samson.mat"
    cube, labels = read_cube(path), read_labels(path)
    assert cube.data.shape == (156, 95, 95)
    assert cube.key == "Y"
    assert "column by column" in cube.layout
    assert np.bincount(labels.ravel()).tolist() == [3015, 3666, 2344]
    # A pixel's spectrum is nearest in angle to the true spectrum of its class only where scene and labels lie
    # the same way round.
    truth = open_arrays(path).load("GT")
    truth = truth / np.linalg.norm(truth, axis=1, keepdims=True)

    def agreement(scene: np.ndarray) -> float:
        unit = scene / np.linalg.norm(scene, axis=0)
        return float((np.einsum("kc,chw->khw", truth, unit).argmax(0) == labels).mean())

    assert agreement(cube.data) > 0.85
    assert agreement(cube.data.transpose(0, 2, 1)) < 0.7


def test_samson_abundances_are_a_cube_only_by_name(shared_data: Path) -> None:
    path = shared_data / "samson" / "Samson.mat"
    assert read_cube(path, key="S_GT").data.shape == (3, 95, 95)
    with pytest.raises(DataError, match=r"no variable 'cube'; it has .*GT \(3, 156\).*Y \(156, 9025\)"):
        read_cube(path, key="cube")


def test_carbohydrates(shared_data: Path) -> None:
    folder = shared_data / "carbs"
    spectra = read_spectra(folder / "carbs_D_spectra.csv")
    assert spectra.data.shape == (21, 1401)
    np.testing.assert_array_equal(spectra.axis, np.arange(1600, 199, -1))
    concentrations = read_spectra(folder / "carbs_C_concentrations.csv")
    assert concentrations.data.shape == (21, 3)
    assert concentrations.axis is None
    assert concentrations.band_names == ["C1", "C2", "C3"]
    np.testing.assert_allclose(concentrations.data.sum(1), 1, atol=1e-6)
    # Spectra in columns beside their axis; C S reproduces D as both are stored.
    components = read_spectra(folder / "carbs_S_endmembers_true_wavenumber.csv")
    assert components.names == ["fructose", "lactose", "ribose"]
    np.testing.assert_array_equal(components.axis, spectra.axis)
    rebuilt = concentrations.data @ components.data
    residual = spectra.data - rebuilt
    r2 = 1 - (residual**2).sum() / ((spectra.data - spectra.data.mean()) ** 2).sum()
    assert r2 == pytest.approx(0.943, abs=0.01)


def test_near_infrared(shared_data: Path) -> None:
    spectra = read_spectra(shared_data / "nir" / "nir_D_spectra.csv")
    assert spectra.data.shape == (166, 235)
    np.testing.assert_array_equal(spectra.axis, np.arange(1115, 2286, 5))
    assert spectra.band_names is not None
    assert spectra.band_names[0] == "X1115.0"
    assert (spectra.data < 0).mean() == pytest.approx(0.43, abs=0.01)
    assert read_spectra(shared_data / "nir" / "nir_C_concentrations.csv").band_names == ["glucose", "ethanol"]


def test_chromatography_of_several_matrices(shared_data: Path) -> None:
    path = shared_data / "als2004" / "als2004dataset.MAT"
    for read in (read_spectra, read_cube, read_labels):
        with pytest.raises(DataError, match=r"key.*: m1 \(51, 96\), spure .*MATRIX \(204, 96\)"):
            read(path)
    matrix = read_spectra(path, key="MATRIX").data
    assert matrix.shape == (204, 96)
    # Rows of the true spectra are in another order than columns of the true concentrations, and scaled.
    true_c, true_s = read_spectra(path, key="cpure").data, read_spectra(path, key="spure").data
    parts = np.stack([np.outer(true_c[:, i], true_s[j]).ravel() for i, j in enumerate((1, 2, 0, 3))])
    scale = np.linalg.lstsq(parts.T, matrix.ravel(), rcond=None)[0]
    residual = matrix.ravel() - scale @ parts
    assert 1 - residual @ residual / ((matrix - matrix.mean()) ** 2).sum() == pytest.approx(0.9992, abs=2e-4)


def envi_images(folder: Path) -> list[Path]:
    return sorted(path for name in ("maize_kernel_envi", "wheat_grains_envi") for path in (folder / name).glob("*.hdr"))


def test_real_images_are_those_that_gdal_reads(shared_data: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the part geo is not installed")
    paths = envi_images(shared_data)
    assert len(paths) == 5
    for header in paths:
        image = open_envi(header)
        with rasterio.open(image.data, driver="ENVI") as file:
            np.testing.assert_array_equal(image.map()[:], file.read())
            np.testing.assert_array_equal(open_cube(header, bands="all")[:, 3:20, 5:9],
                                          file.read(window=((3, 20), (5, 9))).astype("f4"))  # fmt: skip


def test_real_images_are_those_that_spectral_python_reads(shared_data: Path, tmp_path: Path) -> None:
    spectral = pytest.importorskip("spectral", reason="the part peers is not installed")
    for header in envi_images(shared_data):
        image = open_envi(header)
        # It asks for a byte order.
        (tmp_path / "x.hdr").write_text(header.read_text() + "\nbyte order = 0\n")
        other = spectral.io.envi.open(str(tmp_path / "x.hdr"), str(image.data))
        np.testing.assert_array_equal(image.map()[:].transpose(1, 2, 0), np.asarray(other.open_memmap()))
        centers = other.bands.centers
        np.testing.assert_array_equal([] if image.wavelengths is None else image.wavelengths, centers or [])


@pytest.mark.parametrize("name", ["moffett/moffett.mat", "muufl/muffle_dataset_130_90.mat", "samson/Samson.mat"])
def test_matlab_scenes_are_those_that_scipy_reads(shared_data: Path, name: str) -> None:
    stored = loadmat(shared_data / name)["Y"]
    size = {"rows": 50, "columns": 50} if "moffett" in name else {}
    found = read_cube(shared_data / name, key="Y", bands="all", **size)
    bands, rows, columns = found.shape
    folded = stored.transpose(2, 0, 1) if stored.ndim == 3 else stored.reshape(bands, columns, rows).transpose(0, 2, 1)
    np.testing.assert_array_equal(found.data, folded.astype("f4"))
