"""The rules that conftest.py sets for all tests: each is broken once on purpose, in tests of a session of their own."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import seeds, unwritten

TESTS = Path(__file__).parent

# A file of tests that break the rules, run by the same conftest.py.
BREAKING = """
import numpy as np, pytest, torch
from helpers import seeds

@pytest.fixture(scope="module")
def drawn():
    return torch.rand(3), seeds.generator().random(3)

def test_passes(drawn):
    pass

def test_shows_its_draws(drawn):
    print("DRAWN", drawn[0].tolist(), drawn[1].tolist(), torch.rand(1).item(), seeds.fresh_seed())
    assert False

def test_leaves_its_output_unwritten():
    out = torch.empty(4)
    out[:3] = 1
    torch.testing.assert_close(out, torch.ones(4))

def test_skips_for_no_reason_of_ours():
    pytest.skip("no mood")

def test_sets_threads():
    torch.set_num_threads(3)

def test_has_one_thread_again():
    assert torch.get_num_threads() == 1
"""


def run_breaking(folder: Path, seed: int, *arguments: str) -> str:
    """What pytest says of `BREAKING`, which ends with an error."""
    for name in ("conftest.py", "expected_skips.txt"):
        shutil.copy(TESTS / name, folder)
    (folder / "test_breaking.py").write_text(BREAKING, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder, *arguments],
        env={**os.environ, seeds.VARIABLE: str(seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.process
def test_failures_show_a_seed_that_draws_the_same_and_what_else_is_wrong(tmp_path: Path) -> None:
    among_all = run_breaking(tmp_path, 11, "-n", "2")
    alone = run_breaking(tmp_path, 11, "-k", "shows_its_draws")
    assert "SPECTRAFUSE_TEST_SEED=11 draws them again" in alone
    drawn = [re.search("^DRAWN .*$", text, re.MULTILINE)[0] for text in (among_all, alone)]  # type: ignore[index]
    assert drawn[0] == drawn[1]
    failed = re.findall(r"^FAILED test_breaking.py::(\w+)", among_all, re.MULTILINE)
    assert sorted(failed) == ["test_leaves_its_output_unwritten", "test_shows_its_draws"]
    assert "test_breaking.py::test_skips_for_no_reason_of_ours: Skipped: no mood" in among_all


@pytest.mark.process
def test_a_skip_that_is_not_expected_fails_a_run_by_two_workers(tmp_path: Path) -> None:
    text = run_breaking(tmp_path, 1, "-n", "2", "-k", "passes or skips")
    assert "1 passed, 1 skipped" in text
    assert "skips that tests/expected_skips.txt does not list" in text


def test_uninitialized_memory_holds_nan_or_the_largest_integer() -> None:
    like = torch.zeros(2, 3)
    makers = [torch.empty(2, 3), torch.empty_like(like), like.new_empty(4), torch.empty_strided((2, 2), (2, 1))]
    assert all(x.isnan().all() for x in [*makers, torch.nn.Parameter(torch.empty(2, requires_grad=True))])
    assert (torch.empty(3, dtype=torch.int16) == 2**15 - 1).all()
    assert (like.new_empty(3, dtype=torch.uint8) == 255).all()
    assert torch.empty(3, dtype=torch.bool).all()
    assert torch.empty(unwritten.LARGEST_BYTES + 1, dtype=torch.uint8).shape == (unwritten.LARGEST_BYTES + 1,)
    with torch.device("meta"):
        assert torch.empty(3).device.type == "meta"


def test_draws_repeat_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def draws() -> list[float]:
        seeds.restart("test")
        return [seeds.fresh_seed(), seeds.generator().random(), seeds.generator().random(), torch.rand(1).item()]

    first = draws()
    assert draws() == first
    assert len(set(first)) == len(first)
    monkeypatch.setattr(seeds, "SEED", seeds.SEED + 1)
    assert not set(draws()) & set(first)


DRAWS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli"),
    *("multinomial", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "kaiming_uniform_"),
}
UNSEEDED_TEXT = re.compile(r"\btorch\.(rand|randn|randint|randperm|normal)\(|default_rng\(\)|\btorch\.seed\(")


def unseeded(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every draw that SPECTRAFUSE_TEST_SEED would not repeat."""
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}

    def inside_a_function(node: ast.AST) -> bool:
        while node in parents:
            above = parents[node]
            if isinstance(above, (ast.FunctionDef, ast.Lambda)) and (
                node in above.body if isinstance(above, ast.FunctionDef) else node is above.body
            ):
                return True
            node = above
        return False

    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if {"random", "secrets", "uuid"} & set(names):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Programs for other processes.
            if UNSEEDED_TEXT.search(node.value) and "manual_seed" not in node.value and "\n" in node.value:
                yield node.lineno, UNSEEDED_TEXT.search(node.value)[0]  # type: ignore[index]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            fresh = last in ("default_rng", "RandomState", "SeedSequence") and not (node.args or node.keywords)
            fresh |= name == "torch.seed"
            at_import = (
                last in DRAWS
                and name.startswith(("torch.", "nn.", "init."))
                and not any(keyword.arg == "generator" for keyword in node.keywords)
                and not inside_a_function(node)
            )
            if fresh or at_import:
                yield node.lineno, ast.unparse(node)


def test_every_draw_comes_from_the_seed() -> None:
    found = [
        f"{path.relative_to(TESTS.parent)}:{line}: {text} is not repeated by {seeds.VARIABLE}: use helpers.seeds"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in ("seeds.py", Path(__file__).name)
        for line, text in unseeded(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = np.random.default_rng()", 1),
        ("x = np.random.default_rng(3)", 0),
        ("def f():\n    return torch.seed() % 7", 1),
        ("g = torch.Generator().manual_seed(1)\nx = torch.rand(2, generator=g)", 0),
        ("x = torch.rand(2)\ndef f(y=torch.randn(3)):\n    return torch.rand(2)", 2),
        ("class A:\n    x = torch.rand(2)\n    def f(self):\n        return torch.rand(2)", 1),
        ("import random", 1),
        ("code = 'import torch\\n' + 'torch.rand(3)\\n'", 1),
    ],
)
def test_unseeded_draws_are_found(source: str, count: int) -> None:
    assert len(list(unseeded(source))) == count


def test_no_test_imports_another() -> None:
    found = [
        f"{path.relative_to(TESTS.parent)}:{node.lineno}: {ast.unparse(node)}: what tests share lies in helpers"
        for path in sorted(TESTS.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if re.match(r"(from|import) (test_\w+|conftest)\b", ast.unparse(node))
    ]
    assert not found, "\n".join(found)
