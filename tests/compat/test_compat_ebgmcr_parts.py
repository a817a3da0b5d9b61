"""The published EB-gMCR package's penalties, rules, metrics and data sources."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden
from spectrafuse.compat.ebgmcr import ambiguity_penalty, data, utils
from spectrafuse.compat.ebgmcr.eval import StreamingMetrics
from spectrafuse.compat.ebgmcr.lazy import LazyTensor


def test_penalties_and_their_gradients() -> None:
    values = golden("ebgmcr_ambiguity")
    functions = {
        "linear": ambiguity_penalty.linear_penalty,
        "poly": ambiguity_penalty.polynomial_penalty,
        "laplacian": ambiguity_penalty.laplacian_penalty,
        "rbf": ambiguity_penalty.rbf_penalty,
        "poly3": lambda rows: ambiguity_penalty.polynomial_penalty(rows, d=3),
    }
    for nu in (0.5, 1.5, 2.5, 3.5):
        functions[f"matern{nu:.1f}".replace(".", "")] = lambda rows, nu=nu: ambiguity_penalty.matern_penalty(rows, nu)
    for name, function in functions.items():
        rows = values["components"].clone().requires_grad_(True)
        penalty = function(rows)
        penalty.backward()
        assert_close_to_max(penalty.detach(), values[name], GOLDEN_RTOL)
        assert rows.grad is not None
        assert_close_to_max(rows.grad, values[f"grad.{name}"], GOLDEN_GRADIENT_RTOL)
        assert function(rows[:1]).item() == 0.0
    rows = values["components"]
    doubled = ambiguity_penalty.matern_penalty(rows, nu=2.5, sigma=2.0)
    torch.testing.assert_close(doubled, 4 * ambiguity_penalty.matern_penalty(rows, nu=2.5))
    torch.testing.assert_close(
        ambiguity_penalty.matern_penalty(rows, sigma=2.0), ambiguity_penalty.matern_penalty(rows)
    )
    with pytest.raises(NotImplementedError, match="4"):
        ambiguity_penalty.matern_penalty(rows, nu=4)


def test_rules_and_metrics() -> None:
    values = golden("ebgmcr_training_rules")
    rule = utils.EnergyL1Scheduler(values["pool"], target_ratio=values["ratio"])
    rows = zip(values["nmse"], values["mse"], values["mean_energy"], strict=True)
    weights = [rule.step(*(float(value) for value in row)) for row in rows]
    assert weights == pytest.approx(values["l1_coef"].tolist(), rel=1e-12, abs=0)
    assert (rule.coef, rule.beta, rule.nmse_margin, rule.N_total) == (weights[-1], 0.95, 0.005, values["pool"])
    assert utils.EnergyL1Scheduler(4, target_ratio=-1.0, init_coef=1.0).step(0.0, 1.0, 2) == pytest.approx(0.95)
    assert utils.checkpoint_regions("R2", 0.97, 0.005) == values["regions_r2"]
    assert utils.checkpoint_regions("nMSE", 0.03, 0.005) == values["regions_nmse"]
    assert utils.specify_checkpoint_region(0.976, "R2", values["regions_r2"]) == "0.975[->]0.98"
    assert utils.specify_checkpoint_region(0.5, "R2", values["regions_r2"]) is None

    x, y = values["X"].double(), values["Y"].double()
    for mode in ("dense", "threshold"):
        metrics = StreamingMetrics(x.shape[1], mode=mode, eps=values["eps"])
        for part in range(0, len(x), 3):
            metrics.update(x[part : part + 3], y[part : part + 3])
        assert metrics.compute() == pytest.approx(values[mode].tolist(), rel=1e-6)
        assert metrics.n == len(x)
    x = x.clone()
    x[:, ::2] = 0
    masked = StreamingMetrics(x.shape[1], mode="mask")
    masked.update(x, y)
    assert masked.ssr == pytest.approx(float((x - y)[:, 1::2].square().sum()))
    assert masked.mu_sum.tolist() == pytest.approx(x.sum(0).tolist())
    still = StreamingMetrics(2)
    still.update(torch.zeros(3, 2), torch.zeros(3, 2))
    assert still.compute() == (0.0, 1.0)


@pytest.mark.parametrize("non_negative", [True, False])
def test_mixtures(non_negative: bool) -> None:
    torch.manual_seed(3)
    source = data.RandomComponentMixtureSynthesizer(
        6, 20, non_negative_component=non_negative, component_norm=2, max_mixing_component=3
    )
    again = copy.deepcopy(source)
    spectra, weights, parts, used = source(40, separation_mode=True)
    assert (spectra.shape, weights.shape, parts.shape) == ((40, 20), (40, 3), (40, 3, 20))
    assert isinstance(parts, LazyTensor)
    torch.testing.assert_close((weights.unsqueeze(-1) * parts).sum(1), spectra, rtol=1e-4, atol=2e-6)
    assert set((weights > 0).sum(1).tolist()) == {1, 2, 3}
    assert sorted(used) == used == list(range(6))
    assert float(weights[weights > 0].min()) > 1.0
    assert weights[:, 0].max() < 10.0
    assert not torch.equal(again(40), spectra)
    torch.manual_seed(3)
    same = data.RandomComponentMixtureSynthesizer(
        6, 20, non_negative_component=non_negative, component_norm=2, max_mixing_component=3
    )
    assert torch.equal(same.components, source.components)
    assert torch.equal(same(40), spectra)
    assert repr(source) == (
        "RandomComponentMixtureSynthesizer(component_number=6, component_dim=20, "
        f"non_negative={non_negative}, component_norm=2)"
    )


def test_mixtures_of_given_components_and_of_all() -> None:
    given = torch.rand(3, 8)
    given[:, ::2] = 0
    source = data.RandomComponentMixtureSynthesizer(9, 9, components=given, min_mixing_component=3)
    assert (source.component_number, source.component_dim, source.component_sparsity) == (3, 8, 0.5)
    spectra, weights, _, used = source.generate(5, separation_mode=True)
    assert (weights > 0).all()
    assert used == [0, 1, 2]
    assert (spectra[:, ::2] == 0).all()
    source.signal_to_nosie_ratio = 20
    assert not torch.equal(source.generate(5), source.generate(5))
    assert source().shape == (1, 8)


def test_real_data_loader(shared_data: Path) -> None:
    spectra, concentrations, components = data.CsvComponentMixtureLoader(str(shared_data / "carbs"))()
    assert (spectra.shape, concentrations.shape, components.shape) == ((21, 1401), (21, 3), (1401, 3))
    assert components[0].tolist() == pytest.approx([0.358748, 0.351953, 0.23787])
    loader = data.CsvComponentMixtureLoader(str(shared_data / "nir"))
    spectra, concentrations, components = loader(batch_size=10, dataset="nir")
    assert (spectra.shape, concentrations.shape, components.shape) == ((10, 235), (10, 2), (235, 2))
    with pytest.raises(ValueError, match="batch_size=167"):
        loader(167, "nir")
    with pytest.raises(ValueError, match="Unknown dataset"):
        loader(dataset="other")


SCRIPT = """
import sys
import torch
from ebgmcr import DenseEBgMCR, RandomComponentMixtureSynthesizer
from ebgmcr.ambiguity_penalty import rbf_penalty
from ebgmcr.eval import *
from ebgmcr.utils import init_directory

torch.manual_seed(0)
data = RandomComponentMixtureSynthesizer(4, 12, component_norm = 2)(9)
solver = DenseEBgMCR(num_components = 5, dim_components = 12, mini_batch_size = 4, max_epoch = 2)
solver.fit(data, show_eval_info = True, log_dir = init_directory(sys.argv[1]))
metrics = StreamingMetrics(dim = 12)
metrics.update(data, solver.parse_pattern(data)['reconstruction'])
print(len(metrics.compute()), rbf_penalty(data).dim())
"""


@pytest.mark.process
def test_a_script_written_for_the_published_package_runs_unmodified(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", "-m", "spectrafuse.compat", str(script), str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" |")[0] for line in lines] == ["Epoch: 2", "Reach max epoch: 2, stop fitting.", "2 0"]
