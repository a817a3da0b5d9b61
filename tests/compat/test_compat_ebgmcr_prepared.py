"""The published solver's name on the prepared kernel calls: the results of autograd, and when autograd it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from spectrafuse import use_backend
from spectrafuse.compat.ebgmcr import DenseEBgMCR, EBSelectiveMCR, fitting
from spectrafuse.compat.ebgmcr.fitting import FitOptions, Fitting
from spectrafuse.compat.ebgmcr.prepared import why_autograd
from spectrafuse.mcr.training.cpu_epoch import DirectEpochs

CASES: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {"sparse_component": True, "energy_coef": 0.1},
    "signed": {"non_negative_component": False, "component_norm": None},
    "one layer": {"hidden_size_extension": 0, "ambiguity_penalty": "matern", "matern_nu": 2.5},
    "poly": {"ambiguity_penalty": "poly", "poly_dim": 3, "ambiguity_coef": 0.1, "component_norm": 1},
    "optimizer": {"optimizer_args": {"lr": 1e-2, "eps": 1e-6}, "temperature_drop_epochs": 2},
}


def spectra(count: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, generator=generator) @ torch.rand(2, 10, generator=generator) + 0.1


def solver(kind: type[DenseEBgMCR] = DenseEBgMCR, **options: Any) -> DenseEBgMCR:
    torch.manual_seed(3)
    small = {"mini_batch_size": 5, "max_epoch": 6, "checkpoint_threshold": 0.01, "checkpoint_interval": 0.2}
    made = kind(**{"num_components": 6, "dim_components": 10, **small, **options})
    made._init_mcrs(made.num_components, 10)
    return made


def rows(fitted: DenseEBgMCR, folder: Path, **options: Any) -> list[list[float]]:
    torch.manual_seed(4)
    fitted.fit(spectra(), spectra(7), full_result_filename=str(folder / "full.csv"), force_write_file=True, **options)
    lines = (folder / "full.csv").read_text().splitlines()[1:]
    return [[float(value) for value in line.split(",")] for line in lines]


def through_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "why_autograd", lambda solver: "Not now.")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equals_autograd(
    case: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, epochs = [], DirectEpochs.train
    prepared: list[DirectEpochs] = []
    monkeypatch.setattr(DirectEpochs, "train", lambda self, *given: (prepared.append(self), epochs(self, *given))[1])
    for direct in (True, False):
        fitted = solver(**CASES[case])
        fitted.stored_mcrs.to(dtype)
        assert why_autograd(fitted) is None
        with monkeypatch.context() as patch:
            if not direct:
                through_autograd(patch)
            table = rows(fitted, tmp_path, show_train_info=True)
        runs.append((fitted, table, torch.rand(3), capsys.readouterr().out))
    assert len(prepared) == 6
    (ours, table, left, printed), (theirs, expected, left_there, printed_there) = runs
    assert torch.equal(left, left_there)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for row, other in zip(table, expected, strict=True):
        assert row == pytest.approx(other, rel=tolerance)
    for mine, other in zip(ours.stored_mcrs.parameters(), theirs.stored_mcrs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=10 * tolerance, atol=tolerance / 10)
        assert mine.untyped_storage().nbytes() == mine.nbytes
    assert [line.split("|")[0] for line in printed.splitlines()] == [
        line.split("|")[0] for line in printed_there.splitlines()
    ]
    figures = [
        [float(part.split(": ")[-1]) for part in line.split("|")[1:]] for line in printed.splitlines() if "(" in line
    ]
    there = [
        [float(part.split(": ")[-1]) for part in line.split("|")[1:]]
        for line in printed_there.splitlines()
        if "(" in line
    ]
    for row, other in zip(figures, there, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=2e-6)  # printed with six digits
    assert not ours.stored_mcrs.training


class OwnForward(EBSelectiveMCR):
    def forward(self, pattern: Tensor, select_prob_threshld: float | None = None) -> dict[str, Tensor]:
        return super().forward(pattern, select_prob_threshld)


class OwnComponents(EBSelectiveMCR):
    def components(self, indices: Any = None) -> Tensor:
        return super().components(indices)


class OwnAdamW(optim.AdamW):
    pass


class Addition(EBSelectiveMCR):
    """Replaces nothing."""

    def spectrum(self, index: int) -> Tensor:
        return self.components()[index]


def _module(change: Callable[[Any], object]) -> Callable[[DenseEBgMCR], object]:
    return lambda made: change(made.stored_mcrs[0])


def _of_class(kind: type[EBSelectiveMCR]) -> Callable[[DenseEBgMCR], object]:
    def insert(made: DenseEBgMCR) -> None:
        made.stored_mcrs = nn.ModuleList()
        made.insert_mcr(kind(6, 10, False, component_norm=2))

    return insert


def _ignored(*given: Any) -> None:
    return None


def _own_network(module: Any) -> None:
    module.concentration_regressor = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 6))


def _own_mixing(module: Any) -> None:
    module.aggregate_function = lambda concentration, components: (concentration * components).sum(1)


def _freeze(module: Any) -> None:
    module.concentration_regressor[0].weight.requires_grad_(False)


FORBIDDING: dict[str, tuple[Callable[[DenseEBgMCR], object], str]] = {
    "forward": (_of_class(OwnForward), "OwnForward has its own forward."),
    "components": (_of_class(OwnComponents), "OwnComponents has its own components."),
    "instance": (_module(lambda m: setattr(m, "parse_pattern", m.parse_pattern)), "has its own parse_pattern"),
    "forward hook": (_module(lambda m: m.register_forward_hook(_ignored)), "hook on a module"),
    "layer hook": (_module(lambda m: m.concentration_regressor[0].register_forward_hook(_ignored)), "hook on a"),
    "backward hook": (_module(lambda m: m.register_full_backward_hook(_ignored)), "hook on a module"),
    "parameter hook": (_module(lambda m: m.vanilla_components.register_hook(_ignored)), "hook on a parameter"),
    "frozen": (_module(_freeze), "does not train"),
    "extra parameter": (_module(lambda m: setattr(m, "extra", nn.Parameter(torch.zeros(2)))), "of the caller's"),
    "network": (_module(_own_network), "plain linear layers"),
    "mixing": (_module(_own_mixing), "`aggregate_function`"),
    "post-processing": (_module(lambda m: setattr(m, "component_post_processing", nn.ReLU())), "post_processing"),
    "norm": (_module(lambda m: setattr(m, "component_norm", 3)), "norms 1 and 2"),
    "half": (_module(lambda m: m.to(torch.bfloat16)), "float32 or float64"),
    "device": (_module(lambda m: m.to("meta")), "on meta"),
    "penalty": (lambda s: setattr(s, "ambiguity_penalty_func", lambda c: c.sum()), "`ambiguity_penalty_func`"),
    "linear penalty": (lambda s: setattr(s, "ambiguity_penalty", "linear"), "got linear"),
    "no penalty": (lambda s: setattr(s, "ambiguity_coef", 0.0), "`ambiguity_coef` is 0"),
    "threshold": (lambda s: setattr(s, "select_prob_threshld", 1.0), "below 1"),
    "optimizer": (lambda s: setattr(s, "optimizer_class", OwnAdamW), "got OwnAdamW"),
    "amsgrad": (lambda s: setattr(s, "optimizer_args", {"amsgrad": True}), "got amsgrad"),
    "batch": (lambda s: setattr(s, "mini_batch_size", 10**6), "got 1000000"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDING)
def test_what_forbids_it_is_said_and_obeyed(name: str) -> None:
    change, reason = FORBIDDING[name]
    made = solver()
    assert why_autograd(made) is None
    change(made)
    assert reason in (why_autograd(made) or "")
    quiet = FitOptions(False, False, 1, 1, None, 1, None, None)
    assert Fitting(made, spectra(), spectra(), quiet).prepared is None


def test_several_modules_and_other_implementations_forbid_it() -> None:
    assert "has 2" in (why_autograd(solver(num_components=(3, 3))) or "")
    with use_backend("torch"):
        assert "gated_mixture" in (why_autograd(solver()) or "")
    with torch.autocast("cpu"):
        assert "autocast" in (why_autograd(solver()) or "")


def test_a_subclass_that_replaces_nothing_does_not_forbid_it() -> None:
    made = solver()
    _of_class(Addition)(made)
    assert why_autograd(made) is None


def test_a_hook_is_called(tmp_path: Path) -> None:
    calls = []
    made = solver()
    made.stored_mcrs[0].register_forward_hook(lambda *given: calls.append(1))
    rows(made, tmp_path)
    assert len(calls) == 6 * (3 + 2)
