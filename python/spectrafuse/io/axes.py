"""What numbers and titles say about an axis: wavelengths, wavenumbers and the like, or times, pH, positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spectrafuse.io.units import WORDS, plain_signs, quantity, unit_in_title

_EVEN = 10.0
_LONG = 8
_SHARE_IN_ORDER = 0.9
_NUMBER = r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?"
_PROCESS_UNITS = {
    "min": r"mins?|minutes?|minuten",
    "s": r"s|secs?|seconds?|sekunden",
    "h": r"h|hrs?|hours?|stunden",
    "d": r"d|days?|tage",
    "°C": r"°c|degc|celsius",
    "K": r"k|kelvin",
    "mM": r"mm|mmol/l",
    "V": r"v|volts?",
}
_CELL = re.compile(
    rf"(?P<before>[^\d+\-.,]*?(?:(?<=[^\W\d_])[.,])?)(?P<number>{_NUMBER})[\s_]*(?P<after>{'|'.join(WORDS.values())})?",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"\d{1,3}(?P<by>(?P<dot>\.)|(?P<comma>,)|[ '’\u00a0\u202f])\d{3}(?:(?P=by)\d{3})*"
                      r"(?(dot),\d+|(?(comma)\.\d+|(?:[.,]\d+)?))")  # fmt: skip
_SPECTRAL = re.compile(
    r"wave(length|number|s)?s?|wl|wls|wn|wvl|lambda|λ|lam|.*wavelengths?.*|.*wavenumbers?.*|(raman|stokes|chemical)?shift"
    r"|.*ramanshift.*|wellenzahl(en)?|wellenlangen?|wellenlängen?|.*longueurs?donde.*|.*nombres?donde.*|.*longitudde?onda.*"
    r"|.*numerodeonda.*|.*númerodeonda.*|.*comprimentodeonda.*|.*lunghezzadonda.*|.*numerodonda.*|.*длинаволны.*"
    r"|.*волновоечисло.*|波长|波數|波数|波長|拉曼位移|ラマンシフト|energ(y|ie|ia|ía)|.*photonenergy|frequen(cy|z)|fréquence|freqs?"
    r"|frequenc[iy]a|mz|mass|massz|mtoz|ppm|nm|cm1|1cm|ev|kev|(x|spectral)?axis|xvalues?|2theta|twotheta|2θ"
    r"|channels?|bands?|pixels?|kan[aä]le?|variables?"
)
_PROCESS = re.compile(
    r"t|time.*|.*time|zeit|.*zeit|temps|tiempo|tempo|время|时间|ph|temp|temperatur[ea]?|temperature.*|min|minutes|s|sec|seconds|h|hours"
    r"|days?|elapsed.*|retention.*|rt|rettime|voltage|potential|dose|volume|titrant|pressure|conc(entration)?|cycle|scan(no|number)?|step"
)
_NAMES = re.compile(
    r"(index|id|row|no|nr|#|date|datum|names?|labels?|files?(name)?|samples?(id|names?|no|nr|number|nummer)?|proben?(nr|nummer|name)?"
    r"|muestras?|échantillons?|echantillons?|(spectr(um|a)|spektr(um|en))(id|no|number)?|components?|unnamed0?|replicate|"
    r"experiment|run)?"
)
_POSITION = re.compile(
    r"([xyz])(pos(ition)?|coord(inate)?|um|µm|mm)?|(row|line|col(umn)?)s?(index|no)?|pixel[xy]|[xy]pixel"
)
_INTENSITY = re.compile(
    r"abs(orbance)?|absorption|int(ensity)?|intensität|extinktion|counts?|a|au|t|%t|r|%r|signal|y"
    r"|transmittance|transmission|reflectance|values?|cps|arbunits?|arb"
)


class Axis(NamedTuple):
    """Numbers of an axis.

    Attributes
    ----------
    values : ndarray, float64
        In the file's order.
    unit : str or None
        Unit that stands with the numbers or in the title.
    plain : bool
        The numbers stand alone or with a unit, not after letters ("X400").
    """

    values: np.ndarray
    unit: str | None
    plain: bool


def plain(text: str) -> str:
    """Text as titles are compared: lower case, letters and digits alone, without what stands in brackets."""
    bare = re.sub(r"[\[(].*?[\])]", "", plain_signs(text)) or plain_signs(text)
    bare = re.sub(r"(?<=\w)/(?!z).*", "", bare)
    return "".join(c for c in bare if c.isalnum() or c in "#%°")


def is_spectral(title: str) -> bool:
    """Whether a title says wavelength, wavenumber, Raman shift, m/z, energy or the like, in several languages."""
    return unit_in_title(title) is not None or _SPECTRAL.fullmatch(plain(title)) is not None


def names_axis(title: str) -> bool:
    """Whether the words of a title say so, whatever its unit: "Laser (nm)" does not."""
    return _SPECTRAL.fullmatch(plain(title)) is not None


def is_process(title: str) -> bool:
    """Whether a title says time, pH, temperature or the like: what spectra were measured along."""
    if unit_in_title(title) is not None or _SPECTRAL.fullmatch(plain(title)):
        return False
    return _PROCESS.fullmatch(plain(title)) is not None or (
        len(title) > 2 and unit_in_title(title, _PROCESS_UNITS) is not None and not is_position(title)
    )


def is_name(title: str) -> bool:
    """Whether a title stands above names or numbers of samples; an empty one does."""
    return _NAMES.fullmatch(plain(title)) is not None


def is_position(title: str) -> bool:
    """Whether a title says x, y, row or column: the place of a spectrum in a map."""
    return _POSITION.fullmatch(plain(title)) is not None


def is_intensity(title: str) -> bool:
    """Whether a title says absorbance, counts or another measured quantity, or a unit alone."""
    return _INTENSITY.fullmatch(plain(title)) is not None


def _match(cell: str) -> re.Match[str] | None:
    """The parts of a cell with a number; separators of thousands beside a decimal sign, or blanks, are taken out."""
    text = plain_signs(cell).strip()
    grouped = _GROUPED.fullmatch(text)
    return _CELL.fullmatch(re.sub(rf"(?<=\d){re.escape(grouped['by'])}(?=\d{{3}})", "", text) if grouped else text)


def number_of(cell: str) -> float | None:
    """The number of a header's cell such as `400`, `1 115,0`, `X1115.0`, `400 nm`, `Abs@400nm`; None without one."""
    found = _match(cell)
    return None if found is None else float(found["number"].replace(",", "."))


def alike(cells: Sequence[str], columns: Sequence[int]) -> list[int]:
    """Of the columns under cells with numbers, those with the letters before the number that most cells have."""
    found = [_match(cell) for cell in cells]
    letters = [m["before"] if m is not None else None for m in found]
    most = max(set(letters), key=letters.count)
    return [j for j, own in zip(columns, letters, strict=True) if own == most]


def axis_of(cells: Sequence[str]) -> Axis | None:
    """The numbers of a header whose cells all are numbers, with the same letters before or none and perhaps a unit."""
    found = [_match(cell) for cell in cells]
    matches = [m for m in found if m is not None]
    if len(matches) < 2 or len(matches) < len(found) or len({m["before"] for m in matches}) > 1:
        return None
    values = np.array([float(m["number"].replace(",", ".")) for m in matches])
    if not np.isfinite(values).all():
        return None
    after = {m["after"] for m in matches}
    unit = unit_in_title(after.pop() or "") if len(after) == 1 else None
    return Axis(values, unit, matches[0]["before"].strip() == "" or unit is not None)


def monotonic(values: np.ndarray) -> bool:
    """Whether numbers strictly rise or strictly fall."""
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def is_count(values: np.ndarray) -> bool:
    """Whether numbers only count: 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(np.array_equal(values, np.arange(len(values)) + first) for first in (0, 1))


def evenly(values: np.ndarray) -> bool:
    """Whether numbers rise or fall, the largest step at most ten times the smallest."""
    if len(values) < 3 or not np.isfinite(values).all() or not monotonic(values):
        return False
    steps = np.abs(np.diff(values))
    return bool(steps.max() <= _EVEN * steps.min())


def mostly_in_order(values: np.ndarray) -> bool:
    """Whether numbers rise or fall but for a few reversals or repetitions, as where two detectors meet."""
    signs = np.sign(np.diff(values))
    return len(values) >= _LONG and bool(abs(signs.sum()) >= _SHARE_IN_ORDER * len(signs))


def _equal_steps(values: np.ndarray) -> bool:
    steps = np.abs(np.diff(values))
    return len(values) >= 4 and monotonic(values) and bool(steps.max() <= 1.02 * steps.min())


def looks_like_axis(values: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether a line of numbers is an axis beside lines of data.

    It rises or falls evenly (at most ten times the smallest step; a few reversals or repetitions are let pass where
    its numbers are far larger than the others), and is unlike the rest: ten times larger than all of it; or with equal
    steps where no other line has them; or at least eight long where no other line rises or falls throughout.

    Parameters
    ----------
    values : ndarray, shape (n,)
    others : sequence of ndarray, each of shape (n,)
        Lines that run beside it; NaN where a number is missing.
    """
    if len(values) < 3 or not np.isfinite(values).all():
        return False
    largest = max((np.nanmax(np.abs(line)) for line in others if np.isfinite(line).any()), default=np.inf)
    apart = bool(np.abs(values).min() > 10 * largest)
    if not evenly(values):
        return apart and mostly_in_order(values)
    if apart:
        return True
    whole = [line for line in others if len(line) == len(values) and np.isfinite(line).all()]
    if _equal_steps(values) and not any(_equal_steps(line) for line in whole):
        return True
    return len(values) >= _LONG and not any(monotonic(line) for line in whole)


def falls(title: str | None, unit: str | None, values: np.ndarray) -> bool:
    """Whether an axis is drawn from large to small: IR wavenumbers, chemical shifts, else as the file has it.

    Raman shifts, wavelengths and what else has a title or unit rise.
    """
    if title is None and unit is None:
        return monotonic(values) and bool(values[0] > values[-1])
    words = plain(title or "")
    if "raman" in words or "stokes" in words:
        return False
    return unit in ("cm⁻¹", "ppm") or any(w in words for w in ("wavenumber", "wellenzahl", "chemicalshift", "波数"))


def axis_label(title: str | None, unit: str | None) -> str:
    """What a picture calls an axis: the file's own title, with the unit."""
    if title is not None and number_of(title) is None:
        return title if unit is None or unit_in_title(title) == unit else f"{title} ({unit})"
    return "spectral axis of the file" if unit is None else f"{quantity(unit, 'axis')} ({unit})"


def plausible(values: np.ndarray) -> bool:
    """Whether numbers can be wavelengths in nm or wavenumbers in cm-1: all from 50 on; times and pH begin lower."""
    return bool(values.min() >= 50 and values.max() >= 150)


def remarks(values: np.ndarray) -> list[str]:
    """What is unusual in an axis that is kept as it is: repeated numbers, reversals, a step far too small."""
    steps = np.diff(values)
    if not len(steps) or monotonic(values):
        small = np.flatnonzero(np.abs(steps) < 0.05 * np.median(np.abs(steps))) if len(steps) > 2 else np.empty(0, int)
        if not len(small):
            return []
        at = int(small[0])
        return [f"axis step from {values[at]:g} to {values[at + 1]:g} far smaller than the others: a repeated band?"]
    notes = []
    numbers, counts = np.unique(values, return_counts=True)
    if counts.max() > 1:
        again = numbers[counts > 1]
        notes.append(f"axis repeats {', '.join(f'{v:g}' for v in again[:3])}{', ...' if len(again) > 3 else ''}")
    turns = np.flatnonzero(np.sign(steps) == -np.sign(np.median(np.sign(steps)) or 1.0))
    if len(turns):
        at = int(turns[0])
        more = f" and {len(turns) - 1} times more" if len(turns) > 1 else ""
        notes.append(f"axis is not in order: from {values[at]:g} to {values[at + 1]:g} at band {at + 2}{more}; kept")
    return notes
