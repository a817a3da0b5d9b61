"""Batches: which pixels count, how they lie in memory, and the thread that reads the next one."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.dgc_training import BANDS, gaps, trainer_with_gaps, windowed
from spectrafuse import backends, use_backend
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe, corrected, published
from spectrafuse.dgc.training import batches as batches_module
from spectrafuse.dgc.training.batches import CropBatch, CropBatches
from spectrafuse.dgc.training.centers import start_centers
from spectrafuse.dgc.training.objective import TERMS, random_labels, step_objective
from spectrafuse.dgc.windows import WindowedScene, one_ahead
from spectrafuse.ops.clustering_objective import reference as losses
from spectrafuse.ops.mean_shift_assign.reference import mean_shift_assign
from spectrafuse.ops.spectral_compactness.reference import spectral_compactness
from spectrafuse.random import RandomStream


def batches_with_gaps(recipe: Recipe = corrected, crop: int = 12) -> CropBatches:
    return CropBatches([windowed(1, gaps()), windowed(2, None)], recipe, crop, 3, 0)


def reflected(place: torch.Tensor, size: int) -> torch.Tensor:
    folded = (place + 0.5) % (2 * size)
    return (torch.minimum(folded, 2 * size - folded) - 0.5).clamp(0, size - 1)


def expected_valid(pair_view: torch.Tensor, valid: np.ndarray, crop: int) -> torch.Tensor:
    """Whether all pixels that a view's bilinear reads touch are valid; read one by one."""
    top, left, *theta = pair_view.double().tolist()[:8]
    result = torch.ones(crop, crop, dtype=torch.bool)
    for i in range(crop):
        for j in range(crop):
            x, y = (2 * j + 1) / crop - 1, (2 * i + 1) / crop - 1
            column = ((theta[0] * x + theta[1] * y + theta[2] + 1) * crop - 1) / 2
            row = ((theta[3] * x + theta[4] * y + theta[5] + 1) * crop - 1) / 2
            column, row = (reflected(torch.tensor(p, dtype=torch.float64), crop).item() for p in (column, row))
            for a in {int(row), int(np.ceil(row))}:
                for b in {int(column), int(np.ceil(column))}:
                    result[i, j] &= bool(valid[int(top) + a, int(left) + b])
    return result


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_pixel_counts_where_its_read_touches_data_alone(backend: str) -> None:
    batches, seen = batches_with_gaps(), 0
    full = [scene.valid(0, 0, *scene.shape[1:]) for scene in batches.scenes]
    with use_backend(backend):
        for batch in batches.epoch(1):
            assert batch.valid is not None
            for sample, pair in enumerate(batch.geometry):
                for view in range(2):
                    got = batch.valid[view * 3 + sample]
                    if full[0] is not None and not got.all():
                        assert torch.equal(got, expected_valid(pair[view], full[0], 12))
                        seen += 1
    assert seen > 10


def test_scenes_without_gaps_need_no_mask() -> None:
    batch = next(CropBatches([windowed(1, None)], corrected, 12, 2, 0).epoch(1))
    assert batch.valid is None


def test_bands_lie_side_by_side_and_are_filled_with_zeros() -> None:
    stream = RandomStream(1)
    batches = CropBatches([stream.normal((21, 20, 20))], corrected, 12, 2, 0)
    first = next(batches.epoch(1))
    assert first.padded.shape == (4, 32, 12, 12)
    assert first.padded.is_contiguous(memory_format=torch.channels_last)
    assert first.views.shape == (4, 21, 12, 12)
    assert not first.padded[:, 21:].any()
    assert next(batches.epoch(2)).padded.data_ptr() == first.padded.data_ptr()


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    scene = RandomStream(1).normal((3, 20, 20))

    def geometry(seed: int, number: int) -> torch.Tensor:
        return next(CropBatches([scene], corrected, 12, 2, seed).epoch(number)).geometry

    assert torch.equal(geometry(1, 1), geometry(1, 1))
    assert not torch.equal(geometry(1, 1), geometry(1, 2))
    assert not torch.equal(geometry(1, 1), geometry(2, 1))


@pytest.mark.parametrize("recipe", [corrected, published], ids=lambda recipe: recipe.name)
def test_pixels_without_data_enter_no_loss(recipe: Recipe) -> None:
    """Every term equals the reference's on the pixels that count, put side by side."""
    recipe = dataclasses.replace(recipe, aligned=False, memory_order_sums=False, spectral=3.0, uniform=1.0)
    model = SegmentationModel(BANDS, 8, 3, stream=RandomStream(0))
    batch = next(batches_with_gaps(recipe).epoch(1))
    assert batch.valid is not None
    start_centers(model, batch, RandomStream(1))
    labels = random_labels(len(batch.geometry) * 12 * 12, 3, RandomStream(2))
    step = step_objective(model, batch, recipe, uniform_weight=1.0, pseudo_labels=labels)
    terms = dict(zip(("loss", *TERMS), step.terms, strict=True))

    with torch.no_grad():
        z = model.encoder(batch.padded)
        shifted, probs = mean_shift_assign(z, model.centers, model.bandwidth, num_iters=5, window=5, temperature=0.05)
        counts = batch.valid.reshape(2, -1)
        rows, moved = (x.permute(0, 2, 3, 1).reshape(2, -1, 8) for x in (z, shifted))
        q = probs.reshape(2, -1, 3)
        own = [(rows[v][counts[v]][None], q[v][counts[v]][None]) for v in range(2)]
        both = counts[0] & counts[1]
        spectra = batch.views.permute(1, 0, 2, 3).reshape(1, BANDS, 1, -1)[..., batch.valid.flatten()]
        expected = {
            "compactness": sum(losses.compactness(*pair, model.centers) for pair in own),
            "uniform": sum(losses.uniform_assignment(own[v][1], labels[v][counts[v]]) for v in range(2)) / 2,
            "balance": sum(losses.balance(own[v][1]) for v in range(2)) / 2,
            "consistency": losses.consistency(q[0][both][None], q[1][both][None]),
            "spectral": spectral_compactness(spectra, q.reshape(-1, 3)[batch.valid.flatten()][None, None]),
        }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(step.mass, q[counts].sum(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(step.sums, q[counts].t() @ moved[counts], rtol=1e-4, atol=1e-3)


def test_centers_start_among_pixels_with_data() -> None:
    model = SegmentationModel(BANDS, 8, 3, stream=RandomStream(0))
    views = torch.ones(2, BANDS, 30, 60)
    views[..., 40:] = torch.tensor([3.0, -2, 5, -1, 4])[:, None, None]
    valid = torch.zeros(2, 30, 60, dtype=torch.bool)
    valid[:, 8:22, 17:20] = True
    shifted = model(views).shifted.detach()
    directions = torch.nn.functional.normalize(shifted, dim=1)
    start_centers(model, CropBatch(views, torch.zeros(1, 2, 9), None, BANDS), RandomStream(3))
    assert (model.centers.detach() @ directions[0, :, 15, 18]).min() < 0.99
    start_centers(model, CropBatch(views, torch.zeros(1, 2, 9), valid, BANDS), RandomStream(3))
    assert (model.centers.detach() @ directions[0, :, 15, 18]).min() > 0.99


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("spectrafuse-reader")]


def test_one_ahead() -> None:
    made: list[int] = []
    reached = threading.Event()

    def numbers() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            if i == 1:
                reached.set()
            yield i

    items = one_ahead(numbers())
    assert next(items) == 0
    assert reached.wait(10)
    assert readers()
    assert list(items) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]
    assert not readers()


def test_what_the_reader_raises_is_raised() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = one_ahead(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert not readers()


def test_an_interrupt_while_closing_waits_for_the_reader() -> None:
    """A thread left in compiled code when the interpreter ends takes the process down."""
    reading, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    main = threading.get_ident()

    def slow() -> Iterator[int]:
        yield 1
        reading.set()
        may_end.wait(30)
        ended.set()
        yield 2

    def disturb() -> None:
        assert reading.wait(10)
        for _ in range(3):
            time.sleep(0.1)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.1)
        may_end.set()

    items = one_ahead(slow())
    next(items)
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    assert reading.wait(10)
    try:
        with pytest.raises(KeyboardInterrupt):
            items.close()
        assert ended.is_set(), "the reader was left behind"
    finally:
        may_end.set()
        while disturbing.is_alive():
            with suppress(KeyboardInterrupt):
                disturbing.join()
    assert not readers()


@pytest.mark.parametrize("recipe", [corrected, published], ids=lambda recipe: recipe.name)
def test_reading_ahead_changes_no_bit(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = trainer_with_gaps(recipe)
    ahead.run()
    monkeypatch.setattr(batches_module, "one_ahead", lambda items: items)
    synchronous = trainer_with_gaps(recipe)
    synchronous.run()
    assert ahead.history == synchronous.history
    assert torch.equal(ahead.model.centers, synchronous.model.centers)


def test_interrupted_while_reading_ahead_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, interrupted, resumed = trainer_with_gaps(), trainer_with_gaps(), trainer_with_gaps()
    whole.run()
    original, steps = interrupted.step, []

    def interrupt(inputs: Any) -> torch.Tensor:
        steps.append(inputs)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return original(inputs)

    interrupted.step = interrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted.run(checkpoint_dir=tmp_path)
    assert caught.traceback
    assert not readers()
    resumed.run(checkpoint_dir=tmp_path)
    assert resumed.history == whole.history
    assert torch.equal(resumed.model.centers, whole.model.centers)

    def broken(*args: object) -> torch.Tensor:
        raise OSError("the disk is gone")

    monkeypatch.setattr(WindowedScene, "window", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer_with_gaps().run()
    assert not readers()


def test_the_thread_that_reads_ahead_runs_under_the_callers_backend() -> None:
    with use_backend("torch"):
        assert list(one_ahead(backends.forced() for _ in range(3))) == ["torch"] * 3
