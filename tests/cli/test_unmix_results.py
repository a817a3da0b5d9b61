"""What `unmix` leaves: numbering, tables for spreadsheets, maps, profiles against time, axes, residuals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from scipy.io import savemat

from helpers.command_line import UNMIX, fails_with, run
from spectrafuse.cli import unmix as command
from spectrafuse.io.axes import falls
from spectrafuse.io.cubes import read_cube
from spectrafuse.io.grids import grid_of_positions
from spectrafuse.io.results import write_concentrations
from spectrafuse.io.spectra import Spectra
from spectrafuse.mcr.feasible_bands import feasible_bands
from spectrafuse.reports import unmixing
from spectrafuse.reports.feasible_bands import save_feasible_bands

_MAP_INFO = "UTM, 1, 1, 500000, 5300000, 30, 30, 33, North, WGS-84, units=Meters"
_SHARES = np.array([0.2, 0.7, 0.1])


def mixtures(samples: int, bands: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (n, d) of a weak component at the left and a strong one at the right, and their concentrations (n, 2)."""
    generator = np.random.default_rng(5)
    x = np.arange(bands)
    spectra = np.exp(-0.5 * ((x - np.array([[0.25], [0.7]]) * bands) / (0.1 * bands)) ** 2)
    concentrations = generator.uniform(0.1, 1, (samples, 2)) * [1.0, 4.0]
    return concentrations @ spectra + 1e-3 * generator.standard_normal((samples, bands)), concentrations


def write_scene(folder: Path) -> Path:
    """An ENVI image of 5 rows and 6 columns that lies on Earth; pixel (1, 2) has no data."""
    values, _ = mixtures(30)
    cube = values.T.reshape(20, 5, 6).astype("<f4")
    cube[:, 1, 2] = -9
    (folder / "scene.img").write_bytes(cube.tobytes())
    (folder / "scene.hdr").write_text(
        "ENVI\nsamples = 6\nlines = 5\nbands = 20\ndata type = 4\ninterleave = bsq\nbyte order = 0\n"
        f"data ignore value = -9\nmap info = {{{_MAP_INFO}}}\nwavelength units = nm\n"
        f"wavelength = {{{', '.join(str(400 + 10 * i) for i in range(20))}}}\n"
    )
    return folder / "scene.hdr"


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from here on, in their order."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure: Figure) -> set[str]:
    return {artist.get_text() for artist in figure.findobj(Text)}


@pytest.mark.slow
def test_a_scene_becomes_maps_in_its_place(tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run("unmix", write_scene(tmp_path), "-o", output, *UNMIX, "--no-feasible-bands")
    assert result.exit_code == 0, result.output
    assert "1 pixels without data (-9)" in result.stdout.splitlines()[0]
    maps = np.load(output / "concentration_maps.npy")
    assert maps.shape == (2, 5, 6)
    assert np.argwhere(np.isnan(maps[0])).tolist() == [[1, 2]]
    image = read_cube(output / "concentration_maps.hdr")
    np.testing.assert_array_equal(image.data, np.nan_to_num(maps))
    assert image.valid is not None
    np.testing.assert_array_equal(image.valid, ~np.isnan(maps[0]))
    assert image.place is not None
    assert image.place["map info"] == _MAP_INFO
    assert "band names = {component 1, component 2}" in (output / "concentration_maps.hdr").read_text()
    assert imread(output / "concentration_maps.png").shape[0] > 100
    assert not (output / "concentrations.png").exists()
    with np.load(output / "concentrations.npz") as archive:
        table = archive["concentrations"]
    seen = ~np.isnan(maps[0])
    np.testing.assert_array_equal(maps[:, seen].T, table)
    _, true = mixtures(30)
    # The strong component comes first.
    for column, component in enumerate((1, 0)):
        assert np.corrcoef(table[:, column], np.delete(true[:, component], 8))[0, 1] > 0.99


def test_scenes_are_read_with_the_options_of_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[3:, 4:] = 1
    np.save(tmp_path / "mask.npy", mask)
    values = mixtures(30)[0]
    savemat(tmp_path / "flat.mat", {"pixels": values.T, "other": np.ones((3, 3))})

    def read(name: str, **options: Any) -> Spectra:
        return command.read_request(command.UnmixRequest(tmp_path / name, tmp_path / "out", {}, **options))

    path = write_scene(tmp_path).name
    spectra = read(path, bands="450-520nm drop 470nm", mask=str(tmp_path / "mask.npy"))
    assert spectra.axis is not None
    assert spectra.axis.tolist() == [450, 460, 480, 490, 500, 510, 520]
    assert spectra.grid is not None
    assert np.argwhere(np.isnan(spectra.grid.maps(spectra.data)[0])).tolist() == [
        [1, 2],
        [3, 4],
        [3, 5],
        [4, 4],
        [4, 5],
    ]
    assert "13 of 20 bands left out" in capsys.readouterr().out
    folded = read("flat.mat", key="pixels", scene_size=(5, 6))
    assert folded.grid is not None
    # MATLAB counts pixels column by column.
    np.testing.assert_allclose(folded.grid.maps(folded.data)[:, 1, 2], values[1 + 2 * 5], rtol=1e-6)
    np.savetxt(tmp_path / "x.csv", values, delimiter=",")
    fails_with(run("unmix", tmp_path / "x.csv", "-o", tmp_path / "out", "--bands", "0-3"), "no scene", "--bands")
    words = ["--bands", "0-9", "--drop", "3", "--mask", tmp_path / "mask.npy", "--all-bands"]
    fails_with(run("unmix", tmp_path / path, "-o", tmp_path / "out", *words), "exclude each other")


@pytest.mark.slow
def test_components_are_numbered_by_share_and_a_background_comes_last(tmp_path: Path) -> None:
    components = np.array([[1.0, 0.0], [0.5, -0.5], [0.0, 1.0]])
    share = command.shares(components, np.tile(_SHARES, (4, 1)))
    np.testing.assert_allclose(share, _SHARES)
    assert command.by_share(share, None).tolist() == [1, 0, 2]
    assert command.by_share(share, 1).tolist() == [0, 2, 1]
    values, _ = mixtures(12)
    np.savetxt(tmp_path / "x.csv", values + 3, delimiter=",", fmt="%.6f")
    result = run("unmix", tmp_path / "x.csv", "-o", tmp_path / "out", *UNMIX, "--no-feasible-bands", "--background")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["background_row"] == len(record["shares"]) - 1
    assert record["shares"][-1] == max(record["shares"])
    assert record["shares"][:-1] == sorted(record["shares"][:-1], reverse=True)
    with (tmp_path / "out" / "components.csv").open(encoding="utf-8") as file:
        first = [row[0] for row in csv.reader(file)]
    assert first == ["component", *(f"component {i + 1}" for i in range(record["n_components"])), "background"]
    with np.load(tmp_path / "out" / "components.npz") as archive:
        assert np.ptp(archive["components"][-1]) == pytest.approx(0, abs=1e-6)


def test_names_that_a_spreadsheet_would_run_are_text(tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x")', "+1+1", "-a", "@SUM(A1)", "-3.5", "plain"]
    path, _ = write_concentrations(tmp_path, np.ones((6, 1)), names=names, components=["=1+1"])
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["spectrum", "'=1+1"]
    assert [row[0] for row in rows] == [*(f"'{name}" for name in names[:4]), "-3.5", "plain"]


@pytest.mark.slow
def test_profiles_stand_against_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, _ = mixtures(9)
    minutes = np.array([0, 1, 2, 5, 10, 20, 40, 60, 90.0])
    head = ["time (min)", *(f"{400 + 10 * i}" for i in range(20))]
    rows = [f"{t:g}," + ",".join(f"{v:.5f}" for v in line) for t, line in zip(minutes, values, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join([",".join(head), *rows]))
    figures = drawn(monkeypatch)
    result = run("unmix", tmp_path / "x.csv", "-o", tmp_path / "out", *UNMIX, "--no-feasible-bands")
    assert result.exit_code == 0, result.output
    profile = next(f for f in reversed(figures) if "Concentration of each component" in texts(f))
    assert profile.axes[0].lines[0].get_xdata().tolist() == minutes.tolist()
    assert "time (min)" in texts(profile)
    residuals = next(f for f in reversed(figures) if f.get_suptitle().startswith("Residuals"))
    assert residuals.axes[1].lines[0].get_xdata().tolist() == minutes.tolist()
    with (tmp_path / "out" / "concentrations.csv").open(encoding="utf-8") as file:
        head, *table = csv.reader(file)
    assert head[0] == "time (min)"
    assert [float(row[0]) for row in table] == minutes.tolist()


@pytest.mark.parametrize(
    ("title", "unit", "expected"),
    [
        ("wavenumber (cm-1)", "cm⁻¹", True),
        (None, "cm⁻¹", True),
        ("Raman shift (cm-1)", "cm⁻¹", False),
        ("wavelength (nm)", "nm", False),
        ("chemical shift", "ppm", True),
    ],
)
def test_axes_fall_where_the_field_lets_them(title: str | None, unit: str | None, expected: bool) -> None:
    assert falls(title, unit, np.array([400.0, 500.0, 600.0])) is expected


@pytest.mark.parametrize("falling", [False, True])
def test_falling_axes_are_drawn_from_large_to_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falling: bool
) -> None:
    figures, axis = drawn(monkeypatch), np.linspace(400, 4000, 20)
    values, _ = mixtures(5)
    unmixing.save_components(tmp_path / "c.png", values[:2], axis=axis, falling=falling)
    unmixing.save_residuals(tmp_path / "r.png", values, values, axis=axis, falling=falling, lack_of_fit=1.0)
    bands = feasible_bands(np.ones((5, 1)), np.ones((1, 20)), 0.0)
    save_feasible_bands(tmp_path / "b.png", bands, names=["sugar"], axis=axis, falling=falling)
    assert figures[2].axes[0].get_title(loc="left") == "sugar"
    for figure in figures:
        left, right = figure.axes[0].get_xlim()
        assert falling == (left > right)


def test_residuals_show_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    data = np.ones((3, 4))
    rebuilt = data.copy()
    rebuilt[1, 2] = -1.0
    unmixing.save_residuals(tmp_path / "r.png", data, rebuilt, lack_of_fit=12.5)
    upper, lower = figures[0].axes
    assert "lack of fit 12.5 %" in figures[0].get_suptitle()
    rms = next(line for line in upper.lines if line.get_label() == "root mean square")
    np.testing.assert_allclose(rms.get_ydata(), [0, 0, (4 / 3) ** 0.5, 0])
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [0, 100, 0])


def test_places_that_fill_a_raster_are_a_map() -> None:
    places = np.array([(x, y) for y in (0.0, 5.0) for x in (1.0, 2.0, 3.0)])
    grid = grid_of_positions(places[1:])
    assert grid is not None
    maps = grid.maps(np.arange(1.0, 6.0)[:, None])[0]
    np.testing.assert_array_equal(maps, [[np.nan, 1, 2], [3, 4, 5]])
    assert grid_of_positions(np.repeat(places, 2, axis=0)) is None


@pytest.mark.slow
def test_constraints_and_known_spectra_on_the_command_line(tmp_path: Path) -> None:
    spectra, concentrations = mixtures(24)
    x = np.arange(20)
    pure = np.exp(-0.5 * ((x - np.array([[5.0], [14.0]])) / 2.0) ** 2)
    closed = concentrations / concentrations.sum(1, keepdims=True)
    np.savetxt(tmp_path / "spectra.csv", closed @ pure + (spectra - concentrations @ pure), delimiter=",")
    (tmp_path / "known.csv").write_text(
        "name," + ",".join(str(i) for i in x) + "\nsugar," + ",".join(f"{v:.6f}" for v in 3 * pure[1]) + "\n"
    )
    out = tmp_path / "out"
    result = run(
        "unmix", tmp_path / "spectra.csv", "-o", out, "--pool-size", 8, "--spectra-in", "rows",
        "--known", tmp_path / "known.csv", "--fixed", "--unimodal", "--closure", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text())
    said = " ".join(result.output.split())
    assert [one["name"] for one in record["constraints"]] == ["Unimodal on concentrations", "Closure on concentrations"]
    assert record["constraints"][0]["active"]
    assert "Unimodal on concentrations: active, raises the nMSE by" in said
    with (out / "concentrations.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    values = np.array([[float(row[name]) for name in row if name in ("sugar", *(n for n in row if "component" in n))]
                       for row in rows])  # fmt: skip
    np.testing.assert_allclose(values.sum(1), 2.0, atol=1e-4)
    assert "sugar" in rows[0]
    again = run("unmix", tmp_path / "spectra.csv", "-o", tmp_path / "no", "--fixed")
    fails_with(again, "--fixed is about the spectra of --known")
    fails_with(run("unmix", tmp_path / "spectra.csv", "-o", tmp_path / "no", "--closure", 0), "must be above 0")
    (tmp_path / "short.csv").write_text("name,0,1,2\nsugar,1,2,3\n")
    short = run("unmix", tmp_path / "spectra.csv", "-o", tmp_path / "no", "--known", tmp_path / "short.csv")
    fails_with(short, "--known", "must hold spectra of 20 bands")
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_missing_cells_are_said_and_take_no_part(tmp_path: Path) -> None:
    values, _ = mixtures(12)
    lines = [",".join(f"{v:.5f}" for v in row) for row in values]
    cells = [line.split(",") for line in lines]
    cells[2][3] = cells[5][7] = ""
    header = ",".join(str(400 + 10 * i) for i in range(20))
    (tmp_path / "holes.csv").write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n")
    result = run("unmix", tmp_path / "holes.csv", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "2 of 240 values are missing and take no part" in result.output.splitlines()[0]
    assert "Caution: 2 of 240 values are missing and take no part." in " ".join(result.output.split())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["n_components"] == 2
    assert record["r2"] > 0.999
    dropped = run("unmix", tmp_path / "holes.csv", "-o", tmp_path / "fewer", "--drop-missing", "spectra")
    assert "2 of 12 spectra with missing values" in dropped.output


def _eluting(samples: int, shift: float, sizes: tuple[float, float]) -> np.ndarray:
    t = np.arange(samples)
    return np.stack(
        [size * np.exp(-0.5 * ((t - c - shift) / 3) ** 2) for size, c in zip(sizes, (8, 14), strict=True)], 1
    )


def _pure(bands: int, places: tuple[float, float]) -> np.ndarray:
    x = np.arange(bands) / bands
    return np.exp(-0.5 * ((x - np.array(places)[:, None]) / 0.1) ** 2)


def _write(path: Path, axis: np.ndarray, values: np.ndarray) -> Path:
    noisy = values + 1e-3 * np.random.default_rng(len(path.name)).standard_normal(values.shape)
    lines = [",".join(f"{x:g}" for x in axis), *(",".join(f"{v:.6f}" for v in row) for row in noisy)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_runs_share_spectra_and_have_profiles_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    axis, pure = 400.0 + 10 * np.arange(30), _pure(30, (0.3, 0.6))
    runs = [
        _write(tmp_path / f"{name}.csv", axis, _eluting(22, 0, sizes) @ pure)
        for name, sizes in (("monday", (1.0, 0.5)), ("friday", (0.3, 0.8)))
    ]
    out = tmp_path / "out"
    result = run("unmix", *runs, "-o", out, "--n-components", 2, "--unimodal", "--trilinear", "--pool-size", 8)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.output.splitlines()[:2]] == ["read", "read"]
    record = json.loads((out / "run.json").read_text())
    assert [Path(one["file"]).name for one in record["inputs"]] == ["monday.csv", "friday.csv"]
    assert {one["name"] for one in record["constraints"]} == {
        "Unimodal on concentrations",
        "Trilinear on concentrations",
    }
    profiles = [np.load(out / f"concentrations_{name}.npz")["concentrations"] for name in ("monday", "friday")]
    assert [len(part) for part in profiles] == [22, 22]
    for k in range(2):
        both = [part[:, k] / np.linalg.norm(part[:, k]) for part in profiles]
        assert both[0] @ both[1] > 0.9999
        assert int(np.argmax(both[0])) in (8, 14)
    ratios = sorted(float(profiles[1][:, k].sum() / profiles[0][:, k].sum()) for k in range(2))
    np.testing.assert_allclose(ratios, [0.3, 1.6], rtol=0.05)
    whole = np.load(out / "concentrations.npz")
    assert whole["names"][[0, 22]].tolist() == ["monday 1", "friday 1"]
    axes = next(figure.axes for figure in figures if figure.axes and len(figure.axes[0].texts) == 2)
    assert len([line for line in axes[0].lines if len(line.get_xdata()) == 22]) == 2
    assert [text.get_text() for text in axes[0].texts] == ["monday", "friday"]
    for words, says in (["--runs"], "obey what links them: Unimodal"), ([], "--runs obeys what links it: Unimodal"):
        applied = run("apply", out, *runs, "-o", tmp_path / f"applied{len(words)}", *words)
        assert says in " ".join(applied.output.split()), applied.output
    for name, before in zip(("monday", "friday"), profiles, strict=True):
        again = np.load(tmp_path / "applied1" / name / "concentrations.npz")["concentrations"]
        np.testing.assert_allclose(again, before, atol=0.01 * before.max())
        for profile in again.T:
            top = int(profile.argmax())
            assert (np.diff(profile[: top + 1]) >= 0).all()
            assert (np.diff(profile[top:]) <= 0).all()
        alone = np.load(tmp_path / "applied0" / name / "concentrations.npz")["concentrations"]
        assert np.abs(alone - before).max() > 5e-4
    other = _write(tmp_path / "other.csv", axis + 5, _eluting(22, 0, (1, 1)) @ pure)
    fails_with(
        run("unmix", runs[0], other, "-o", tmp_path / "no"), "Runs must have one axis", "400 to 690", "405 to 695"
    )
    fails_with(run("unmix", runs[0], "-o", tmp_path / "no", "--trilinear"), "--trilinear is about several runs")
    short = _write(tmp_path / "short.csv", axis, _eluting(20, 0, (1, 1)) @ pure)
    fails_with(run("unmix", runs[0], short, "-o", tmp_path / "no", "--trilinear"), "of one length; got 22, 20 spectra")


@pytest.mark.slow
def test_instruments_side_by_side_share_profiles(tmp_path: Path) -> None:
    amounts = _eluting(22, 0, (1.0, 0.7))
    ultraviolet = _write(tmp_path / "uv.csv", 200.0 + 5 * np.arange(30), amounts @ _pure(30, (0.5, 0.55)))
    infrared = _write(tmp_path / "ir.csv", 900.0 + 10 * np.arange(40), 300 * amounts @ _pure(40, (0.3, 0.7)))
    out = tmp_path / "out"
    result = run("unmix", ultraviolet, infrared, "-o", out, "--side-by-side", "--n-components", 2, "--pool-size", 8)
    assert result.exit_code == 0, result.output
    shapes = {name: np.load(out / f"components_{name}.npz") for name in ("uv", "ir")}
    assert shapes["uv"]["components"].shape == (2, 30)
    np.testing.assert_array_equal(shapes["ir"]["axis"], 900.0 + 10 * np.arange(40))
    # Alike in one instrument, told apart by the other.
    found = shapes["uv"]["components"] / np.linalg.norm(shapes["uv"]["components"], axis=1, keepdims=True)
    true = _pure(30, (0.5, 0.55)) / np.linalg.norm(_pure(30, (0.5, 0.55)), axis=1, keepdims=True)
    assert np.max(found @ true.T, axis=0).min() > 0.999
    assert (out / "components_uv.png").exists()
    fewer = _write(tmp_path / "fewer.csv", 200.0 + 5 * np.arange(30), amounts[1:] @ _pure(30, (0.5, 0.55)))
    fails_with(
        run("unmix", fewer, infrared, "-o", tmp_path / "no", "--side-by-side"),
        "needs the same samples in all files", "21 spectra", "22",
    )  # fmt: skip
    fails_with(run("unmix", fewer, "-o", tmp_path / "no", "--side-by-side"), "there is one")
