"""Tables of spectra from files."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.arrays import ARRAY_SUFFIXES, ArrayFile, existing_file, open_arrays
from spectrafuse.io.axes import evenly, is_process, is_spectral, plausible, remarks
from spectrafuse.io.cubes import open_cube
from spectrafuse.io.envi import HEADER_SUFFIX, Library, is_envi, library_of
from spectrafuse.io.errors import DataError, by_command, option
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.grids import Grid, grid_of_positions, grid_of_scene, unfolded
from spectrafuse.io.instruments import (
    JCAMP_SUFFIXES,
    SHEET_SUFFIXES,
    converter,
    is_opus,
    read_jcamp,
    read_omnic,
    read_opus,
    read_spc,
    read_wire,
    sheet_text,
)
from spectrafuse.io.layouts import find_size, is_axis_name, last_part
from spectrafuse.io.nodata import MARKERS, as_nodata, far_outside
from spectrafuse.io.omnic import OMNIC_SUFFIXES
from spectrafuse.io.orientation import Reading, interpret, span
from spectrafuse.io.rasters import find_raster
from spectrafuse.io.signatures import signature, what_it_is
from spectrafuse.io.spc import SPC_SUFFIX
from spectrafuse.io.tables import Table, read_table
from spectrafuse.io.units import short_unit, unit_in_title
from spectrafuse.io.validate import check_spectra
from spectrafuse.io.wire import WIRE_SUFFIX

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dpt", ".asc", ".dat", ".prn", ".xyz", ".tab", ".xy")
_INSTRUMENTS = {SPC_SUFFIX: read_spc, WIRE_SUFFIX: read_wire, **dict.fromkeys(OMNIC_SUFFIXES, read_omnic)}
_MOST_LOOKED_AT = 4096
_WORKBOOKS = (b"\xd0\xcf\x11\xe0", b"PK\x03\x04")
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
        Header cells above the bands, where there is a header and spectra stand in rows.
    key : str or None
        Variable of the file; None where it has none.
    layout : str
        How the file was read, in words.
    axis_title, axis_unit : str or None
        What the file calls the axis, and its unit.
    process : (str, ndarray of shape (n,)) or None
        Time, pH, temperature or the like of each spectrum, where the file has it, and what it is called.
    positions : ndarray, shape (n, 2), or None
        x and y of each spectrum of a map in a table.
    grid : Grid or None
        Places of the spectra on a map: pixels of a scene, or x and y that fill a raster.
    """

    data: np.ndarray
    axis: np.ndarray | None
    names: list[str] | None
    source: str
    sha256: str
    band_names: list[str] | None = None
    key: str | None = None
    layout: str = ""
    axis_title: str | None = None
    axis_unit: str | None = None
    process: tuple[str, np.ndarray] | None = None
    positions: np.ndarray | None = None
    grid: Grid | None = None

    @property
    def reading(self) -> str:
        """What was read, in one line: file, size, and how the file was read."""
        n, d = self.data.shape
        what = f"{self.source}" + (f", variable {self.key!r}" if self.key else "")
        spectra, bands = ("spectrum" if n == 1 else "spectra"), ("band" if d == 1 else "bands")
        return f"{what}: {n} {spectra} of {d} {bands}; {self.layout}"


def read_spectra(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    header: bool | str = "auto",
    index: bool | str = "auto",
    spectra_in: str = "auto",
    columns: str | None = None,
    decimal: str = "auto",
    drop_missing: str | None = None,
    layout: str = "auto",
    nodata: float | str | None = None,
    bands: Any = None,
    mask: Any = None,
    scene_size: tuple[int, int] | None = None,
) -> Spectra:
    """Read spectra from a text table, a spreadsheet, JCAMP-DX, `.npy`, `.npz`, `.mat`, HDF5, ENVI libraries, scenes.

    GRAMS (`.spc`), Thermo OMNIC (`.spa`, `.spg`) and Renishaw WiRE (`.wdf`, with the places of a map) are read as
    they are; spreadsheets (`.xlsx .xls .xlsm .xlsb .ods`) need the optional part `excel`, JCAMP-DX the part `jcamp`,
    Bruker OPUS (`.0`, `.1`, ...) the part `instruments`.

    Text tables (`.csv .tsv .txt .dpt .asc .dat .prn .xyz .xy .tab`) have cells separated by tab, semicolon, comma,
    bar or runs of blanks, with decimal points or commas. Blank lines and comments (`#`, `%`, `//`, `!`) are passed
    over, and so is text above and below the table, which `layout` then says. Byte order marks, UTF-16, cells in
    double quotes, a line `sep=;`, a line of units below the header and separators at the ends of lines are
    understood; a header may be the last comment.

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        The variable of a `.npz`, `.mat` or HDF5 file ("struct.field", "group/name"), or the sheet of a spreadsheet.
        Without it: `spectra`, `X`, `D`, `data`, `components` or `concentrations`, or the only matrix of numbers; the
        only sheet with numbers.
    header : {"auto", True, False}
        Whether a text table's first row is a header. "auto": it is if it has words above numbers, or is an axis.
    index : {"auto", True, False}
        Whether a text table's first column holds names. "auto": it does if most of its cells are no numbers; if the
        header calls it "sample", "id" or the like or nothing, or is an axis from its second cell on.
    spectra_in : {"auto", "rows", "columns"}
        Where a spectrum stands: in a row or in a column of a table or matrix. "auto": in columns

        - if the first column of numbers is an axis: its title says so ("Wavelength (nm)", "cm-1", "Wellenzahl", "m/z",
          ...), or its numbers rise or fall evenly and are unlike the other columns (`io.axes.looks_like_axis`);
        - of a matrix in an array file, if its wavelengths fit the rows alone;

        else in rows. If the header is an axis as well, titles and units decide, then which of the two can be
        wavelengths (all from 50 on); where neither does, an error asks. Numbers that only count are never an axis.
    columns : str, optional
        Columns of a text table that are read, from 1 or by title: "1,4-63", "2-", "sample,400-700". The others are
        left out.
    decimal : {"auto", "point", "comma"}
        The decimal sign of a text table. "auto": a comma, where cells are numbers with commas.
    drop_missing : {None, "bands", "channels", "spectra", "values"}
        What is left out where values are missing (empty cells, NaN, NA, --, infinity): bands (channels are the same),
        spectra, or these values alone, which are NaN then, and of bands and spectra those without any value. None: they
        are an error.
    nodata : float, optional
        Value that marks missing values, such as -9999. Of a scene as in `spectrafuse.io.cubes.open_cube`.
    layout, bands, mask
        Of a scene (an ENVI image, an array with three axes, or a matrix of pixels whose file says how many rows and
        columns it has), as in `spectrafuse.io.cubes.open_cube`. Pixels without data are left out.
    scene_size : (int, int), optional
        Rows and columns of a scene that the file holds as a matrix of pixels.

    Returns
    -------
    Spectra
        An axis is kept as the file has it: repeated numbers and reversals are said in `layout`.

    Raises
    ------
    DataError
        Whatever is wrong with the file or its contents: for text, with line, column and the cell.

    Warns
    -----
    UserWarning
        If there is no axis and neighbouring rows are far more alike than neighbouring columns.

    Examples
    --------
    >>> from pathlib import Path
    >>> from spectrafuse.io import read_spectra
    >>> text = "sample,400,410,420,430\\nfirst,0.1,0.4,0.2,0.1\\nsecond,0.2,0.3,0.5,0.1\\n"
    >>> _ = Path("spectra.csv").write_text(text)
    >>> spectra = read_spectra("spectra.csv")
    >>> spectra.data.shape, spectra.axis.tolist(), spectra.names
    ((2, 4), [400.0, 410.0, 420.0, 430.0], ['first', 'second'])
    """
    for name, given, values in (
        ("header", header, ("auto", True, False)),
        ("index", index, ("auto", True, False)),
        ("spectra_in", spectra_in, ("auto", "rows", "columns")),
        ("decimal", decimal, ("auto", "point", "comma")),
        ("drop_missing", drop_missing, (None, "bands", "channels", "spectra", "values")),
    ):
        if given not in values:
            raise InvalidValueError(f"`{name}` must be one of {', '.join(map(repr, values))}; got {given!r}.")
    drop_missing = "bands" if drop_missing == "channels" else drop_missing
    library = library_of(path)
    if library is not None:
        return _from_library(str(path), library, drop_missing, nodata)
    if is_scene(Path(path), key, scene_size):
        size = {} if scene_size is None else dict(zip(("rows", "columns"), scene_size, strict=True))
        return _from_scene(path, key=key, layout=layout, nodata=nodata, bands=bands, mask=mask, **size)
    for name, value in (("bands", bands), ("mask", mask), ("scene_size", scene_size)):
        if value is not None:
            raise DataError(f"'{path}' is no scene but a table of spectra, so leave {option(name, function='')} out.")
    known: tuple[str, ...] = TEXT_SUFFIXES + ARRAY_SUFFIXES + SHEET_SUFFIXES + JCAMP_SUFFIXES + tuple(_INSTRUMENTS)
    file = Path(path)
    known += (file.suffix.lower(),) if is_opus(file) or _is_readable(file, known) else ()
    what = converter(file) if file.is_file() and file.suffix.lower() not in known else None
    if what is not None:
        raise DataError(f"'{path}' is {what}.")
    file = existing_file(path, known, also=(HEADER_SUFFIX,))
    if _holds_arrays(file):
        for name, value in (("columns", columns), ("header", header), ("index", index)):
            if value not in (None, "auto"):
                raise DataError(f"'{path}' is no text table, so leave {option(name, function='')} out.")
        return _from_arrays(path, key, spectra_in, drop_missing, nodata)
    if file.suffix.lower() in JCAMP_SUFFIXES:
        found = read_jcamp(file)
        found.axis_unit = unit_in_title(found.axis_title or "")
        return _finished(found, str(path), sha256(path), drop_missing, nodata=nodata)
    instrument = read_opus if is_opus(file) else _INSTRUMENTS.get(file.suffix.lower())
    if instrument is not None:
        return _finished(instrument(file), str(path), sha256(path), drop_missing, nodata=nodata)
    if key is not None and file.suffix.lower() not in SHEET_SUFFIXES:
        raise DataError(f"'{path}' is a text table without variables, so leave {option('key', key, function='')} out.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    # Instruments call tables of text .xls, so that a spreadsheet opens them.
    sheet = file.suffix.lower() in SHEET_SUFFIXES and (file.suffix.lower() != ".xls" or content.startswith(_WORKBOOKS))
    cells, key = sheet_text(file, key) if sheet else (content, None)
    table = read_table(file, cells, header=header, decimal=decimal)
    if columns is not None:
        table = _chosen(table, columns)
    reading = interpret(table, index=index, spectra_in=spectra_in)
    return _finished(reading, str(path), hashlib.sha256(content).hexdigest(), drop_missing, key, nodata)


def _chosen(table: Table, text: str) -> Table:
    """The columns that a text names: numbers from 1, ranges of them, titles."""
    titles = {table.title(j).lower(): j for j in reversed(range(table.width)) if table.title(j)}
    chosen: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if part.lower() in titles:
            chosen.append(titles[part.lower()])
        elif (first.isdigit() or not first) and (last.isdigit() or not last) and (first or last):
            start = int(first or 1)
            stop = int(last) if last else (table.columns[-1] if dash else start)
            found = [j for j, number in enumerate(table.columns) if start <= number <= stop]
            if not found:
                raise DataError(f"'{table.path}' has no column {part}; it has {table.columns[-1]}, counted from 1.")
            chosen += found
        else:
            raise DataError(
                f"{option('columns')} must name columns by number from 1 or by title, such as '1,4-63'; '{table.path}' "
                f"has none called {part!r}."
            )
    kept = sorted(set(chosen))
    left = table.width - len(kept)
    if left:
        table.notes.append(f"{left} column{'s' * (left > 1)} not asked for")
    return table.keep(kept)


def _finished(
    reading: Reading,
    source: str,
    digest: str,
    drop_missing: str | None,
    key: str | None = None,
    nodata: float | str | None = None,
) -> Spectra:
    values, marker = reading.values, as_nodata(nodata)
    if marker is None:
        _warn_of_markers(source, values)
    elif not np.isnan(marker):
        values = np.where(values == marker, np.nan, values)
    notes = list(reading.left_out)
    keep_rows, keep_bands = np.ones(len(values), dtype=bool), np.ones(values.shape[1], dtype=bool)
    bad = ~np.isfinite(values)
    if bad.any():
        if drop_missing is None:
            _report_missing(reading, source, bad)
        no_value = drop_missing == "values"
        rows, bands = (bad.all(axis=1), bad.all(axis=0)) if no_value else (bad.any(axis=1), bad.any(axis=0))
        keep_rows = keep_rows if drop_missing == "bands" else ~rows
        keep_bands = keep_bands if drop_missing == "spectra" else ~bands
        lacking = "without any value" if no_value else "with missing values"
        for what, lost, kept in (("spectra", rows, keep_rows), ("bands", bands, keep_bands)):
            if not kept.any():
                raise DataError(f"'{source}' has missing values in all {len(kept)} {what}, so that none is left.")
            if not kept.all():
                which = [str(i + 1) for i in np.flatnonzero(lost)]
                listed = ", ".join(which[:5]) + (", ..." if len(which) > 5 else "")
                notes.append(f"{lost.sum()} of {len(lost)} {what} {lacking} (number {listed})")
    if bad.any():
        values = values[keep_rows][:, keep_bands]
    axis = None if reading.axis is None else reading.axis[keep_bands]
    words = [reading.words]
    if axis is not None:
        unit = f" {reading.axis_unit}" if reading.axis_unit else ""
        words.append(f"axis {axis[0]:g} ... {axis[-1]:g}{unit} {reading.axis_place}")
        words += remarks(axis)
    else:
        words.append("no axis" + (f": {reading.no_axis}" if reading.no_axis else ""))
    grid = None if reading.positions is None else grid_of_positions(reading.positions)
    if grid is not None:
        words.append(f"a map of {grid.shape[0]} x {grid.shape[1]} places")
    words += [w for w in (reading.labels, reading.dialect) if w]
    if notes:
        words.append(f"left out: {', '.join(notes)}")
    if count := int((~np.isfinite(values)).sum()):
        words.append(missing_values(count, values.size))
        values = np.where(np.isfinite(values), values, np.nan)
    result = Spectra(
        check_spectra(f"'{source}'", values, gaps=drop_missing == "values"),
        axis,
        None if reading.names is None else [n for n, k in zip(reading.names, keep_rows, strict=True) if k],
        source,
        digest,
        None if reading.band_names is None else [n for n, k in zip(reading.band_names, keep_bands, strict=True) if k],
        key,
        "; ".join(words),
        reading.axis_title,
        reading.axis_unit,
        None if reading.process is None else (reading.process[0], reading.process[1][keep_rows]),
        None if reading.positions is None else reading.positions[keep_rows],
        None if grid is None else grid.kept(keep_rows),
    )
    if reading.decided_by_default and axis is None:
        _warn_if_turned(source, result.data)
    return result


def missing_values(count: int, size: int) -> str:
    """That so many of so many values are missing, in words."""
    return f"{count} of {size} values {'is' if count == 1 else 'are'} missing and take{'s' * (count == 1)} no part"


def _warn_of_markers(source: str, values: np.ndarray) -> None:
    """Warn where a number that programs write for missing values lies far outside all other values."""
    finite = values[np.isfinite(values)]
    ends = (float(finite.min()), float(finite.max())) if finite.size else ()
    for marker in set(MARKERS).intersection(ends):
        rest = finite[finite != marker]
        if rest.size and far_outside(marker, float(rest.min()), float(rest.max())):
            count = finite.size - rest.size
            warnings.warn(
                f"'{source}' holds {marker:g} in {count} place{'s' * (count > 1)}, far outside all other values. If it "
                f"marks missing values, say so with {option('nodata', f'{marker:g}')}.",
                UserWarning,
                stacklevel=4,
            )


def _report_missing(reading: Reading, source: str, bad: np.ndarray) -> None:
    count = int(bad.sum())
    row, band = (int(i) for i in np.argwhere(bad)[0])
    rows, bands = int(bad.any(axis=1).sum()), int(bad.any(axis=0).sum())
    values = "1 value that is" if count == 1 else f"{count} values that are"
    ways = [
        f"{option('drop_missing', what)} leaves out {n} of {total} {what}"
        for what, n, total in (("bands", bands, bad.shape[1]), ("spectra", rows, bad.shape[0]))
        if n < total
    ]
    if not by_command():
        ways.append(f"{option('drop_missing', 'values')} keeps all others (these are NaN then)")
    raise DataError(
        f"'{source}' has {values} missing or not finite, {'the first' if count > 1 else 'it is'} "
        f"{reading.where(row, band)}. " + (", ".join(ways) + "." if ways else "No band and no spectrum is without one.")
    )


def _warn_if_turned(source: str, data: np.ndarray) -> None:
    """Warn where each column runs smoothly from row to row, but rows jump from column to column."""
    if data.shape[0] < 8 or data.shape[1] < 4:
        return
    down, across = (_roughness(x) for x in (data, data.T))
    if down < 0.1 and across > max(0.5, 10 * down):
        warnings.warn(
            f"'{source}' is read as {data.shape[0]} spectra of {data.shape[1]} bands, but neighbouring rows are far "
            f"more alike than neighbouring columns; if they stand in columns, give {option('spectra_in', 'columns')}.",
            UserWarning,
            stacklevel=4,
        )


def _roughness(data: np.ndarray) -> float:
    """Mean square of steps along the first axis over that of unrelated neighbours: 0 smooth, 1 without any order."""
    values = data.astype(np.float64)
    spread = 2 * float(values.var(axis=0).sum())
    return float((np.diff(values, axis=0) ** 2).mean(axis=0).sum()) / spread if spread > 0 else 1.0


def _holds_arrays(file: Path) -> bool:
    """Whether a file holds variables, by its suffix or, under any other one, the first bytes of HDF5."""
    suffix = file.suffix.lower()
    named = suffix in TEXT_SUFFIXES + SHEET_SUFFIXES + JCAMP_SUFFIXES + tuple(_INSTRUMENTS)
    return suffix in ARRAY_SUFFIXES or (not named and signature(file) in ("hdf5", "netcdf3"))


def _is_readable(file: Path, known: tuple[str, ...]) -> bool:
    """Whether a file with a suffix that nothing knows holds variables, or is text.

    Raises
    ------
    DataError
        If its first bytes are those of another kind of file.
    """
    if file.suffix.lower() in known or not file.is_file():
        return False
    if _holds_arrays(file):
        return True
    if converter(file) is not None:
        return False
    kind = signature(file)
    if kind is not None:
        raise DataError(f"'{file}' is {what_it_is(file, kind)}.")
    with file.open("rb") as opened:
        start = opened.read(_MOST_LOOKED_AT)
    lines = len(start.splitlines())
    return lines > 1 and not any(byte < 32 and byte not in b"\t\n\v\f\r\x1a" for byte in start)


def is_scene(file: Path, key: str | None, size: tuple[int, int] | None) -> bool:
    """Whether a file is a scene: by its header, or by the shape of what it holds."""
    suffix = file.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return suffix == ".dat" and any(p.is_file() for p in (file.with_suffix(".hdr"), Path(f"{file}.hdr")))
    if not _holds_arrays(file):
        return find_raster(file) is not None or is_envi(file)
    if size is not None:
        return True
    source = open_arrays(existing_file(file, (*ARRAY_SUFFIXES, suffix)))
    if key is not None:
        return len(source.entries[source.require(key)].shape) == 3
    if source.format == "npy":
        return len(source.entries[""].shape) == 3
    if any(last_part(k) in _PREFERRED for k in source.numeric(2)):
        return False
    rows, columns = find_size(source, None, None)
    matrix = source.entries.get("Y")
    folded = rows is not None and columns is not None and matrix is not None and rows * columns in matrix.shape
    return folded or bool(source.numeric(3))


def _from_library(path: str, library: Library, drop_missing: str | None, nodata: float | str | None) -> Spectra:
    reading = Reading(
        values=library.values,
        words="ENVI spectral library, a spectrum in each line",
        axis=library.axis,
        axis_unit=short_unit(library.axis_unit),
        axis_place="as the header says",
        names=library.names,
        labels="names from the header" if library.names else "",
    )
    return _finished(reading, path, sha256(library.data), drop_missing, nodata=nodata)


def _from_scene(path: str | os.PathLike[str], **options: Any) -> Spectra:
    with open_cube(path, **options) as cube:
        data, grid = unfolded(cube), grid_of_scene(cube)
        # The variable is named before.
        said = cube.description.removeprefix(f"{cube.source}: ").replace(f"; variable {cube.key!r}", "", 1)
    axis = cube.wavelengths
    words = ["a scene, each pixel a spectrum", said, *(["no axis"] if axis is None else [])]
    return Spectra(
        check_spectra(f"'{path}'", data),
        axis,
        None,
        str(path),
        cube.sha256,
        key=cube.key,
        layout="; ".join(words),
        axis_unit=cube.unit,
        grid=grid,
    )


def _from_arrays(
    path: str | os.PathLike[str],
    key: str | None,
    spectra_in: str,
    drop_missing: str | None,
    nodata: float | str | None,
) -> Spectra:
    source = open_arrays(path)
    lines = _axis_variables(source)
    name = _variable(source, path, lines) if key is None else source.require(key)
    label = source.label(name)
    values = np.asarray(source.load(name))
    if values.ndim != 2:
        check_spectra(label, values)
    lines = {k: v for k, v in lines.items() if k != name}
    named = {k: v for k, v in lines.items() if _is_axis(k)}
    n, d = values.shape
    fits_rows = next((k for k, v in named.items() if v.size == n), None)
    fits_bands = next((k for k, v in named.items() if v.size == d), None)
    unknown = [k for k, v in lines.items() if k not in named and not _is_process(k) and evenly(v) and plausible(v)]
    if not named and n != d and unknown:
        fits_bands = next((k for k in unknown if lines[k].size == d), None)
        at_rows = next((k for k in unknown if lines[k].size == n), None)
        if fits_bands is None and at_rows is not None and spectra_in == "auto":
            raise DataError(
                f"{label} of shape {values.shape} can be {n} spectra of {d} bands ({option('spectra_in', 'rows')}) "
                f"or, if {at_rows!r} ({span(lines[at_rows])}) is their axis, {d} spectra of {n} bands "
                f"({option('spectra_in', 'columns')}). Say which one."
            )
        fits_rows = at_rows
    turned = spectra_in == "columns" or (spectra_in == "auto" and fits_bands is None and fits_rows is not None)
    axis_name = fits_rows if turned else fits_bands
    process = next((k for k in lines if _is_process(k) and lines[k].size == (d if turned else n) and n != d), None)
    others = [f"{k} ({v.size})" for k, v in named.items() if v.size not in values.shape]
    if spectra_in != "auto":
        how = "as asked for"
    else:
        how = "as nothing says otherwise" if axis_name is None else f"as {axis_name!r} is {lines[axis_name].size} long"
    reading = Reading(
        values=np.array(values.T if turned else values, dtype=np.float64, order="C"),
        words=f"{values.shape} read as {'(bands, spectra)' if turned else '(spectra, bands)'}, {how}",
        axis=None if axis_name is None else lines[axis_name],
        axis_title=axis_name,
        axis_unit=None if axis_name is None else _unit_of_axis(source, axis_name),
        axis_place=f"in {axis_name!r}",
        process=None if process is None else (process, lines[process]),
        left_out=[f"{', '.join(others)} (of another length)"] if others else [],
        decided_by_default=spectra_in == "auto" and axis_name is None,
    )
    return _finished(reading, str(path), sha256(path), drop_missing, name or None, nodata)


def _is_axis(key: str) -> bool:
    name = last_part(key)
    return is_axis_name(name) or is_spectral(name.replace("_", " ")) or name in ("x", "xx")


def _is_process(key: str) -> bool:
    return is_process(last_part(key))


def _unit_of_axis(source: ArrayFile, name: str) -> str | None:
    title = last_part(name).replace("_", " ")
    return unit_in_title(title) or unit_in_title(source.facts(name).unit or "")


def _axis_variables(source: ArrayFile) -> dict[str, np.ndarray]:
    """The variables that are lines of finite numbers, float64."""
    found = {}
    for name, entry in source.entries.items():
        if entry.kind == "numeric" and 1 < max(entry.shape, default=0) == int(np.prod(entry.shape)):
            values = source.load(name).reshape(-1).astype(np.float64)
            if np.isfinite(values).all():
                found[name] = values
    return found


def _variable(source: ArrayFile, path: str | os.PathLike[str], lines: dict[str, np.ndarray]) -> str:
    """The variable that holds the spectra."""
    if source.format == "npy":
        return ""
    tables = [k for k in source.numeric(2) if max(source.entries[k].shape) > 1 and not (k in lines and _is_axis(k))]
    whole = [k for k in tables if k not in lines]
    tables = whole or tables
    preferred = [k for name in _PREFERRED for k in tables if last_part(k) == name]
    if not preferred and len(tables) != 1:
        number = "several matrices" if tables else "no matrix"
        raise DataError(f"'{path}' has {number} of numbers; choose one with {option('key')}: {source.listing()}.")
    return (preferred or tables)[0]
