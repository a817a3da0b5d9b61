"""The public names of the published package `ebgmcr` (arXiv 2507.23600), on our model and operations.

By default everything behaves as published; `compat/README.md` lists what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrafuse._runtime.lazy_names import names_of

if TYPE_CHECKING:
    from spectrafuse.compat.ebgmcr.analyzer import DenseEBgMCR
    from spectrafuse.compat.ebgmcr.data import CsvComponentMixtureLoader, RandomComponentMixtureSynthesizer
    from spectrafuse.compat.ebgmcr.mcr import EBSelectiveMCR

__all__ = ["CsvComponentMixtureLoader", "DenseEBgMCR", "EBSelectiveMCR", "RandomComponentMixtureSynthesizer"]
__getattr__, __dir__ = names_of(
    __name__,
    {
        "CsvComponentMixtureLoader": "data",
        "DenseEBgMCR": "analyzer",
        "EBSelectiveMCR": "mcr",
        "RandomComponentMixtureSynthesizer": "data",
    },
)
