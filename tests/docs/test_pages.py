"""README and pages: tables as stored figures give them, links that lead somewhere, commands and names that exist."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from scipy.io import savemat

import spectrafuse as sf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("a*/*.md"))]
PAGES += sorted(DOCS.glob("guide/*.md"))

sys.path[:0] = [str(DOCS / "_extensions"), str(ROOT / "benchmarks")]
import broken_links  # noqa: E402
import links_to_files  # noqa: E402

import figures  # noqa: E402


def test_tables_are_those_of_the_stored_figures() -> None:
    assert [str(page.relative_to(ROOT)) for page in figures.outdated()] == [], "`make headline` writes them"


def test_other_figures_make_other_tables(tmp_path: Path) -> None:
    for page in figures.PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    for file in {file for page in figures.PAGES for file in sources(tmp_path / page)}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    assert figures.outdated(tmp_path) == {}
    rows = tmp_path / "benchmarks" / "results" / "scaling" / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace('"commit": "', '"commit": "other'), encoding="utf-8")
    assert list(figures.outdated(tmp_path)) == [tmp_path / "docs" / "scaling.md"]


def sources(page: Path) -> list[str]:
    return [
        file for _, files, _ in figures.BLOCK.findall(page.read_text(encoding="utf-8")) for file in files.split(" and ")
    ]


def test_readme_is_two_screens_with_small_pictures() -> None:
    text = README.read_text(encoding="utf-8")
    seen = re.sub("<details><summary>(.*?)</summary>.*?</details>", r"\1", text, flags=re.DOTALL)
    assert len(seen.splitlines()) <= 105
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 2
    assert all((ROOT / picture).stat().st_size <= 150_000 for picture in pictures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links_to_files.rewritten(text, page, page, DOCS, {})
    # Anchors within the repository's Markdown, as its pages show them.
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        file = page.parent / target if target else page
        titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, (
            target,
            anchor,
        )


def test_commands_and_options_on_the_pages_exist() -> None:
    from spectrafuse.cli.app import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {option for one in command.params for option in one.opts} for name, command in commands.items()}
    known["profile"] = known["segment"] | known["unmix"]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, rest in re.findall(r"^spectrafuse ([a-z]+)(.*)$", text, re.MULTILINE):
            assert name in known, (page, name)
            unknown = set(re.findall(r"(?<!\w)--[a-z-]+", rest)) - known[name]
            assert not unknown, (page, name, unknown)
        mentioned = {option for span in re.findall(r"`(--[^`]+)`", text) for option in re.findall(r"--[a-z-]+", span)}
        assert mentioned <= set().union(*known.values()), page


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [README, DOCS / "getting_started.md"], ids=lambda page: page.name)
def test_python_on_the_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    materials = rng.uniform(0.2, 1.0, (16, 12))[(np.arange(24)[:, None] // 6) * 4 + np.arange(24) // 6]
    savemat("scene.mat", {"cube": materials + rng.normal(0, 0.01, (24, 24, 12)), "wavelengths": np.arange(12.0) + 400})

    class Quick(sf.DeepGlobalClustering):  # type: ignore[misc]
        def fit(self, X: Any, *arguments: Any, **options: Any) -> Any:
            self.max_epoch = 1
            return super().fit(X, *arguments, **options)

    Quick.__init__.__signature__ = None  # type: ignore[attr-defined]
    monkeypatch.setattr(Quick, "_get_param_names", sf.DeepGlobalClustering._get_param_names)
    monkeypatch.setitem(vars(sf), "DeepGlobalClustering", Quick)
    names: dict[str, Any] = {"X": sf.mcr.MixtureSynthesizer(3, 60, snr_db=30.0).generate(40).spectra.numpy()}
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec"), names)
    assert names["labels"].shape == (24, 24)
    assert names["C"].shape == (40, names["mcr"].n_components_) == (40, 3)
    assert Path("model", "config.json").exists()


def test_reference_names_everything_public() -> None:
    entry = re.compile(r"^   ([A-Za-z]\w*(?:\.\w+)*)$", re.MULTILINE)
    module = re.compile(r"^\.\. currentmodule:: (\S+)$", re.MULTILINE)
    found: set[str] = set()
    for page in (DOCS / "api").glob("*.rst"):
        parts = module.split(page.read_text(encoding="utf-8"))
        for inside, text in zip(["", *parts[1::2]], parts[::2], strict=True):
            found |= {f"{inside}.{name}" if inside else name for name in entry.findall(text)}
    for name in found:
        home, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(home), last), name
    found |= {name.replace("spectrafuse.mcr.constraints.", "spectrafuse.mcr.") for name in found}
    estimators = {"DeepGlobalClustering", "EBgMCR"}
    for home, kept in {"": {"__version__"}, ".mcr": {"constraints", *estimators}, ".dgc": estimators}.items():
        for name in set(importlib.import_module(f"spectrafuse{home}").__all__) - kept:
            assert f"spectrafuse{home}.{name}" in found, name
    for home in (".io", ".ops"):
        for name in importlib.import_module(f"spectrafuse{home}").__all__:
            assert f"spectrafuse{home}.{name}" in found, name


def test_links_become_those_of_the_site(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "gallery").mkdir(parents=True)
    for name in ("results.md", "code.py", "docs/guide.md", "docs/gallery/first.py", "docs/picture.png"):
        (tmp_path / name).touch()
    pages = {"results.md": "generated/results.md"}

    def rewritten(text: str) -> str:
        return links_to_files.rewritten(text, docs / "page.md", docs / "generated" / "page.md", docs, pages)

    assert rewritten("[a](../results.md#end)") == "[a](results.md#end)"
    assert (
        rewritten("[a](guide.md) [b](https://x.org/y) [c](#here)") == "[a](../guide.md) [b](https://x.org/y) [c](#here)"
    )
    assert rewritten("[a](gallery/first.py)") == "[a](gallery/first.rst)"
    assert rewritten("![a](picture.png)") == "![a](../picture.png)"
    assert rewritten("[`code`](../code.py) and `[not](a link)`") == "`code` and `[not](a link)`"
    with pytest.raises(FileNotFoundError, match=r"missing\.md does not exist"):
        rewritten("[a](missing.md)")


def test_broken_links_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a> <a href="https://x.org">y</a> <p id="up">', "utf-8")
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1><a href="a.html#up">z</a>', encoding="utf-8")
    assert broken_links.broken(tmp_path) == []
    (tmp_path / "b.html").write_text('<img src="c.png"><a href="a.html#down">z</a>', encoding="utf-8")
    assert sorted(broken_links.broken(tmp_path)) == [
        "a.html: b.html#there has no such anchor",
        "b.html: a.html#down has no such anchor",
        "b.html: c.png does not exist",
    ]
