"""Scripts as users of `hsi_global_clustering` write them, run unmodified, and the names and arguments they rely on."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from helpers.compat_dgc_signatures import ATTRIBUTES, SIGNATURES
from helpers.io_files import write_matlab5
from spectrafuse.compat import aliases

PACKAGE = "hsi_global_clustering"


@pytest.mark.parametrize("module", SIGNATURES)
def test_names_and_arguments(module: str) -> None:
    home = import_module(f"spectrafuse.compat.{PACKAGE}.{module}")
    for name, expected in SIGNATURES[module].items():
        owner, _, method = name.partition(".")
        value = getattr(home, owner)
        value = getattr(value, method) if method else value
        found = {p.name: p.default for p in inspect.signature(value).parameters.values()}
        assert list(found.items()) == list(expected.items()), name


def test_names_of_the_package_and_its_defaults() -> None:
    package = import_module(f"spectrafuse.compat.{PACKAGE}")
    classes = ["JSONMATDataset", "HyperspectralClusteringModel", "AugmentationPipeline", "HSIClusteringTrainer"]
    classes += ["AsyncHSIClusteringTrainer", "DataServer"]
    constants = {
        "DEFAULT_MODEL_KWARGS": {
            "num_bands": 301,
            "encoder_kwargs": {"n_spectral_layers": 3, "spectral_kernel_size": 9, "embed_dim": 32, "bias": False},
            "mean_shift_kwargs": {"embed_dim": 32, "n_clusters": 4, "num_iters": 5},
            "loss_weights": {"orth": 0.001, "bal": 2.0, "unif": 2.0, "cons": 1.0},
        },
        "DEFAULT_OPTIMIZER_KWARGS": {"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.01},
        "DEFAULT_LOSS_WEIGHT_SCHEDULING": {
            "lambda_unif": False,
            "lambda_orth": False,
            "lambda_bal": False,
            "lambda_cons": False,
        },
        "DEFAULT_EMA_DECAY": 0.99,
        "DEFAULT_EMA_KICK": 0.05,
        "DEFAULT_EMA_KICK_SCHEDULING": False,
    }
    assert sorted(package.__all__) == sorted([*classes, *constants])
    for name, value in constants.items():
        assert getattr(package, name) == value
        assert getattr(package.default_argument, name) is getattr(package, name)


def test_attributes(tmp_path: Path) -> None:
    package = import_module(f"spectrafuse.compat.{PACKAGE}")
    trainer = package.HSIClusteringTrainer(
        None, model_kwargs={"num_bands": 5}, log_dir=str(tmp_path), ckpt_dir=str(tmp_path)
    )
    model = trainer.model
    for owner, names in zip((trainer, model, model.encoder, model.cluster), ATTRIBUTES.values(), strict=True):
        assert [name for name in names.split() if not hasattr(owner, name)] == []


def test_aliases_are_the_same_modules() -> None:
    try:
        aliases.install()
        aliases.install()
        assert sys.meta_path.count(aliases._finder) == 1
        top = import_module(PACKAGE)
        own = import_module(f"spectrafuse.compat.{PACKAGE}")
        assert top is own
        assert import_module(f"{PACKAGE}.module.encoder") is import_module(
            f"spectrafuse.compat.{PACKAGE}.module.encoder"
        )
        assert own.__spec__.name == own.__name__ == f"spectrafuse.compat.{PACKAGE}"
        with pytest.raises(ModuleNotFoundError, match=r"stands in for hsi_global_clustering\.nothing"):
            import_module(f"{PACKAGE}.nothing")
    finally:
        aliases.remove()
    assert not [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    with pytest.raises(ModuleNotFoundError):
        import_module(PACKAGE)


def test_a_package_imported_before_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, type(sys)(PACKAGE))
    with pytest.raises(ImportError, match="has already been imported"):
        aliases.install()
    assert aliases._finder not in sys.meta_path


TRAIN = """
import argparse, os, sys
import torch
from beside import SIDE
from hsi_global_clustering import (JSONMATDataset, AugmentationPipeline, HyperspectralClusteringModel,
                                   HSIClusteringTrainer)
from hsi_global_clustering.default_argument import DEFAULT_MODEL_KWARGS
from hsi_global_clustering.hsi_processing import normalize_cube
from hsi_global_clustering.eval import iou_score
import hsi_global_clustering.module as parts

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mat_dir")
    parser.add_argument("--out_dir")
    args = parser.parse_args()
    print(sys.argv[0], os.path.basename(__file__), sys.path[0] == os.path.dirname(os.path.abspath(__file__)), SIDE)
    data = JSONMATDataset(args.mat_dir, normalize=normalize_cube, full_loading=True)
    kwargs = dict(DEFAULT_MODEL_KWARGS, num_bands=data[0][0].shape[0])
    trainer = HSIClusteringTrainer(data, None, AugmentationPipeline((8, 8)), model_kwargs=kwargs, num_workers=0,
                                   num_epochs=2, reuse_iter=1, batch_size=2, device=torch.device("cpu"),
                                   log_dir=os.path.join(args.out_dir, "logs"),
                                   ckpt_dir=os.path.join(args.out_dir, "checkpoints"))
    trainer.train()
    model = HyperspectralClusteringModel.load(os.path.join(args.out_dir, "checkpoints", "final"))
    assert isinstance(model.cluster, parts.UnrolledMeanShift)
    again = HSIClusteringTrainer(None, log_dir=os.path.join(args.out_dir, "logs2"),
                                 ckpt_dir=os.path.join(args.out_dir, "more"))
    again.model = model
    preds, metrics = again.inference(data, auto_align=True)
    assert preds[0].shape == (1, 14, 13)
    print(sorted(metrics)[-1], 0 <= float(iou_score(preds[0], data[0][1][None])) <= 1)
    sys.exit(3)

if __name__ == "__main__":
    main()
"""

ASYNC = '''
import torch
from hsi_global_clustering import AsyncHSIClusteringTrainer, AugmentationPipeline, JSONMATDataset

class Scaled(JSONMATDataset):
    """Defined here, so the reading process has to find this script's classes."""
    def __getitem__(self, index):
        cube, label = super().__getitem__(index)
        return 2 * cube, label

if __name__ == "__main__":
    import sys
    data = Scaled(sys.argv[1])
    trainer = AsyncHSIClusteringTrainer(data, None, 6, augmentor=AugmentationPipeline((8, 8)), batch_size=2,
                                        model_kwargs={"num_bands": 5}, num_epochs=1, log_dir=sys.argv[2] + "/logs",
                                        ckpt_dir=sys.argv[2])
    trainer.train()
    print(trainer.server._proc, sys.modules["__main__"].Scaled is Scaled)
'''


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Scripts beside a package that must not win, and a folder of cubes with labels."""
    for name, text in (("train.py", TRAIN), ("asynchronous.py", ASYNC), ("beside.py", "SIDE = 'beside'\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text("raise RuntimeError('the package beside the script')\n")
    (tmp_path / "mat").mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        variables = {"cube": random.random((14, 13, 5)), "label": random.integers(0, 2, (14, 13))}
        write_matlab5(tmp_path / "mat" / f"scene{i}.mat", variables)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spectrafuse.compat", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.process
@pytest.mark.slow
def test_a_training_script_runs_unmodified(workplace: Path) -> None:
    result = run(workplace, "train.py", "--mat_dir", "mat", "--out_dir", "out")
    assert result.returncode == 3, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "train.py train.py True beside"
    assert [line.split(" | ")[0] for line in lines[1:3]] == ["Epoch 1/2", "Epoch 2/2"]
    assert lines[3] == "HSIClustering training done !!"
    assert lines[4] == "mean_RMSE True"
    assert sorted(os.listdir(workplace / "out" / "checkpoints")) == ["epoch_1", "epoch_2", "final"]


@pytest.mark.process
@pytest.mark.slow
def test_an_asynchronous_script_runs_unmodified(workplace: Path) -> None:
    result = run(workplace, "asynchronous.py", "mat", "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["HSIClustering training done !!", "None True"]
    assert (workplace / "out" / "final" / "weights.safetensors").is_file()


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [((), 2, "usage: python -m spectrafuse.compat"), (("--help",), 0, "usage:"), (("none.py",), 2, "is not a file")],
)
def test_wrong_calls(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(tmp_path, *arguments)
    assert result.returncode == code
    assert text in (result.stderr if code else result.stdout)
