"""The page of a run: one file that needs no other, says what the command said, and takes names as text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from helpers.command_line import UNMIX, run
from spectrafuse.reports import page
from spectrafuse.reports.page import Caution, Grid, save_report

RECORD: dict[str, Any] = {
    "inputs": [{"file": "scene.mat", "sha256": "ab12", "reading": "scene.mat: 2 rows, 3 columns, 4 bands"}],
    "parameters": {"n_clusters": 3},
    "request": {"command": "segment"},
    "versions": {"spectrafuse": "9.9"},
    "seconds": 12.0,
    "cpu": "some processor",
    "finished_at": "2026-01-02T03:04:05+00:00",
}


class Text(HTMLParser):
    """The text of a page, and its tags with what they load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.loaded, self.tags = "", [], []  # type: ignore[var-annotated]
        self.feed(source)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def written(folder: Path, **changes: Any) -> tuple[str, Text]:
    given = {"title": "Segmentation of scene", "blocks": [], "captions": {}, "record": RECORD, **changes}
    save_report(folder / "report.html", **given)
    source = (folder / "report.html").read_text(encoding="utf-8")
    return source, Text(source)


def test_a_page_says_what_a_command_says_in_its_order(tmp_path: Path) -> None:
    blocks = ["all is well", Caution("but `trust` it not"), Grid("clusters", ("cluster", "share"), [["1", "70 %"]])]
    _, found = written(tmp_path, blocks=blocks)
    parts = ["Segmentation of scene", "12 s on some processor", "2 rows, 3 columns", "all is well", "Caution:"]
    parts += ["but trust it not", "clusters", "70 %", "n_clusters", "ab12", "arXiv:2512.24172", "version 9.9"]
    places = [found.text.index(part) for part in parts]
    assert places == sorted(places)
    assert found.tags.count("code") == 1


def test_a_title_names_the_first_of_many_files() -> None:
    assert page.title_of("Unmixing", ["a", "b", "c", "d"]) == "Unmixing of a, b, c, d"
    assert page.title_of("Unmixing", ["a", "b", "c", "d", "e"]) == "Unmixing of a, b, c, 2 more"


NAMES = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "${x}", "\x1b[31m\u202e", "\udcff", "'"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text(tmp_path: Path, name: str) -> None:
    record = {
        **RECORD,
        "inputs": [{"file": name, "reading": name}],
        "parameters": {name: name},
        "request": {"command": "unmix", name: name},
    }
    plain, _ = written(tmp_path, record={**RECORD, "request": {"command": "unmix"}})
    blocks = [name, Caution(name), Grid(name, (name,), [[name]])]
    source, found = written(tmp_path, record=record, title=name, blocks=blocks, captions={name: name})
    assert set(found.tags) <= {*Text(plain).tags, "table", "caption", "thead", "tbody", "tr", "th", "td", "strong"}
    assert found.loaded == []
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", source)


def test_pictures_are_inside_and_nothing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.png", "a.png", "b/map.png"):
        (tmp_path / name).write_bytes(b"\x89PNG" + name.encode())
    source, found = written(tmp_path, captions={"z.png": "the last is first"})
    assert len(found.loaded) == 3
    assert all(one.startswith("data:image/png;base64,") for one in found.loaded)
    assert found.text.index("b/map.png") < found.text.index("z.png: the last is first") < found.text.index("a.png")
    assert "default-src 'none'" in source
    monkeypatch.setattr(page, "MOST_PICTURE_BYTES", 9)
    _, found = written(tmp_path)
    assert len(found.loaded) == 2
    assert "b/map.png (too large for this page)" in found.text


def test_a_segmentation_and_its_page_say_the_same(segmented: tuple[Path, Result]) -> None:
    output, result = segmented
    found = Text((output / "report.html").read_text(encoding="utf-8"))
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    for part in (record["stop_reason"], f"mean IoU {record['scores']['mean_iou']:.3f}", record["inputs"][0]["sha256"]):
        assert part in found.text
    printed = " ".join(result.stdout.split())
    assert record["stop_reason"] in printed
    for row in record["clusters"][0]:
        assert str(row["pixels"]) in found.text
    assert found.tags.count("img") == 4
    assert record["sha256"].keys() >= {"report.html"}


@pytest.mark.slow
def test_an_unmixing_and_its_page_say_the_same(table: Path, tmp_path: Path) -> None:
    result = run("unmix", table, "-o", tmp_path / "out", *UNMIX)
    assert result.exit_code == 0, result.output
    found = Text((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    sentences = [record["chosen_reason"], record["stop_reason"], *record["count_evidence"]["cautions"]]
    for sentence in (*sentences, record["inputs"][0]["reading"], "arXiv:2507.23600"):
        assert sentence in found.text
    assert "9 spectra of 20 bands" in found.text


@pytest.mark.slow
@pytest.mark.process
def test_a_browser_shows_it(segmented: tuple[Path, Result], tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    output, _ = segmented
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    shown = tmp_path / "shown.png"
    words = [browser, *quiet, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shown}"]
    address = (output / "report.html").as_uri()
    subprocess.run([*words, "--window-size=900,6000", address], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    pixels = imread(shown)[..., :3]
    # Text, tables and the pictures of four clusters: many rows hold ink, and some of it has color.
    assert (pixels.min(axis=(1, 2)) < 0.9).mean() > 0.3
    assert (np.ptp(pixels, axis=2) > 0.3).sum() > 1000
