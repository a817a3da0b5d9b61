"""Unmixing by several processes: the same counts, components and concentrations as by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import group
from spectrafuse import EBgMCR
from spectrafuse._runtime import ranks
from spectrafuse.mcr import inputs
from spectrafuse.mcr.refinement import many_spectra

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here"),
]


def spectra() -> np.ndarray:
    """Many mixtures (301, 24) of three components, and a few of a fourth one that a sample can miss."""
    draw, x = np.random.default_rng(0), np.arange(24)
    shapes = np.array([np.exp(-0.5 * ((x - c) / 2) ** 2) for c in (4, 10, 15, 20)])
    amounts = np.c_[draw.dirichlet(np.full(3, 0.4), 301), np.zeros(301)]
    amounts[-6:, 3] = 1
    return (amounts @ shapes + 0.005 * draw.standard_normal((301, 24))).astype(np.float32)


def refusal(**options: Any) -> str:
    with pytest.raises(ValueError, match="start") as refused:
        EBgMCR(**options).fit(spectra()[:40])
    return str(refused.value)


def work(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    told: list[Any] = []
    for name, X in (("array", spectra()), ("file", folder / "spectra.npy")):
        saved = folder / f"{name} {ranks.count()}"
        fitted = EBgMCR(8, random_state=0).fit(X, checkpoint_dir=saved, callback=told.append)
        again = EBgMCR(8, random_state=0).fit(X, checkpoint_dir=saved)
        found[name] = fitted.n_components_, fitted.components_, fitted.C_opt_
        np.testing.assert_array_equal(again.components_, fitted.components_)
    found["few"] = EBgMCR(8).fit(spectra()[:40]).components_
    found["told"] = len(told)
    if ranks.together():
        found["recipe"] = refusal(recipe="trained")
        found["pool_size"] = refusal(pool_size=8 + ranks.number())
    return found


def test_counts_and_components_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_spectra, "MOST_SEARCHED", 100)
    monkeypatch.setattr(many_spectra, "_SAMPLE", 80)
    monkeypatch.setattr(inputs, "MAPPED_BYTES", 100)
    np.save(tmp_path / "spectra.npy", spectra())
    one = work(tmp_path)
    for number, several in enumerate(group.together(3, tmp_path / "state", work, tmp_path)):
        for name in ("array", "file"):
            assert several[name][0] == one[name][0] == 4
            for got, want in zip(several[name][1:], one[name][1:], strict=True):
                np.testing.assert_allclose(got, want, atol=1e-6)
        np.testing.assert_allclose(several["few"], one["few"], atol=1e-6)
        assert number == 0 or several["told"] == 0
        assert "not the training of networks; start one process" in several["recipe"]
        assert "Processes 0 and 1 must be started alike, but their pool_size differ: 8 and 9" in several["pool_size"]
