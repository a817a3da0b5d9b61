"""Small files that would cost much: memory within bounds, no process lost, a message that says how to raise them."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from helpers.measured import measured
from spectrafuse.io import DataError, open_cube, read_cube, read_labels, read_spectra

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc")
MEMORY = 300 << 20
Make = Callable[[Path], None]


def npy_header(shape: tuple[int, ...], descr: str = "<f8", version: tuple[int, int] = (1, 0)) -> bytes:
    content = io.BytesIO()
    content.write(np.lib.format.magic(*version))
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return content.getvalue() + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text


def zipped(path: Path, method: int, header: bytes, zeros: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("cube.npy", "w", force_zip64=True) as member:
        member.write(header)
        for _ in range(zeros >> 20):
            member.write(bytes(1 << 20))


def deflated(path: Path) -> None:
    zipped(path, zipfile.ZIP_DEFLATED, npy_header((1800, 64, 2048)), 1800 << 20)


def other_packing(method: int) -> Make:
    return lambda path: zipped(path, method, npy_header((600, 64, 2048)), 600 << 20)


def long_header(path: Path) -> None:
    start = np.lib.format.magic(2, 0) + struct.pack("<I", 1 << 30)
    zipped(path, zipfile.ZIP_DEFLATED, start, 1 << 30)


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(100_000):
            archive.writestr(f"{i}.npy", b"")


def neighbor(path: Path) -> None:
    """A member shorter than its header says, before another one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cube.npy", npy_header((4, 5, 6)) + bytes(8))
        archive.writestr("secret.npy", npy_header((200,)) + np.ones(200).tobytes())


def matlab(content: bytes, compressed: bool = True) -> bytes:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return head + (struct.pack("<II", 15, len(content)) if compressed else b"") + content


def matlab_bomb(path: Path) -> None:
    size = 1800 << 20
    inside = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIIIII", 5, 12, 225, 1024, 1024, 0)
    inside += struct.pack("<II", 1, 4) + b"cube\0\0\0\0" + struct.pack("<II", 9, size)
    packer = zlib.compressobj(9)
    content = packer.compress(struct.pack("<II", 14, len(inside) + size) + inside)
    content += b"".join(packer.compress(bytes(1 << 20)) for _ in range(1800)) + packer.flush()
    path.write_bytes(matlab(content))


def many_matlab_variables(path: Path) -> None:
    flags, sizes = struct.pack("<IIII", 6, 8, 6, 0), struct.pack("<IIII", 5, 8, 0, 0)
    inside = flags + sizes + struct.pack("<HH4s", 1, 1, b"a\0\0\0") + struct.pack("<II", 9, 0)
    path.write_bytes(matlab((struct.pack("<II", 14, len(inside)) + inside) * 250_000, False))


def virtual_of_itself(path: Path) -> None:
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4, 5, 6), "f8")
        layout[:] = h5py.VirtualSource(".", "cube", (4, 5, 6))
        file.create_virtual_dataset("cube", layout)


def virtual_of_another(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["secret"] = np.ones((4, 5, 6))
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4, 5, 6), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "secret", (4, 5, 6))
        file.create_virtual_dataset("cube", layout)


def external_link(path: Path) -> None:
    os.mkfifo(path.with_name("pipe.h5"))
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.ExternalLink("pipe.h5", "/x")


def soft_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.SoftLink("/cube")


def external_storage(path: Path) -> None:
    os.mkfifo(path.with_name("pipe.raw"))
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (4, 5, 6), "f8", external=[(b"pipe.raw", 0, 960)])


def empty_of_any_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        item = file.create_dataset("cube", (10**6, 10**6), "u8", chunks=(1000, 1000))
        item.attrs["MATLAB_empty"] = 1


def empty_that_claims_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["cube"] = np.array([10**5, 10**5, 10], "u8")
        file["cube"].attrs["MATLAB_empty"] = 1


def never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (1000, 1000, 1000), "f8")


def packed_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:
        item = file.create_dataset("cube", (1800, 1024, 128), "f8", chunks=(18, 1024, 128), compression="gzip")
        for i in range(0, 1800, 18):
            item[i : i + 18] = 1.0


def one_large_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        shape = (100, 2000, 2000)
        item = file.create_dataset("cube", (2, 20, 20), "f8", maxshape=(None,) * 3, chunks=shape, compression="gzip")
        packed = zlib.compress(bytes(8), 1)
        item.id.write_direct_chunk((0, 0, 0), packed)


def many_hdf5_names(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        kept = file.create_dataset("a", data=1.0)
        for i in range(50_000):
            file[f"n{i}"] = kept


BOMBS: dict[str, tuple[str, Make]] = {
    "deflated": (".npz", deflated),
    "bzip2": (".npz", other_packing(zipfile.ZIP_BZIP2)),
    "lzma": (".npz", other_packing(zipfile.ZIP_LZMA)),
    "long header": (".npz", long_header),
    "many members": (".npz", many_members),
    "neighbor": (".npz", neighbor),
    "matlab": (".mat", matlab_bomb),
    "many variables": (".mat", many_matlab_variables),
    "virtual of itself": (".mat", virtual_of_itself),
    "virtual of another": (".mat", virtual_of_another),
    "external link": (".mat", external_link),
    "soft link": (".mat", soft_link),
    "external storage": (".mat", external_storage),
    "empty": (".mat", empty_of_any_shape),
    "empty with numbers": (".mat", empty_that_claims_numbers),
    "never written": (".mat", never_written),
    "packed chunks": (".mat", packed_chunks),
    "one large chunk": (".mat", one_large_chunk),
    "many names": (".mat", many_hdf5_names),
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_cost_much_is_refused_at_little_cost(bomb: str, tmp_path: Path) -> None:
    suffix, make = BOMBS[bomb]
    path = tmp_path / f"x{suffix}"
    make(path)
    assert path.stat().st_size < 20 << 20
    for found in measured(*(partial(read, path, key="cube") for read in (read_cube, open_cube, read_labels))):
        assert found.outcome.startswith("DataError: "), found
        assert found.memory < MEMORY, found


def workbook(path: Path, change: Callable[[bytes], bytes]) -> None:
    """A small sheet whose text was changed."""
    pytest.importorskip("python_calamine", reason="the part excel is not installed")
    book = pytest.importorskip("openpyxl", reason="the part excel is not installed").Workbook()
    for row in range(6):
        book.active.append([float(row * column + 1) for column in range(6)])
    plain = io.BytesIO()
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, change(content) if name == "xl/worksheets/sheet1.xml" else content)


def a_cell_far_out(path: Path) -> None:
    workbook(path, lambda text: text.replace(b'r="F6"', b'r="XFD1048576"'))


def many_cells_without_a_place(path: Path) -> None:
    cells = b"<row>" + b"<c><v>1</v></c>" * 1000 + b"</row>"
    workbook(path, lambda text: text.replace(b"</sheetData>", cells * 4500 + b"</sheetData>"))


def a_sheet_of_spaces(path: Path) -> None:
    workbook(path, lambda text: text + bytes(300 << 20))


def repacked(path: Path, name: str, change: Callable[[bytes], bytes], rename: str | None = None) -> None:
    """A workbook of the corpus with one of its parts changed, or called otherwise."""
    with (
        zipfile.ZipFile(Path(__file__).parent / "corpus" / f"sheet{path.suffix}") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for part in source.namelist():
            content = source.read(part)
            if rename is not None and part.endswith(".rels"):
                content = content.replace(Path(name).name.encode(), rename.encode())
            changed = part == name
            place = str(Path(name).with_name(rename)) if changed and rename else part
            archive.writestr(place, change(content) if changed else content)


def record(number: int, content: bytes) -> bytes:
    return bytes([number, len(content)]) + content


# A row and a cell in it, of .xlsb: the last row and column that there are.
FAR = record(0, struct.pack("<IIHHHIB", 1048575, 0, 300, 0, 0, 0, 0)) + record(5, struct.pack("<IId", 16383, 0, 1.0))
XLSB = "xl/worksheets/sheet1.bin"
# What ends the cells of a sheet.
END = bytes([0x92, 0x01, 0x00])
ROW, LAST = b"<table:table-row>", b"</table:table>"


def a_far_cell_in_binary(path: Path) -> None:
    repacked(path, XLSB, lambda content: content.replace(END, FAR + END))


def a_far_cell_under_another_name(path: Path) -> None:
    repacked(path, XLSB, lambda content: content.replace(END, FAR + END), "odd.dat")


def many_records(path: Path) -> None:
    repacked(path, XLSB, lambda content: content.replace(END, bytes([12, 0]) * (20 << 20) + END))


def far_row(path: Path) -> None:
    empty = b'<table:table-row a=">" table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>'
    again = ROW + b'<table:table-cell office:value-type="float" office:value="1"/></table:table-row>'
    repacked(path, "content.xml", lambda content: content.replace(LAST, empty + again + LAST))


def far_row_by_an_entity(path: Path) -> None:
    empty = b'<table:table-row table:number-rows-repeated="&#49;048000"><table:table-cell/></table:table-row>'
    again = ROW + b'<table:table-cell office:value-type="float" office:value="1"/></table:table-row>'
    repacked(path, "content.xml", lambda content: content.replace(LAST, empty + again + LAST))


def far_column(path: Path) -> None:
    cells = b'<table:table-cell table:number-columns-repeated="2000000000"/><table:table-cell office:value="5"/>'
    repacked(path, "content.xml", lambda content: content.replace(ROW, ROW + cells, 1))


SHEETS: dict[str, tuple[str, Make]] = {
    "far cell": (".xlsx", a_cell_far_out),
    "many cells": (".xlsx", many_cells_without_a_place),
    "spaces": (".xlsx", a_sheet_of_spaces),
    "far cell in binary": (".xlsb", a_far_cell_in_binary),
    "far cell under another name": (".xlsb", a_far_cell_under_another_name),
    "many records": (".xlsb", many_records),
    "far row": (".ods", far_row),
    "far row by an entity": (".ods", far_row_by_an_entity),
    "far column": (".ods", far_column),
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("bomb", SHEETS)
def test_workbooks_that_would_cost_much_are_refused_at_little_cost(bomb: str, tmp_path: Path) -> None:
    suffix, make = SHEETS[bomb]
    path = tmp_path / f"x{suffix}"
    make(path)
    assert path.stat().st_size < 20 << 20
    (found,) = measured(partial(read_spectra, path))
    assert found.outcome.startswith("DataError: "), found
    assert "far more than the file can hold" in found.outcome or "size makes believable" in found.outcome
    assert found.memory < MEMORY, found


@pytest.mark.parametrize("name", ["sheet.xlsx", "sheet.ods", "sheet.xlsb"])
def test_an_ordinary_workbook_is_read(name: str) -> None:
    pytest.importorskip("python_calamine", reason="the part excel is not installed")
    assert read_spectra(Path(__file__).parent / "corpus" / name, index=False).data.size > 0


def test_spectra_of_omnic_that_share_their_numbers_are_refused(tmp_path: Path) -> None:
    content = bytearray((Path(__file__).parent / "corpus" / "trace.spa").read_bytes())
    entries = content[304 : 304 + 16 * 3] * 1000
    path = tmp_path / "x.spa"
    path.write_bytes(content[:304] + entries + bytes(16) + content[304:])
    with pytest.raises(DataError, match="longer than the file"):
        read_spectra(path)


def many_shapes(path: Path) -> None:
    shape = {"label": "a", "points": [[0, 0], [2000, 0], [2000, 2000], [0, 2000]]}
    path.write_text(json.dumps({"imageHeight": 2000, "imageWidth": 2000, "shapes": [shape] * 100_000}))


def many_sides(path: Path) -> None:
    points = [[i % 7, (i * 997) % 2000] for i in range(500_000)]
    shape = {"label": "a", "points": points}
    path.write_text(json.dumps({"imageHeight": 2000, "imageWidth": 2000, "shapes": [shape] * 3}))


def large_image(path: Path) -> None:
    path.write_text(json.dumps({"imageHeight": 1 << 14, "imageWidth": 1 << 14, "shapes": []}))


def repeated_tensor(path: Path) -> None:
    torch.save(torch.zeros(1).expand(10**5, 10**4), path)


def packed_tensor(path: Path) -> None:
    plain = io.BytesIO()
    torch.save(torch.zeros(1 << 27), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))


def long_program(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + b"N0" * (9 << 20) + b".")


LABELS: dict[str, tuple[str, Make]] = {
    "many shapes": (".json", many_shapes),
    "many sides": (".json", many_sides),
    "large image": (".json", large_image),
    "repeated tensor": (".pth", repeated_tensor),
    "packed tensor": (".pth", packed_tensor),
    "long program": (".pth", long_program),
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("bomb", LABELS)
def test_labels_that_would_cost_much_are_refused_at_little_cost(bomb: str, tmp_path: Path) -> None:
    suffix, make = LABELS[bomb]
    path = tmp_path / f"x{suffix}"
    make(path)
    assert path.stat().st_size < 20 << 20
    (found,) = measured(partial(read_labels, path))
    assert found.outcome.startswith("DataError: "), found
    assert found.memory < MEMORY, found


@pytest.mark.slow
def test_the_limit_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    cube = np.zeros((300, 300, 400))
    cube[:, 0, 0] = 1
    np.savez_compressed(path, cube=cube)
    with pytest.raises(DataError, match="SPECTRAFUSE_MAX_MEMORY=1GB"):
        read_cube(path, layout="chw")
    monkeypatch.setenv("SPECTRAFUSE_MAX_MEMORY", "much")
    with pytest.raises(DataError, match="must read like '4GB'"):
        read_cube(path, layout="chw")
    monkeypatch.setenv("SPECTRAFUSE_MAX_MEMORY", "1GB")
    assert read_cube(path, layout="chw").shape == (300, 300, 400)


def test_links_do_not_stand_in_the_way_of_other_variables(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    virtual_of_itself(path)
    with h5py.File(path, "a") as file:
        file["scene"] = np.random.default_rng(0).random((4, 5, 6))
        file["out"] = h5py.ExternalLink("/etc/passwd", "x")
    assert read_cube(path, layout="chw").key == "scene"
    for key in ("out", "cube"):
        with pytest.raises(DataError, match="never"):
            read_cube(path, key=key)
    with pytest.raises(DataError, match="never"):
        read_labels(path, key="out")
    with pytest.raises(DataError, match="never"):
        read_spectra(path, key="cube")
    with pytest.raises(DataError, match="never"):
        open_cube(path, key="cube")
