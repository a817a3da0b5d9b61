"""Which part of the package may import which. A violation names the file, the line and the rule."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.import_graph import cycles, imports, modules

ROOT = Path(__file__).parents[1]
LAYERS = [["_runtime", "backends", "random", "kernels"], ["ops", "io"], ["dgc", "mcr"], ["reports", "compat"]]
LAYERS += [["cli", "__main__"], ["", "benchmarks"]]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
"""Of every room (a module or folder right below the package); the package itself, whose names are lazy, is on top."""
APART = [{"dgc", "mcr"}]

NO_TORCH = "io works without torch"
TORCH_ALONE = "reference.py and pytorch.py of an operation import torch and shared formulas alone"
KERNELS_ALONE = "a Triton kernel imports triton, torch, kernels itself and kernels/_* alone"
SHARED_FORMULAS = ("spectrafuse.ops._plain", "spectrafuse.ops._published")
"""Formulas that more than one operation is made of; the rule for reference.py and pytorch.py holds for these too."""


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def operation(name: str) -> str | None:
    """The operation whose folder a module lies in; files of `ops` itself belong to none."""
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["ops"] and len(parts) > 2 and not parts[2].startswith("_") else None


def violations(base: Path) -> Iterator[tuple[str, str, str]]:
    """File, place and rule of everything the rules forbid in the sources below `base`."""
    files = modules(base / "python" / "spectrafuse", "spectrafuse")
    files |= modules(base / "kernels", "spectrafuse.kernels")
    edges = imports(files, base)
    for importer, imported, place in edges:
        file = place.partition(":")[0]
        top = imported.partition(".")[0]
        here, there = room(importer), room(imported)
        stem = importer.rpartition(".")[2]

        def broken(rule: str, file: str = file, place: str = place, imported: str = imported) -> tuple[str, str, str]:
            return file, f"{place} imports {imported}", rule

        if here == "kernels":
            if top not in ("triton", "torch", *sys.stdlib_module_names) and not (
                imported == "spectrafuse.kernels" or imported.startswith("spectrafuse.kernels._")
            ):
                yield broken(KERNELS_ALONE)
            continue
        if here == "io" and top == "torch":
            yield broken(NO_TORCH)
        formulas = (operation(importer) and stem in ("reference", "pytorch")) or importer in SHARED_FORMULAS
        if formulas and top not in ("torch", *sys.stdlib_module_names) and imported not in SHARED_FORMULAS:
            yield broken(TORCH_ALONE)
        if top != "spectrafuse" or here == "":
            continue
        if here not in LEVEL or there not in LEVEL:
            yield broken(f"every room has a layer in tests/test_layers.py: {here}, {there}")
        elif LEVEL[there] > LEVEL[here]:
            yield broken(f"{here} lies below {there or 'the package itself'} and does not import it")
        if any(here != there and {here, there} == pair for pair in APART):
            yield broken(f"{here} and {there} do not know each other")
        if operation(imported) and imported.count(".") > 2 and operation(importer) != operation(imported):
            yield broken("an operation's files are its own: others import ops/<operation> itself")
        if there == "ops" and here != "ops" and imported.split(".")[2:3] and imported.split(".")[2].startswith("_"):
            yield broken("ops/_*.py are for operations alone")
    for members in cycles(edges, files):
        names = ", ".join(member.removeprefix("spectrafuse.") for member in members)
        yield f"{len(members)} modules", names, "modules do not import each other in a circle"


def test_imports_keep_to_the_layers() -> None:
    found = [f"{what}: {rule}" for _, what, rule in violations(ROOT)]
    assert not found, "\n".join(found)


SOURCES = {
    "python/spectrafuse/__init__.py": "",
    "python/spectrafuse/backends.py": "",
    "python/spectrafuse/io/files.py": "import numpy",
    "python/spectrafuse/ops/__init__.py": "from spectrafuse.ops.one import one",
    "python/spectrafuse/ops/_shared.py": "import torch",
    "python/spectrafuse/ops/one/__init__.py": "from spectrafuse.ops.one.api import one",
    "python/spectrafuse/ops/one/api.py": "from spectrafuse import backends\nfrom spectrafuse.ops import _shared",
    "python/spectrafuse/ops/one/pytorch.py": "import math\nimport torch",
    "python/spectrafuse/ops/two/__init__.py": "from ..one import one",
    "python/spectrafuse/dgc/model.py": "from spectrafuse.ops import one",
    "python/spectrafuse/mcr/model.py": "from spectrafuse.ops import one",
    "python/spectrafuse/cli/app.py": "from spectrafuse.dgc import model\nfrom spectrafuse.mcr import model",
    "kernels/one.py": "import triton\nfrom spectrafuse.kernels import _shared",
    "kernels/_shared.py": "import triton.language as tl",
}


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("dgc/model.py", "def f():\n    from spectrafuse.cli import app", "dgc lies below cli and does not import it"),
        ("dgc/model.py", "from spectrafuse import RandomStream", "dgc lies below the package itself"),
        ("dgc/model.py", "import spectrafuse.mcr.model", "dgc and mcr do not know each other"),
        ("io/files.py", "def f():\n    import torch.nn", "io works without torch"),
        ("ops/two/__init__.py", "from ..one.api import one", "an operation's files are its own"),
        ("dgc/model.py", "from spectrafuse.ops.one.pytorch import f", "an operation's files are its own"),
        ("dgc/model.py", "from spectrafuse.ops._shared import f", "ops/_*.py are for operations alone"),
        ("ops/one/pytorch.py", "from spectrafuse.ops import _shared", "reference.py and pytorch.py"),
        ("ops/one/api.py", "import importlib\nimportlib.import_module('spectrafuse.ops.two')", "in a circle"),
        ("backends.py", "from spectrafuse.ops import one", "backends lies below ops"),
        ("other.py", "import spectrafuse.io.files", "every room has a layer"),
        ("../../kernels/one.py", "import numpy", "a Triton kernel imports"),
    ],
)
def test_what_the_rules_forbid_is_found(tmp_path: Path, file: str, source: str, rule: str) -> None:
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for path in (tmp_path / "python").rglob("*"):
        if path.is_dir() and path.name != "python":
            (path / "__init__.py").touch()
    assert list(violations(tmp_path)) == []
    checked = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {source.splitlines()[-1].strip()}\n"
    path = tmp_path / "python" / "spectrafuse" / file
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if "import_module" not in source:
        path.write_text(before + "\n" + checked, encoding="utf-8")
        assert list(violations(tmp_path)) == []
    path.write_text(before + "\n" + source, encoding="utf-8")
    found = list(violations(tmp_path))
    assert any(rule in broken for _, _, broken in found), found
