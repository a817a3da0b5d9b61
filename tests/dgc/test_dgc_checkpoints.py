"""Model folders: round trips, folders of the published code, and one clear error for each kind of damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import golden, state
from spectrafuse.dgc.estimator import DeepGlobalClustering
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.model_io import CONFIG_FILE, EXTRA_FILE, WEIGHTS_FILE, read_model, write_model
from spectrafuse.random import RandomStream


@pytest.fixture
def model() -> SegmentationModel:
    return SegmentationModel(12, 8, 3, window=3, temperature=0.1, stream=RandomStream(7), loss_weights={"orth": 0.5})


def published_folder(folder: Path) -> dict[str, torch.Tensor]:
    """A folder as the published code writes it."""
    values = golden("dgc_train_step")
    weights = {name: value.float() for name, value in state(values, "state").items()}
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(values["config"], indent=2))
    save_file(weights, folder / WEIGHTS_FILE)
    return weights


def test_round_trip(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {"note": "text", "values": [1, 2.5]})
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [CONFIG_FILE, EXTRA_FILE, WEIGHTS_FILE]
    again, extra = read_model(tmp_path / "model")
    assert extra == {"note": "text", "values": [1, 2.5]}
    assert again.config == model.config
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    x = RandomStream(1).normal((1, 12, 6, 5))
    assert torch.equal(again.labels(x), model.labels(x))


def test_files_are_what_the_published_code_reads(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {})
    config = json.loads((tmp_path / "model" / CONFIG_FILE).read_text())
    assert sorted(config) == ["encoder_kwargs", "loss_weights", "mean_shift_kwargs", "num_bands"]
    published = golden("dgc_train_step")
    assert sorted(load_file(tmp_path / "model" / WEIGHTS_FILE)) == sorted(state(published, "state"))


def test_published_folders_load(tmp_path: Path) -> None:
    weights = published_folder(tmp_path / "epoch_3")
    model, extra = read_model(tmp_path / "epoch_3")
    assert extra == {}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    values = golden("dgc_train_step")
    expected = values["ema.p1"].argmax(-1)
    assert (model.labels(values["crop1"].float()) == expected).float().mean() > 0.99
    estimator = DeepGlobalClustering.load(tmp_path / "epoch_3")
    assert estimator.n_features_in_ == 12
    assert estimator.normalization_.method == "meanstd"
    assert estimator.predict(values["crop1"][0].numpy()).shape == (16, 16)
    assert "published" in estimator.stop_reason_
    with pytest.raises(ValueError, match="give scenes as `X`"):
        estimator.prune()
    estimator.save(tmp_path / "again")
    assert DeepGlobalClustering.load(tmp_path / "again").n_clusters == 5


def test_a_pruned_model_round_trips(model: SegmentationModel, tmp_path: Path) -> None:
    model.prune(torch.tensor([0.5, 0.0, 0.5]), 0.1)
    write_model(tmp_path / "model", model, {})
    assert read_model(tmp_path / "model")[0].n_clusters == 2


def test_an_older_model_is_replaced_and_other_files_are_not(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path, model, {"run": 1})
    write_model(tmp_path, model, {"run": 2})
    assert read_model(tmp_path)[1] == {"run": 2}
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"also holds notes\.txt"):
        write_model(tmp_path, model, {"run": 3})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert read_model(tmp_path)[1] == {"run": 2}


def test_a_failed_save_leaves_the_old_model(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {"run": 1})
    with pytest.raises(AttributeError):
        write_model(tmp_path / "model", model, {"run": object()})
    assert read_model(tmp_path / "model")[1] == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_missing_files(model: SegmentationModel, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; a model folder holds config\.json"):
        read_model(tmp_path / "nowhere")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        write_model(tmp_path / name, model, {})
        (tmp_path / name / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            read_model(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (WEIGHTS_FILE, b"", "weights.safetensors' is not a safetensors file"),
        (WEIGHTS_FILE, b"{}" * 50, "weights.safetensors' is not a safetensors file"),
        (CONFIG_FILE, b"{", "config.json cannot be read as JSON"),
        (CONFIG_FILE, b"[]", "config.json must hold a JSON object; got list"),
        (CONFIG_FILE, b'{"num_bands": "many"}', "config.json describes no model: `n_bands`"),
        (CONFIG_FILE, b'{"encoder_kwargs": 3}', "config.json describes no model"),
        (EXTRA_FILE, b"\xff", "spectrafuse.json cannot be read as JSON"),
    ],
)
def test_damaged_files(model: SegmentationModel, tmp_path: Path, name: str, content: bytes, match: str) -> None:
    write_model(tmp_path / "model", model, {})
    (tmp_path / "model" / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_model(tmp_path / "model")


def test_a_cut_weights_file(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {})
    file = tmp_path / "model" / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is not a safetensors file, or is cut short"):
        read_model(tmp_path / "model")


def test_weights_that_do_not_fit(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {})
    file = tmp_path / "model" / WEIGHTS_FILE
    weights = load_file(file)
    save_file(weights | {"cluster.cluster_centers": torch.zeros(4, 8)}, file)
    with pytest.raises(ValueError, match=r"cluster\.cluster_centers must be \(3, 8\) and is \(4, 8\)"):
        read_model(tmp_path / "model")
    save_file(weights | {"extra": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"extra must be absent and is \(1,\)"):
        read_model(tmp_path / "model")


def test_an_extra_file_of_something_else(model: SegmentationModel, tmp_path: Path) -> None:
    write_model(tmp_path / "model", model, {"parameters": {"depth": 3}})
    with pytest.raises(ValueError, match=r"spectrafuse\.json does not describe this model"):
        DeepGlobalClustering.load(tmp_path / "model")
