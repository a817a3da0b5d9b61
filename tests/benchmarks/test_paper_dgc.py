"""The runner of the segmentation's yardstick: rows, going on, and what it writes from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import rows_of_program
from helpers.dgc_training import striped


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch):
    import paper_dgc

    cube, labels = striped(1, 20, 24)
    monkeypatch.setattr(
        paper_dgc, "load", lambda name, data, seed=0: paper_dgc.Scene([cube.numpy()], [labels.numpy()], 3)
    )
    changes = {"max_epoch": 2, "reuse_iter": 1}
    monkeypatch.setattr(paper_dgc, "ABLATION", {name: (name, changes) for name in ("published", "corrected")})
    return paper_dgc


@pytest.mark.slow
def test_rows_going_on_and_report(paper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(*arguments: str) -> list[dict]:
        return rows_of_program(monkeypatch, paper, tmp_path, "--scenes", "samson", *arguments)

    rows = run("--seeds", "1", "--only", "yardstick")
    assert [row["method"] for row in rows] == ["k-means", "prototypes alone", "default", "corrected"]
    assert rows[1]["mean_iou"] == rows[2]["mean_iou"] == pytest.approx(1)
    assert len(rows[3]["curve"]) == 2
    assert rows[3]["best_mean_iou"] >= rows[3]["mean_iou"]
    assert {"processor", "torch", "commit"} <= rows[0]["machine"].keys()
    more = run("--seeds", "2")
    assert more[:4] == rows
    names = [(row["method"], row["seed"]) for row in more]
    assert len(set(names)) == len(names) == 2 * (5 + len(paper.LABELS))
    assert run("--seeds", "2") == more
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| changed | Samson, mean IoU | best - last |" in text
    assert all(f"| {method} | 1.000 ± 0.000 (1.000) | " in text for method in ("nothing", *paper.LABELS))
    assert "| Samson | prototypes alone | 2 | 1.000 ± 0.000 (1.000) |" in text
    for name in ("curves.png", "samson-corrected.png", "samson-published.png"):
        assert f"({name})" in text
        assert (tmp_path / name).stat().st_size > 1000


def test_scenes_larger_than_what_is_watched_are_scored_whole(paper, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrafuse.dgc.training import stop_rule

    expected, maps = paper.run(paper.load("samson", None), "corrected", 0)
    monkeypatch.setattr(stop_rule, "_LARGEST_SIDE", 8)
    found, of_parts = paper.run(paper.load("samson", None), "corrected", 0)
    assert [labels.shape for labels in of_parts] == [(20, 24), (20, 24)]
    assert found["curve"] == expected["curve"]
    assert np.array_equal(of_parts[-1], maps[-1])


def test_labels_are_made_in_the_way_that_is_named(paper, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrafuse.dgc.training import prototypes

    seen = []
    monkeypatch.setattr(
        paper, "train", lambda *_: seen.append((prototypes._NEIGHBOURS, prototypes._SMOOTH_SHARE)) or ({}, [])
    )
    kept = prototypes._NEIGHBOURS, prototypes._SMOOTH_SHARE
    for method in ("prototypes of single pixels", "prototypes of mixed pixels too", "corrected"):
        paper.run(paper.load("samson", None), method, 0)
    assert seen == [(1, kept[1]), (kept[0], 1.0), kept]


def test_made_scenes_are_none_that_the_recipe_was_chosen_with(monkeypatch: pytest.MonkeyPatch) -> None:
    import paper_dgc_scenes

    drawn = []
    monkeypatch.setattr(paper_dgc_scenes, "make", lambda what, number: drawn.append(number))
    for seed in (0, 4):
        paper_dgc_scenes.load("made_small", None, seed)
    assert drawn == [300, 304]


def test_a_collapse_is_counted(paper) -> None:
    import paper_dgc_report

    scene = paper.load("samson", None)
    scores = paper.scores([np.zeros_like(scene.labels[0])], scene)
    assert scores["clusters"] == 1
    row = {"scene": "samson", "method": "corrected", **scores, "processor_seconds": 1.0}
    row |= {"curve": [], "best_mean_iou": scores["mean_iou"] + 0.25}
    line = paper_dgc_report.yardstick([row])[-1]
    assert line.endswith("| 1 of 1 | 0.250 | 1.0 |")


def test_made_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    from paper_dgc_scenes import Made, make

    what = Made(40, 33, 21, 4, contrast=0.05, noise=0.0)
    (cube,), (labels,), materials = make(what, 0)
    assert (cube.shape, cube.dtype, labels.shape, materials) == ((21, 40, 33), np.float32, (40, 33), 4)
    share = np.bincount(labels.ravel()) / labels.size
    np.testing.assert_allclose(share, 0.7 ** np.arange(4) / sum(0.7 ** np.arange(4)), atol=0.03)
    # Mixed linearly, whatever the shading: as many directions as materials.
    values = np.linalg.svd(cube.reshape(21, -1).astype(float), compute_uv=False)
    assert values[3] > 1e-3 * values[0] > 1e3 * values[4]
    (noisy,), (same,), _ = make(what._replace(noise=0.1), 0)
    np.testing.assert_array_equal(same, labels)
    assert (noisy - cube).std() == pytest.approx(0.1, rel=0.05)
    assert (make(what, 1).labels[0] != labels).mean() > 0.3
    np.testing.assert_array_equal(make(what, 0).cubes[0], cube)


def test_runs_that_end_below_their_best_are_named(paper) -> None:
    import paper_dgc_report

    def row(scene: str, method: str, seed: int, *curve: tuple[float, float]) -> dict:
        points = [{"mean_iou": iou, "nmi": nmi} for iou, nmi in curve]
        best = max(point["mean_iou"] for point in points)
        return {"scene": scene, "method": method, "seed": seed, **points[-1], "best_mean_iou": best, "curve": points}

    rows = [
        row("indian_pines", "corrected", 0, (0.2, 0.1), (0.5, 0.4), (0.4, 0.399)),
        row("indian_pines", "corrected", 1, (0.2, 0.1), (0.41, 0.6), (0.4, 0.4)),
        row("indian_pines", "corrected", 2, (0.43, 0.41), (0.2, 0.1), (0.4, 0.4)),
        row("samson", "corrected", 0, (0.41, 0.41), (0.2, 0.1), (0.4, 0.4)),
        row("samson", "published", 0, (0.9, 0.41), (0.2, 0.1), (0.4, 0.4)),
        {"scene": "samson", "method": "k-means", "seed": 0, "mean_iou": 0.4},
    ]
    line, end = paper_dgc_report.falls(rows)
    assert line == (
        "Indian Pines: 2 of 3 seeds ended more than 0.02 below their best mean IoU (that of epoch 1, 2 of 3), in NMI "
        "at most 0.010 below their best."
    )
    assert end == ""
