"""Fast backend for two published algorithms on spectral data.

`DeepGlobalClustering` segments hyperspectral scenes without labels (arXiv 2512.24172); `EBgMCR` unmixes spectra
and finds how many components there are (arXiv 2507.23600). The operations under both are public in
`spectrafuse.ops`; `use_backend` says which implementation of them runs.

Everything here is imported when it is first used: `import spectrafuse` costs little more than `import torch`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spectrafuse._runtime import threads

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spectrafuse._runtime.errors import SpectrafuseError
    from spectrafuse.backends import BackendUnavailableError, use_backend
    from spectrafuse.compat.patch import patch
    from spectrafuse.dgc.estimator import DeepGlobalClustering
    from spectrafuse.mcr.estimator import EBgMCR
    from spectrafuse.random import RandomStream

_HOME = {
    "BackendUnavailableError": "spectrafuse.backends",
    "use_backend": "spectrafuse.backends",
    "DeepGlobalClustering": "spectrafuse.dgc.estimator",
    "EBgMCR": "spectrafuse.mcr.estimator",
    "RandomStream": "spectrafuse.random",
    "SpectrafuseError": "spectrafuse._runtime.errors",
    "patch": "spectrafuse.compat.patch",
}
_SUBMODULES = ("backends", "compat", "dgc", "io", "mcr", "ops", "random")

__all__ = [
    "BackendUnavailableError",
    "DeepGlobalClustering",
    "EBgMCR",
    "RandomStream",
    "SpectrafuseError",
    "__version__",
    "patch",
    "use_backend",
]

threads.make_forks_safe()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return import_module(f"spectrafuse.{name}")
    raise AttributeError(f"module 'spectrafuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
