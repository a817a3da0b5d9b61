"""Pictures: they exist, have the stated size, and show the right colors in the right places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from helpers import seeds
from spectrafuse.io import units
from spectrafuse.io.cubes import array_cube
from spectrafuse.io.results import colors
from spectrafuse.reports import maps, style, unmixing


def rgb(path: Path) -> np.ndarray:
    """A PNG as 8-bit colors (H, W, 3)."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return np.round(imread(path)[..., :3] * 255).astype(np.int64)


def count_of(picture: np.ndarray, color: np.ndarray) -> int:
    return int((picture == np.asarray(color, dtype=np.int64)).all(axis=-1).sum())


def test_palette_is_the_one_of_the_label_maps() -> None:
    np.testing.assert_allclose(style.palette(5) * 255, colors(5), atol=1e-9)


def test_map_shows_every_cluster_with_its_share_of_the_area(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 30:] = 1
    labels[20:, 30:] = 2
    cube = seeds.generator().random((7, 40, 60), dtype=np.float32)
    maps.save_map(tmp_path / "map.png", labels, cube, k=4)
    picture = rgb(tmp_path / "map.png")
    areas = np.array([count_of(picture, color) for color in colors(4)], dtype=float)
    # Cluster 3 is empty: it has a swatch in the legend and nothing else.
    np.testing.assert_allclose(areas[:3] / areas[:3].sum(), [0.5, 0.25, 0.25], atol=0.02)
    assert 0 < areas[3] < 0.02 * areas[0]


def test_true_labels_take_the_color_of_their_cluster(tmp_path: Path) -> None:
    labels = np.repeat(np.array([[0, 1]]), 30, axis=0).repeat(15, axis=1)
    truth = np.where(labels == 0, 1, 0)
    truth[:10] = -1
    cube = seeds.generator().random((3, 30, 30))
    maps.save_map(
        tmp_path / "map.png", labels, cube, k=2, truth=truth, unlabeled=-1, match={1: 0}, truth_names=["a", "b"]
    )
    picture = rgb(tmp_path / "map.png")
    first, second, third = (count_of(picture, color) for color in colors(3))
    # Cluster 0: half of its panel and a third of the true one; label 0 has no cluster and a color of its own.
    assert first / second == pytest.approx(1 + 2 / 3, rel=0.05)
    assert third / second == pytest.approx(2 / 3, rel=0.05)
    gray = np.round(np.array(maps.UNLABELED) * 255)
    assert count_of(picture, gray) / second == pytest.approx(2 / 3, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 97), (97, 1), (13, 200), (200, 13)])
@pytest.mark.parametrize("k", [1, 64])
def test_map_of_any_shape_and_number_of_clusters(tmp_path: Path, shape: tuple[int, int], k: int) -> None:
    labels = seeds.generator().integers(0, k, shape)
    maps.save_map(tmp_path / "map.png", labels, np.zeros((1, *shape), np.float32), k=k, title="t")
    height, width = rgb(tmp_path / "map.png").shape[:2]
    assert 150 < height < 3000
    assert 150 < width < 3000


def test_pseudo_color_takes_the_visible_bands_in_any_order() -> None:
    wavelengths = np.array([900.0, 641.0, 455.0, 549.0])
    cube = np.zeros((4, 1, 5))
    cube[1, 0] = [0, 0, 0, 0, 1]
    picture, caption = maps.pseudo_color(cube, wavelengths)
    assert caption == "641 nm (red), 549 nm (green), 455 nm (blue)"
    assert picture[0, 4, 0] == 1.0
    assert picture[0, 0, 0] == 0.0
    assert (picture[..., 1] == 0.5).all(), "a constant band is gray, not NaN"


def test_pseudo_color_without_wavelengths_names_bands() -> None:
    assert maps.pseudo_color(np.zeros((1, 2, 2)))[1] == "bands 1 (red), 1 (green), 1 (blue)"


@pytest.mark.parametrize(
    ("values", "unit", "label"),
    [
        (None, None, "band number"),
        ([400, 900], None, "wavelength (nm)"),
        ([0.4, 2.5], None, "wavelength (µm)"),
        ([50, 70], None, "wavelength"),
        ([400, 900], "Wavenumber", "wavenumber (cm⁻¹)"),
        ([4000, 9000], "Angstroms", "wavelength (Å)"),
    ],
)
def test_the_axis_of_bands_says_only_what_is_known(values: list[float] | None, unit: str | None, label: str) -> None:
    assert units.axis_title(None if values is None else np.array(values), unit) == label


def test_pseudo_color_takes_the_unit_into_account() -> None:
    cube, wavelengths = np.zeros((40, 2, 2)), np.linspace(4000, 8000, 40)
    nanometers = maps.pseudo_color(cube, wavelengths / 10)[1].replace(" nm", "")
    assert maps.pseudo_color(cube, wavelengths, unit="Angstroms")[1].replace(" Å", "") != nanometers
    picked = [
        float(word) for word in maps.pseudo_color(cube, wavelengths, unit="Angstroms")[1].split() if word[0].isdigit()
    ]
    np.testing.assert_allclose(picked, (6400, 5500, 4600), atol=60)
    assert "cm⁻¹ (red)" in maps.pseudo_color(cube, 1e8 / wavelengths, unit="cm-1")[1]


def test_lines_break_at_gaps_and_bands_are_sorted() -> None:
    x, order = style.spectral_positions(np.array([3.0, 1.0, 2.0]), 3)
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert order.tolist() == [1, 2, 0]
    x = np.concatenate((np.arange(10.0), np.arange(30.0, 40.0)))
    xs, ys = style.broken(x, x * 2)
    assert np.flatnonzero(np.isnan(xs)).tolist() == [10]
    assert np.flatnonzero(np.isnan(ys)).tolist() == [10]
    assert len(xs) == 21


def test_cluster_statistics() -> None:
    cube = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    labels = np.array([[0, 0, 2], [0, 2, 2]])
    pixels, mean, std = style.cluster_statistics(cube, labels, 3)
    assert pixels.tolist() == [3, 0, 3]
    np.testing.assert_allclose(mean[0], [(0 + 1 + 3) / 3, (6 + 7 + 9) / 3])
    np.testing.assert_allclose(std[2], [np.std([2, 4, 5])] * 2)
    assert np.isnan(mean[1]).all()


@pytest.mark.parametrize(("k", "bands"), [(1, 1), (6, 20), (7, 20), (20, 3)])
def test_cluster_spectra_draw_the_clusters_that_occur(tmp_path: Path, k: int, bands: int) -> None:
    generator = seeds.generator()
    pixels = generator.integers(1, 100, k)
    mean = generator.random((k, bands))
    if k > 1:
        pixels[0], mean[0] = 0, np.nan
    style.save_cluster_spectra(tmp_path / "s.png", mean, 0.1 * mean, pixels)
    picture = rgb(tmp_path / "s.png")
    drawn = [count_of(picture, color) > 0 for color in colors(k)]
    assert drawn == [bool(p) for p in pixels]


@pytest.mark.slow
def test_curves_leave_out_what_is_no_number_and_what_is_zero(tmp_path: Path) -> None:
    history = [{"epoch": e, "loss": 1 / e, "unused": 0.0, "note": "text", "late": float("nan")} for e in (1, 2, 3)]
    style.save_curves(tmp_path / "one.png", history)
    history[2]["late"] = 1.0
    style.save_curves(tmp_path / "two.png", history)
    one, two = rgb(tmp_path / "one.png"), rgb(tmp_path / "two.png")
    assert two.shape[1] > one.shape[1] or count_of(two, [255, 255, 255]) < count_of(one, [255, 255, 255])
    style.save_curves(tmp_path / "none.png", [])
    assert rgb(tmp_path / "none.png").size


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 5, 70])
def test_components_and_concentrations_of_any_number(tmp_path: Path, count: int) -> None:
    generator = seeds.generator()
    components, concentrations = generator.random((count, 30)), generator.random((11, count))
    unmixing.save_components(tmp_path / "components.png", components, weights=concentrations.mean(axis=0))
    unmixing.save_concentrations(tmp_path / "concentrations.png", concentrations)
    for name in ("components.png", "concentrations.png"):
        assert rgb(tmp_path / name).shape[0] > 100


def test_true_spectra_and_concentrations_are_drawn(tmp_path: Path) -> None:
    generator = seeds.generator()
    components, concentrations = generator.random((2, 30)), generator.random((11, 2))
    save = unmixing.save_components
    save(tmp_path / "plain.png", components)
    save(tmp_path / "true.png", components, truth=components[::-1], match={0: (1, 1.0), 1: (0, 1.0)})
    black = [count_of(rgb(tmp_path / name), [0, 0, 0]) for name in ("plain.png", "true.png")]
    assert black[1] > 2 * black[0]
    path = tmp_path / "against.png"
    unmixing.save_against_truth(path, concentrations, concentrations[:, ::-1] * 3, {0: 1}, scores={0: "x"})
    drawn = [count_of(rgb(path), color) > 0 for color in colors(2)]
    assert drawn == [True, False]


def test_count_curve_marks_the_chosen_state(tmp_path: Path) -> None:
    curve = [{"r2_from": 0.9, "r2_to": 0.95, "count": 3, "r2": 0.93}]
    ring = np.round(np.array([0xD1, 0x49, 0x5B]))
    for name, chosen in (("without", None), ("with", (0.97, 5))):
        path = tmp_path / f"{name}.png"
        unmixing.save_count_curve(path, curve, chosen=chosen, reason="because")
        assert (count_of(rgb(path), ring) > 0) == (chosen is not None)
    unmixing.save_count_curve(tmp_path / "empty.png", [], chosen=None, reason="nothing fitted")
    assert rgb(tmp_path / "empty.png").size


def test_count_path_marks_the_chosen_count(tmp_path: Path) -> None:
    ring = np.round(np.array([0xD1, 0x49, 0x5B]))
    for chosen in (False, True):
        rows = [{"count": 3, "nmse": 0.01, "chosen": chosen}, {"count": 2, "nmse": 0.0, "chosen": False}]
        unmixing.save_count_path(tmp_path / "path.png", rows, reason="because")
        assert (count_of(rgb(tmp_path / "path.png"), ring) > 0) == chosen


def test_pixels_without_data_are_transparent_and_counted_nowhere(tmp_path: Path) -> None:
    cube = seeds.generator().random((7, 40, 60)) + 1
    cube[:, :, :20] = -1e6
    source = array_cube("X", cube, nodata=-1e6, zeros="check")
    labels = np.repeat([[-1, 0, 1]], 40, axis=0).repeat(20, axis=1)
    picture, _ = maps.pseudo_color(source)
    np.testing.assert_allclose(picture[:, 20:], maps.pseudo_color(cube[:, :, 20:])[0], atol=1e-6)
    pixels, mean, _ = style.cluster_statistics(source, labels, 2)
    assert pixels.tolist() == [800, 800]
    np.testing.assert_allclose(mean[1], cube[:, :, 40:].mean(axis=(1, 2)), rtol=1e-6)
    maps.save_map(tmp_path / "map.png", labels, source, k=2)
    drawn = rgb(tmp_path / "map.png")
    first, second = (count_of(drawn, color) for color in colors(2))
    assert first / second == pytest.approx(1, rel=0.02)
    assert style.shares(labels, 2, labels >= 0).tolist() == [0.5, 0.5]
    see_through = maps.transparent(maps.colored(labels, np.eye(3)[:2]), labels < 0)
    np.testing.assert_array_equal(see_through[..., 3] == 0, labels < 0)


def test_an_empty_picture_is_laid_out_but_not_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be drawn is found before the work whose result it would show, in a file that costs nothing."""
    figure = style.new_figure(2, 2)
    figure.text(0.5, 0.5, "name")
    with style.empty_pictures():
        figure.savefig(tmp_path / "empty.png")
    figure.savefig(tmp_path / "painted.png")
    assert (tmp_path / "empty.png").stat().st_size == 0
    assert (tmp_path / "painted.png").read_bytes().startswith(b"\x89PNG")

    def undrawable(*_: object) -> None:
        raise ValueError("no glyph")

    monkeypatch.setattr(Text, "get_window_extent", undrawable)
    with style.empty_pictures(), pytest.raises(ValueError, match="no glyph"):
        figure.savefig(tmp_path / "never.png")
    assert not (tmp_path / "never.png").exists()
