"""Cubes in files that are cut short, damaged, random or of any form: read right, or refused in one sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.io_files import quiet, scene, write_archive, write_array, write_matlab5, write_matlab73
from spectrafuse.io.cubes import Cube, read_cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.labels import read_labels
from spectrafuse.io.spectra import Spectra, read_spectra

WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "mat5": lambda folder, a: write_matlab5(folder / "x.mat", {"cube": a, "other": a[0]}),
    "mat6": lambda folder, a: write_matlab5(folder / "x.mat", {"cube": a, "other": a[0]}, compressed=False),
    "mat7.3": lambda folder, a: write_matlab73(folder / "x.mat", {"cube": a, "other": a[0]}),
    "npy": lambda folder, a: write_array(folder / "x.npy", a),
    "npz": lambda folder, a: write_archive(folder / "x.npz", {"cube": a, "other": a[0]}),
}


@settings(max_examples=80, deadline=None, database=None)
@given(part=st.floats(0, 1, exclude_max=True), writer=st.sampled_from(sorted(WRITERS)))
@example(part=0.75, writer="mat6")
def test_files_cut_short_are_right_or_refused(part: float, writer: str) -> None:
    expected = scene(4, 3, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[writer](Path(folder), np.moveaxis(expected, 0, -1))
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        for read in (read_cube, read_labels, read_spectra):
            try:
                got = quiet(read, path)
            except DataError:
                continue
            # Only bytes after the last that matters can have gone: with the other variable, a cube is left that may
            # also hold abundances.
            if isinstance(got, Cube):
                np.testing.assert_array_equal(got.data, expected.astype("float32"))
            elif isinstance(got, Spectra):
                np.testing.assert_array_equal(got.data, expected.reshape(4, -1).T.astype("float32"))
            else:
                assert read is read_labels
                np.testing.assert_array_equal(got, expected.argmax(0))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, database=None)
@given(
    writer=st.sampled_from(sorted(WRITERS)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_never_end_otherwise(writer: str, flips: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[writer](Path(folder), np.moveaxis(scene(4, 3, 3), 0, -1))
        content = bytearray(path.read_bytes())
        for place, byte in flips:
            # Headers lie at the start; damaged numbers in the middle cannot be seen in every format.
            content[int(place * min(len(content), 2000))] = byte
        path.write_bytes(content)
        for read in (read_cube, read_labels, read_spectra):
            with suppress(DataError):
                quiet(read, path)


@settings(max_examples=80, deadline=None, database=None)
@given(data=st.data(), start=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"IM"]))
def test_random_bytes_are_refused(data: st.DataObject, start: bytes) -> None:
    content = data.draw(st.binary(max_size=400))
    content = content[:126].ljust(126, b"\0") + start + content if start == b"IM" else start + content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x" + data.draw(st.sampled_from([".mat", ".npy", ".npz"])))
        path.write_bytes(content)
        for read in (read_cube, read_labels, read_spectra):
            with pytest.raises(DataError):
                read(path)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, database=None)
@given(data=st.data(), writer=st.sampled_from(["mat5", "npy", "npz"]))
def test_any_array_in_a_file_is_right_or_refused(data: st.DataObject, writer: str) -> None:
    dtype = data.draw(st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=2)))
    if writer == "mat5" and dtype.kind in "mM":
        return
    array = data.draw(hnp.arrays(dtype, data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy" if writer == "npy" else "x.npz" if writer == "npz" else "x.mat")
        if writer == "npy":
            write_array(path, array)
        else:
            (write_archive if writer == "npz" else write_matlab5)(path, {"a": array})
        for layout in ("auto", "chw", "hwc"):
            try:
                # Bands of zeros are left out where nothing is asked for.
                cube = quiet(read_cube, path, layout=layout, bands="all")
            except DataError:
                continue
            # Hidden behind a rank below 3 there is no scene; MATLAB has no rank below 2.
            # Axes of length 1 are left out of four.
            whole = array if array.ndim == 3 else array.reshape([n for n in array.shape if n != 1])
            assert whole.ndim == 3
            expected = whole if "(bands, rows, columns)" in cube.layout else np.moveaxis(whole, -1, 0)
            np.testing.assert_array_equal(cube.data, expected[cube.band_numbers].astype("float32"))
        for read, rank in ((read_labels, (2, 3)), (read_spectra, (2,))):
            try:
                got = quiet(read, path)
            except DataError:
                continue
            # MATLAB stores scalars and vectors as matrices.
            # A scene's pixels are spectra.
            scene = isinstance(got, Spectra) and got.grid is not None
            assert array.ndim == 3 if scene else array.ndim in rank or (writer == "mat5" and array.ndim < 2)
            values = got if isinstance(got, np.ndarray) else got.data
            assert values.ndim == 2
