"""Scenes that stay in their files: read where they lie, by windows, without ever holding the whole."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from helpers import seeds
from helpers.cut_files import cut_short_at
from helpers.io_files import write_matlab73
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.io import hdf5, mapped
from spectrafuse.io.cubes import open_cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.nodata import window_blocks

BANDS, ROWS, COLUMNS = 5, 17, 11
STORED_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
Writer = Callable[[Path, np.ndarray], tuple[Path, dict[str, Any]]]


def envi(interleave: str) -> Writer:
    def write(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
        bands, rows, columns = cube.shape
        stored = cube.transpose(STORED_AXES[interleave]).astype(">f8")
        (folder / "x.img").write_bytes(b"123" + stored.tobytes())
        (folder / "x.hdr").write_text(
            f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 5\nbyte order = 1\n"
            f"interleave = {interleave}\nheader offset = 3\n"
        )
        return folder / "x.hdr", {}

    return write


def npy(order: Any) -> Writer:
    def write(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
        np.save(folder / "x.npy", np.asarray(cube, order=order))
        return folder / "x.npy", {"layout": "chw"}

    return write


def npz(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
    np.savez(folder / "x.npz", other=np.arange(7), cube=cube)
    return folder / "x.npz", {"layout": "chw"}


def matlab6(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
    savemat(folder / "x.mat", {"other": np.arange(3.0), "cube": np.moveaxis(cube, 0, -1)})
    return folder / "x.mat", {}


def matlab6_matrix(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
    matrix = cube.transpose(0, 2, 1).reshape(len(cube), -1)
    savemat(folder / "x.mat", {"Y": matrix, "nRow": float(cube.shape[1]), "nCol": float(cube.shape[2])})
    return folder / "x.mat", {}


def matlab73(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
    return write_matlab73(folder / "x.mat", {"cube": np.moveaxis(cube, 0, -1)}), {}


def matlab73_matrix(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
    matrix = cube.transpose(0, 2, 1).reshape(len(cube), -1).T
    return write_matlab73(folder / "x.mat", {"Y": matrix}), {"rows": cube.shape[1], "columns": cube.shape[2]}


def chunked(**options: Any) -> Writer:
    def write(folder: Path, cube: np.ndarray) -> tuple[Path, dict[str, Any]]:
        with h5py.File(folder / "x.mat", "w") as file:
            # As MATLAB writes (rows, columns, bands) with `h5write`.
            file.create_dataset("cube", data=cube.transpose(0, 2, 1), **options)
        return folder / "x.mat", {"layout": "cwh"}

    return write


WRITERS: dict[str, Writer] = {
    **{f"envi {name}": envi(name) for name in STORED_AXES},
    "npy": npy("C"),
    "npy, first axis fastest": npy("F"),
    "npz": npz,
    "mat 6": matlab6,
    "mat 6, matrix": matlab6_matrix,
    "mat 7.3": matlab73,
    "mat 7.3, matrix": matlab73_matrix,
    "mat 7.3, chunks": chunked(chunks=(2, 4, 5)),
    "mat 7.3, packed chunks": chunked(chunks=(3, 11, 4), compression="gzip", shuffle=True),
}


def scene(bands: int = BANDS, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    return seeds.generator().random((bands, rows, columns)) + 0.5


@pytest.mark.parametrize("name", WRITERS)
def test_windows_are_those_of_the_scene(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = scene()
    expected = cube.astype(np.float32)
    path, options = WRITERS[name](tmp_path, cube)
    for piece in (1, mapped.PIECE_BYTES):
        monkeypatch.setattr(mapped, "PIECE_BYTES", piece)
        opened = open_cube(path, **options)
        assert opened.file_backed
        for rows, columns in ((slice(0, ROWS), slice(0, COLUMNS)), (slice(4, 9), slice(2, 3)), (slice(3, 3), slice(5))):
            got = opened[:, rows, columns]
            np.testing.assert_array_equal(got, expected[:, rows, columns])
            assert got.flags.c_contiguous
            assert got.flags.writeable
        np.testing.assert_array_equal(opened[1:3, 16:], expected[1:3, 16:])


@pytest.mark.parametrize("name", WRITERS)
def test_sources_are_closed_pickled_and_reopened(tmp_path: Path, name: str) -> None:
    cube = scene()
    path, options = WRITERS[name](tmp_path, cube)
    with open_cube(path, **options) as opened:
        first = opened.read_rows(3, 7)
        copy = pickle.loads(pickle.dumps(opened))
    assert isinstance(opened.stored, MappedArray) or opened.stored.file._handle is None
    np.testing.assert_array_equal(copy.read_rows(3, 7), first)
    np.testing.assert_array_equal(opened.read_rows(3, 7), first)


@pytest.mark.process
@pytest.mark.parametrize("name", ["npy", "mat 7.3, packed chunks"])
def test_forked_processes_and_threads_read_the_same(tmp_path: Path, name: str) -> None:
    path, options = WRITERS[name](tmp_path, scene(rows=200))
    opened = open_cube(path, **options)
    expected = opened.read_rows(0, 200)
    received, sent = multiprocessing.get_context("fork").Pipe(duplex=False)

    def child() -> None:
        sent.send(opened.read_rows(50, 90))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    assert received.poll(30)
    np.testing.assert_array_equal(received.recv(), expected[:, 50:90])
    process.join(30)
    assert process.exitcode == 0
    wrong: list[int] = []

    def read(start: int) -> None:
        rows = range(start, 199)
        wrong.extend(y for y in rows if not np.array_equal(opened.read_rows(y, y + 2), expected[:, y : y + 2]))

    threads = [threading.Thread(target=read, args=(start,)) for start in (0, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "name", [*(f"envi {name}" for name in STORED_AXES), "npy", "npy, first axis fastest", "mat 7.3"]
)
@pytest.mark.parametrize("gap", [0, 1 << 12, 1 << 30])
def test_pieces_take_little_memory(tmp_path: Path, name: str, gap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = scene(40, 60, 50)
    size = cube.nbytes // 12
    monkeypatch.setattr(mapped, "PIECE_BYTES", size)
    monkeypatch.setattr(mapped, "_GAP_BYTES", gap)
    path, options = WRITERS[name](tmp_path, cube)
    opened = open_cube(path, **options)
    made = []
    usual = MappedArray._read_into

    def read_into(self: MappedArray, memory: np.ndarray, file: Any) -> np.ndarray:
        made.append(memory.nbytes)
        return usual(self, memory, file)

    monkeypatch.setattr(MappedArray, "_read_into", read_into)
    for rows, columns in ((slice(0, 60), slice(0, 50)), (slice(7, 41), slice(0, 50)), (slice(7, 41), slice(3, 9))):
        np.testing.assert_array_equal(opened[:, rows, columns], cube[:, rows, columns].astype(np.float32))
    assert max(made) <= size
    assert len(made) > 12


def test_chunks_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = chunked(chunks=(4, 8, 16), compression="gzip")(tmp_path, np.ones((8, 160, 24)))
    opened = open_cube(path, **options)
    monkeypatch.setattr(hdf5, "_LEAST_CACHE", 1)
    # Two bands' worth, three columns' worth of chunks of 4 x 8 x 16 numbers.
    assert opened.stored._cache() == 2 * 3 * (4 * 8 * 16) * 8
    monkeypatch.setattr(hdf5, "_MOST_CACHE", 1000)
    assert opened.stored._cache() == 1000


@pytest.mark.parametrize("name", ["npy", "npz", "envi bip", "mat 6", "mat 7.3", "mat 7.3, packed chunks"])
def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path: Path, name: str) -> None:
    path, options = WRITERS[name](tmp_path, scene())
    opened = open_cube(path, **options)
    data = Path(opened.data_path)
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read: it has changed since it was opened"):
        opened.read_rows(0, ROWS)


@pytest.mark.parametrize("reads", [1, 2, 5, 64])
def test_a_file_that_is_cut_short_while_it_is_read_is_refused(
    reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((64, 40, 500)))
    opened = open_cube(path, layout="chw")
    monkeypatch.setattr(mapped, "_GAP_BYTES", 0)
    cut_short_at(monkeypatch, path, reads)
    with pytest.raises(DataError, match="cannot be read: it has changed since it was opened"):
        opened[:, 3:9]


def test_a_map_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    values = scene()
    np.save(path, values)
    given: Any = np.load(path, mmap_mode="r")
    for part in (given, given[2:, 3:], given[:, ::2], given.transpose(2, 0, 1)):
        found = MappedArray.of_map(part)
        assert found is not None
        np.testing.assert_array_equal(found[...], part)
    assert MappedArray.of_map(given[::-1]) is None
    assert MappedArray.of_map(np.load(path, mmap_mode="c")) is None
    rows: Any = np.load(path, mmap_mode="r").reshape(BANDS, -1)
    found = MappedArray.of_map(rows)
    assert found is not None
    np.testing.assert_array_equal(found.rows(np.array([3, 0, 3])), rows[[3, 0, 3]])
    # Another file of the same name and size.
    np.save(tmp_path / "y.npy", values + 1)
    (tmp_path / "y.npy").replace(path)
    assert MappedArray.of_map(given) is None


def test_damaged_numbers_of_an_archive_are_found(tmp_path: Path) -> None:
    path, options = npz(tmp_path, scene())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"NUMPY") + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="may be damaged or cut short: Bad CRC-32"):
        open_cube(path, **options)


def test_compressed_files_are_decoded_once(tmp_path: Path) -> None:
    cube = scene()
    np.savez_compressed(tmp_path / "x.npz", cube=cube)
    savemat(tmp_path / "x.mat", {"cube": np.moveaxis(cube, 0, -1)}, do_compression=True)
    for path, options in ((tmp_path / "x.npz", {"layout": "chw"}), (tmp_path / "x.mat", {})):
        opened = open_cube(path, **options)
        assert not opened.file_backed
        path.unlink()
        np.testing.assert_array_equal(opened.read_rows(2, 5), cube[:, 2:5].astype(np.float32))


def test_arrays_that_do_not_fit_their_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(80))
    assert MappedArray.contiguous(tmp_path / "x", "<f8", 0, (2, 5)).shape == (2, 5)
    with pytest.raises(DataError, match="it should have 88 bytes"):
        MappedArray.contiguous(tmp_path / "x", "<f8", 8, (2, 5))


@pytest.mark.parametrize(("name", "rows"), [("npy", True), ("envi bil", True), ("mat 6", False), ("mat 7.3", False)])
def test_a_pass_goes_as_the_numbers_lie(tmp_path: Path, name: str, rows: bool) -> None:
    cube = scene()
    path, options = WRITERS[name](tmp_path, cube)
    opened = open_cube(path, **options)
    seen = np.zeros((ROWS, COLUMNS), dtype=int)
    for place in window_blocks(opened, 3 * BANDS * max(ROWS, COLUMNS)):
        assert place[1 if rows else 0] == slice(0, COLUMNS if rows else ROWS)
        seen[place] += 1
    assert (seen == 1).all()
    for method in ("meanstd", "minmax"):
        expected, got = Normalization(method).fit(cube), Normalization(method).fit(opened)
        assert expected.offset is not None
        assert got.offset is not None
        np.testing.assert_allclose(got.offset, expected.offset, rtol=1e-6)
