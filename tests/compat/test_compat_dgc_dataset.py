"""The stand-in of `JSONMATDataset`: files as the published class reads them, and labels that it could not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.compat_dgc_parts import small_trainer
from helpers.io_files import write_matlab5, write_matlab73
from spectrafuse.compat.hsi_global_clustering import JSONMATDataset
from spectrafuse.compat.hsi_global_clustering.hsi_processing import normalize_cube

ROWS, COLUMNS, BANDS = 13, 11, 6


def cube(seed: int = 0) -> np.ndarray:
    """(H, W, C)"""
    return np.random.default_rng(seed).random((ROWS, COLUMNS, BANDS))


def label_map(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (ROWS, COLUMNS))


def folder_of(path: Path, **variables: Any) -> str:
    path.mkdir(exist_ok=True)
    write_matlab5(path / "b.mat", variables)
    write_matlab5(path / "a.mat", variables)
    return str(path)


def test_cubes_in_the_order_of_names(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, cube=cube())
    dataset = JSONMATDataset(folder, label_key=None)
    assert [Path(file).name for file in dataset.files] == ["a.mat", "b.mat"]
    assert len(dataset) == 2
    assert dataset[1].dtype == torch.float32
    np.testing.assert_array_equal(dataset[1], cube().transpose(2, 0, 1).astype(np.float32))
    loaded = JSONMATDataset(folder, full_loading=True)
    assert torch.equal(loaded[1], dataset[1])
    assert len(loaded.load_all()) == len(loaded) == 2
    assert pickle.loads(pickle.dumps(dataset))[0].shape == (BANDS, ROWS, COLUMNS)
    with pytest.raises(IndexError):
        dataset[2]


def test_the_published_rule_for_axes(tmp_path: Path) -> None:
    shapes = {(13, 11, 6): (6, 13, 11), (6, 11, 13): (6, 11, 13), (6, 13, 6): (6, 13, 6), (9, 13, 6): (6, 9, 13)}
    for shape, expected in shapes.items():
        assert JSONMATDataset(folder_of(tmp_path, cube=np.zeros(shape)))[0].shape == expected


def test_version_73_keeps_its_axes_reversed(tmp_path: Path) -> None:
    labels = label_map()
    write_matlab73(tmp_path / "a.mat", {"cube": cube(), "label": labels.astype(float)})
    read, label = JSONMATDataset(str(tmp_path))[0]
    np.testing.assert_array_equal(read, cube().transpose(2, 1, 0).astype(np.float32))
    np.testing.assert_array_equal(label, labels.T)
    assert JSONMATDataset(str(tmp_path), label_key=None)[0].shape == (BANDS, COLUMNS, ROWS)
    # A folder with both versions fails in the original.
    write_matlab5(tmp_path / "b.mat", {"cube": cube()})
    assert JSONMATDataset(str(tmp_path))[1].shape == (BANDS, ROWS, COLUMNS)


def test_label_key_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "mat", cube=cube(), truth=label_map().astype(np.uint8))
    dataset = JSONMATDataset(folder, label_key="truth", normalize=normalize_cube)
    _, label = dataset[0]
    assert label.dtype == torch.int64
    np.testing.assert_array_equal(label, label_map())
    trainer = small_trainer(tmp_path, *dataset.load_all(), num_epochs=1)
    trainer.train()
    assert " | IoU=" in capsys.readouterr().out
    folder_of(tmp_path / "mat", cube=cube(), truth=label_map().T)
    with pytest.raises(ValueError, match="label map of \\(13, 11\\) pixels like its cube; got \\(11, 13\\)"):
        dataset[0]


def test_label_tensors_are_never_unpickled(tmp_path: Path) -> None:
    folder, labels = folder_of(tmp_path, cube=cube(), label=np.ones((ROWS, COLUMNS))), tmp_path / "labels"
    labels.mkdir()
    dataset = JSONMATDataset(folder, label_dir=str(labels))
    with pytest.raises(FileNotFoundError):
        dataset[0]
    torch.save(torch.from_numpy(label_map()), labels / "a.pth")
    np.testing.assert_array_equal(dataset[0][1], label_map())
    torch.save([1], labels / "a.pth")
    with pytest.raises(TypeError, match="must hold a tensor; got list"):
        dataset[0]
    torch.save(torch.zeros(ROWS, dtype=torch.int64), labels / "a.pth")
    with pytest.raises(ValueError, match="got \\(13,\\)"):
        dataset[0]

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save(Trap(), labels / "a.pth")
    with pytest.raises(pickle.UnpicklingError):
        dataset[0]
    assert not (tmp_path / "sprung").exists()


def test_annotations_are_filled_in_their_order(tmp_path: Path) -> None:
    folder, annotations = folder_of(tmp_path, cube=cube()), tmp_path / "json"
    annotations.mkdir()
    square = [[1, 2], [6, 2], [6, 8], [1, 8]]
    shapes = [
        {"label": "leaf", "points": square},
        {"label": "spot", "points": [[4, 5], [9, 5], [9, 11], [4, 11]]},
        {"label": "unknown", "points": [[0, 0], [0, 1], [1, 1], [1, 0]]},
        {"label": "spot", "points": [[10, 0]]},
    ]
    (annotations / "a.json").write_text(json.dumps({"shapes": shapes}))
    classes = {"leaf": 1, "spot": 300}
    _, label = JSONMATDataset(folder, json_dir=str(annotations), class_to_index=classes)[0]
    expected = np.zeros((ROWS, COLUMNS), dtype=np.int64)
    expected[2:9, 1:7] = 1
    expected[5:12, 4:10] = 300
    expected[0, 10] = 300
    np.testing.assert_array_equal(label, expected)
    assert JSONMATDataset(folder, json_dir=str(annotations))[0][1].unique().tolist() == [0]


def test_normalize_comes_before_transform(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, cube=cube())
    doubled = JSONMATDataset(folder, normalize=lambda x: x + 1, transform=lambda x: (2 * x).numpy())
    torch.testing.assert_close(doubled[0], 2 * (JSONMATDataset(folder)[0] + 1))
    as_array = JSONMATDataset(folder, transform=lambda x: x.numpy(), to_tensor=False)[0]
    assert isinstance(as_array, np.ndarray)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`mat_dir` must be a folder with .mat files"):
        JSONMATDataset(str(tmp_path))
    folder = folder_of(tmp_path, cube=cube(), flat=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="got both"):
        JSONMATDataset(folder, json_dir=folder, label_dir=folder)
    with pytest.raises(ValueError, match="`json_dir` must be a folder"):
        JSONMATDataset(folder, json_dir=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has no variable 'data'; it has cube"):
        JSONMATDataset(folder, data_key="data")[0]
    with pytest.raises(ValueError, match="must be a cube with 3 dimensions"):
        JSONMATDataset(folder, data_key="flat")[0]
