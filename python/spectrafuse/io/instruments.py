"""Files of spreadsheets and instruments, read through the optional parts that know them; what converts the others."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from contextlib import redirect_stdout
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.io.errors import DataError, option
from spectrafuse.io.omnic import open_omnic
from spectrafuse.io.orientation import Reading
from spectrafuse.io.spc import open_spc
from spectrafuse.io.wire import open_wire
from spectrafuse.io.workbooks import check_workbook

SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
JCAMP_SUFFIXES = (".jdx", ".dx", ".jcamp", ".jcm")
_FEWEST_NUMBERS = 4
# What an OPUS file can hold, the most finished first.
_OPUS_DATA = ("a", "atr", "km", "logr", "ra", "r", "t", "pas", "e", "pw", "sm")
_OPUS_AXES = {"WN": ("Wavenumber", "cm⁻¹"), "MI": ("Wavelength", "µm"), "RSH": ("Raman shift", "cm⁻¹")}
_CONVERTERS = {
    (".srs",): "a series of Thermo OMNIC: save it as CSV there, or read it with the Python package spectrochempy "
    "(read_omnic) and save a table",
    (".map",): "a map, perhaps of Thermo OMNIC: save it as CSV there, or read it with the Python package "
    "ftir-omnic-map-reader and save a table",
    (".wxd",): "a Renishaw WiRE file: save it as text (.txt) there",
    (".dmt", ".dms", ".dmd", ".drd", ".seq", ".bsp", ".bdt"): "a file of Agilent Resolutions Pro: export it as an "
    "ENVI image there, or read it with the Python package agilent-format and save a .npy",
    (".wip", ".wid"): "a WITec project: export its spectra as a table (.txt) there",
    (".spe",): "a file of WinSpec or LightField: export it as CSV there",
    (".sif",): "an Andor file: export it as ASCII (.asc) in Solis",
    (".gwy", ".gsf", ".nea", ".xim"): "a file of a microscope: export its spectra as a table (.csv) there",
    (".unsb", ".unsc"): "a file of The Unscrambler: export it as .csv or .mat there",
    (".lan", ".gis", ".cub", ".ers", ".kea", ".sdat", ".rst", ".ntf", ".sid", ".ecw", ".jp2"): "a raster that is not "
    "read here: convert it with `gdal_translate -of ENVI FILE scene.img`",
    (".cu3", ".cu3s", ".cue"): "a file of a Cubert camera: export it as an ENVI image or TIFF there",
    (".hsz", ".fla", ".nh7", ".hips", ".cube"): "a file of a camera: export it as an ENVI image there",
    (".mzml", ".mzxml"): "a file of a mass spectrometer: bin its spectra to one axis and save them as .csv",
    (".l6s", ".l6m", ".ngs", ".ngc", ".tsf"): "a LabSpec file: save it as text (.txt) there",
    (".sp", ".pri", ".fsm"): "a PerkinElmer file: export it as ASCII (.asc) or CSV there, or read it with the Python "
    "package specio and save a table",
    (".jws", ".jwb"): "a JASCO file: export it as text (.txt) or CSV there",
    (".dsw", ".bsw", ".dsx", ".bsk"): "a Cary WinUV file: save it as 'Spreadsheet Ascii (*.csv)' there",
    (".asd",): "an ASD file: export it as text with ViewSpec Pro",
    (".sed", ".sig"): "a field spectrometer's file: save its columns of wavelengths and values as .csv",
    (".dsp",): "a DSP file: save its spectrum as .csv",
    (".rdata", ".rda", ".rds"): "a file of R: save the matrix there with write.csv(x, 'x.csv')",
    (".parquet", ".feather", ".pkl", ".pickle"): "a table of Python: save it with DataFrame.to_csv('x.csv')",
    (".json", ".xml", ".yaml"): "no table: save the spectra as .csv",
    (
        ".png",
        ".jpg",
    ): "an image; scenes are read from ENVI images (.hdr), .npy or .mat",
    (".pdf", ".doc", ".docx"): "a document: save the table in it as .csv",
    (".zip", ".gz", ".7z", ".rar", ".tar"): "packed: unpack it first",
}


def converter(file: Path) -> str | None:
    """What a file that is not read here is and what to do with it; None if its suffix says nothing."""
    suffix = file.suffix.lower()
    return next((text for suffixes, text in _CONVERTERS.items() if suffix in suffixes), None)


def _part(file: Path, module: str, extra: str, otherwise: str) -> Any:
    """A reader's module, or an error that says how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"'{file}' needs an optional part: pip install 'spectrafuse[{extra}]'; or {otherwise}."
        ) from error


def sheet_text(file: Path, key: str | None) -> tuple[bytes, str | None]:
    """The cells of a sheet as a tab-separated table with the sheet's own line numbers, and the sheet's name.

    Raises
    ------
    DataError
        If several sheets have numbers and none is asked for; if the file cannot be read.
    """
    calamine = _part(file, "python_calamine", "excel", "save the sheet as .csv")
    try:
        check_workbook(file)
        with calamine.CalamineWorkbook.from_path(os.fspath(file)) as book:
            sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except BaseException as error:
        if isinstance(error, DataError):
            raise
        # What the reader's own language calls a panic is no Exception here.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"'{file}' cannot be read as a spreadsheet: {reason}.") from error
    if key is not None and key not in sheets:
        raise DataError(f"'{file}' has no sheet {key!r}; it has {', '.join(sheets)}.")
    filled = [name for name, cells in sheets.items() if _holds_numbers(cells)]
    if key is None and len(filled) != 1:
        what = (
            f"{len(filled)} sheets with numbers ({', '.join(filled)})" if filled else "no sheet with a table of numbers"
        )
        raise DataError(f"'{file}' has {what}" + (f"; choose one with {option('key')}." if filled else "."))
    name = filled[0] if key is None else key
    lines = ("\t".join(repr(c) if type(c) is float else _text(c) for c in row) for row in sheets[name])
    return "\n".join(lines).encode(), name if len(sheets) > 1 else None


def _holds_numbers(cells: list[list[Any]]) -> bool:
    numbers = (True for row in cells for cell in row if isinstance(cell, (int, float)))
    return len(list(islice(numbers, _FEWEST_NUMBERS))) == _FEWEST_NUMBERS


def _text(cell: Any) -> str:
    return " ".join(str(cell).split())


def read_jcamp(file: Path) -> Reading:
    """The spectra of a JCAMP-DX file: one, or the linked ones, which must share their axis.

    Raises
    ------
    DataError
        No spectrum, other axes, a damaged file.
    """
    way = "export it as .csv from the instrument's software"
    jcamp = _part(file, "jcamp", "jcamp", way)
    said = io.StringIO()
    try:
        # Its reader takes neither comments behind values nor the mark that DOS ends texts with.
        text = re.sub(rb"\$\$[^\r\n]*|\x1a", b"", file.read_bytes())
        with redirect_stdout(said):
            content = jcamp.read(io.BytesIO(text))
        blocks = [block for block in [content, *content.get("children", [])] if len(block.get("x", ())) > 1]
        for block in blocks:
            block["x"], block["y"] = (np.asarray(block[name], dtype=np.float64) for name in "xy")
            if block["y"].shape != block["x"].shape:
                raise DataError("it has not as many values as positions")
    except Exception as error:  # The reader documents no set of exceptions.
        raise DataError(f"'{file}' cannot be read as JCAMP-DX: {_reason(error)}; {way}.") from error
    checks = Counter(line.partition("-Check failed")[0] for line in said.getvalue().splitlines() if "-Check" in line)
    if checks["Y"]:
        raise DataError(
            f"'{file}' cannot be read as JCAMP-DX: the check of its values fails in {checks['Y']} lines, so that it is "
            f"damaged or packed in another way than it says; {way}."
        )
    if not blocks:
        raise DataError(f"'{file}' holds no spectrum that can be read; {way}.")
    axis = blocks[0]["x"]
    if any(not np.array_equal(axis, block["x"]) for block in blocks):
        raise DataError(f"'{file}' holds spectra with different axes; export them over the same range and step.")
    title = str(blocks[0].get("xunits", "")).strip() or None
    return Reading(
        values=np.array([block["y"] for block in blocks]),
        words="JCAMP-DX, as its values are after factors"
        + (f"; the places of {checks['X']} lines are not quite where it says" if checks["X"] else ""),
        axis=axis,
        axis_title=title,
        axis_place="as the file says",
        names=[str(block.get("title", i + 1)) for i, block in enumerate(blocks)],
        labels="names from the titles",
    )


def is_opus(file: Path) -> bool:
    """Whether a file is one of Bruker OPUS by its suffix: `.0`, `.1`, ..."""
    return re.fullmatch(r"\.\d{1,4}", file.suffix) is not None


def read_spc(file: Path) -> Reading:
    """The spectra of a GRAMS (SPC) file, which must share their axis.

    Raises
    ------
    DataError
        Other axes, a damaged file.
    """
    try:
        found = open_spc(file)
    except (OSError, DataError) as error:
        raise DataError(
            f"'{file}' cannot be read as an SPC file: {_reason(error)}; export it as CSV or ASCII from the "
            "instrument's software."
        ) from error
    named = len(found.places) > 1 and len(set(found.places)) == len(found.places)
    names = [f"{place:g}" for place in found.places] if named else None
    reading = _one_axis(file, found.axes, found.values, "GRAMS SPC", found.title, found.unit, names)
    reading.labels = "names from their z values" if named else ""
    return reading


def read_omnic(file: Path) -> Reading:
    """The spectra of a Thermo OMNIC file (SPA, SPG), which must share their axis.

    Raises
    ------
    DataError
        Other axes, an interferogram, a damaged file.
    """
    try:
        axes, values, titles, (title, unit), quantity = open_omnic(file)
    except (OSError, DataError) as error:
        raise DataError(
            f"'{file}' cannot be read as a file of OMNIC: {_reason(error)}; save it there as CSV."
        ) from error
    names = titles if len(titles) == len(values) and all(titles) else None
    reading = _one_axis(file, axes, values, f"Thermo OMNIC, {quantity}", title, unit, names)
    reading.labels = "names from the titles" if names else ""
    return reading


def read_wire(file: Path) -> Reading:
    """The spectra of a Renishaw WiRE file (WDF): one, a series, or a map with its places.

    Raises
    ------
    DataError
        If there is no spectrum, or the file is damaged or another one.
    """
    try:
        found = open_wire(file)
    except (OSError, DataError) as error:
        raise DataError(
            f"'{file}' cannot be read as a file of WiRE: {_reason(error)}; save it as text (.txt) there."
        ) from error
    count = len(found.values)
    what = ", places of a map" if found.places is not None else ""
    reading = _one_axis(
        file, [found.axis] * count, list(found.values), f"Renishaw WiRE{what}", found.title, found.unit, None
    )
    reading.positions, reading.process = found.places, found.process
    if found.missing:
        reading.left_out.append(f"{found.missing} of {count + found.missing} spectra that were not measured")
    return reading


def read_opus(file: Path) -> Reading:
    """The spectra of a Bruker OPUS file: of several kinds the most finished one, absorbance first.

    Raises
    ------
    DataError
        If there is no spectrum, or the file is damaged or another one.
    """
    way = "save it as a data point table (.dpt) in OPUS"
    opus = _part(file, "brukeropus", "instruments", way)
    try:
        found = opus.read_opus(os.fspath(file))
        kinds = list(found.all_data_keys) if found else []
        kind = next((kind for kind in _OPUS_DATA if kind in kinds), None)
        if kind is not None:
            data = getattr(found, kind)
            axis, values, code = np.asarray(data.x, np.float64), np.atleast_2d(np.asarray(data.y, np.float64)), data.dxu
    except Exception as error:  # The reader documents no set of exceptions.
        raise DataError(f"'{file}' cannot be read as a Bruker OPUS file: {_reason(error)}; {way}.") from error
    if kind is None:
        holds = f"only {', '.join(kinds)}" if kinds else "no data, or is no OPUS file"
        raise DataError(f"'{file}' holds no spectrum that can be read, {holds}; {way}.")
    title, unit = _OPUS_AXES.get(str(code), (None, None))
    others = [other for other in kinds if other != kind]
    words = f"Bruker OPUS, {data.label}" + (f" (not: {', '.join(others)})" if others else "")
    return _one_axis(file, [axis] * len(values), list(values), words, title, unit, None)


def _one_axis(
    file: Path,
    axes: list[np.ndarray],
    values: list[np.ndarray],
    words: str,
    title: str | None,
    unit: str | None,
    names: list[str] | None,
) -> Reading:
    if not axes or len(axes[0]) < 2 or not np.isfinite(axes[0]).all():
        raise DataError(f"'{file}' cannot be read as it holds no spectrum with an axis of numbers.")
    if any(not np.array_equal(axes[0], axis) for axis in axes) or len({len(line) for line in values}) > 1:
        raise DataError(f"'{file}' holds spectra with different axes; export them over the same range and step.")
    if any(part.shape != axes[0].shape for part in values):
        raise DataError(f"'{file}' is damaged: it has not as many values as positions.")
    return Reading(
        values=np.array(values),
        words=words,
        axis=axes[0],
        axis_title=title,
        axis_unit=unit,
        axis_place="as the file says",
        names=names,
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
