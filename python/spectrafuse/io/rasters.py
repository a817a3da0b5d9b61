"""Scenes in GeoTIFF and other files that GDAL reads, window by window, and label maps as GeoTIFF.

rasterio, the optional part `geo`, is imported when such a file is opened.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.envi import (
    DATA_SUFFIXES,
    HEADER_SUFFIX,
    EnviImage,
    axis_of_names,
    data_beside,
    described,
    expected_bytes,
    facts_of_domain,
    header_of,
    with_units,
)
from spectrafuse.io.errors import DataError
from spectrafuse.io.kept_open import KeptOpen
from spectrafuse.io.limits import check_size
from spectrafuse.io.mapped import UnchangedFile
from spectrafuse.io.places import place_of
from spectrafuse.io.signatures import name_of, signature

# Which of GDAL's drivers may open a file, so that contents of another kind never reach their reader.
_DRIVERS = {"tiff": "GTiff", "jpeg2000": "JP2OpenJPEG", "nitf": "NITF", "hfa": "HFA", "pcidsk": "PCIDSK"}
_MOSAIC_SUFFIX = ".vrt"
_MOST_HEADER = 1 << 16
# Bytes of decoded blocks that are kept, within these bounds: those that rows of the scene lie in.
_LEAST_CACHE, _MOST_CACHE = 1 << 24, 1 << 29
_WAVELENGTH_TAGS = ("wavelength", "Wavelength", "WAVELENGTH", "center_wavelength")


class Raster(NamedTuple):
    """A file that GDAL reads, and the ENVI header beside it, which may say more about its bands."""

    path: Path
    driver: str
    header: EnviImage | None


def find_raster(path: str | os.PathLike[str]) -> Raster | None:
    """The raster that a path names, or that an ENVI header lies beside; None for any other file."""
    file = Path(path)
    if not file.is_file():
        return None
    if file.suffix.lower() == _MOSAIC_SUFFIX:
        return Raster(file, "VRT", None)
    esri = _data_of_esri(file)
    if esri is not None:
        return Raster(esri, "EHdr", None)
    header = file if file.suffix.lower() == HEADER_SUFFIX else None
    if header is not None:
        try:
            file = data_beside(header)
        except DataError:
            return None
    kind = signature(file) or ""
    if kind not in _DRIVERS:
        return None
    header, image = header or header_of(file), None
    if header is not None:
        with suppress(DataError):
            image = described(header)
    # Raw numbers can begin like anything.
    if image is not None and file.stat().st_size == expected_bytes(image):
        return None
    return Raster(file, _DRIVERS[kind], image)


def _data_of_esri(file: Path) -> Path | None:
    """The data file of an image with a header of Esri, by either; None for any other file."""
    if file.suffix.lower() not in (HEADER_SUFFIX, *DATA_SUFFIXES, ""):
        return None
    header = file if file.suffix.lower() == HEADER_SUFFIX else header_of(file)
    if header is None:
        return None
    text = _text_of_esri(header)
    if text.startswith("envi") or re.search(r"^\s*nrows\s+\d", text, re.MULTILINE) is None:
        return None
    if file != header:
        return file
    found = [data for suffix in (*DATA_SUFFIXES, "") if (data := file.with_suffix(suffix)).is_file()]
    return found[0] if len(found) == 1 else None


def _text_of_esri(header: Path) -> str:
    with header.open("rb") as opened:
        return opened.read(_MOST_HEADER).decode("latin-1").lower().lstrip()


def _wavelengths_of_esri(data: Path, bands: int) -> np.ndarray | None:
    """The lines between `WAVELENGTHS` and `WAVELENGTHS_END`, which cameras write into headers of Esri's kind."""
    header = header_of(data)
    listed = re.search(r"^\s*wavelengths\s([-+.\de\s]*)", _text_of_esri(header) if header else "", re.MULTILINE)
    values, _ = with_units(listed[1].split() if listed else [])
    return values if values is not None and len(values) == bands else None


def _name(raster: Raster) -> str:
    named = {"VRT": "a mosaic of GDAL", "EHdr": "an image with a header of Esri"}
    return named.get(raster.driver) or name_of(signature(raster.path) or "tiff")


@contextmanager
def _gdal(raster: Raster, cache: int = _LEAST_CACHE) -> Iterator[Any]:
    """rasterio, with GDAL's memory limited; whatever goes wrong is one sentence."""
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError as error:
        raise DataError(
            f"'{raster.path}' is {_name(raster)}, which needs an optional part: pip install 'spectrafuse[geo]'; or "
            f"convert it with `gdal_translate -of ENVI {raster.path.name} {raster.path.stem}-envi.img`."
        ) from error
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=cache):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield rasterio
    except DataError:
        raise
    except Exception as error:  # GDAL's drivers document no set of errors for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"'{raster.path}' is {_name(raster)} that cannot be read, it may be damaged: {reason}"
        ) from error


class RasterFile(KeptOpen):
    """A raster that is kept open."""

    def __init__(self, raster: Raster, cache: int) -> None:
        super().__init__()
        self.raster, self.cache = raster, cache
        self._unchanged = UnchangedFile(raster.path)

    def _open(self) -> Any:
        import rasterio

        return rasterio.open(self.raster.path, driver=self.raster.driver)

    def read(self, bands: slice, rows: slice, columns: slice) -> np.ndarray:
        """A window of some bands, (bands, rows, columns)."""
        self._unchanged.check()
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with _gdal(self.raster, self.cache), self.opened() as file:
            values: np.ndarray = file.read(list(range(bands.start + 1, bands.stop + 1)), window=window)
        self._unchanged.check()
        return values


class RasterArray:
    """The numbers of a raster, (bands, rows, columns): a slice reads the blocks that it touches."""

    ndim = 3

    def __init__(self, file: RasterFile, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        self.file, self.shape, self.dtype = file, shape, dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        parts += (slice(None),) * (3 - len(parts))
        places = [slice(*part.indices(n)[:2]) for part, n in zip(parts, self.shape, strict=True)]
        size = tuple(max(0, place.stop - place.start) for place in places)
        return self.file.read(*places) if all(size) else np.empty(size, self.dtype)

    def close(self) -> None:
        """Close the file; the next read opens it anew."""
        self.file.close()


def raster_facts(raster: Raster) -> tuple[RasterArray, dict[str, Any]]:
    """The numbers of a raster, and what it and its header say: arguments of `spectrafuse.io.cubes.checked_cube`.

    Raises
    ------
    DataError
        Complex numbers, a file that is damaged, rasterio that is missing.
    """
    with _gdal(raster) as rasterio, rasterio.open(raster.path, driver=raster.driver) as file:
        shape = (file.count, file.height, file.width)
        if raster.driver == "GTiff" and len(file.subdatasets) > 1:
            pages, name = len(file.subdatasets), raster.path
            raise DataError(
                f"'{name}' is a TIFF of {pages} pages, of which only the first could be read. If they are the bands, "
                f"put them into one array in Python: numpy.save('{name.stem}.npy', tifffile.imread('{name.name}'))."
            )
        dtypes = {np.dtype(name) if not name.startswith("complex") else np.dtype("c16") for name in file.dtypes}
        dtype = np.result_type(*dtypes)
        if dtype.kind not in "iuf":
            raise DataError(f"'{raster.path}' holds complex numbers, which cannot be read.")
        check_size(f"'{raster.path}'", 16 * shape[1] * shape[2], raster.path.stat().st_size)
        # Two rows of blocks, which a window can touch.
        blocks = 2 * max(height for height, _ in file.block_shapes) * shape[0] * shape[2] * dtype.itemsize
        axis, unit = _wavelengths(file)
        if raster.driver == "EHdr" and axis is None:
            axis = _wavelengths_of_esri(raster.path, shape[0])
        carried = _carried(file)
        transform = file.transform
        place = None if transform.is_identity else place_of(transform.to_gdal(), _wkt(file.crs)) or None
        alpha = [i for i, color in enumerate(file.colorinterp) if color.name == "alpha"]
        mask = None
        if any(rasterio.enums.MaskFlags.per_dataset in flags for flags in file.mask_flag_enums):
            mask = file.dataset_mask() == 0
        facts: dict[str, Any] = {
            "nodata": file.nodata,
            "gains": _unless(np.array(file.scales, dtype=np.float64), 1),
            "offsets": _unless(np.array(file.offsets, dtype=np.float64), 0),
            "wavelengths": axis,
            "wavelength_unit": unit,
            "bad": np.array(alpha, dtype=np.int64),
            "bad_by": "alpha",
            "place": place,
            "hidden": mask if mask is not None and mask.any() else None,
            "layout": f"{raster.driver}, {dtype.name}, {shape} as (bands, rows, columns)",
            "notes": () if place or transform.is_identity else ("its place on Earth is not one that results can have",),
        }
    if carried:
        more, notes = facts_of_domain(raster.path, carried, shape[0])
        facts |= {name: value for name, value in more.items() if facts.get(name) is None or name == "bad"}
        facts["bad_by"] = "bbl" if "bad" in more else facts["bad_by"]
        facts["notes"] += notes
    image = raster.header
    if image is not None and image.shape != shape:
        facts["notes"] += (f"'{image.header.name}' beside it is for another size and is not used",)
    elif image is not None:
        facts |= {
            name: value
            for name, value in (
                ("wavelengths", image.wavelengths),
                ("wavelength_unit", image.wavelength_unit),
                ("nodata", image.nodata),
                ("gains", image.gains),
                ("offsets", image.offsets),
            )
            if value is not None
        }
        facts["place"] = facts["place"] or image.place
        if len(image.bad_bands):
            facts["bad"], facts["bad_by"] = image.bad_bands, "bbl"
        facts["scale"] = image.scale
        facts["notes"] += (f"bands by '{image.header.name}'", *image.notes)
    return RasterArray(RasterFile(raster, min(max(_LEAST_CACHE, blocks), _MOST_CACHE)), shape, dtype), facts


def _carried(file: Any) -> dict[str, str]:
    """Fields of the ENVI header that a file was made from: GDAL keeps them in a domain of their own."""
    domains = [file.tags(ns="ENVI"), *(file.tags(i, ns="ENVI") for i in file.indexes)]
    fields = [{" ".join(k.lower().replace("_", " ").split()): v.strip(" {}") for k, v in d.items()} for d in domains]
    of_bands = {name: ",".join(own.get(name, "") for own in fields[1:]) for name in ("wavelength", "bbl")}
    return {name: text for name, text in of_bands.items() if text.strip(",")} | fields[0]


def _unless(values: np.ndarray, usual: float) -> np.ndarray | None:
    return None if (values == usual).all() else values


def _wkt(crs: Any) -> str | None:
    """A coordinate system as the text of ENVI's headers."""
    if crs is None:
        return None
    try:
        text: str = crs.to_wkt(version="WKT1_ESRI")
    except Exception:  # a system that this kind of text cannot say
        text = crs.to_wkt()
    return text or None


def _wavelengths(file: Any) -> tuple[np.ndarray | None, str | None]:
    """Wavelengths and their unit from the bands' tags or names."""
    tags = [file.tags(i) for i in file.indexes]
    micrometers = [file.tags(i, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM", "") for i in file.indexes]
    if all(micrometers):
        values, _ = with_units(micrometers)
        if values is not None:
            return values, "um"
    for name in _WAVELENGTH_TAGS:
        values, unit = with_units([str(own.get(name, "")) for own in tags])
        if values is not None:
            return values, unit or tags[0].get("wavelength_units") or tags[0].get("wavelength_unit")
    whole = file.tags()
    for name in _WAVELENGTH_TAGS:
        values, unit = with_units(re.split(r"[,;\s]+", whole.get(name, "").strip(" {}[]()")))
        if values is not None and len(values) == file.count > 1:
            return values, unit or whole.get("wavelength_units") or whole.get("wavelength_unit")
    return axis_of_names([text or "" for text in file.descriptions])


def write_class_tiff(header: str | os.PathLike[str]) -> Path | None:
    """A label map as GeoTIFF beside its ENVI class map, with the same classes, colors, no-data value and place.

    Parameters
    ----------
    header : path
        The header that `spectrafuse.io.write_class_map` wrote.

    Returns
    -------
    Path or None
        `<name>.tif`, with the names of the classes in `<name>.tif.aux.xml`, where GDAL and QGIS look for them; None
        where rasterio is not installed or the map has no place.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError:
        return None
    image, target = Path(header).with_suffix(".img"), Path(header).with_suffix(".tif")
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_LEAST_CACHE):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(image, driver="ENVI") as source:
            points, points_crs = source.gcps
            if source.transform.is_identity and not points:
                return None
            at = {"gcps": points, "crs": points_crs} if points else {"crs": source.crs, "transform": source.transform}
            profile = {name: getattr(source, name) for name in ("width", "height", "count", "nodata")} | at
            profile |= {"dtype": source.dtypes[0], "driver": "GTiff", "compress": "deflate"}
            with atomic_write(target) as temporary, rasterio.open(temporary, "w", **profile) as out:
                for _, window in source.block_windows(1):
                    out.write(source.read(window=window), window=window)
                out.write_colormap(1, source.colormap(1))
                out.set_band_description(1, "classes")
    listed = "".join(f"      <Category>{escape(name)}</Category>\n" for name in described(Path(header)).class_names)
    with atomic_write(f"{target}.aux.xml") as temporary:
        temporary.write_text(
            f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{listed}    </CategoryNames>\n'
            "  </PAMRasterBand>\n</PAMDataset>\n",
            encoding="utf-8",
        )
    return target
