"""The public names of the published package `ebgmcr` (arXiv 2507.23600), on our model and operations.

By default everything behaves as published; `compat/README.md` lists what differs.
"""

from __future__ import annotations

from spectrafuse.compat.ebgmcr.analyzer import DenseEBgMCR
from spectrafuse.compat.ebgmcr.data import CsvComponentMixtureLoader, RandomComponentMixtureSynthesizer
from spectrafuse.compat.ebgmcr.mcr import EBSelectiveMCR

__all__ = ["CsvComponentMixtureLoader", "DenseEBgMCR", "EBSelectiveMCR", "RandomComponentMixtureSynthesizer"]
