"""Text of the user's on its way out of the program: names of files, variables and samples, cells, exceptions.

Such text is data: it may hold characters that no file or terminal can take (names that are not UTF-8), that move the
cursor, that turn the direction of writing, or that mean something where they arrive. Every way out has a function here.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

MOST_CHARACTERS = 500
"""Of a message."""

# Control characters, marks of the direction of writing, invisible characters, separators of lines, lone surrogates.
_HIDDEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\ud800-\\udfff\\ufeff\\ufff0-\\uffff\\U000e0000-\\U000e0fff]"
)
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SEPARATORS = re.compile(r'[/\\:*?"<>|]')
_LONGEST_NAME = 100
_LONGEST_LINE = 250


def printable(text: str, *, keep: str = "") -> str:
    """Text whose hidden characters are shown as escapes: `\\x1b`, `\\u202e`; those in `keep` stay.

    The bytes of a file name that is not UTF-8 are shown as such: `\\xff`.
    """

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        code = ord(character)
        # Python's stand-ins for bytes that are not UTF-8.
        if 0xDC80 <= code <= 0xDCFF:
            code -= 0xDC00
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _HIDDEN.sub(escape, text)


def message(text: str) -> str:
    """A message on one line of at most `MOST_CHARACTERS`; of a longer one the middle is left out."""
    line = printable(" ".join(text[: 50 * MOST_CHARACTERS].split()))
    if len(line) <= MOST_CHARACTERS and len(text) <= 50 * MOST_CHARACTERS:
        return line
    end = printable(" ".join(text[-2 * MOST_CHARACTERS :].split()))
    half = MOST_CHARACTERS // 2
    return f"{line[: half - 3]} ... {end[-half + 3 :]}"


def in_picture(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign begins no formula; long lines are cut."""
    lines = (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in text.split("\n"))
    return "\n".join(printable(line) for line in lines).replace("$", r"\$")


def in_csv(text: str) -> str:
    """A cell of a table; an apostrophe before what a spreadsheet would take for a formula, numbers aside."""
    shown = printable(text)
    if _FORMULA.match(shown) and not _NUMBER.fullmatch(shown):
        shown = f"'{shown}"
    return '"' + shown.replace('"', '""') + '"' if re.search(r'[,;"|]|^\s|\s$', shown) else shown


def in_html(text: str) -> str:
    """Text between tags or in an attribute's quotes of a page."""
    return html.escape(printable(text, keep="\n"))


def in_json(text: str) -> str:
    """JSON that was made with `ensure_ascii=False`, its hidden characters as JSON's own escapes."""

    def escape(match: re.Match[str]) -> str:
        if match[0] == "\n":
            return match[0]
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    return _HIDDEN.sub(escape, text)


def file_name(text: str, otherwise: str) -> str:
    """A name for a file or folder that every file system takes, much like a text; `otherwise` where nothing is left."""
    name = _SEPARATORS.sub("_", printable(unicodedata.normalize("NFC", text)).replace("\\", "_"))
    name = name.encode()[:_LONGEST_NAME].decode(errors="ignore").strip(". ")
    return f"{name}_" if _RESERVED.fullmatch(name) else name or otherwise


def distinct_names(texts: Iterable[str], otherwise: str, taken: Iterable[str] = ()) -> list[str]:
    """File names of several texts, numbered where another one, or one of `taken`, has it, also in other capitals."""
    used = {name.casefold() for name in taken}
    names: list[str] = []
    for text in texts:
        first = file_name(text, otherwise)
        name, number = first, 2
        while name.casefold() in used:
            name, number = f"{first}-{number}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names
