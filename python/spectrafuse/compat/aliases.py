"""Let `import hsi_global_clustering` and `import ebgmcr` find the stand-ins in `spectrafuse.compat`.

A finder in front of all others answers for these two names and everything below them, so a copy of a published package
in the script's folder is never mixed in. A name is imported when it is first asked for, and it is the same module
object under both of its names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

NAMES = ("hsi_global_clustering", "ebgmcr")
_HOME = "spectrafuse.compat"


class _AliasLoader(Loader):
    """Loads a module under another name than its own."""

    def __init__(self, own_name: str) -> None:
        self.own_name = own_name
        self.own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.own_name)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into the module, which has run already.
        module.__spec__ = self.own_spec


class _AliasFinder(MetaPathFinder):
    """Answers for the published names only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in NAMES:
            return None
        own_name = f"{_HOME}.{fullname}"
        own_spec = find_spec(own_name)
        if own_spec is None:
            raise ModuleNotFoundError(f"{own_name} does not exist, and it stands in for {fullname}.", name=fullname)
        is_package = own_spec.submodule_search_locations is not None
        return ModuleSpec(fullname, _AliasLoader(own_name), origin=own_spec.origin, is_package=is_package)


_finder = _AliasFinder()


def install() -> None:
    """Make the published names resolve to the stand-ins from now on; doing it again changes nothing.

    Raises
    ------
    ImportError
        If a published package itself has been imported already under its name.
    """
    for name in NAMES:
        loaded = sys.modules.get(name)
        if loaded is not None and loaded.__name__ != f"{_HOME}.{name}":
            raise ImportError(
                f"{name} has already been imported from {getattr(loaded, '__file__', 'elsewhere')}; install the "
                "aliases before the first import of it.",
                name=name,
            )
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def remove() -> None:
    """Undo `install`: the names resolve as they did before."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in list(sys.modules):
        own = sys.modules[name]
        if name.partition(".")[0] in NAMES and getattr(own, "__name__", "") == f"{_HOME}.{name}":
            del sys.modules[name]
