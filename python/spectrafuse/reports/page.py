"""A run's results on one page, `report.html`: a single file with its pictures inside, to be mailed or kept.

The same blocks that a page is made of are what a command prints at its end, so that both say the same.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrafuse._runtime.text import in_html
from spectrafuse.io.atomic import atomic_write

REPORT = "report.html"
MOST_PICTURE_BYTES = 8 << 20

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #22262b; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; border-bottom: 1px solid #e2e5e9; padding-bottom: .25rem; }
p { margin: .4rem 0; white-space: pre-line; }
.small { color: #5d6670; font-size: .875rem; }
.caution { border-left: 4px solid #d1495b; background: #fdf3f4; padding: .4rem .75rem; }
figure { margin: 1.25rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid #eceef1; }
figcaption { color: #5d6670; font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: right; padding: .2rem .75rem; border-bottom: 1px solid #eceef1; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
summary { cursor: pointer; }
@media print { body { margin: 0; max-width: none; } figure { break-inside: avoid; } }
"""

CITE = {
    "segment": (
        "Deep Global Clustering",
        "Y.-T. Chang, P.-W. Chen, S.-F. Chen: Deep Global Clustering for Hyperspectral Image Segmentation: Concepts, "
        "Applications, and Open Challenges. arXiv:2512.24172 (2025).",
    ),
    "unmix": (
        "EB-gMCR",
        "Y.-T. Chang, S.-F. Chen: EB-gMCR: Energy-Based Generative Modeling for Signal Unmixing and Multivariate Curve "
        "Resolution. arXiv:2507.23600 (2025).",
    ),
}
"""By the command: the algorithm, and its paper."""


@dataclass(frozen=True)
class Caution:
    """A sentence about what a result may not be trusted for."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A small table; its cells are text.

    Attributes
    ----------
    title : str
    columns : sequence of str
    rows : list of list of str
    left : sequence of str
        Columns of words, which are set to the left.
    """

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    left: Sequence[str] = ()


Block = str | Caution | Grid
"""What a command has to say: a sentence, a caution, a table."""


def title_of(what: str, names: Sequence[str]) -> str:
    """`what`, and the files that it is of: all, or the first of many."""
    shown = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
    return f"{what} of {', '.join(shown)}"


def save_report(
    path: Path,
    *,
    title: str,
    blocks: Iterable[Block],
    captions: Mapping[str, str],
    record: Mapping[str, Any],
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        Its file; pictures and results lie in the folder of it and below.
    title : str
    blocks : iterable of Block
        What the command prints.
    captions : mapping of str to str
        What pictures show, by the name of their file, in the order that they are shown in; others follow.
    record : mapping
        As in `run.json`: `inputs`, `request`, `parameters`, `versions` and the circumstances of the run; `made_by`, the
        command that made a stored model.
    """
    folder = path.parent
    # File by file, then what all have in common.
    pictures = sorted(
        folder.rglob("*.png"), key=lambda one: (one.parent == folder, str(one.parent), _place(one.name, captions))
    )
    parts = [
        f"<h1>{in_html(title)}</h1>",
        f'<p class="small">{in_html(_circumstances(record))}</p>',
        "<h2>What was read</h2>",
        *(f"<p>{in_html(str(item.get('reading', item['file'])))}</p>" for item in record["inputs"]),
        "<h2>Result</h2>",
        *map(_block, blocks),
        "<h2>Pictures</h2>" if pictures else "",
        *(_picture(one, folder, captions) for one in pictures),
        "<h2>Parameters</h2>",
        _table(Grid("", ("parameter", "value"), [[k, _plain(v)] for k, v in sorted(record["parameters"].items())])),
        "<h2>Provenance</h2>",
        _table(Grid("", ("", ""), list(_provenance(record)))),
        _details("Everything the run was asked for", record.get("request", {})),
        "<h2>How to cite</h2>",
        *(f"<p>{in_html(text)}</p>" for text in _citations(record)),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{in_html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _place(name: str, captions: Mapping[str, str]) -> tuple[int, str]:
    order = list(captions)
    return (order.index(name) if name in order else len(order)), name


def _circumstances(record: Mapping[str, Any]) -> str:
    version = record.get("versions", {}).get("spectrafuse", "")
    parts = [f"spectrafuse {version}".strip(), str(record.get("finished_at", "")).replace("T", " ")]
    if "seconds" in record:
        parts.append(f"{record['seconds']:.4g} s on {record.get('cpu') or 'an unknown processor'}")
    return " · ".join(part for part in parts if part)


def _block(block: Block) -> str:
    if isinstance(block, Grid):
        return _table(block)
    if isinstance(block, Caution):
        return f'<p class="caution"><strong>Caution:</strong> {_sentence(block.text)}</p>'
    return f"<p>{_sentence(block)}</p>"


def _sentence(text: str) -> str:
    """A sentence of ours, in which names of options stand between backticks."""
    return re.sub("`([^`<>]+)`", r"<code>\1</code>", in_html(text))


def _table(grid: Grid) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{in_html(cell)}</{tag}>' for cell in cells)}</tr>"

    caption = f"<caption>{in_html(grid.title)}</caption>" if grid.title else ""
    head = f"<thead>{row('th', grid.columns)}</thead>" if any(grid.columns) else ""
    body = "".join(row("td", cells) for cells in grid.rows)
    return f'<div class="wide"><table>{caption}{head}<tbody>{body}</tbody></table></div>'


def _picture(path: Path, folder: Path, captions: Mapping[str, str]) -> str:
    name = path.relative_to(folder).as_posix()
    caption = captions.get(path.name, "")
    said = f"{name}: {caption}" if caption else name
    if path.stat().st_size > MOST_PICTURE_BYTES:
        return f"<p>{in_html(f'{said} (too large for this page)')}</p>"
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{in_html(said)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{in_html(said)}</figcaption></figure>"
    )


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _provenance(record: Mapping[str, Any]) -> Iterable[list[str]]:
    for item in record["inputs"]:
        yield ["file", str(item["file"])]
        yield ["its SHA-256", str(item.get("sha256") or "unknown")]
    for name, words in (("seed", "random seed"), ("device", "device"), ("threads", "threads"), ("platform", "system")):
        if record.get(name) is not None:
            yield [words, str(record[name])]
    yield ["versions", ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())]


def _details(title: str, values: Any) -> str:
    text = json.dumps(values, indent=1, default=str, ensure_ascii=False)
    return f"<details><summary>{in_html(title)}</summary><pre>{in_html(text)}</pre></details>"


def _citations(record: Mapping[str, Any]) -> list[str]:
    command = record.get("made_by") or record.get("request", {}).get("command")
    version = record.get("versions", {}).get("spectrafuse", "")
    software = f"The software: spectrafuse, version {version}."
    if command not in CITE:
        return [software]
    algorithm, paper = CITE[command]
    return [f"The algorithm, {algorithm}: {paper}", software]
