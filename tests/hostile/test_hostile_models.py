"""Model folders that someone has changed: they load, or are refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import seeds
from helpers.models import cube, segmentation
from spectrafuse import DeepGlobalClustering
from spectrafuse._runtime.errors import InvalidValueError, SpectrafuseError
from spectrafuse.mcr import model_io
from spectrafuse.mcr.estimator import EBgMCR

pytestmark = pytest.mark.slow

VALUES: list[Any] = [None, -1, 0, 1.5, "x", [], {}, [None], "NaN"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    spectra = np.random.default_rng(0).random((12, 3)) @ np.random.default_rng(1).random((3, 20))
    EBgMCR(pool_size=8, random_state=0).fit(spectra.astype("float32")).save(path)
    return path


def load(path: Path) -> None:
    said = ""
    try:
        EBgMCR.load(path)
    except (InvalidValueError, FileNotFoundError) as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000


def copied(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("name", [model_io.CONFIG_FILE, model_io.EXTRA_FILE])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "\x00", "[" * 100_000])
def test_json_that_is_none_is_refused(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    path = copied(folder, tmp_path)
    (path / name).write_text(text)
    with pytest.raises(InvalidValueError, match=name):
        EBgMCR.load(path)


@pytest.mark.parametrize("name", [model_io.CONFIG_FILE, model_io.EXTRA_FILE])
def test_any_value_in_json_loads_or_is_one_sentence(folder: Path, tmp_path: Path, name: str) -> None:
    path = copied(folder, tmp_path)
    content = json.loads((path / name).read_text())
    for key in content:
        for value in VALUES:
            (path / name).write_text(json.dumps({**content, key: value}))
            load(path)
        (path / name).write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        load(path)


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path)
    content = (path / model_io.STATE_FILE).read_bytes()
    draw = seeds.generator()
    (path / model_io.EXTRA_FILE).unlink()
    for _ in range(40):
        damaged = bytearray(content)
        damaged[draw.integers(400)] ^= 1 << int(draw.integers(8))
        end = len(damaged) if draw.random() < 0.5 else int(draw.integers(len(damaged)))
        (path / model_io.STATE_FILE).write_bytes(damaged[:end])
        load(path)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "segmentation"
    segmentation().fit(cube()).merge_clusters({0: [0], 1: [1]}).save(path)
    return path


def used(path: Path) -> bool:
    """Whether a model of DGC loads and predicts; what it says otherwise is one sentence."""
    said = ""
    try:
        DeepGlobalClustering.load(path, device="cpu").predict(cube())
    except (SpectrafuseError, FileNotFoundError) as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    return not said


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in JSON, with each of its keys or numbers."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], (dict, list)) and key != "history":
            yield from places(content[key])


@pytest.mark.parametrize("name", ["config.json", "spectrafuse.json"])
def test_any_value_in_json_of_a_segmentation(segmented: Path, tmp_path: Path, name: str) -> None:
    path = copied(segmented, tmp_path)
    assert used(path)
    content = json.loads((path / name).read_text())
    for container, key in list(places(content)):
        before = container[key]
        for value in (None, -1, "x", [], 10**30, 1e308, True):
            container[key] = value
            (path / name).write_text(json.dumps(content))
            used(path)
        container[key] = before
    for text in ("", "[]", "null", "\x00", "[" * 100_000):
        (path / name).write_text(text)
        assert not used(path)


def test_changed_weights_of_a_segmentation_are_refused(segmented: Path, tmp_path: Path) -> None:
    path = copied(segmented, tmp_path)
    content = (path / "weights.safetensors").read_bytes()
    draw = seeds.generator()
    for _ in range(40):
        damaged = bytearray(content)
        damaged[draw.integers(len(damaged))] ^= 1 << int(draw.integers(8))
        end = len(damaged) if draw.random() < 0.5 else int(draw.integers(len(damaged)))
        (path / "weights.safetensors").write_bytes(damaged[:end])
        assert not used(path)
    (path / "weights.safetensors").write_bytes(content)
    assert used(path)
