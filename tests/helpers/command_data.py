"""A scene, a table and a finished run that the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from helpers.command_line import SEGMENT, run


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube (rows, columns, bands) of two materials, with wavelengths and labels."""
    generator = np.random.default_rng(7)
    labels = np.zeros((12, 15), dtype=np.int64)
    labels[:, 7:] = 1
    spectra = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    cube = spectra[labels] + 0.05 * generator.standard_normal((12, 15, 6))
    path = tmp_path_factory.mktemp("data") / "scene.npz"
    np.savez(path, cube=cube, wavelengths=np.linspace(450, 700, 6), labels=labels)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra of two components, with their concentrations and spectra beside."""
    generator = np.random.default_rng(8)
    folder = tmp_path_factory.mktemp("spectra")
    components = generator.random((2, 20))
    concentrations = generator.uniform(1, 3, (9, 2))
    header = ",".join(str(x) for x in range(900, 1100, 10))
    np.savetxt(
        folder / "spectra.csv", concentrations @ components, delimiter=",", header=header, comments="", fmt="%.6f"
    )
    np.save(folder / "components.npy", components)
    np.savetxt(folder / "concentrations.csv", concentrations, delimiter=",", header="sugar,salt", comments="")
    return folder / "spectra.csv"


@pytest.fixture(scope="module")
def segmented(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("run") / "deep" / "out"
    words = ["segment", scene, "-o", output, *SEGMENT, "--max-epoch", 2, "--labels", f"{scene}:labels"]
    return output, run(*words)
