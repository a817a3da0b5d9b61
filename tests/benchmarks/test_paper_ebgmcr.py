"""The runner of the yardstick of counts: rows, going on, and what it writes from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import rows_of_program


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch):
    import paper_ebgmcr

    monkeypatch.setattr(paper_ebgmcr.cases, "BANDS", 64)
    monkeypatch.setattr(paper_ebgmcr.cases, "METHODS", ("NMF", "ICA"))  # MCR-ALS needs the extra `peers`
    return paper_ebgmcr


@pytest.mark.slow
def test_rows_going_on_and_report(paper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(*arguments: str) -> list[dict]:
        return rows_of_program(monkeypatch, paper, tmp_path, "--counts", "4", *arguments)

    rows = run("--seeds", "1", "--only", "yardstick", "others")
    methods = {row["method"] for row in rows}
    assert methods == {"EB-gMCR", "NMF", "ICA", "known concentrations"}
    assert {"processor", "torch", "commit"} <= rows[0]["machine"].keys()
    more = run("--seeds", "2", "--only", "yardstick", "others")
    assert more[: len(rows)] == rows
    names = [(row["name"], row["seed"]) for row in more]
    assert len(set(names)) == len(names) > len(rows)
    assert run("--seeds", "2", "--only", "yardstick", "others") == more
    assert run("--quick", "--only", "pool") == more
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    counts = ", ".join(str(row["count"]) for row in more if row["name"] == "paper-4-20dB")
    assert f"| paper-4-20dB | 4 | {counts} |" in text
    assert ", 0 are here after 0 minutes of one processor." in text
    quick = {"name": "paper-16-20dB", "seed": 0, "seconds": 500.0, "processor_seconds": 120.0}
    assert ", 1 are here after 2 minutes" in paper.quick_time([quick, {**quick, "seed": 1}])


def test_who_knows_the_concentrations_is_not_surpassed(paper) -> None:
    case = paper.cases.paper(8, 20, 0)
    known, concentrations, _ = paper.cases.known_concentrations(case)
    told, _, _ = paper.cases.baseline("NMF", case, 8, 0)
    best = np.median(paper.cases.scores(case, known, concentrations)["cosines"])
    other = paper.cases.scores(case, told, case.concentrations)["cosines"]
    assert best >= np.median(other)
    assert best > 0.99


def test_a_search_pays_for_its_degrees_of_freedom(paper) -> None:
    case = paper.cases.paper(16, 20, 0)
    components, concentrations, _ = paper.cases.searched("NMF", case, 0)
    assert components.shape == (16, 64)
    assert concentrations.shape == (64, 16)


def test_scored_counts_runs(paper) -> None:
    import paper_report

    def row(count: int, found: int) -> dict:
        return {"truth": 20, "count": count, "found": found, "found_99": found - 1}

    assert paper_report._scored([row(20, 20), row(21, 21), row(23, 19)]) == ["1 of 3", "2 of 3", "2 of 3", "1 of 3"]


def test_runs_with_training_stand_beside_those_without(paper) -> None:
    import paper_report

    chosen = list(paper.runs(("yardstick", "trained"), (16,), 1, None))
    pairs = {run.name: run for run in chosen}
    assert pairs["paper-16-20dB-trained"].options == {**pairs["paper-16-20dB"].options, "recipe": "trained"}
    assert not any(run.name.startswith("few") for run in chosen)
    rows = [
        {"name": name, "seed": 0, "truth": 16, "count": count, "cosines": [0.9], "processor_seconds": seconds}
        for name, count, seconds in (("paper-16-20dB", 16, 1.0), ("paper-16-20dB-trained", 17, 13.0))
    ]
    assert "| paper-16-20dB | 16 | 16 | 0.900 | 1.0 | 17 | 0.900 | 13.0 |" in paper_report._trained_table(rows)
