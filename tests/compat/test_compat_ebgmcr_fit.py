"""The published EB-gMCR solver's name: training, lines, files, several modules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from spectrafuse.compat.ebgmcr import DenseEBgMCR, EBSelectiveMCR
from spectrafuse.compat.ebgmcr.analyzer import BaseEBgMCR
from spectrafuse.compat.ebgmcr.fitting import FitOptions, Fitting, _StepFigures
from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.compat.ebgmcr.utils import EnergyL1Scheduler
from spectrafuse.mcr.model_io import read_model
from spectrafuse.mcr.training.rules import EnergyStopRule


def spectra(count: int = 12, length: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, generator=generator) @ torch.rand(2, length, generator=generator) + 0.1


def solver(**options: Any) -> DenseEBgMCR:
    torch.manual_seed(3)
    small = {"mini_batch_size": 5, "max_epoch": 4, "checkpoint_threshold": 0.01, "checkpoint_interval": 0.2}
    return DenseEBgMCR(**{"num_components": 6, "dim_components": 10, **small, **options})


def test_lines_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = solver(max_epoch=40, optimizer_args={"lr": 1e-2})
    files = {name: str(tmp_path / "made" / name) for name in ("full.csv", "final")}
    torch.manual_seed(1)
    fitted.fit(
        spectra(), show_args=True, show_train_info=True, show_eval_info=True, train_info_display_interval=2,
        eval_info_display_interval=15, log_dir=str(tmp_path / "log"), full_result_filename=files["full.csv"],
        final_result_filename=files["final"],
    )  # fmt: skip
    printed = capsys.readouterr().out
    number = r"-?\d+\.\d+"
    steps = re.findall(
        rf"^Epoch: (\d+) \[iter: (\d)/3\] \| Reconstruct Err. \(↓\): {number} \| "
        rf"Components' Similarity \(↓\): {number} \| Energy \(↓\): {number}$",
        printed,
        re.MULTILINE,
    )
    assert steps == [(str(epoch), step) for epoch in range(1, 41) for step in "23"]
    line = rf"^Epoch: (\d+) \| nMSE \(pattern\): {number} \| R2: {number} \| E: {number} \| Used components: \d$"
    assert re.findall(line, printed, re.MULTILINE) == ["15", "30", "40"]
    assert "Reach max epoch: 40, stop fitting.\n" in printed
    assert "DenseEBgMCR(\nMCR Modules: \n" in printed
    assert "'temperature_start': 1.0,\n" in printed

    rows = (tmp_path / "made" / "full.csv").read_text().splitlines()
    assert rows[0] == "epoch,nMSE,R2,mean_energy,effective_components"
    assert [row.split(",")[0] for row in rows[1:]] == [str(epoch) for epoch in range(1, 41)]
    final = (tmp_path / "made" / "final.csv").read_text().splitlines()
    assert final == ["nMSE,R2,mean_energy,effective_components", rows[-1].partition(",")[2]]
    figures = [[float(value) for value in row.split(",")] for row in rows[1:]]
    assert figures[-1][1] < 0.5 * figures[0][1]
    assert all(1.0 < row[3] < 2.2 for row in figures)

    kept = re.findall(
        r"^Successfully save recorded checkpoint \(region=(.*), effective_components=(\d)\)$", printed, re.M
    )
    assert kept
    for name, count in kept:
        low, high = (float(part) for part in name.split("[->]"))
        candidates = [row for row in figures if low <= row[2] < high]
        fewest = min(row[4] for row in candidates)
        best = max(row[2] for row in candidates if row[4] == fewest)
        assert int(count) == fewest
        folder = tmp_path / "log" / name
        assert f"Successfully checkpoint result to file:{folder / 'result.csv'}.\n" in printed
        result = (folder / "result.csv").read_text().splitlines()
        assert result[0] == final[0]
        assert float(result[1].split(",")[1]) == best
        assert read_model(folder).num_components == 6
    with pytest.raises(RuntimeError, match="force_write_file=True"):
        fitted.fit(spectra(), full_result_filename=files["full.csv"])


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    states = []
    for run in range(2):
        fitted = solver(sparse_component=run < 0, component_norm=1)
        fitted.fit(spectra(), log_dir=str(tmp_path / str(run)))
        states.append(fitted.stored_mcrs.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


class CountingSGD(optim.SGD):
    steps = 0

    def step(self, closure: Any = None) -> Any:
        CountingSGD.steps += 1
        return super().step(closure)


def test_a_callers_optimizer() -> None:
    fitted = solver(optimizer_class=CountingSGD, optimizer_args={"lr": 0.0})
    fitted.fit(spectra())
    assert CountingSGD.steps == 4 * 3
    torch.manual_seed(3)
    untrained = solver()
    untrained._init_mcrs(6, 10)
    torch.manual_seed(3)
    again = EBSelectiveMCR(6, 10, False, component_norm=2, hidden_size_extension=2, hidden_layers=2)
    assert torch.equal(fitted.stored_mcrs[0].vanilla_components, again.vanilla_components)


@pytest.mark.parametrize(
    "options",
    [
        {"dim_components": None, "checkpoint_criterion": None},
        {"ambiguity_penalty": "matern", "matern_nu": 2.5, "ambiguity_coef": 1.0},
        {"ambiguity_penalty": "Poly", "poly_dim": 3},
        {"hidden_size_extension": 0},
        {"sparse_component": True, "energy_coef": 0.1},
        {"non_negative_component": False, "component_norm": None, "min_component_coef": 0},
        {"checkpoint_criterion": "nMSE", "checkpoint_threshold": 0.9, "temperature_drop_epochs": 0},
        {"num_components": (3, 5), "sparse_component": True},
    ],
    ids=str,
)
def test_what_options_and_crashes_become(options: dict[str, Any], tmp_path: Path) -> None:
    fitted = solver(**options)
    fitted.fit(spectra().double(), eval_data=spectra(7))
    parsed = fitted.parse_pattern(spectra(3))
    total = sum(fitted.num_components)
    shapes = {name: tuple(value.shape) for name, value in parsed.items()}
    assert shapes == {
        "reconstruction": (3, 10), "concentration": (3, total, 1), "components": (3, total, 10),
        "select_prob": (3, total),
    }  # fmt: skip
    mixed = (parsed["concentration"] * parsed["components"]).sum(1)
    torch.testing.assert_close(mixed, parsed["reconstruction"], rtol=1e-4, atol=1e-6)
    assert parsed["reconstruction"].isfinite().all()
    fitted.save_mcrs(str(tmp_path / "saved"))
    again = DenseEBgMCR(1, select_prob_threshld=fitted.select_prob_threshld)
    again.load_mcrs(str(tmp_path / "saved"))
    assert again.dim_components == 10
    assert again.num_components == fitted.num_components == [len(m.vanilla_components) for m in again.stored_mcrs]
    for one, other in zip(again.stored_mcrs, fitted.stored_mcrs, strict=True):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_modules_of_the_callers_own() -> None:
    fitted = solver(dim_components=None)
    fitted.insert_mcr(EBSelectiveMCR(2, 10, sparse_component=False, temperature_eval=0.01))
    mixed = EBSelectiveMCR(4, 10, aggregate_function=lambda c, s: torch.log1p(c * s).sum(1), temperature_eval=0.01)
    fitted.insert_mcr(mixed)
    with pytest.raises(TypeError, match="EBSelectiveMCR"):
        fitted.insert_mcr(nn.Linear(1, 1))  # type: ignore[arg-type]
    before = mixed.vanilla_components.clone()
    fitted.fit(spectra())
    assert not torch.equal(mixed.vanilla_components, before)
    parsed = fitted.parse_pattern(spectra(3), select_threshold=0.5)
    assert parsed["components"].shape == (3, 6, 10)
    with pytest.raises(RuntimeError, match="before"):
        fitted.insert_mcr(mixed)
    with pytest.raises(RuntimeError, match="num_components"):
        fitted.num_components = 3
    fitted.langevin_steps = 5
    assert [module.langevin_steps for module in fitted.stored_mcrs] == [5, 5]


@pytest.mark.parametrize("sizes", [(4, 4), (3, 5)])
def test_loss_of_several_modules(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = solver(num_components=sizes, energy_coef=0.5, ambiguity_coef=2.0, ambiguity_penalty="linear")
    fitted._init_mcrs(sizes, 10)
    options = _quiet()
    run = Fitting(fitted, spectra(), spectra(), options)
    run.pressure.coef = 3.0
    target = spectra(5)
    losses = []
    backward = Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda loss: (losses.append(loss.detach()), backward(loss)))
    torch.manual_seed(8)
    components = [module.components().detach().clone() for module in fitted.stored_mcrs]
    run.train_step(target)
    untrained = solver(num_components=sizes)
    untrained._init_mcrs(sizes, 10)
    torch.manual_seed(8)
    outputs = [module(target) for module in untrained.stored_mcrs]
    error = (sum(o["synthesized_pattern"] for o in outputs) - target).square().mean()
    gates = [o["effective_indices"] for o in outputs]
    share = torch.stack([gate.sum(1) / sum(sizes) for gate in gates]).mean()
    energy = torch.cat([o["select_energy"].flatten() for o in outputs]).square().mean()
    rows = torch.cat([s[(g > 0.5).any(0)] for s, g in zip(components, gates, strict=True)])
    gram = rows @ rows.T
    pairs = gram[torch.triu(torch.ones_like(gram), 1) > 0].mean()
    torch.testing.assert_close(losses[0], error + 3 * share + 0.5 * energy + 2 * pairs)


def _quiet() -> FitOptions:
    return FitOptions(False, False, 1, 1, None, 1, None, None)


def test_samples_and_evaluation_use_up_the_published_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = solver(optimizer_class=optim.SGD, optimizer_args={"lr": 0.0})
    fitted._init_mcrs(6, 10)
    data = spectra()
    run = Fitting(fitted, data, data, _quiet())
    seen: list[Tensor] = []

    def step(target: Tensor) -> Any:
        seen.append(target)
        return _StepFigures(*torch.zeros(3), 1)

    monkeypatch.setattr(run, "train_step", step)
    torch.manual_seed(5)
    run.train_epoch()
    run.evaluate()
    left = torch.rand(3)
    torch.manual_seed(5)
    order = [batch for (batch,) in DataLoader(TensorDataset(data), batch_size=5, shuffle=True)]
    for (batch,) in DataLoader(TensorDataset(data), batch_size=5, shuffle=False):
        for _ in range(2):
            torch.empty(len(batch), 6, 2).exponential_()
    assert all(torch.equal(one, other) for one, other in zip(seen, order, strict=True))
    assert torch.equal(left, torch.rand(3))


def test_torchs_optimizers_are_fused_unless_told_otherwise() -> None:
    fused = []
    for options in ({"eps": torch.tensor(1e-8)}, {"foreach": True}, {"fused": False}):
        fitted = solver(optimizer_args={"lr": 1e-3, **options})
        fitted._init_mcrs(6, 10)
        fused.append(Fitting(fitted, spectra(), spectra(), _quiet()).optimizer.defaults["fused"])
        assert fitted.optimizer_args == {"lr": 1e-3, **options}
    assert fused == [True, None, False]


def test_the_rule_gets_the_mean_energy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    step = EnergyL1Scheduler.step
    monkeypatch.setattr(EnergyL1Scheduler, "step", lambda self, *given: (seen.append(given), step(self, *given))[1])
    fitted = solver()
    fitted.fit(spectra(), full_result_filename=str(tmp_path / "full.csv"))
    rows = (tmp_path / "full.csv").read_text().splitlines()[1:]
    assert [given[2] for given in seen] == [float(row.split(",")[3]) for row in rows]
    assert [given[0] for given in seen] == [float(row.split(",")[1]) for row in rows]


def test_stops_by_the_published_rule(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnergyStopRule, "step", lambda self, nmse, energy, count: "because")
    solver(max_epoch=-1).fit(spectra())
    assert re.fullmatch(
        r"Epoch: 1 \| nMSE: \d\.\d{4} \| E: \d\.\d{4} reach terminate condition \(leave converge region\)\.\n",
        capsys.readouterr().out,
    )


@pytest.mark.slow
def test_writing_checkpoints_leaves_the_end_of_the_run_alone(tmp_path: Path) -> None:
    options = {"temperature_drop_epochs": 1, "temperature_drop_value": 0.01, "checkpoint_criterion": "nMSE"}
    options |= {"checkpoint_threshold": 0.999, "checkpoint_interval": 0.3, "max_epoch": 36}
    options |= {"optimizer_args": {"lr": 1e-2}}
    plain, kept = solver(**options), solver(**options)
    for fitted, folder in ((plain, None), (kept, str(tmp_path))):
        torch.manual_seed(6)
        fitted.fit(spectra(), log_dir=folder, full_result_filename=str(tmp_path / "full.csv"), force_write_file=True)
    ends = [fitted.stored_mcrs[0] for fitted in (plain, kept)]
    assert all(torch.equal(value, ends[1].state_dict()[key]) for key, value in ends[0].state_dict().items())
    assert [end.temperature_train for end in ends] == pytest.approx([0.65, 0.65])

    folders = [path.parent for path in tmp_path.glob("*/param.json")]
    assert folders
    rows = [line.split(",") for line in (tmp_path / "full.csv").read_text().splitlines()]
    assert float(rows[-1][1]) < 0.099  # below all bands: no checkpoint is of the last state
    for folder in folders:
        result = (folder / "result.csv").read_text().splitlines()[1].split(",")
        epoch = next(int(row[0]) for row in rows if row[1:] == result)
        temperature = json.loads((folder / "param.json").read_text())["temperature_train"]
        assert temperature == pytest.approx(1.0 - 0.01 * (epoch - 1))


def test_an_interrupted_run_leaves_its_files(tmp_path: Path) -> None:
    class Interrupted(optim.AdamW):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            Interrupted.steps += 1
            if Interrupted.steps == 8:
                raise KeyboardInterrupt
            return super().step(closure)

    fitted = solver(optimizer_class=Interrupted, checkpoint_criterion="nMSE", checkpoint_threshold=0.999)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(spectra(), log_dir=str(tmp_path), full_result_filename=str(tmp_path / "full.csv"))
    assert len((tmp_path / "full.csv").read_text().splitlines()) == 3
    assert list(tmp_path.glob("*/model.safetensors"))
    fitted.insert_mcr(EBSelectiveMCR(2, 10))


@pytest.mark.parametrize("hook", ["forward", "penalty", "gradient"])
def test_a_hook_that_raises_leaves_a_usable_solver_and_its_files(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, calls = solver(checkpoint_criterion="nMSE", checkpoint_threshold=0.999), [0]
    module = EBSelectiveMCR(6, 10)
    fitted.insert_mcr(module)

    def fail(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == 8:
            raise ZeroDivisionError

    if hook == "forward":
        module.register_forward_hook(fail)
    elif hook == "penalty":
        usual = fitted.ambiguity_penalty_func
        monkeypatch.setattr(fitted, "ambiguity_penalty_func", lambda *given, **more: fail() or usual(*given, **more))
    else:
        next(module.concentration_regressor.parameters()).register_hook(fail)
    files = {"log_dir": str(tmp_path), "full_result_filename": str(tmp_path / "full.csv")}
    with pytest.raises(ZeroDivisionError):
        fitted.fit(spectra(), **files)
    assert not module.training
    assert len((tmp_path / "full.csv").read_text().splitlines()) > 1
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    # The same solver goes on.
    fitted.fit(spectra(), force_write_file=True, **files)
    assert len((tmp_path / "full.csv").read_text().splitlines()) == 5
    assert fitted.parse_pattern(spectra())["select_prob"].shape == (12, 6)


def test_an_error_before_the_first_epoch_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "full.csv").write_text("hours of work")
    fitted, module = solver(), EBSelectiveMCR(6, 10)
    module.register_forward_hook(lambda *_: 1 / 0)
    fitted.insert_mcr(module)
    with pytest.raises(ZeroDivisionError):
        fitted.fit(spectra(), force_write_file=True, full_result_filename=str(tmp_path / "full.csv"))
    assert (tmp_path / "full.csv").read_text() == "hours of work"


def test_inference_holds_no_tensor_of_all_components() -> None:
    fitted = solver()
    fitted.fit(spectra())
    parsed = fitted.parse_pattern(spectra(4))
    assert isinstance(parsed["components"], LazyTensor)
    used = (parsed["select_prob"] > 0).any(0)
    picked = parsed["components"][0, used]
    assert picked.shape == (int(used.sum()), 10)
    assert parsed["components"]._whole is None


def test_wrong_arguments_are_named() -> None:
    for name, value in {
        "num_components": 0, "sparse_component": 1, "optimizer_class": nn.Linear, "optimizer_args": [],
        "checkpoint_criterion": "R3", "device": 3, "ambiguity_penalty": "cosine", "temperature_min": 2.0,
        "max_epoch": 0.5, "langevin_steps": -1, "hidden_layers": 0, "tol_pattern_nmse": 2.0,
    }.items():  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=name):
            solver(**{name: value})
    with pytest.raises(ValueError, match="data"):
        solver().fit(torch.rand(2, 3, 10))
    with pytest.raises(RuntimeError, match="No MCR module"):
        solver().parse_pattern(spectra())
    with pytest.raises(TypeError, match="abstract"):
        BaseEBgMCR(4)  # type: ignore[abstract]


def test_folders_without_modules(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no module"):
        solver().load_mcrs(str(tmp_path))
    EBSelectiveMCR(2, 3).save_pretrained(str(tmp_path / "0"))
    EBSelectiveMCR(2, 4).save_pretrained(str(tmp_path / "1"))
    with pytest.raises(ValueError, match="different lengths"):
        solver().load_mcrs(str(tmp_path))
