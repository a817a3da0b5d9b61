"""Normalisation of cubes, each scene by its own statistics (docs/algorithms/dgc.md, "Normalization").

`meanstd` and `minmax` treat every band; `unit` and `snv` treat every spectrum; `unit+meanstd` and `signal+meanstd` do
one after the other. Statistics are gathered over blocks of rows in float64, so a cube larger than memory can be read by
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.dgc.noise import signal_directions
from spectrafuse.io.cubes import Cube
from spectrafuse.io.nodata import window_blocks
from spectrafuse.io.validate import check_not_faint
from spectrafuse.ops.scene_spectra import normalized, scene_spectra

METHODS = ("meanstd", "minmax", "unit", "snv", "unit+meanstd", "signal+meanstd")
_EPSILON = 1e-6
_FAINT = 1e-3
"""Where nothing in a scene varies by more, `_EPSILON` is meant in units of what varies most."""
_BLOCK_VALUES = 1 << 20
# Share of a spectrum's norm that its signal has at least: of noise alone it may have none.
_LEAST_SIGNAL = 0.1


def as_float_tensor(values: Any) -> Tensor:
    """Values as a float tensor: float64 stays, everything else becomes float32; no copy where none is needed."""
    if isinstance(values, Tensor):
        return values if values.dtype in (torch.float32, torch.float64) else values.to(torch.float32)
    array = np.asarray(values)
    wide = array.dtype.kind == "f" and array.dtype.itemsize == 8
    array = np.ascontiguousarray(array, dtype=np.float64 if wide else np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@dataclass(frozen=True, eq=False)
class Normalization:
    """A way to normalise cubes and, once fitted, the statistics of one scene.

    Parameters
    ----------
    method : {"meanstd", "minmax", "unit", "snv", "unit+meanstd", "signal+meanstd"}
        `meanstd`: per band `(x - mean) / (std + 1e-6)`, std with ddof 1. `minmax`: per band
        `(x - min) / (max - min + 1e-6)`. `unit`: each spectrum divided by its L2 norm, which removes illumination.
        `snv`: each spectrum minus its mean, over its standard deviation. `unit+meanstd`: `unit`, then `meanstd`.
        `signal+meanstd`: each spectrum divided by the norm of its part that is signal, which noise does not lengthen
        (`spectrafuse.dgc.noise`), then `meanstd`.
    offset, scale : Tensor or None
        Statistics, float64, broadcastable to the cube; set by `fit`, None for methods without statistics.
    signal : Tensor (bands, r) or None
        Of `signal+meanstd`: the norm of a unit spectrum behind this map is the share of its signal. None where a scene
        has no noise, or nothing else.

    Notes
    -----
    The 1e-6 are the published ones. Where no band of a scene varies by more than 1e-3, they are 1e-6 of what varies
    most, so that the unit of faint spectra does not matter.

    Defined everywhere on finite data: zero spectra stay zero under `unit` and `snv`, constant spectra become zero
    under `snv`, constant bands become zero under `meanstd` and `minmax`, and so does a scene of one pixel.
    """

    method: str = "meanstd"
    offset: Tensor | None = None
    scale: Tensor | None = None
    signal: Tensor | None = None

    def __post_init__(self) -> None:
        checks.choice("normalization", self.method, METHODS)

    @property
    def has_statistics(self) -> bool:
        """Whether the method needs statistics of the scene."""
        return self.method in ("meanstd", "minmax", "unit+meanstd", "signal+meanstd")

    @property
    def state(self) -> dict[str, Any]:
        """Method and statistics; `Normalization(**state)` restores it."""
        return {"method": self.method, "offset": self.offset, "scale": self.scale, "signal": self.signal}

    @property
    def _spectrum_method(self) -> str:
        """What is done to single spectra, as `scene_spectra` calls it."""
        own = {"unit+meanstd": "unit", "signal+meanstd": "unit", "meanstd": "none", "minmax": "none"}
        return own.get(self.method, self.method)

    def _without_noise(self, unit: Tensor, axis: int) -> Tensor:
        """Unit spectra, with the bands along `axis`, divided in place by the norm of their signal."""
        if self.signal is None:
            return unit
        rows = unit.movedim(axis, -1)
        share = (rows @ self.signal.to(rows)).norm(dim=-1, keepdim=True)
        rows /= share.clamp_min(_LEAST_SIGNAL)
        return unit

    def _blocks(self, cube: Any, valid: np.ndarray | None) -> Iterator[Tensor]:
        """Blocks of a cube, in float64, after the part of the method that looks at single spectra.

        With `valid`, the pixels of a block that have data, as one column (bands, n, 1).
        """
        for rows, columns in window_blocks(cube, _BLOCK_VALUES):
            block = as_float_tensor(cube[..., rows, columns])
            if valid is not None:
                chosen = torch.from_numpy(valid[rows, columns])
                if not chosen.any():
                    continue
                block = block[:, chosen].unsqueeze(-1)
            unit = normalized(block, self._spectrum_method, None, None)
            yield self._without_noise(unit, -3).to(torch.float64)

    def fit(self, cube: Any) -> Normalization:
        """The same method with the statistics of `cube`.

        Parameters
        ----------
        cube : Cube, array or tensor (bands, rows, columns), or array or tensor (n, bands, rows, columns)
            The statistics of a `Cube` are those of its pixels with data, computed once and kept with it. In a batch,
            `meanstd` takes each cube's own statistics, `minmax` the extremes over the whole batch.

        Returns
        -------
        Normalization

        Raises
        ------
        ValueError
            If the cube has another number of axes, or an empty one, or its numbers differ by less than float32 can
            tell (1e-31).
        """
        if isinstance(cube, Cube):
            return cube.keep(("normalization", self.method), lambda: self._fit(cube, cube.valid))
        return self._fit(cube, None)

    def _fit(self, cube: Any, valid: np.ndarray | None) -> Normalization:
        if len(cube.shape) not in (3, 4) or 0 in cube.shape:
            raise checks.fail(
                "cube", "of shape (bands, rows, columns) without empty axes", f"shape {tuple(cube.shape)}"
            )
        if not self.has_statistics:
            return Normalization(self.method)
        if self.method == "signal+meanstd":
            found = Normalization(self.method, signal=signal_directions(cube, valid, as_float_tensor))
            return found._of_bands(cube, valid)
        return Normalization(self.method)._of_bands(cube, valid)

    def _of_bands(self, cube: Any, valid: np.ndarray | None) -> Normalization:
        """The same method with the statistics of the bands."""
        if self.method == "minmax":
            axes = (-2, -1) if len(cube.shape) == 3 else (0, -2, -1)
            low = high = None
            for block in self._blocks(cube, valid):
                least, most = block.amin(dim=axes, keepdim=True), block.amax(dim=axes, keepdim=True)
                low = least if low is None else torch.minimum(low, least)
                high = most if high is None else torch.maximum(high, most)
            assert low is not None
            assert high is not None
            return self._scaled_by(low, high - low)
        # Means and sums of squares about them, put together block by block: sums of squares of bands with a large mean
        # would lose their variance to rounding.
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for block in self._blocks(cube, valid):
            pixels = block.shape[-2] * block.shape[-1]
            own = block.mean(dim=(-2, -1), keepdim=True)
            away = own - mean
            squares = squares + (block - own).square_().sum(dim=(-2, -1), keepdim=True)
            squares = squares + away.square() * (count * pixels / (count + pixels))
            mean, count = mean + away * (pixels / (count + pixels)), count + pixels
        return self._scaled_by(mean, (squares / max(count - 1, 1)).sqrt())

    def _scaled_by(self, offset: Tensor, spread: Tensor) -> Normalization:
        most = spread.amax(dim=-3, keepdim=True)
        check_not_faint("cube", float(most.amax()))
        faint = (most > 0) & (most < _FAINT) & (self._spectrum_method == "none")
        spread = spread + _EPSILON * torch.where(faint, most, torch.ones_like(most))
        return replace(self, offset=offset, scale=spread)

    def transform(self, cube: Any) -> Tensor:
        """The normalised cube, or a window of it, as a float32 tensor (float64 for float64 input).

        Raises
        ------
        ValueError
            If the method needs statistics and has none.
        """
        self._check_fitted()
        if self.signal is None:
            return normalized(as_float_tensor(cube), self._spectrum_method, self.offset, self.scale)
        unit = self._without_noise(normalized(as_float_tensor(cube), "unit", None, None), -3)
        return normalized(unit, "none", self.offset, self.scale)

    def spectra(self, cube: Any, out: Tensor) -> Tensor:
        """`transform` into `out` (rows, columns, n), n >= bands: the bands of a pixel side by side, then zeros."""
        self._check_fitted()
        if self.signal is None:
            return scene_spectra(cube, out, self._spectrum_method, self.offset, self.scale)
        assert self.offset is not None
        assert self.scale is not None
        bands = len(self.signal)
        spectra = self._without_noise(scene_spectra(cube, out, "unit", None, None)[..., :bands], -1)
        spectra.sub_(self.offset.flatten().to(spectra)).div_(self.scale.flatten().to(spectra))
        return out

    def _check_fitted(self) -> None:
        if self.has_statistics and (self.offset is None or self.scale is None):
            raise InvalidValueError(f"The normalisation {self.method!r} has no statistics yet; call `fit` first.")
