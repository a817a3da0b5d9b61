"""Scenes with known materials for `paper_dgc.py`: real ones, and made ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

REAL = ("samson", "indian_pines", "wheat", "muufl", "moffett")


class Scene(NamedTuple):
    """Cubes (C, H, W) with the material of every pixel, -1 where it is not known."""

    cubes: list[np.ndarray]
    labels: list[np.ndarray]
    n_clusters: int


class Made(NamedTuple):
    """What a made scene is drawn from."""

    height: int
    width: int
    bands: int
    materials: int
    contrast: float
    """Standard deviation over the bands of what sets a material apart; that of what all share is 0.1, the mean 0.4."""
    noise: float
    """Standard deviation of what every pixel and band gets on top."""


MADE = {
    "made_small": Made(50, 50, 60, 4, contrast=0.1, noise=0.01),
    "made_noisy": Made(120, 100, 120, 6, contrast=0.02, noise=0.06),
    "made_large": Made(256, 240, 200, 8, contrast=0.03, noise=0.1),
    "made_largest": Made(500, 500, 300, 10, contrast=0.02, noise=0.05),
}
SCENES = (*REAL, *MADE)
# The recipe was chosen with made scenes of lower numbers in view.
_FIRST_UNSEEN = 300


def load(name: str, data: Path | None, seed: int = 0) -> Scene:
    """A scene by its name; of the made ones, another with every seed, and none that the recipe was chosen with.

    Raises
    ------
    FileNotFoundError
        If its files are not in `data`.
    """
    if name in MADE:
        return make(MADE[name], _FIRST_UNSEEN + seed)
    if name == "indian_pines":
        from spectrafuse.cli.demo import indian_pines

        cube, _, labels = indian_pines()
        return Scene([np.moveaxis(cube, 2, 0).astype(np.float32)], [labels - 1], 16)
    if data is None:
        raise FileNotFoundError(f"{name} is read from a folder: give --data.")
    if name == "samson":
        from scipy.io import loadmat

        content = loadmat(data / "samson" / "Samson.mat")
        cube = content["Y"].reshape(-1, 95, 95, order="F").astype(np.float32)
        return Scene([cube], [content["S_GT"].argmax(axis=2)], 3)
    if name in ("muufl", "moffett"):
        return _with_abundances(name, data)
    from spectrafuse.io.cubes import read_cube

    files = sorted((data / "wheat_grains_envi").glob("*.hdr"))
    if not files:
        raise FileNotFoundError(f"{data / 'wheat_grains_envi'} holds no ENVI headers.")
    cubes = [np.asarray(read_cube(file).data, dtype=np.float32) for file in files]
    # The background was set to zero by those who took the images.
    return Scene(cubes, [cube.any(axis=0).astype(np.int64) for cube in cubes], 2)


def _with_abundances(name: str, data: Path) -> Scene:
    """A scene whose pixels are labelled by the material that they hold most of."""
    from scipy.io import loadmat

    if name == "muufl":
        content = loadmat(data / "muufl" / "muffle_dataset_130_90.mat")
        cube, shares = np.moveaxis(content["Y"], 2, 0), content["label"]
    else:
        content = loadmat(data / "moffett" / "moffett.mat")
        cube, shares = content["Y"].reshape(-1, 50, 50, order="F"), content["S_GT"]
    return Scene([np.ascontiguousarray(cube, dtype=np.float32)], [shares.argmax(axis=2)], shares.shape[2])


def make(what: Made, seed: int) -> Scene:
    """Patches of materials with smooth spectra, mixed linearly where they meet, shaded and noisy.

    The materials' shares fall by 0.7 from one to the next. A pixel's label is the material it holds most of.
    """
    drawn = np.random.default_rng(seed)
    shape = (what.height, what.width)
    patches = _patches(drawn, what.materials, shape)
    shares = np.stack([gaussian_filter((patches == k).astype(float), 0.7) for k in range(what.materials)])
    raw = drawn.normal(size=(1 + what.materials, what.bands))
    curves = gaussian_filter1d(raw, what.bands / 15, axis=1, mode="reflect")
    curves = (curves - curves.mean(axis=1, keepdims=True)) / curves.std(axis=1, keepdims=True)
    spectra = 0.4 + 0.1 * curves[0] + what.contrast * curves[1:]
    shading = np.exp(0.3 * _smooth(drawn, shape, min(shape) / 8))
    cube = np.tensordot(spectra.T, shares, axes=1) * shading
    cube += what.noise * drawn.normal(size=cube.shape)
    return Scene([cube.astype(np.float32)], [shares.argmax(axis=0)], what.materials)


def _smooth(drawn: np.random.Generator, shape: tuple[int, int], width: float) -> np.ndarray:
    """A smooth random field (H, W) with mean 0 and standard deviation 1."""
    field = gaussian_filter(drawn.normal(size=shape), width, mode="reflect")
    field -= field.mean()
    scaled: np.ndarray = field / field.std()
    return scaled


def _patches(drawn: np.random.Generator, materials: int, shape: tuple[int, int]) -> np.ndarray:
    """Materials (H, W): where the material's own field is the largest, raised or lowered until its share is right."""
    fields = np.stack([_smooth(drawn, shape, min(shape) / 16) for _ in range(materials)])
    wanted = 0.7 ** np.arange(materials)
    wanted /= wanted.sum()
    for _ in range(100):
        share = np.bincount(fields.argmax(axis=0).ravel(), minlength=materials) / fields[0].size
        fields += (wanted - share)[:, None, None]
    found: np.ndarray = fields.argmax(axis=0)
    return found
