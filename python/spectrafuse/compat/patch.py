"""Put our operations under an already imported copy of a published package: `spectrafuse.patch`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from inspect import getattr_static
from types import ModuleType, TracebackType
from typing import Any

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError

_MISSING = object()
# Patches are made and undone one after the other: each puts back what it found.
_lock = threading.RLock()


class Patch:
    """What a call of `patch` has changed. It is in force until `undo`, or to the end of its `with` block.

    Attributes
    ----------
    swapped : list of str
        Full names of everything that was replaced.
    """

    def __init__(self) -> None:
        self.swapped: list[str] = []
        self._restore = ExitStack()

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"Patch({', '.join(self.swapped) or 'nothing in force'})"

    def undo(self) -> None:
        """Put everything back, in the reverse order; a second call does nothing.

        What cannot be put back does not keep the rest from it; its error is raised when all is done.
        """
        with _lock:
            try:
                self._restore.close()
            finally:
                self.swapped = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a class or module until `undo`."""
        before = vars(owner).get(name, _MISSING)
        if before is value:
            return

        def restore() -> None:
            if before is not _MISSING:
                setattr(owner, name, before)
            elif name in vars(owner):
                delattr(owner, name)

        setattr(owner, name, value)
        self._restore.callback(restore)
        owner_name = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
        self.swapped.append(f"{owner_name}.{name}")

    def on_undo(self, restore: Callable[[], None]) -> None:
        """Also do this when undone."""
        self._restore.callback(restore)


class _PenaltyFunction:
    """A solver's `ambiguity_penalty_func`: functions of the published package turn into ours when they are read."""

    _slot = "ambiguity_penalty_func"

    def __init__(self, functions: list[tuple[Any, Any]]) -> None:
        self.functions = functions

    def __get__(self, solver: Any, kind: type | None = None) -> Any:
        if solver is None:
            return self
        if self._slot not in solver.__dict__:
            raise AttributeError(f"'{type(solver).__name__}' object has no attribute '{self._slot}'")
        held = solver.__dict__[self._slot]
        return next((ours for theirs, ours in self.functions if held is theirs), held)

    def __set__(self, solver: Any, value: Any) -> None:
        # Theirs is kept, so that nothing of ours stays behind after undo.
        solver.__dict__[self._slot] = next((theirs for theirs, ours in self.functions if value is ours), value)


def patch(module: ModuleType) -> Patch:
    """Swap the operations under a published package for ours, also under a copy of it that a tool carries along.

    Parameters
    ----------
    module : module
        `hsi_global_clustering` or `ebgmcr`, under whatever name it was imported, or a module that holds their classes.
        Recognized by the classes in it and in its submodules.

    Returns
    -------
    Patch
        In force at once; end it with `undo`, or use it in a `with` statement.

    Raises
    ------
    TypeError
        If `module` is not a module.
    ValueError
        If it is neither package.

    Notes
    -----
    Objects that exist already take part. Results stay those of the package, given the same random numbers; from the
    same seed on the CPU they are the same numbers, except that sparsity gates (`sparse_component=True`) are drawn
    from a seed of their own. `hsi_global_clustering`: mean shift, local and of all pairs, the losses, the encoder, the
    model's `train_step`, and the two augmented crops.
    `ebgmcr`: gates, both networks' layers, mixture, penalties, and the solver's `fit`; (n, N, d) results become lazy.
    """
    if not isinstance(module, ModuleType):
        raise InvalidTypeError(f"`module` must be a module; got {type(module).__name__}.")
    modules = list(_modules(module))
    made = Patch()
    with _lock:
        try:
            known = _patch_clustering(made, modules)
            known = _patch_unmixing(made, modules) or known
        except BaseException:
            made.undo()
            raise
    if not known:
        raise InvalidValueError(
            f"`module` must be hsi_global_clustering or ebgmcr, or hold their classes; got '{module.__name__}', which "
            "has neither an UnrolledMeanShift nor an EBSelectiveMCR."
        )
    return made


def _modules(module: ModuleType) -> Iterator[ModuleType]:
    """The module and its submodules that have been imported."""
    yield module
    for name, loaded in list(sys.modules.items()):
        if name.startswith(module.__name__ + ".") and isinstance(loaded, ModuleType):
            yield loaded


def _classes(modules: list[ModuleType], name: str) -> list[type]:
    """Different classes of this name in the modules."""
    found: list[type] = []
    for module in modules:
        candidate = getattr(module, name, None)
        if isinstance(candidate, type) and candidate not in found:
            found.append(candidate)
    return found


def _take_over(made: Patch, modules: list[ModuleType], ours: type, names: tuple[str, ...]) -> bool:
    """Give the published classes named like `ours` some of its attributes; whether there are such classes."""
    found = _classes(modules, ours.__name__)
    for theirs in found:
        if theirs is not ours:
            for name in names:
                made.replace(theirs, name, getattr_static(ours, name))
    return bool(found)


def _patch_clustering(made: Patch, modules: list[ModuleType]) -> bool:
    if not (_classes(modules, "UnrolledMeanShift") or _classes(modules, "AugmentationPipeline")):
        return False
    from spectrafuse.compat.hsi_global_clustering.crops import ENCODES
    from spectrafuse.compat.hsi_global_clustering.hsi_clustering import HyperspectralClusteringModel
    from spectrafuse.compat.hsi_global_clustering.hsi_processing import AugmentationPipeline
    from spectrafuse.compat.hsi_global_clustering.module import HyperspectralEncoder, UnrolledMeanShift
    from spectrafuse.compat.hsi_global_clustering.step_terms import COMPUTES

    known = _take_over(made, modules, UnrolledMeanShift, COMPUTES)
    known = _take_over(made, modules, AugmentationPipeline, ("__call__", "draw")) or known
    _take_over(made, modules, HyperspectralEncoder, ENCODES)
    _take_over(made, modules, HyperspectralClusteringModel, ("train_step",))
    return known


def _patch_unmixing(made: Patch, modules: list[ModuleType]) -> bool:
    if not _classes(modules, "EBSelectiveMCR"):
        return False
    from spectrafuse.compat.ebgmcr import ambiguity_penalty, analyzer, mcr
    from spectrafuse.compat.ebgmcr.prepared import TAKEN_OVER

    for ours, names in TAKEN_OVER.items():
        _take_over(made, modules, ours, names)
    if any(hasattr(solver, "fit") for solver in _classes(modules, "BaseEBgMCR")):
        _take_over(made, modules, analyzer.BaseEBgMCR, ("fit",))

    penalties: list[tuple[Any, Any]] = []
    for module in modules:
        aggregate = vars(module).get("default_aggreate_function")
        if callable(aggregate) and not any(aggregate is known for known in mcr.LINEAR_AGGREGATES):
            mcr.LINEAR_AGGREGATES.append(aggregate)
            made.on_undo(partial(mcr.LINEAR_AGGREGATES.remove, aggregate))
        for name in ambiguity_penalty.__all__:
            theirs, ours = vars(module).get(name), getattr(ambiguity_penalty, name)
            if callable(theirs) and theirs is not ours:
                if not any(theirs is known for known, _ in penalties):
                    penalties.append((theirs, ours))
                made.replace(module, name, ours)
    if penalties:
        for solver in _classes(modules, "BaseEBgMCR"):
            made.replace(solver, _PenaltyFunction._slot, _PenaltyFunction(penalties))
    return True
