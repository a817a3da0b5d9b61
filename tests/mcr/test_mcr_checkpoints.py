"""States kept by fit, model folders, and saved runs."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spectrafuse._runtime.safetensors import read_tensors, write_tensors
from spectrafuse.mcr import model_io
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.training import checkpoint
from spectrafuse.mcr.training.checkpoint import Record, StateKeeper
from spectrafuse.random import RandomStream


def _model(seed: int = 0, **options: Any) -> UnmixingModel:
    settings = {"sparse_component": False, "component_norm": 2, "hidden_size_extension": 1, **options}
    return UnmixingModel(4, 6, **settings, stream=RandomStream(seed))


def _record(epoch: int, size: int, nmse: float) -> Record:
    return Record(epoch, nmse, 1 - nmse, 1.5, list(range(size)))


@pytest.mark.parametrize("criterion", ["R2", "nMSE"])
def test_fewest_components_win_and_ties_go_to_the_equal_or_better_fit(criterion: str) -> None:
    keeper, model = StateKeeper(_model().config), _model()
    offers = [(9, 0.01, True), (8, 0.02, True), (9, 0.001, False), (8, 0.03, False), (8, 0.02, True), (8, 0.01, True)]
    for epoch, (size, nmse, expected) in enumerate(offers):
        assert keeper.offer("band", _record(epoch, size, nmse), model, criterion) is expected
    assert keeper.slots["band"].record.epoch == 5


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_kept_state_does_not_follow_the_model(on_disk: bool, tmp_path: Path) -> None:
    model = _model()
    keeper = StateKeeper(model.config, tmp_path if on_disk else None)
    before = checkpoint.copy_state(model)
    keeper.offer("band", _record(1, 3, 0.01), model)
    keeper.flush()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    kept = keeper.state("band")
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    # A better one replaces it, in memory and on disk, and does not follow the model either.
    keeper.offer("band", _record(2, 2, 0.01), model)
    keeper.flush()
    better = checkpoint.copy_state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    kept = keeper.state("band")
    assert all(torch.equal(kept[name], value) for name, value in better.items())


def test_states_beyond_the_memory_allowed_go_to_a_temporary_folder() -> None:
    model = _model()
    size = sum(value.nbytes for value in model.state_dict().values())
    keeper = StateKeeper(model.config, scale=4.0, memory=2 * size)
    expected = {}
    for epoch, name in enumerate("abcdab"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        assert keeper.offer(name, _record(epoch, 9 - epoch, 0.01), model)
        expected[name] = checkpoint.rescale(checkpoint.copy_state(model), 4.0)
        states = {id(slot.state) for slot in keeper.slots.values() if slot.state is not None}
        assert len(states) <= 2
    assert keeper._temporary is not None
    folder = Path(keeper._temporary.name)
    for kept in (keeper, pickle.loads(pickle.dumps(keeper))):
        for name, state in expected.items():
            assert all(torch.equal(value, state[key]) for key, value in kept.state(name).items())
    assert [path.name for path in folder.glob("*/*")] == ["model.safetensors"] * len(list(folder.iterdir()))
    del keeper, kept
    gc.collect()
    assert not folder.exists()


def test_names_of_one_epoch_share_a_state_until_one_of_them_moves_on() -> None:
    model = _model()
    keeper = StateKeeper(model.config, memory=0)
    keeper.offer("band", _record(1, 3, 0.01), model)
    keeper.offer("chosen", _record(1, 3, 0.01), model)
    assert keeper.slots["band"].state is keeper.slots["chosen"].state
    first = checkpoint.copy_state(model)
    with torch.no_grad():
        model.vanilla_components.add_(1.0)
    keeper.offer("band", _record(2, 2, 0.01), model)
    assert torch.equal(keeper.state("chosen")["vanilla_components"], first["vanilla_components"])
    assert torch.equal(keeper.state("band")["vanilla_components"], model.vanilla_components)


def test_tensors_of_several_types_are_read_by_the_formats_own_library(tmp_path: Path) -> None:
    names = ("uint8", "float64", "bool", "int16", "bfloat16", "int64", "int8", "float32", "int32", "float16")
    tensors = {name: torch.tensor([3, 0, 1]).to(getattr(torch, name)) for name in names}
    write_tensors(tmp_path / "x.safetensors", tensors)
    for loaded in (load_file(tmp_path / "x.safetensors"), read_tensors(tmp_path / "x.safetensors")):
        assert loaded.keys() == tensors.keys()
        assert all(
            torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype for key, value in tensors.items()
        )
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert all(header[name]["data_offsets"][0] % tensors[name].element_size() == 0 for name in names)
    with pytest.raises(ValueError, match="'a' is of type torch.complex64"):
        write_tensors(tmp_path / "y.safetensors", {"a": torch.ones(2, dtype=torch.complex64)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_written_states_are_read_by_the_formats_own_library(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        "a.weight": torch.rand(3, 5).to(dtype).T,
        "b": torch.rand(7).to(dtype),
        "none": torch.empty(0, 2).to(dtype),
    }
    write_tensors(tmp_path / "x.safetensors", state)
    loaded = load_file(str(tmp_path / "x.safetensors"))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) and loaded[key].dtype == dtype for key, value in state.items())


def test_band_folders_have_the_published_files(tmp_path: Path) -> None:
    model = _model()
    keeper = StateKeeper(model.config, tmp_path)
    keeper.offer("0.97[->]0.975", _record(7, 3, 0.0225), model, "R2")
    keeper.flush()
    folder = tmp_path / "0.97[->]0.975"
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "param.json", "result.csv", "sha256"]
    assert (folder / "result.csv").read_text() == "nMSE,R2,mean_energy,effective_components\n0.0225,0.9775,1.5,3\n"
    assert json.loads((folder / "param.json").read_text()) == model.config
    assert load_file(str(folder / "model.safetensors")).keys() == model.state_dict().keys()


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_state_of_a_band_is_found_before_the_run_goes_on(how: str, tmp_path: Path) -> None:
    model = _model()
    keeper = StateKeeper(model.config, tmp_path)
    keeper.offer("band", _record(7, 3, 0.0225), model)
    keeper.flush()
    keeper.restore(keeper.saved())
    path = tmp_path / "band" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content if how == "flipped" else content[:-40])
    with pytest.raises(ValueError, match=r"model\.safetensors' is damaged or gone; delete"):
        keeper.restore(keeper.saved())


@pytest.mark.parametrize(
    "options", [{}, {"hidden_size_extension": None}, {"sparse_component": True, "hidden_layers": 3}]
)
def test_a_model_folder_round_trips(options: dict[str, Any], tmp_path: Path) -> None:
    model = _model(3, **options, learnable_component=False).eval()
    model_io.write_model(tmp_path, model.config, checkpoint.copy_state(model))
    loaded = model_io.read_model(tmp_path)
    assert loaded.config == model.config
    assert loaded.select_threshold == 0.9999994
    assert not loaded.training
    x = torch.rand(3, 6)
    loaded.select_threshold = model.select_threshold = 0.5
    assert torch.equal(loaded(x).mixture, model(x).mixture)


def test_damaged_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"param\.json"):
        model_io.read_model(tmp_path)
    model = _model()
    model_io.write_model(tmp_path, model.config, checkpoint.copy_state(model))
    (tmp_path / "model.safetensors").write_bytes(b"{}" * 50)
    with pytest.raises(ValueError, match="is not a safetensors file, or is cut short"):
        model_io.read_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        model_io.read_model(tmp_path)
    model_io.write_model(tmp_path, {**model.config, "dim_components": 7}, checkpoint.copy_state(model))
    with pytest.raises(ValueError, match="does not belong"):
        model_io.read_model(tmp_path)


@pytest.mark.parametrize("extension", [None, 2])
@pytest.mark.parametrize("factor", [0.25, 1.0, 512.0])
def test_a_rescaled_state_is_the_same_model_for_other_units(extension: int | None, factor: float) -> None:
    model = _model(1, hidden_size_extension=extension).eval()
    x = torch.rand(5, 6)
    model.select_threshold = 0.5
    before = model(x)
    model.load_state_dict(checkpoint.rescale(checkpoint.copy_state(model), factor))
    after = model(x * factor)
    assert torch.equal(after.select_energy, before.select_energy)
    assert torch.equal(after.concentration, before.concentration * factor)
    assert torch.equal(after.mixture, before.mixture * factor)


def test_another_run_is_refused_and_named(tmp_path: Path) -> None:
    fingerprint = {"noise": "None", "batch_size": "4"}
    checkpoint.save_training(tmp_path, {"fingerprint": fingerprint, "epoch": 3})
    contents = checkpoint.load_training(tmp_path, dict(fingerprint))
    assert contents is not None
    assert contents["epoch"] == 3
    with pytest.raises(ValueError, match="noise was None, now 0.1"):
        checkpoint.load_training(tmp_path, {**fingerprint, "noise": "0.1"})
    assert checkpoint.load_training(tmp_path / "nowhere", fingerprint) is None
