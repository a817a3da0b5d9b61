"""Where a scene lies on Earth, as fields of an ENVI header, from what other formats say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_UTM = re.compile(r'"[^"]*UTM[ _]zone[ _](\d{1,2})([NS])"', re.IGNORECASE)


def place_of(transform: Sequence[float], wkt: str | None) -> dict[str, str]:
    """The fields `map info` and `coordinate system string`; none for a scene that such fields cannot place.

    These are scenes whose rows run northward, that are sheared, or turned with pixels that are not square.

    Parameters
    ----------
    transform : sequence of 6 float
        As GDAL has it: x of the upper left corner, its change by a column and by a row; then the same of y.
    wkt : str or None
        The coordinate system as text (WKT).
    """
    x, x_column, x_row, y, y_column, y_row = (float(v) for v in transform)
    width, height = math.hypot(x_column, y_column), math.hypot(x_row, y_row)
    turned = math.degrees(math.atan2(y_column, x_column))
    upright = abs(turned) < 1e-9 and abs(x_row) <= 1e-9 * height
    square = math.isclose(width, height, rel_tol=1e-6) and math.isclose(y_row, -x_column, rel_tol=1e-6)
    if x_column * y_row - x_row * y_column >= 0 or not (upright or square):
        return {}
    text = wkt or ""
    zone = _UTM.search(text)
    geographic = text.upper().startswith(("GEOGCS", "GEOGCRS", "GEODCRS"))
    wgs84 = re.search(r"WGS[ _]?(19)?84", text) is not None
    kind = "UTM" if zone and wgs84 else "Geographic Lat/Lon" if geographic else "Arbitrary"
    parts = [kind, "1", "1", *(repr(v) for v in (x, y, width, height))]
    if kind == "UTM" and zone is not None:
        parts += [zone[1], "North" if zone[2].upper() == "N" else "South"]
    parts += ["WGS-84"] if wgs84 and kind != "Arbitrary" else []
    parts.append("units=Degrees" if geographic else "units=Meters")
    parts += [] if upright else [f"rotation={turned!r}"]
    place = {"map info": ", ".join(parts)}
    return place | ({"coordinate system string": " ".join(text.split())} if text else {})
