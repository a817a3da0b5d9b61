"""Examples in the docstrings of public modules: they run, and give what stands there."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import spectrafuse

PUBLIC = ("backends", "random", "dgc", "mcr", "io", "ops", "compat.patch", "compat.aliases")


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = []
    for name in PUBLIC:
        module = importlib.import_module(f"spectrafuse.{name}")
        modules.append(module)
        inside = pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}.")
        modules += [importlib.import_module(found.name) for found in inside]
    tests = [test for module in modules for test in finder.find(module, module=module) if test.examples]
    return sorted(tests, key=lambda test: test.name)


TESTS = examples()


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name.removeprefix("spectrafuse."))
def test_example(test: doctest.DocTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[str] = []
    test.globs = {}  # as in a session of one's own: an example imports what it uses
    options = doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(verbose=False, optionflags=options).run(test, out=wrong.append)
    assert not wrong, "".join(wrong)


def test_both_estimators_have_one() -> None:
    names = {test.name for test in TESTS}
    for estimator in (spectrafuse.DeepGlobalClustering, spectrafuse.EBgMCR):
        assert f"{estimator.__module__}.{estimator.__name__}" in names
