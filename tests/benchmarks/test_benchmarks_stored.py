"""Stored figures: files compared, the baseline, the trend page and the table of the README."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectrafuse.benchmarks import builds, command, declared, history
from spectrafuse.benchmarks import stored as stored_figures

ROOT = Path(__file__).parents[2]


def row(**changes: object) -> dict[str, object]:
    named = {"operation": "gate", "implementation": "cpu", "size": "paper", "direction": "forward"}
    ratio = {"ratio_to_torch_low": 2.9, "ratio_to_torch": 3.0, "ratio_to_torch_high": 3.1}
    return {**named, **ratio, "milliseconds": 2.0, "peak_memory_mb": 8.0, "share_of_bound": 0.5, **changes}


def stored(folder: Path, name: str, *rows: dict[str, object]) -> str:
    file = folder / name
    file.unlink(missing_ok=True)
    history.append(rows, file)
    return str(file)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command.app, [*arguments])
    return done.exit_code, " ".join(done.output.split())


def test_history_keeps_rows_and_says_where_a_line_is_wrong(tmp_path):
    rows = [row(milliseconds=value) for value in (2.0, 1.0)]
    file = history.of_this_machine(tmp_path / "new")
    history.append(rows[:1], file)
    history.append(rows[1:], file)
    assert history.read(file) == rows
    assert history.latest(history.read(file)) == {("gate", "cpu", "paper", "forward"): rows[1]}
    file.write_text('{"operation": "gate"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: expected a JSON object with operation, implementation"):
        history.read(file, *history.CASE)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        history.read(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "Nothing got worse"),
        ({"ratio_to_torch_low": 2.4, "ratio_to_torch": 2.5, "ratio_to_torch_high": 2.55}, 1, "Got worse"),
        ({"ratio_to_torch_low": 2.6, "ratio_to_torch": 2.8, "ratio_to_torch_high": 2.9}, 0, "Nothing got worse"),
        ({"ratio_to_torch_low": 4.4, "ratio_to_torch": 4.5, "ratio_to_torch_high": 4.6}, 0, "no speed-up counts: gate"),
        ({"peak_memory_mb": 16.0}, 1, "Got worse"),
        ({"ratio_to_torch_low": 1.0, "ratio_to_torch_high": 1.0, "processor": "other"}, 0, "another processor"),
        ({"ratio_to_torch_low": 1.0, "ratio_to_torch_high": 1.0, "input_hash": "other"}, 0, "other inputs"),
        ({"tensor_bytes": 1030}, 1, "tensor_bytes 1000 -> 1030 (+3.0%)"),
        ({"tensor_bytes": 1010}, 0, "Nothing got worse"),
        ({"tensor_bytes": 2000, "torch": "another"}, 0, "another torch"),
    ],
)
def test_stored_figures_are_compared(tmp_path, changes, code, said):
    base = stored(tmp_path, "base.jsonl", row(tensor_bytes=1000))
    head = stored(tmp_path, "head.jsonl", row(**{"tensor_bytes": 1000, **changes}))
    found, output = run("compare", base, head)
    assert (found, said in output) == (code, True), output


def test_commits_of_the_history_are_compared(tmp_path):
    slow = row(commit="bbb", ratio_to_torch_low=1.0, ratio_to_torch=1.0, ratio_to_torch_high=1.0)
    history.append([row(commit="aaa"), slow, row(commit="ccc")], history.of_this_machine(tmp_path))
    at = ["--history", str(tmp_path)]
    assert run("compare", "history@aaa", "history@b", *at)[0] == 1
    code, output = run("compare", "history@aaa", "history", *at)
    assert (code, "Nothing got worse" in output) == (0, True)
    with pytest.raises(ValueError, match="no figures of ddd; it has those of aaa, bbb, ccc"):
        CliRunner().invoke(command.app, ["compare", "history@ddd", "history", *at], catch_exceptions=False)


def test_counted_quantities_alone_decide_where_asked(tmp_path):
    slow = row(ratio_to_torch_low=1.0, ratio_to_torch=1.0, ratio_to_torch_high=1.0, tensor_bytes=1000)
    base = stored(tmp_path, "base.jsonl", row(tensor_bytes=1000), row(size="driver", instructions=100, compiler="c"))
    head = stored(tmp_path, "head.jsonl", slow, row(size="driver", instructions=200, compiler="another"))
    said = "Not compared: instructions of gate cpu driver forward (another compiler)."
    assert run("compare", "--counted", base, head) == (0, f"{said} Nothing got worse from {base} to {head}.")
    head = stored(tmp_path, "head.jsonl", row(), row(size="driver"))
    assert "tensor_bytes of gate cpu paper forward (not counted in head)" in run("compare", "--counted", base, head)[1]
    head = stored(tmp_path, "head.jsonl", slow, row(size="driver", instructions=115, compiler="c"), row(size="new"))
    code, output = run("compare", "--counted", base, head)
    assert code == 1
    assert "gate cpu driver forward: instructions 100 -> 115 (+15.0%)" in output
    assert "gate cpu new forward: the baseline lacks it" in output
    assert "`make baseline`" in output
    more = stored(tmp_path, "more.jsonl", row(tensor_bytes=1000), row(size="new"))
    code, output = run("compare", base, more)
    assert code == 0
    assert f"Only in {more}: gate cpu new forward." in output


def test_what_gpu_kernels_need_more_of_is_said(tmp_path):
    def checkout(name: str, **tables: dict[str, int]) -> Path:
        folder = tmp_path / name / "benchmarks" / "resources"
        folder.mkdir(parents=True)
        for table, needs in tables.items():
            text = json.dumps({"rows": {"a_kernel": {"targets": {"sm_80": needs, "sm_90": needs}}}})
            (folder / f"{table}.json").write_text(text, encoding="utf-8")
        return tmp_path / name

    needs = {"registers": 40, "spills": 0, "shared": 1024, "code": 2000}
    base = checkout("base", gate=needs, gone=needs)
    head = checkout("head", gate={**needs, "registers": 48, "shared": 512, "code": 2030}, new=needs)
    assert stored_figures.resources_grown(base, base) == []
    assert stored_figures.resources_grown(base, head) == [
        f"gate, a_kernel, {target}: registers 40 -> 48" for target in ("sm_80", "sm_90")
    ]


def test_files_and_versions_do_not_mix(tmp_path):
    with pytest.raises(ValueError, match="Two files or two versions"):
        CliRunner().invoke(command.app, ["compare", "x.jsonl", "installed"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "pytest_benchmark is not installed: `pip install 'spectrafuse[bench]'` brings it."),
        (["compare", "main", "."], "compared inside a checkout of spectrafuse"),
        (["compare", "nothing.jsonl", "history"], "nothing.jsonl cannot be read: No such file or directory."),
        (["trend"], "cannot be read: No such file or directory."),
        (["headline", "rows.jsonl"], "benchmarks/README.md cannot be read: No such file or directory."),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(tmp_path, monkeypatch, capsys, words, said):
    stored(tmp_path, "rows.jsonl", row())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pytest_benchmark", None)
    monkeypatch.setattr(sys, "argv", ["spectrafuse-bench", *words])
    builds.checkout.cache_clear()
    with pytest.raises(SystemExit) as ended:
        command.main()
    builds.checkout.cache_clear()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_baseline_is_made_of_counted_quantities(tmp_path):
    rows = stored(tmp_path, "rows.jsonl", row(tensor_bytes=7, torch="2", input_hash="x"), row(size="small"))
    assert run("baseline", rows, "--history", str(tmp_path))[0] == 0
    (found,) = history.read(tmp_path / history.BASELINE)
    case = {"operation": "gate", "implementation": "cpu", "size": "paper", "direction": "forward"}
    assert found == {**case, "tensor_bytes": 7, "torch": "2", "input_hash": "x"}


def test_every_cpu_kernel_has_counts_in_the_committed_baseline():
    rows = history.read(ROOT / history.FOLDER / history.BASELINE)
    sources = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "csrc" / "cpu").glob("*.cpp")}
    launched = {name for name, text in sources.items() if name.endswith("_launch") or "SPECTRAFUSE_LAUNCHER" in text}
    assert {row["operation"].split()[0] for row in rows if "instructions" in row} == {
        name.removesuffix("_launch") for name in launched
    }
    assert {row["operation"] for row in rows if "tensor_bytes" in row} == declared.operations().keys()


def test_the_trend_page_shows_every_case(tmp_path):
    rows = stored(tmp_path, "rows.jsonl", row(commit="one"), row(commit="two<", operation="mixture"))
    assert run("trend", rows, "--output", str(tmp_path))[0] == 0
    page = (tmp_path / "trend.html").read_text(encoding="utf-8")
    assert "gate cpu paper forward" in page
    assert "two&lt;" in page
    assert (tmp_path / "trend.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="No timed figures"):
        command.trend.write([row(implementation="torch")], tmp_path, "x")


def test_the_headline_is_written_and_what_is_slow_must_be_explained(tmp_path, monkeypatch):
    explanations = tmp_path / "explanations.json"
    explanations.write_text('{"figures": "Taken by hand.", "gate": "it waits for memory"}', encoding="utf-8")
    monkeypatch.setattr(command.headline, "EXPLANATIONS", explanations)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{command.headline.BEGIN}old\n{command.headline.END}after\n", encoding="utf-8")
    facts = {"processor": "P", "instruction_set": "avx2", "threads": "2", "torch": "2", "commit": "c", "bound": "bytes"}
    slow, fast = row(**facts, ratio_to_torch=1.2), row(**facts, operation="mixture", direction="both")
    hidden = row(**facts, operation="mixture", ratio_to_torch=7.0)
    rows = stored(tmp_path, "rows.jsonl", slow, fast, hidden)
    assert run("headline", rows, "--readme", str(readme))[0] == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| gate | 2 |  | 1.2 | 8 | 50% of bytes |" in text
    explained = readme.with_name("explained.md").read_text(encoding="utf-8")
    assert "Written by `make headline`. Taken by hand.\n" in explained
    assert "- gate (forward 1.2 x, 50%): it waits for memory\n" in explained
    assert "| mixture | 2 |  | 3 | 8 | 50% of bytes |" in text
    assert "7" not in text
    rows = stored(tmp_path, "rows.jsonl", slow, row(**{**facts, "operation": "mixture", "share_of_bound": 0.2}))
    code, output = run("headline", rows, "--readme", str(readme))
    assert code == 1
    assert output == "mixture: below 1.5 times PyTorch or 30% of its bound, and not explained"


def test_times_to_the_same_quality_are_told():
    given = {"size": "small", "direction": "fit", "operation": "unmixing", "ours": ["EBgMCR", 2.0, 0.9]}
    rows = [
        row(**given, implementation=name, milliseconds=1e3 * seconds, quality=quality, effort=effort, reaches_ours=yes)
        for name, seconds, quality, effort, yes in [
            ("EBgMCR", 2.0, 0.9, "default settings", True),
            ("NMF", 0.25, 0.92, "200 iterations", True),
            ("FastICA", 1.5, 0.5, "2000 iterations", False),
        ]
    ]
    assert command.headline.whole_methods([row(), *rows]) == [
        "unmixing: EBgMCR takes 2 s to a quality of 0.9000; NMF reaches it (0.9200, 0.25 s, 200 iterations); "
        "FastICA never reaches it (0.5000, 1.5 s, 2000 iterations)."
    ]
