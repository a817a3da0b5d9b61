"""Every reader on damaged, cut, random and contradictory files: one clear error or a right result, nothing else."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrafuse.io import open_cube, read_cube, read_labels
from spectrafuse.io.cubes import array_cube
from spectrafuse.io.envi import DATA_TYPES, is_envi
from spectrafuse.io.errors import DataError
from spectrafuse.io.labelme import read_labelme

SETTINGS = settings(max_examples=100, deadline=None, database=None)
NAMES = ["samples", "lines", "bands", "data type", "interleave", "byte order", "header offset", "wavelength"]
NAMES += ["wavelength units", "data ignore value", "reflectance scale factor", "file type", "classes", "class names"]
WORDS = ["0", "1", "2", "3", "4", "5", "12", "-1", "1e9", "nan", "bsq", "BIL", "bip", "{", "}", "{1, 2}", "{1", "", ";"]


def attempt(read: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a reader gives, or None after a DataError whose message is one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return read(*args, **options)
        except DataError as error:
            message = str(error)
    assert message
    assert "\n" not in message
    return None


def check_cube(path: Path) -> None:
    """The same scene, in the shape that is stated, as a whole and by windows."""
    cube, opened = attempt(read_cube, path), attempt(open_cube, path)
    assert (cube is None) == (opened is None)
    if cube is None:
        return
    bands, rows, columns = cube.data.shape
    assert cube.data.dtype == np.float32
    assert np.isfinite(cube.data).all()
    assert opened.shape == cube.data.shape
    np.testing.assert_array_equal(opened.read_window(0, rows, columns // 2, columns), cube.data[..., columns // 2 :])
    assert cube.wavelengths is None or cube.wavelengths.shape == (bands,)
    assert cube.valid is None or cube.valid.shape == (rows, columns)


def check_labels(path: Path) -> None:
    labels = attempt(read_labels, path)
    assert labels is None or (labels.ndim == 2 and labels.dtype == np.int64 and 0 not in labels.shape)


@SETTINGS
@given(
    fields=st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(WORDS), st.text(max_size=6)))),
    data=st.binary(min_size=1, max_size=200),
    start=st.sampled_from(["ENVI\n", "ENVI\r\n", "", "\ufeffenvi\n", "ENVI"]),
)
def test_headers_of_any_fields(fields: list[tuple[str, str]], data: bytes, start: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.hdr")
        path.write_bytes((start + "\n".join(f"{k} = {v}" for k, v in fields)).encode("utf-8", "surrogatepass"))
        Path(folder, "x.img").write_bytes(data)
        for name in ("x.hdr", "x.img"):
            check_cube(Path(folder, name))
            check_labels(Path(folder, name))


@SETTINGS
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    code=st.sampled_from(sorted(DATA_TYPES)),
    interleave=st.sampled_from(["bsq", "bil", "bip"]),
    order=st.sampled_from([0, 1]),
    offset=st.integers(0, 9),
    spare=st.integers(-3, 3),
    numbers=st.binary(min_size=1, max_size=64),
    ignored=st.sampled_from([None, 0, 1, "nan", 1e300, -1e300]),
)
def test_images_are_right_or_refused(
    shape: tuple[int, int, int],
    code: int,
    interleave: str,
    order: int,
    offset: int,
    spare: int,
    numbers: bytes,
    ignored: Any,
) -> None:
    dtype = np.dtype("<>"[order] + DATA_TYPES[code])
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    length = int(np.prod(shape)) * dtype.itemsize
    content = (numbers * (length // len(numbers) + 1))[:length]
    stored = np.frombuffer(content, dtype).reshape([shape[a] for a in axes]).transpose(np.argsort(axes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.img")
        path.write_bytes((b"\x01" * offset + content + b"\x01" * spare)[: max(1, offset + length + spare)])
        Path(folder, "x.hdr").write_text(
            f"ENVI\nbands = {shape[0]}\nlines = {shape[1]}\nsamples = {shape[2]}\ndata type = {code}\ninterleave = "
            f"{interleave}\nbyte order = {order}\nheader offset = {offset}\n"
            + (f"data ignore value = {ignored}\n" if ignored is not None else "")
        )
        check_cube(path)
        check_labels(path)
        cube = attempt(read_cube, path)
        if cube is not None:
            assert path.stat().st_size >= offset + length
            with np.errstate(over="ignore", invalid="ignore"):
                expected = stored.astype("f4")
            valid = np.ones(shape[1:], bool) if cube.valid is None else cube.valid
            # Bands without data anywhere, or of zeros, are left out.
            kept = np.arange(shape[0]) if cube.band_numbers is None else cube.band_numbers
            assert (cube.data == expected[kept])[:, valid].all()
            left = np.setdiff1d(np.arange(shape[0]), kept)
            empty = (expected[left] == 0) | ~np.isfinite(expected[left])
            if ignored is not None:
                with np.errstate(over="ignore"):
                    empty |= expected[left] == np.float32(ignored)
            assert empty[:, valid].all()
            assert not cube.data[:, ~valid].any()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 12) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
PAIRS = st.lists(st.lists(st.floats(-1e3, 1e3) | st.integers(-3, 12), min_size=2, max_size=2), max_size=6)
KINDS = st.sampled_from(["polygon", "rectangle", "circle", "point", "mask", None])


@SETTINGS
@given(
    content=st.fixed_dictionaries(
        {},
        optional={
            "imageHeight": st.integers(-1, 12) | JSON,
            "imageWidth": st.integers(-1, 12) | JSON,
            "shapes": JSON
            | st.lists(
                st.fixed_dictionaries(
                    {"label": st.text(max_size=2) | JSON, "points": PAIRS | JSON},
                    optional={"shape_type": KINDS | JSON},
                ),
                max_size=4,
            ),
        },
    )
    | JSON,
    shape=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_json_of_any_kind(content: Any, shape: tuple[int, int] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        path.write_text(json.dumps(content))
        drawn = attempt(read_labelme, path, shape=shape)
        if drawn is not None:
            labels, classes = drawn
            assert shape in (None, labels.shape)
            assert set(np.unique(labels)) <= {0, *classes.values()}


@SETTINGS
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".json", ".pth", ".pt", ".hdr", ".img", ".tif", ""]))
def test_random_bytes_are_refused(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        path.write_bytes(content)
        is_envi(path)
        for read in (read_cube, read_labels):
            with pytest.raises(DataError):
                read(path)


@SETTINGS
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4), part=st.floats(0, 1)
)
def test_damaged_tensors(flips: list[tuple[float, int]], part: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.pth")
        torch.save({"gt": torch.arange(12).reshape(3, 4)}, path)
        content = bytearray(path.read_bytes())
        for place, byte in flips:
            content[int(place * len(content))] = byte
        path.write_bytes(content[: int(part * len(content))])
        check_labels(path)


@SETTINGS
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 4)] * 3))
def test_pixels_without_data_follow_the_rule(data: st.DataObject, shape: tuple[int, int, int]) -> None:
    values = st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf"), 1e300])
    cube = np.array(data.draw(st.lists(values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    cube = cube.reshape(shape)
    nodata = data.draw(st.sampled_from([0.0, 2.0, float("nan"), float("inf")]))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=shape[1] * shape[2], max_size=shape[1] * shape[2])))
    mask = mask.reshape(shape[1:])
    source = attempt(array_cube, "X", cube, nodata=nodata, mask=mask, zeros="accept")
    # The rule, word by word.
    with np.errstate(over="ignore"):
        single = cube.astype("f4")
    absent = ~np.isfinite(single) | (single == np.float32(nodata))
    dead = absent[:, ~mask].all(axis=1)
    broken = absent & ~np.isfinite(single)
    valid = ~mask & ~broken[~dead].any(axis=0) & ~absent.all(axis=0)
    partly = valid & absent[~dead].any(axis=0)
    refused = not valid.any()
    if not refused and partly.any():
        measured = single[:, valid][~absent[:, valid]]
        gap = max(measured.min() - nodata, nodata - measured.max())
        if gap > (0.05 * (measured.max() - measured.min()) if nodata == 0 else 0):
            valid &= ~partly
            refused = not valid.any()
    assert (source is None) == refused
    if source is not None:
        np.testing.assert_array_equal(np.ones(shape[1:], bool) if source.valid is None else source.valid, valid)
        single[dead], single[:, ~valid] = 0, 0
        np.testing.assert_array_equal(source.read_rows(0, shape[1]), single)
