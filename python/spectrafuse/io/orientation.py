"""What the rows and columns of a table mean: which line is the axis, where the spectra stand, what labels them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

import numpy as np

from spectrafuse.io.axes import (
    Axis,
    alike,
    axis_of,
    evenly,
    is_count,
    is_intensity,
    is_name,
    is_position,
    is_process,
    is_spectral,
    looks_like_axis,
    monotonic,
    mostly_in_order,
    names_axis,
    number_of,
    plain,
    plausible,
)
from spectrafuse.io.errors import DataError, option
from spectrafuse.io.tables import Table
from spectrafuse.io.units import unit_in_title

_COUNTED = ("channel", "channels", "band", "bands", "pixel", "pixels", "variable", "variables", "kanal")
# What programs write before the unit of the axis: JCAMP-DX and kin, LabSpec.
_AXIS_ABOVE = r"\W*x[ _-]?(units?|label|axis)|axisunit\[1\]"
_STATISTIC = re.compile(r"(mean|average|median|std|std\.? ?dev\.?|standard deviation|sd|rsd ?%?|mittelwert|moyenne)")
_FEWEST = 3
# Lines of one value each: the fewest of a spectrum that its numbers alone show.
_LONG_BLOCK = 8
_MOST_OTHERS = 50
# Share of an axis that has numbers from which on the rest are gaps in it.
_MOST_OF_AXIS = 0.9


@dataclass
class Reading:
    """Spectra of a file before missing values are looked at.

    Attributes
    ----------
    values : ndarray, shape (n, d), float64
        NaN where a value is missing.
    words : str
        Where the spectra stand and how that was told.
    axis_place, labels, dialect, no_axis : str
        Parts of the sentence that says what was read.
    left_out : list of str
        What was left out and why.
    where : callable
        Place of a value in the file, for a message.
    decided_by_default : bool
        Nothing in the file said where the spectra stand.
    """

    values: np.ndarray
    words: str
    axis: np.ndarray | None = None
    axis_title: str | None = None
    axis_unit: str | None = None
    axis_place: str = ""
    no_axis: str = ""
    names: list[str] | None = None
    band_names: list[str] | None = None
    process: tuple[str, np.ndarray] | None = None
    positions: np.ndarray | None = None
    labels: str = ""
    dialect: str = ""
    left_out: list[str] = field(default_factory=list)
    decided_by_default: bool = False
    where: Callable[[int, int], str] = lambda row, band: f"at spectrum {row + 1}, band {band + 1}"


class _Down(NamedTuple):
    """A column that can be the axis: its number, its numbers, how clearly it is one (0 to 3), and its title."""

    column: int
    axis: Axis
    strength: int
    title: str


class _Across(NamedTuple):
    """A header that can be the axis: its columns, its numbers, how clearly it is one (0 to 3)."""

    columns: list[int]
    axis: Axis
    strength: int


def interpret(table: Table, *, index: bool | str, spectra_in: str) -> Reading:
    """Say what a table's rows and columns are, by the rules of `spectrafuse.io.spectra.read_spectra`.

    Raises
    ------
    DataError
        If two readings are possible and the file does not decide, with both; if there are no numbers.
    """
    special = _pairs(table) or _long_table(table) if index == "auto" and spectra_in == "auto" else None
    if special is not None:
        return special
    numeric = [j for j, kind in enumerate(table.kinds) if kind == "number"]
    if index is True:
        numeric = [j for j in numeric if j > 0]
    elif index is False:
        numeric = list(range(table.width))
    if not numeric:
        if index is True and table.width == 1:
            raise DataError(f"'{table.path}' has a single column, which cannot be names alone: there are no numbers.")
        table.numbers([0])
        raise DataError(f"'{table.path}' has no column of numbers.")
    across = _across(table, numeric)
    if index is False and across is not None and len(across.columns) < len(numeric):
        across = None
    down = _down(table, numeric, across) if index != False and spectra_in != "rows" else None  # noqa: E712
    if spectra_in == "columns":
        return _in_columns(table, numeric, down, "as asked for")
    if down is not None and down.strength == 2 and down.column > 0 and table.kinds[0] == "text":
        # Beside an axis in the header, a property of spectra that are named before it.
        down = None if across is not None and plausible(across.axis.values) else down
    if spectra_in == "rows" or down is None or down.strength < 2:
        if spectra_in == "auto" and down is not None and across is None and not table.heads:
            _ask_about_count(table, down, len(numeric))
        return _in_rows(table, numeric, across, index, "as asked for" if spectra_in == "rows" else "")
    first = "two columns are one spectrum" if len(numeric) == 2 else _why(table, down)
    if across is None or across.strength < 2:
        if down.strength == 2 and len(numeric) > 2 and not plausible(down.axis.values):
            _ask_about_first(table, down, len(numeric))
        return _in_columns(table, numeric, down, first)
    likely = [plausible(down.axis.values), plausible(across.axis.values)]
    comparable = down.axis.unit in (None, "nm", "cm⁻¹")
    if likely[0] != likely[1] and comparable and (down.strength == across.strength or likely[1]):
        taken = likely[0]
    elif down.strength != across.strength:
        taken = down.strength > across.strength
    else:
        _ask(table, down, across)
    return _in_columns(table, numeric, down, first) if taken else _in_rows(table, numeric, across, index, "")


def _why(table: Table, down: _Down) -> str:
    direction = "rises" if down.axis.values[-1] > down.axis.values[0] else "falls"
    what = f"column {table.columns[down.column]}" + (f" {down.title!r}" if down.title else "")
    return f"{what} {direction} as an axis does"


def _ask(table: Table, down: _Down, across: _Across) -> NoReturn:
    n, d = len(table.rows), len(across.columns)
    column, header = span(down.axis.values), span(across.axis.values)
    raise DataError(
        f"'{table.path}' can be {n} spectra in rows with the axis {header} in the header "
        f"({option('spectra_in', 'rows')}) or {d} spectra in columns with the axis {column} in the first column "
        f"({option('spectra_in', 'columns')}). Say which one."
    )


def _ask_about_count(table: Table, down: _Down, width: int) -> None:
    n = len(table.rows)
    if is_count(down.axis.values) and n >= 4 and width >= 3:
        _ask_about_first(table, down, width)


def _ask_about_first(table: Table, down: _Down, width: int) -> NoReturn:
    n = len(table.rows)
    raise DataError(
        f"'{table.path}' has {span(down.axis.values)} in column {table.columns[down.column]}: these can be numbers or "
        f"times of {n} spectra in rows ({option('spectra_in', 'rows')} with {option('index')}) or the axis of "
        f"{width - 1} spectra in columns ({option('spectra_in', 'columns')}). Say which one."
    )


def span(values: np.ndarray) -> str:
    """First and last number of an axis, for a message."""
    return f"{values[0]:g} ... {values[-1]:g}"


def _across(table: Table, numeric: Sequence[int]) -> _Across | None:
    """The lowest line of the header that has numbers above most columns of numbers."""
    for head in reversed(table.heads):
        columns = [j for j in numeric if number_of(head[j]) is not None]
        if len(columns) < 2 or 2 * len(columns) < len(numeric):
            continue
        columns = alike([head[j] for j in columns], columns)
        found = axis_of([head[j] for j in columns])
        if found is None or 2 * len(columns) < len(numeric):
            continue
        if found.values[0] == 0 and len(columns) > 3 and not evenly(found.values) and evenly(found.values[1:]):
            columns, found = columns[1:], found._replace(values=found.values[1:])
        corners = [h[0] for h in table.heads if columns[0] > 0]
        strength = 1 if is_count(found.values) or not found.plain else 3 if found.unit else 2
        if strength == 2 and not evenly(found.values):
            strength = 1 if any(is_spectral(c) for c in corners) else 2
        unit = found.unit or _unit_above(table)
        units = {unit_in_title(row[j]) for row in table.heads for j in columns if row is not head}
        if unit is None and len(units) == 1:
            unit = units.pop()
        return _Across(columns, found._replace(unit=unit), strength)
    return None


def _down(table: Table, numeric: Sequence[int], across: _Across | None) -> _Down | None:
    """The column that can be the axis: one whose title says so, else the first, else the one beside a mere count."""
    if len(table.rows) < 2:
        return None
    named = _named_bands(table)
    if named is not None:
        return named
    if len(numeric) < 2:
        return None
    bands = set() if across is None else set(across.columns[1:])
    titled = [j for j in numeric if j not in bands and _spectral_titles(table, j)]
    # Numbers of pixels beside wavelengths only count.
    titled = [j for j in titled if plain(table.title(j)) not in _COUNTED] or titled
    candidates = titled[:1] or list(numeric[:2])
    places = _places(table, numeric)
    others_at_most = numeric[:_MOST_OTHERS]
    known = _readable(table, list(dict.fromkeys([*candidates, *others_at_most])))
    best: _Down | None = None
    for j in candidates:
        title = next(iter(_spectral_titles(table, j)), table.title(j))
        values = known.get(j, np.array([np.nan]))
        others = [known[k] for k in others_at_most if k != j and k in known]
        unit = (
            unit_in_title(title)
            or next((u for h in table.heads if (u := unit_in_title(h[j]))), None)
            or _unit_above(table)
        )
        whole = np.isfinite(values)
        if not whole.all() and whole.mean() > _MOST_OF_AXIS and looks_like_axis(values[whole], []):
            # Its gap is named when it is taken.
            return _Down(j, Axis(values, unit_in_title(title), True), 2, title)
        if is_process(title) and across is not None and plausible(values) and not plausible(across.axis.values):
            title = ""  # it says what the header's numbers are
        found = _Down(j, Axis(values, unit, True), _strength(title, values, others, bool(titled), j in places), title)
        if best is None or (found.strength > best.strength == 1):
            best = found
        if best.strength != 1:
            break
    return best if best is not None and best.strength else None


def _unit_above(table: Table) -> str | None:
    """The unit of the axis in the text above a table: `XUNITS 1/CM`, `Wavelength (nm)`."""
    for line in table.comments:
        words = re.split(r"[\t,;:=]+", line)
        if any(names_axis(w) or re.fullmatch(_AXIS_ABOVE, w.strip(), re.IGNORECASE) for w in words[:1]):
            found = next((u for w in words if (u := unit_in_title(w))), None)
            if found:
                return found
    return None


def _named_bands(table: Table) -> _Down | None:
    """A first column of text whose cells are numbers with a unit or letters: `400 nm`, `X400`."""
    if table.kinds[0] != "text":
        return None
    axis = axis_of(table.column(0))
    if axis is None or len(axis.values) < _FEWEST or not evenly(axis.values) or is_count(axis.values):
        return None
    return _Down(0, axis, 3 if axis.unit else 1, table.title(0))


def _readable(table: Table, columns: Sequence[int]) -> dict[int, np.ndarray]:
    """The numbers of those columns whose cells are numbers or say that there is none."""
    try:
        return dict(zip(columns, np.ascontiguousarray(table.numbers(columns).T), strict=True))
    except DataError:
        return {j: values for j in columns for values in _readable(table, [j]).values()} if len(columns) > 1 else {}


def _spectral_titles(table: Table, j: int) -> list[str]:
    return [h[j] for h in reversed(table.heads) if h[j] and is_spectral(h[j]) and number_of(h[j]) is None]


def _strength(title: str, values: np.ndarray, others: Sequence[np.ndarray], titled: bool, place: bool) -> int:
    """How clearly a column is an axis: 3 by its title, 2 by its numbers, 1 if it only counts, 0 if it is none."""
    if not np.isfinite(values).all() or len(values) < 2:
        return 0
    counts = is_count(values)
    if titled:
        if counts and plain(title) not in _COUNTED:
            return 1
        signs = np.sign(np.diff(values))
        return 3 if abs(signs.sum()) >= 0.8 * len(signs) else 2
    if place or (title and (is_process(title) or is_intensity(title))):
        return 0
    # Two columns are hardly spectra of two bands.
    alone = len(others) == 1 and not (title and is_name(title))
    if alone and mostly_in_order(values) and not mostly_in_order(others[0]):
        return 2
    if counts:
        return 1
    if title and is_name(title):
        return 0
    return 2 if looks_like_axis(values, others) else 0


def _titles(table: Table, columns: Sequence[int]) -> list[str]:
    return [table.title(j) for j in columns]


def _listed(table: Table, columns: Sequence[int]) -> str:
    titles = [table.title(j) or f"number {table.columns[j]}" for j in columns]
    return ", ".join(titles[:5]) + (", ..." if len(titles) > 5 else "")


def _in_columns(table: Table, numeric: Sequence[int], down: _Down | None, how: str) -> Reading:
    skipped = [] if down is None else [j for j in numeric if j < down.column]
    data = [j for j in numeric if down is None or j > down.column]
    texts = [j for j, kind in enumerate(table.kinds) if kind == "text" and (down is None or j != down.column)]
    values = table.numbers(data)
    again = np.array(
        [down is not None and _is_axis_again(table, j, v, down) for j, v in zip(data, values.T, strict=True)],
        dtype=bool,
    )
    repeated = [j for j, one in zip(data, again, strict=True) if one]
    data, values = [j for j, one in zip(data, again, strict=True) if not one], values[:, ~again]
    if down is not None and not data:
        raise DataError(
            f"'{table.path}' has an axis in column {table.columns[down.column]}, but no column of numbers behind it."
        )
    names, process = _column_labels(table, data)
    left_out = list(table.notes)
    if skipped or texts:
        left_out.append(f"columns {_listed(table, [*skipped, *texts])} (no spectra)")
    if repeated:
        left_out.append(f"column{'s' * (len(repeated) > 1)} {_listed(table, repeated)} (an axis again)")
    reading = Reading(
        values=np.ascontiguousarray(values.T),
        words=f"spectra in columns ({how})",
        names=names,
        process=process,
        labels="names in the header" if names else "",
        dialect=table.dialect,
        left_out=left_out,
        where=lambda row, band: _where(table, band, data[row]),
    )
    if down is not None:
        reading.axis, reading.axis_title = down.axis.values, down.title or None
        reading.axis_unit, reading.axis_place = down.axis.unit, f"in column {table.columns[down.column]}"
        bad = np.flatnonzero(~np.isfinite(reading.axis))
        if len(bad):
            raise DataError(f"{table.place(int(bad[0]), down.column)}: the axis has no number here.")
    return reading


def _is_axis_again(table: Table, j: int, values: np.ndarray, down: _Down) -> bool:
    """Whether the numbers of a column beside the axis repeat it, in the same or another unit."""
    if not monotonic(values):
        return False
    return _repeats(values.tolist(), down.axis.values) or bool(_spectral_titles(table, j))


def _where(table: Table, row: int, column: int) -> str:
    cell = table.rows[row][column]
    text = repr(cell) if cell else "the cell is empty"
    return f"in line {table.lines[row]}, column {table.columns[column]}: {text}"


def _column_labels(table: Table, columns: Sequence[int]) -> tuple[list[str] | None, tuple[str, np.ndarray] | None]:
    """Names of spectra that stand in columns, and the numbers they were measured along, from the header's lines."""
    names, process = None, None
    for head in table.heads:
        cells = [head[j] for j in columns]
        numbers = [number_of(c) for c in cells]
        plain_numbers = axis_of(cells) if len(cells) > 1 else None
        corner = head[0] if columns[0] > 0 else ""
        if (
            process is None
            and all(x is not None for x in numbers)
            and plain_numbers is not None
            and plain_numbers.plain
        ):
            known = is_process(corner)
            if known or not is_count(plain_numbers.values):
                process = (corner if known else "value in the header", plain_numbers.values)
        if names is None and any(cells) and len(set(cells)) == len(cells) and not all(map(is_intensity, cells)):
            names = cells
    if names is None and table.heads and any(titles := _titles(table, columns)):
        names = titles
    return names, process


def _in_rows(table: Table, numeric: Sequence[int], across: _Across | None, index: bool | str, how: str) -> Reading:
    texts = [j for j, kind in enumerate(table.kinds) if kind == "text"] if index != False else []  # noqa: E712
    bands = set() if across is None else set(across.columns)
    others = [j for j in numeric if j not in bands] if across is not None else []
    places = [j for j in _places(table, numeric) if across is None or j in others]
    if across is not None and len(others) == 2 and others == [0, 1] and not any(_titles(table, others)):
        places = others
    label = _label_column(table, numeric, texts, others, places, index)
    beside = {label, *others, *places}
    data = [j for j in numeric if j not in beside]
    if not data:
        raise DataError(f"'{table.path}' has no column of numbers beside {_listed(table, [*others, *texts])}.")
    names = None if label is None else table.column(label)
    process = None
    if label is not None and label in numeric and is_process(table.title(label)):
        process = (table.title(label), table.numbers([label])[:, 0])
    taken = {label, *data, *places}
    left = [j for j in [*texts, *numeric] if j not in taken]
    notes = list(table.notes)
    if left:
        notes.append(f"column{'s' * (len(left) > 1)} {_listed(table, sorted(left))} (no bands)")
    title = next((h[0] for h in reversed(table.heads) if is_spectral(h[0]) and h[0]), None) if data[0] > 0 else None
    if names is not None and label is not None and (statistics := _statistics_below(names)):
        notes.append(f"line{'s' * (len(statistics) > 1)} {', '.join(statistics)} (statistics of the others)")
        stop = len(names) - len(statistics)
        table = replace(table, rows=table.rows[:stop], lines=table.lines[:stop], plain=None)
        names = table.column(label)
        process = None if process is None else (process[0], process[1][:stop])
    if across is not None and data == across.columns:
        table = _without_repeated_heads(table, across, notes)
        names = None if label is None else table.column(label)
        process = None if process is None or label is None else (process[0], table.numbers([label])[:, 0])
    axis = None if across is None else across.axis
    counted = axis is not None and is_count(axis.values) and axis.unit is None
    reading = Reading(
        values=table.numbers(data),
        words=("a map, " if places else "") + "spectra in rows" + (f" ({how})" if how else ""),
        names=names,
        process=process,
        positions=table.numbers(places[:2]) if places else None,
        band_names=_titles(table, data) if table.heads else None,
        labels=("a header row" if table.heads else "no header row")
        + ("" if label is None else f", names in column {table.columns[label]}")
        + (f" {table.title(label)!r}" if label is not None and table.title(label) else "")
        + (f", x and y in columns {table.columns[places[0]]} and {table.columns[places[1]]}" if places else ""),
        dialect=table.dialect,
        left_out=notes,
        decided_by_default=how == "" and (axis is None or counted),
        where=lambda row, band: _where(table, row, data[band]),
    )
    if axis is not None and not counted:
        reading.axis, reading.axis_unit, reading.axis_title = (
            axis.values,
            axis.unit or unit_in_title(title or ""),
            title,
        )
        reading.axis_place = "in the header"
        if how == "":
            reading.words += " (the header is an axis)"
    elif table.heads and not counted:
        reading.no_axis = "the header has no numbers above all bands"
    elif counted:
        reading.no_axis = "the header only counts"
    return reading


def _without_repeated_heads(table: Table, across: _Across, notes: list[str]) -> Table:
    """Without rows that hold the header's numbers again, as in files that were joined; said in `notes`."""
    first = str(table.rows[0][across.columns[0]])
    axis = across.axis.values
    again = [
        i
        for i, row in enumerate(table.rows)
        if row[across.columns[-1]] != first
        and _repeats([number_of(row[j]) for j in across.columns[:2]], axis[:2])
        and _repeats([number_of(row[j]) for j in across.columns], axis)
    ]
    if not again or is_count(axis):
        return table
    notes.append(
        f"{len(again)} line{'s' * (len(again) > 1)} that repeat{'s' * (len(again) == 1)} the axis of the header"
    )
    keep = sorted(set(range(len(table.rows))) - set(again))
    return replace(table, rows=[table.rows[i] for i in keep], lines=[table.lines[i] for i in keep], plain=None)


def _statistics_below(names: Sequence[str]) -> list[str]:
    """Names of the last lines, where these are the mean, the deviation and the like of the lines above."""
    found: list[str] = []
    for name in reversed(names[_FEWEST:]):
        if not _STATISTIC.fullmatch(name.strip().lower()):
            break
        found.insert(0, name)
    return found


def _repeats(numbers: Sequence[float | None], axis: np.ndarray) -> bool:
    """Whether numbers are those of an axis, or the same places as wavelengths and wavenumbers."""
    values = np.array([np.nan if x is None else x for x in numbers])
    return np.array_equal(values, axis) or np.allclose(values * axis, 1e7, rtol=1e-3)


def _places(table: Table, numeric: Sequence[int]) -> list[int]:
    """Columns of x and y (and z), if a table has both: by titles, or without a header where they fill a raster."""
    if not table.heads and len(numeric) > 2 + _FEWEST and len(_readable(table, numeric[:2])) == 2:
        return list(numeric[:2]) if _fill_raster(table.numbers(numeric[:2])) else []
    found = [j for j in numeric if table.heads and is_position(table.title(j))]
    return found if 2 <= len(found) <= 3 and len({table.title(j).lower() for j in found}) == len(found) else []


def _fill_raster(positions: np.ndarray) -> bool:
    """Whether pairs of numbers are all places of a raster, line by line: three lines of three or more, evenly apart."""
    if not np.isfinite(positions).all():
        return False
    for fast, slow in ((0, 1), (1, 0)):
        across, down = np.unique(positions[:, fast]), np.unique(positions[:, slow])
        if min(len(across), len(down)) < _FEWEST or len(across) * len(down) != len(positions):
            continue
        lines = positions.reshape(len(down), len(across), 2)
        regular = all(np.allclose(np.diff(line), np.diff(line)[0], rtol=0.01) for line in (across, down))
        if regular and (lines[:, :1, slow] == lines[:, :, slow]).all() and monotonic(lines[:, 0, slow]):
            return True
    return False


def _label_column(
    table: Table,
    numeric: Sequence[int],
    texts: Sequence[int],
    others: Sequence[int],
    places: Sequence[int],
    index: bool | str,
) -> int | None:
    """The column that holds the names of spectra in rows; None if there is none."""
    if index is True:
        return 0
    if index is False:
        return None
    candidates = [*texts, *(j for j in others if j not in places)]
    named = [j for j in candidates if table.title(j) and is_name(table.title(j))]
    measured = [j for j in candidates if is_process(table.title(j))]
    first = texts[:1] if texts else [j for j in candidates if j == 0] if len(candidates) == 1 else []
    found = named[:1] or (texts[:1] if texts else measured[:1]) or first
    if found:
        return found[0]
    if not others and table.heads and len(numeric) > 1 and numeric[0] == 0:
        title = table.title(0)
        if is_name(title) or is_process(title):
            return 0
    return None


def _pairs(table: Table) -> Reading | None:
    """Columns in pairs of axis and values, as UV instruments write them: one spectrum a pair."""
    width = table.width
    if width < 4 or width % 2 or len(table.rows) < _FEWEST or set(table.kinds) != {"number"}:
        return None
    axes, data = list(range(0, width, 2)), list(range(1, width, 2))
    titled = all(_spectral_titles(table, j) for j in axes)
    differ = any(table.rows[0][j] != table.rows[0][0] for j in axes)
    if not titled and differ and len(table.rows) < _LONG_BLOCK:
        return None
    positions = table.numbers(axes)
    if not titled and differ:
        whole = positions[np.isfinite(positions).all(axis=1)]
        values = list(table.numbers(data).T)
        if not all(looks_like_axis(line, values) and plausible(line) for line in whole.T) or len(whole) < len(
            positions
        ):
            return None
    complete = np.isfinite(positions).all(axis=1)
    first = positions[complete][:, 0]
    same = len(first) >= _FEWEST and bool((positions[complete] == first[:, None]).all())
    if not (titled or differ) and not (same and looks_like_axis(first, list(table.numbers(data)[complete].T))):
        return None
    finite = np.isfinite(positions)
    if not same or not (finite.all(axis=1) | ~finite.any(axis=1)).all():
        raise DataError(
            f"'{table.path}' has pairs of axis and values in its columns, but the axes of the pairs differ; bring the "
            "spectra to one axis first (by interpolation, or by exporting them over the same range and step)."
        )
    names, _ = _column_labels(table, [j if any(h[j] for h in table.heads[:1]) else j - 1 for j in data])
    values = table.numbers(data)[complete]
    titles = _spectral_titles(table, 0)
    rows = np.flatnonzero(complete)
    return Reading(
        values=np.ascontiguousarray(values.T),
        words=f"spectra in columns ({len(data)} pairs of axis and values)",
        axis=first,
        axis_title=titles[0] if titles else None,
        axis_unit=unit_in_title(titles[0]) if titles else None,
        axis_place="in the first column of each pair",
        names=names,
        labels="names in the header" if names else "",
        dialect=table.dialect,
        left_out=list(table.notes),
        where=lambda row, band: _where(table, int(rows[band]), data[row]),
    )


def _long_table(table: Table) -> Reading | None:
    """One value a line: a place (x, y) or a time, the wavenumber, the intensity; None for any other table.

    Told by titles, or by the numbers: the last but one column repeats itself, in order, and the columns before it
    change only where it begins again.
    """
    if not 3 <= table.width <= 5 or set(table.kinds) != {"number"} or len(table.rows) < 2 * _LONG_BLOCK:
        return None
    titles = [table.title(j) for j in range(table.width)]
    axis = [j for j in range(table.width) if _spectral_titles(table, j) or plain(titles[j]) == "wave"]
    axis = [j for j in axis if not is_position(titles[j])] or [table.width - 2]
    outer = list(range(axis[0]))
    if len(axis) != 1 or axis[0] != table.width - 2 or not outer:
        return None
    values = table.numbers(range(table.width))
    ends = np.flatnonzero((np.diff(values[:, outer], axis=0) != 0).any(axis=1)) + 1
    length = int(ends[0]) if len(ends) else len(values)
    told = sum(is_position(titles[j]) or is_process(titles[j]) for j in outer) == len(outer)
    even = len(values) % length == 0 and np.array_equal(ends, np.arange(length, len(values), length))
    positions = values[:, axis[0]].reshape(-1, length) if even else None
    same = positions is not None and bool((positions == positions[0]).all())
    if not told and not (same and len(ends) and length >= _LONG_BLOCK and monotonic(positions[0])):  # type: ignore[index]
        return None
    if not even:
        raise DataError(
            f"'{table.path}' has a place or time, an axis and a value in each line, but its spectra have different "
            "numbers of values; export them over the same range."
        )
    if not same:
        raise DataError(
            f"'{table.path}' has a place or time, an axis and a value in each line, but its spectra have different "
            "axes; export them over the same range and step."
        )
    blocks = values.reshape(-1, length, table.width)
    places = [j for j in outer if is_position(titles[j])] or (outer if not told else [])
    places = places if len(places) > 1 else []
    along = next((j for j in outer if j not in places), None)
    return Reading(
        values=np.ascontiguousarray(blocks[:, :, -1]),
        words=f"one value a line, {len(blocks)} spectra" + (" at places of a map" if len(places) > 1 else ""),
        axis=blocks[0, :, axis[0]].copy(),
        axis_title=titles[axis[0]] or None,
        axis_unit=unit_in_title(titles[axis[0]]),
        axis_place=f"in column {table.columns[axis[0]]}",
        positions=blocks[:, 0, places[:2]].copy() if len(places) > 1 else None,
        process=None
        if along is None
        else (titles[along] or f"column {table.columns[along]}", blocks[:, 0, along].copy()),
        dialect=table.dialect,
        left_out=list(table.notes),
        where=lambda row, band: _where(table, row * length + band, table.width - 1),
    )
