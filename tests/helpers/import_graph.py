"""Which module of the package imports which, read from the sources without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    importer: str
    """Dotted name of the module."""
    imported: str
    """A module of the package where the name is one, else what the statement says."""
    place: str
    """`file:line`"""


def modules(root: Path, package: str) -> dict[str, Path]:
    """Dotted names and files of a package's modules; what lies behind links (in a working copy) is not among them."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _statements(tree: ast.AST) -> Iterator[ast.stmt | ast.Call]:
    """Imports anywhere, inside functions too, but not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for other in node.orelse for found in _statements(other))
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module")
        ):
            yield node
        yield from _statements(node)


def imports(files: dict[str, Path], base: Path) -> list[Import]:
    """Every import of these modules; `base` is what places are relative to."""
    found = []
    for importer, path in files.items():
        package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                origin = ".".join([*above, *filter(None, [node.module])])
                # What a package says of itself (`__version__`) is nothing of its contents.
                full = [f"{origin}.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
                names = [name if name in files else origin for name in full]
            else:
                argument = node.args[0] if node.args else None
                names = [argument.value] if isinstance(argument, ast.Constant) else []
            place = f"{path.relative_to(base)}:{node.lineno}"
            found += [Import(importer, name, place) for name in dict.fromkeys(names)]
    return found


def cycles(edges: list[Import], files: dict[str, Path]) -> list[list[str]]:
    """Sets of modules each of which imports, over others, itself (strongly connected, by Tarjan)."""
    graph: dict[str, list[str]] = {name: [] for name in files}
    for edge in edges:
        if edge.imported in graph:
            graph[edge.importer].append(edge.imported)
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            place = stack.index(name)
            members = sorted(stack[place:])
            del stack[place:]
            if len(members) > 1 or name in graph[name]:
                found.append(members)

    for name in graph:
        if name not in number:
            visit(name)
    return found
