"""Model folders that someone has changed: they load, or are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import seeds
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.mcr import model_io
from spectrafuse.mcr.estimator import EBgMCR

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
