"""What a file is by its first bytes, and what to do with those that are not read."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs"
_SIGNATURES = (
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"PK\x03\x04", "zip"),
    (_LFS, "lfs"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x0e\x03\x13\x01", "hdf4"),
    (b"CDF\x01", "netcdf3"),
    (b"CDF\x02", "netcdf3"),
    (b"CDF\x05", "netcdf3"),
    (b"NITF0", "nitf"),
    (b"\0\0\0\x0cjP  ", "jpeg2000"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
    (b"EHFA_HEADER_TAG", "hfa"),
    (b"PCIDSK  ", "pcidsk"),
    (b"%PDF", "pdf"),
    (b"\x93NUMPY", "npy"),
    (b"MATLAB 5.0", "mat"),
    (b"<!DOCTYPE html", "html"),
    (b"<html", "html"),
    (b"<?xml", "xml"),
)
_CONVERT = "convert it with `gdal_translate -of ENVI {name} {stem}-envi.img`"
_UNPACK = "unpack it and give the file inside"
_WORDS = {
    "tiff": ("a TIFF image", _CONVERT),
    "hdf5": ("an HDF5 file", "give it a name that ends in .h5, and its variable as its key"),
    "png": ("a PNG picture", "a picture has no spectra: give the scene it was made from"),
    "jpeg": ("a JPEG picture", "a picture has no spectra: give the scene it was made from"),
    "zip": ("a zip archive", _UNPACK),
    "gzip": ("packed with gzip", "unpack it with `gunzip -k {name}`"),
    "7z": ("a 7z archive", _UNPACK),
    "rar": ("a rar archive", _UNPACK),
    "lfs": ("a Git LFS pointer, not the data", "fetch the data with `git lfs pull`"),
    "hdf4": ("an HDF4 file", "convert it with `h4toh5 {name} {stem}.h5` or `gdal_translate -of ENVI`"),
    "netcdf3": ("a NetCDF file of the classic kind", "give it a name that ends in .nc"),
    "nitf": ("a NITF image", _CONVERT),
    "hfa": ("an Erdas Imagine image", _CONVERT),
    "pcidsk": ("a PCIDSK image", _CONVERT),
    "jpeg2000": ("a JPEG 2000 image", _CONVERT),
    "pdf": ("a PDF document", "give the data themselves"),
    "npy": ("a NumPy array", "give it a name that ends in .npy"),
    "mat": ("a MATLAB file", "give it a name that ends in .mat"),
    "html": ("a web page, not the data", "download the file itself"),
    "xml": ("an XML text", "give the data that it describes"),
}


def signature(path: Path) -> str | None:
    """The kind of a file that has a known signature: "tiff", "hdf5", "lfs", ...; None for any other."""
    try:
        # Nothing is read from a pipe or a device.
        if not path.is_file():
            return None
        with path.open("rb") as file:
            first = file.read(32)
    except (OSError, ValueError):
        return None
    return next((kind for magic, kind in _SIGNATURES if first.startswith(magic)), None)


def name_of(kind: str) -> str:
    """ "a zip archive" for a kind of `signature`."""
    return _WORDS[kind][0]


def what_it_is(path: Path, kind: str) -> str:
    """ "a zip archive: unpack it ..." for a kind of `signature`."""
    what, way = _WORDS[kind]
    return what + (f": {way.format(name=path.name, stem=path.stem)}" if way else "")
