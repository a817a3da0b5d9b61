"""Tables of spectra from files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.arrays import ARRAY_SUFFIXES, existing_file, open_arrays
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.layouts import find_axes, is_axis_name
from spectrafuse.io.tables import Table, axis_of, monotonic, read_table
from spectrafuse.io.validate import check_spectra

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_PREFERRED = ("spectra", "X", "D", "data", "components", "concentrations")


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra as they were read.

    Attributes
    ----------
    data : ndarray, shape (n, d), float32
        One spectrum a row; values as in the file.
    axis : ndarray, shape (d,), float64, or None
        Wavelengths, wavenumbers or the like, where the file has them, in the file's unit and order.
    names : list of str or None
        Names of the spectra, where the file has them.
    source : str
        Path of the file.
    sha256 : str
        Hash of the file's bytes.
    band_names : list of str or None
        Header cells above the bands, where there is a header.
    key : str or None
        Variable of the file; None where it has none.
    layout : str
        How the file was read, in words.
    """

    data: np.ndarray
    axis: np.ndarray | None
    names: list[str] | None
    source: str
    sha256: str
    band_names: list[str] | None = None
    key: str | None = None
    layout: str = ""


def read_spectra(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    header: bool | str = "auto",
    index: bool | str = "auto",
) -> Spectra:
    """Read spectra from a text table (`.csv`, `.tsv`, `.txt`) or from `.npy`, `.npz`, `.mat`.

    Text tables have one spectrum a line; cells are separated by tab, semicolon or comma; with the first two,
    decimal commas are understood. Blank lines and lines that begin with `#` are passed over. A byte order
    mark and cells in double quotes are understood.

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        The variable of a `.npz` or `.mat` file. Without it: `spectra`, `X`, `D`, `data`, `components` or
        `concentrations`, or the only matrix of numbers.
    header : {"auto", True, False}
        Whether a text table's first row is a header. "auto": it is,

        - if at least half of its cells, a first one above a column of names aside, are not numbers;
        - if the first cell says that it stands above names or an axis ("sample", "", "wavelength", ...);
        - if all are numbers and look like an axis: at least three, strictly rising or falling, the largest
          step at most ten times the smallest, and either all of them more than ten times larger than
          anything in the next 20 rows, or at least eight of them while none of those rows rises or falls
          throughout.

        `layout` of the result says what was taken.
    index : {"auto", True, False}
        Whether a text table's first column holds names. "auto": it does, if most of its first 20 cells are
        not numbers; if the header is one cell shorter than the rows (as R writes it), calls the column
        "index", "id", "sample", "name" or the like or nothing, or is an axis from its second cell on. A first
        column of strictly rising or falling numbers under a header such as "wavelength" or "wavenumber" is
        the axis of spectra that stand in columns; the table is then turned.

    Returns
    -------
    Spectra
        The axis is read from a header whose cells are numbers that strictly rise or fall ("1115", "X1115.0",
        "1115 nm"; a mere count is none), or from a variable `wavelength`, `wavenumbers`, `axis`, ... of the
        right length.

    Raises
    ------
    DataError
        Whatever is wrong with the file or its contents: for text, with line, column and the cell.
    """
    for name, option in (("header", header), ("index", index)):
        if option not in (True, False, "auto"):
            raise InvalidValueError(f"`{name}` must be one of 'auto', True, False; got {option!r}.")
    file = existing_file(path, TEXT_SUFFIXES + ARRAY_SUFFIXES)
    if file.suffix.lower() not in TEXT_SUFFIXES:
        return _from_arrays(path, key)
    if key is not None:
        raise DataError(f"'{path}' is a text table without variables, so leave key={key!r} out.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    table = read_table(file, content, header=header, index=index)
    digest = hashlib.sha256(content).hexdigest()
    if index == "auto" and _in_columns(table):
        data = check_spectra(f"'{path}'", table.values[:, 1:].T)
        axis, names = table.values[:, 0], (table.header or [""])[1:]
        words = f"{table.words}, spectra in columns beside the axis {table.corner!r}"
        return Spectra(data, axis, names, str(path), digest, layout=words)
    axis_found = axis_of(table.header)
    words = table.words
    if axis_found is not None:
        words += f", axis {axis_found[0]:g} ... {axis_found[-1]:g} in the header"
    data = check_spectra(f"'{path}'", table.values)
    return Spectra(data, axis_found, table.names, str(path), digest, table.header, layout=words)


def _in_columns(table: Table) -> bool:
    """Whether the first column is the axis of spectra that stand in the other columns."""
    return (
        table.names is None
        and is_axis_name(table.corner)
        and min(table.values.shape) >= 2
        and monotonic(table.values[:, 0])
    )


def _from_arrays(path: str | os.PathLike[str], key: str | None) -> Spectra:
    source = open_arrays(path)
    if key is not None:
        name = source.require(key)
    elif source.format == "npy":
        name = ""
    else:
        axes = {k for k in source.entries if is_axis_name(k)}
        tables = [k for k in source.numeric(2) if k not in axes and max(source.entries[k].shape) > 1]
        preferred = [k for k in _PREFERRED if k in tables]
        if not preferred and len(tables) != 1:
            number = "several matrices" if tables else "no matrix"
            raise DataError(f"'{path}' has {number} of numbers; choose one with key= (--key): {source.listing()}.")
        name = (preferred or tables)[0]
    label = source.label(name)
    data = np.require(check_spectra(label, source.load(name)), requirements=["C", "W"])
    axis = next((a for a in find_axes(source).values() if a.size == data.shape[1]), None)
    words = f"{data.shape} read as (spectra, bands)"
    return Spectra(data, axis, None, str(path), sha256(path), key=name or None, layout=words)
