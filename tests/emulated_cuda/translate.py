"""CUDA sources as C++ for the emulation: the launch becomes a call, shared variables memory of the block.

translate.py FROM TO: every file of one folder into the other
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LAUNCH = re.compile(r"(\w+)<<<(.*?)>>>(?=\()", re.DOTALL)
SHARED = re.compile(r"__shared__ (\w+(?:<[^<>;]*>)?) ([^;]*);")
DECLARATOR = re.compile(r"(\w+)((?:\[[^\]]*\])*)$")


def _shared(match: re.Match[str]) -> str:
    kind, out = match[1], ""
    for declarator in re.split(r",(?![^\[]*\])", match[2]):
        found = DECLARATOR.match(declarator.strip())
        assert found is not None, f"not understood: {match[0]}"
        name, dims = found.groups()
        out += f"static char {name}_key; auto& {name} = ::emulated::shared<{kind}{dims}>(&{name}_key); "
    return out


def translated(text: str, name: str) -> str:
    """The text of one file; compilers and sanitizers speak of it by this name, line by line."""
    return f'#line 1 "{name}"\n' + SHARED.sub(_shared, LAUNCH.sub(r"::emulated::launcher(\1, \2)", text))


def translate(source: Path, target: Path) -> None:
    """Every file of a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        (target / path.name).write_text(translated(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")


if __name__ == "__main__":
    translate(*map(Path, sys.argv[1:]))
