"""Files of instruments that are read as they are: GRAMS, Thermo OMNIC, Renishaw WiRE, datasets of PLS_Toolbox."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.io.matlab import MatlabObject

from spectrafuse.io.errors import DataError
from spectrafuse.io.spectra import read_spectra

NM = np.arange(400.0, 700.0, 10.0)
# Numbers that integers with an exponent hold exactly.
X = np.random.default_rng(5).integers(-4000, 4000, (4, len(NM))) / 256.0
_EXPONENT = 5


def spc(values: np.ndarray, *, version: int = 0x4B, axis: int = 3, flags: int = 0, title: bytes = b"") -> bytes:
    """An SPC file of integers that are parts of 2**5."""
    order = ">" if version == 0x4C else "<"
    flags |= 4 if len(values) > 1 else 0
    short = bool(flags & 1)
    width = 2 if short else 4
    stored = np.round(values * 2.0 ** (8 * width - _EXPONENT)).astype(f"{order}i{width}")
    if version == 0x4D:
        header = struct.pack("<BBhfffB", flags, version, _EXPONENT, values.shape[1], NM[0], NM[-1], axis).ljust(
            224, b"\0"
        )
        # Words of two bytes, the upper one first.
        stored = stored.view("<u2").reshape(-1, 2)[:, ::-1].reshape(len(values), -1)
    else:
        header = struct.pack(
            f"{order}BBBbiddiB3x", flags, version, 0, _EXPONENT, values.shape[1], NM[0], NM[-1], len(values), axis
        )
        header = (header.ljust(218, b"\0") + title).ljust(512, b"\0")
    subs = (
        struct.pack(f"{order}BbHfffIIf4x", 0, _EXPONENT, i, i / 2, 0, 0, 0, 0, 0) + row.tobytes()
        for i, row in enumerate(stored)
    )
    return header + b"".join(subs)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (X[:1], {}),
        (X, {}),
        (X, {"version": 0x4C}),
        (X[:1], {"version": 0x4D}),
        (X, {"version": 0x4D}),
        (X[:1], {"flags": 1}),
        (X, {"flags": 1, "version": 0x4C}),
    ],
)
def test_spc_of_integers(tmp_path: Path, values: np.ndarray, options: dict[str, int]) -> None:
    (tmp_path / "x.spc").write_bytes(spc(values, **options))
    got = read_spectra(tmp_path / "x.spc")
    np.testing.assert_array_equal(got.data, values.astype("f4"))
    np.testing.assert_allclose(got.axis, NM)
    assert (got.axis_title, got.axis_unit) == ("Wavelength", "nm")
    assert got.names == (None if len(values) == 1 else ["0", "0.5", "1", "1.5"])


def test_spc_with_titles_and_axes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.spc").write_bytes(spc(X, axis=0, flags=32, title=b"Raman shift (cm-1)\0counts\0"))
    got = read_spectra(tmp_path / "x.spc")
    assert (got.axis_title, got.axis_unit) == ("Raman shift (cm-1)", "cm⁻¹")
    # An axis of floats behind the header; then one before each spectrum.
    axis = (NM**2).astype("<f4")
    content = spc(X, flags=128)
    (tmp_path / "x.spc").write_bytes(content[:512] + axis.tobytes() + content[512:])
    np.testing.assert_allclose(read_spectra(tmp_path / "x.spc").axis, axis)
    body = content[512:]
    length = len(body) // len(X)
    for shift in (0, 1):
        parts = [
            body[i : i + 16] + struct.pack("<I", len(NM)) + body[i + 20 : i + 32]
            + (axis + shift * i).tobytes() + body[i + 32 : i + length]
            for i in range(0, len(body), length)
        ]  # fmt: skip
        (tmp_path / "x.spc").write_bytes(bytes([4 | 64 | 128]) + content[1:512] + b"".join(parts))
        if shift:
            with pytest.raises(DataError, match="spectra with different axes; export them over the same range"):
                read_spectra(tmp_path / "x.spc")
        else:
            np.testing.assert_array_equal(read_spectra(tmp_path / "x.spc").data, X.astype("f4"))


def omnic(spectra: np.ndarray, titles: list[str], *, axis: int = 1) -> bytes:
    """A file of OMNIC: its title, a list of what stands where, and that."""
    entries, at = [], 304 + 16 * (3 * len(spectra) + 1)
    body = b""

    def add(key: int, content: bytes) -> None:
        nonlocal body
        entries.append(struct.pack("<BxII6x", key, at + len(body), len(content)))
        body += content

    for row, title in zip(spectra, titles, strict=True):
        add(2, struct.pack("<4xIB3xIff", len(row), axis, 17, 4000.0, 1000.0))
        add(107, title.encode("latin-1").ljust(64, b"\0"))
        add(3, row.astype("<f4").tobytes())
    return b"Spectral Data File".ljust(30) + titles[0].encode().ljust(274, b"\0") + b"".join(entries) + bytes(16) + body


@pytest.mark.parametrize(("name", "count"), [("x.SPA", 1), ("x.spg", 4)])
def test_omnic(tmp_path: Path, name: str, count: int) -> None:
    titles = [f"sample {i}" for i in range(count)]
    (tmp_path / name).write_bytes(omnic(X[:count], titles))
    got = read_spectra(tmp_path / name)
    np.testing.assert_array_equal(got.data, X[:count].astype("f4"))
    np.testing.assert_allclose(got.axis, np.linspace(4000, 1000, len(NM)))
    assert (got.names, got.axis_title, got.axis_unit) == (titles, "Wavenumber", "cm⁻¹")
    assert "Thermo OMNIC, absorbance" in got.reading
    (tmp_path / name).write_bytes(omnic(X[:count], titles, axis=2))
    with pytest.raises(
        DataError, match="an interferogram or another signal without a spectral axis; save it there as CSV"
    ):
        read_spectra(tmp_path / name)


def wire(spectra: np.ndarray, planned: int, kind: int, noted: dict[int, np.ndarray]) -> bytes:
    """A file of WiRE: the counts, values, axis (Raman shift) and what was noted."""
    count, points = spectra.shape
    header = bytearray(512)
    header[:16] = struct.pack("<4sIQ", b"WDF1", 1, 512)
    header[0x3C:0x50] = struct.pack("<IQQ", points, planned, count)
    header[0x84:0x88] = struct.pack("<I", kind)

    def block(name: bytes, content: bytes) -> bytes:
        return struct.pack("<4sIQ", name, 0, 16 + len(content)) + content

    lists = b"".join(
        struct.pack("<II16s", code | 1 << 31, 0, b"") + line.tobytes().ljust(8 * planned, b"\0")
        for code, line in noted.items()
    )
    return (
        bytes(header)
        + block(b"DATA", spectra.astype("<f4").tobytes().ljust(4 * planned * points, b"\0"))
        + block(b"XLST", struct.pack("<II", 1, 1) + NM.astype("<f4").tobytes())
        + block(b"ORGN", struct.pack("<I", len(noted)) + lists)
    )


def test_wire(tmp_path: Path) -> None:
    # A map that was stopped: places go down the columns.
    places = {3: np.array([0.0, 0.0, 5.0]), 4: np.array([1.0, 2.0, 1.0])}
    (tmp_path / "x.wdf").write_bytes(wire(X[:3], 4, 3, places))
    got = read_spectra(tmp_path / "x.wdf")
    np.testing.assert_array_equal(got.data, X[:3].astype("f4"))
    assert (got.axis_title, got.axis_unit) == ("Raman shift", "cm⁻¹")
    assert got.grid is not None
    assert got.grid.shape == (2, 2)
    np.testing.assert_array_equal(got.grid.pixels, [0, 2, 1])
    assert "1 of 4 spectra that were not measured" in got.reading
    # A series in ticks of 100 ns.
    ticks = {11: np.arange(4, dtype=np.int64) * 20_000_000 + 7}
    (tmp_path / "x.wdf").write_bytes(wire(X, 4, 2, ticks))
    got = read_spectra(tmp_path / "x.wdf")
    assert got.grid is None
    assert got.process is not None
    assert got.process[0] == "time (s)"
    np.testing.assert_array_equal(got.process[1], [0, 2, 4, 6])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.spc", spc(X), "an SPC file: .*; export it as CSV or ASCII"),
        ("x.spa", omnic(X[:1], ["a"]), "a file of OMNIC: .*; save it there as CSV"),
        ("x.wdf", wire(X, 4, 2, {11: np.arange(4, dtype=np.int64)}), r"a file of WiRE: .*; save it as text \(\.txt\)"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(1)
    for length in (1, 20, len(content) // 2, len(content) - 4):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=f"cannot be read as {words}"):
            read_spectra(path)
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, min(len(content), 700), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(DataError):
            read_spectra(path)


def test_dataset_of_pls_toolbox(tmp_path: Path) -> None:
    kinds = [(name, object) for name in ("name", "data", "axisscale", "label")]
    dataset = np.empty((1, 1), kinds)
    axes = np.empty((2, 1), object)
    axes[0, 0], axes[1, 0] = np.zeros((0, 0)), NM[None]
    labels = np.empty((2, 1), object)
    labels[:, 0] = ["a", "b"]
    dataset[0, 0] = ("mixtures", X, axes, labels)
    for compressed in (False, True):
        savemat(tmp_path / "x.mat", {"ds": MatlabObject(dataset, "dataset")}, do_compression=compressed)
        got = read_spectra(tmp_path / "x.mat")
        np.testing.assert_array_equal(got.data, X.astype("f4"))
        np.testing.assert_array_equal(got.axis, NM)
        assert got.key == "ds.data"
