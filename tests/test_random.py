"""The random stream: known answers, distributions, independence, state."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from helpers import emulated_cuda
from spectrafuse import RandomStream, random
from spectrafuse._runtime import extensions
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.ops.sparse_gated_mixture import draw_sparsity_noise
from spectrafuse.random import _philox_words_in_torch, fill_in_torch, philox_block, philox_words


def test_known_answers_of_philox_4x32_10():
    """Vectors of the Random123 distribution (kat_vectors)."""
    assert philox_words(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    # Counter 243f6a88 85a308d3 13198a2e 03707344 and key a4093822 299f31d0 through the block function itself.
    counter = [torch.tensor([word]) for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    words = [word.item() for word in philox_block(counter, 0xA4093822, 0x299F31D0)]
    assert words == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    ones = [torch.tensor([0xFFFFFFFF])] * 4
    assert [word.item() for word in philox_block(ones, 0xFFFFFFFF, 0xFFFFFFFF)] == [
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    ]  # fmt: skip


def test_the_extension_makes_the_words_torch_makes():
    assert extensions.cpu_reason() is None
    for seed, step, count in ((0, 0, 1), (2**63 - 5, 2**40 + 7, 1001), (3, 1, 0), (2**32, 2**32, 6)):
        assert torch.equal(philox_words(seed, step, count), _philox_words_in_torch(seed, step, count, "cpu"))


def test_words_do_not_depend_on_how_many_are_drawn():
    assert torch.equal(philox_words(7, 3, 5), philox_words(7, 3, 1000)[:5])
    assert philox_words(7, 3, 0).shape == (0,)


DISTRIBUTIONS = {
    "uniform": (lambda s, n, t: s.uniform((n,), -2.0, 3.0, dtype=t), stats.uniform(-2, 5).cdf),
    "normal": (lambda s, n, t: s.normal((n,), 2.0, dtype=t), stats.norm(0, 2).cdf),
    "gumbel": (lambda s, n, t: s.gumbel((n,), dtype=t), stats.gumbel_r().cdf),
    "logistic": (lambda s, n, t: s.logistic((n,), dtype=t), stats.logistic().cdf),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name, dtype):
    draw, distribution = DISTRIBUTIONS[name]
    for seed in (0, 12345):
        values = draw(RandomStream(seed), 200_001, dtype)
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
        assert stats.kstest(values.numpy(), distribution).pvalue > 1e-4


def fill(distribution: str, count: int, dtype: torch.dtype, *, threads: int, seed: int = 3, step: int = 5) -> Tensor:
    """The extension's numbers; no threads: one at a time, in the arithmetic of a CUDA thread."""
    out = torch.full((count + 1,), math.nan, dtype=dtype)
    extensions.cpu().random_fill(
        extensions.DTYPE_CODE[dtype], distribution, seed, step, count, 0.25, 2.0, out.data_ptr(), threads
    )
    assert out[count].isnan()
    return out[:count]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_bits_are_those_of_one_number_at_a_time(distribution, dtype):
    for count in (0, 1, 2, 7, 64, 511, 1025, 30_011):
        vector = fill(distribution, count, dtype, threads=1)
        assert torch.equal(vector, fill(distribution, count, dtype, threads=0)), (distribution, dtype, count)


@pytest.mark.parametrize("order", emulated_cuda.ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_of_a_gpu_are_those_of_the_cpu(dtype, order):
    for distribution in DISTRIBUTIONS:
        for count in (0, 1, 2, 7, 255, 256, 257, 512, 1025):
            expected = fill(distribution, count, dtype, threads=1)
            found = torch.full((count + 1,), math.nan, dtype=dtype)
            with emulated_cuda.emulated(order):
                RandomStream(3, 5).fill(found[:count], distribution, low=0.25, scale=2.0)
            assert found[count].isnan()
            assert torch.equal(found[:count], expected), (distribution, count)


def test_a_gpu_that_makes_other_numbers_is_not_asked(monkeypatch):
    monkeypatch.setattr(random, "_verdicts", {})
    expected = fill_in_torch("normal", 3, 5, 7, torch.float32, "cpu")
    with emulated_cuda.emulated() as module:
        right = module.random_fill

        def wrong(dtype, name, seed, *others):
            return right(dtype, name, seed + 1, *others)

        monkeypatch.setattr(module, "random_fill", wrong)
        with pytest.warns(
            RuntimeWarning, match="kernel of random numbers is not used: on cpu it failed, or gave others"
        ):
            found = RandomStream(3, 5).normal((7,))
        assert torch.equal(found, expected)
        assert torch.equal(RandomStream(3, 5).normal((7,)), expected)  # without another warning


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_same_bits_at_any_number_of_threads(distribution):
    one = fill(distribution, 200_001, torch.float32, threads=1)
    for threads in (2, 3, 7):
        assert torch.equal(fill(distribution, 200_001, torch.float32, threads=threads), one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_torch_makes_the_same_numbers_up_to_rounding(distribution, dtype):
    for count in (1, 2, 100_001):
        actual = fill(distribution, count, dtype, threads=1).double()
        exact = 0.25 + 2.0 * fill_in_torch(distribution, 3, 5, count, dtype, "cpu").double()
        # In float64 torch rounds the angle, up to 2 pi, before its cosine; a radius is at most 9.
        roundings = 32 if dtype == torch.float64 and distribution == "normal" else 4
        allowed = roundings * torch.finfo(dtype).eps * exact.abs().clamp(min=2.0)
        assert ((actual - exact).abs() <= allowed).all()


@pytest.mark.slow
def test_ten_million_draws_have_the_right_moments_and_distribution():
    count, moments = 10_000_000, {"uniform": (0.5, 1 / 12), "normal": (0.0, 1.0), "logistic": (0.0, math.pi**2 / 3)}
    cdf = {"uniform": lambda x: x, "normal": torch.special.ndtr, "logistic": torch.sigmoid}
    for seed, (name, (mean, variance)) in enumerate(moments.items()):
        values = getattr(RandomStream(seed), name)((count,)).double()
        assert abs(values.mean().item() - mean) < 5 * math.sqrt(variance / count)
        # Kurtosis at most 4.2 (logistic); five standard errors.
        assert abs(values.var().item() / variance - 1) < 5 * math.sqrt(3.2 / count)
        # Empirical distribution on a fine grid: Kolmogorov's statistic from below.
        shares = torch.histc(cdf[name](values), bins=100_000, min=0.0, max=1.0).double().cumsum(0) / count
        distance = (shares - torch.arange(1, 100_001, dtype=torch.float64) / 100_000).abs().max().item()
        assert stats.kstwobign.sf(distance * math.sqrt(count)) > 1e-4
        for lag in (1, 2, 4, 64):
            centered = (values - mean) / math.sqrt(variance)
            assert abs((centered[lag:] * centered[:-lag]).mean().item()) < 5 / math.sqrt(count)


def test_angles_and_radii_of_normal_pairs_are_independent():
    values = RandomStream(8).normal((1_000_000,)).double()
    first, second = values[:500_000], values[500_000:]
    turn = torch.atan2(second, first) / (2 * math.pi) + 0.5
    survival = torch.exp(-(first.square() + second.square()) / 2)
    table = torch.histogramdd(torch.stack((turn, survival), 1), bins=[16, 16], range=[0.0, 1.0, 0.0, 1.0])[0]
    assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-4


def test_integers_cover_both_ends_evenly():
    counts = torch.bincount(RandomStream(5).integers(-2, 2, (100_000,)) + 2, minlength=5)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert RandomStream(5).integers(4, 4).item() == 4
    with pytest.raises(ValueError, match="`low` and `high` must satisfy"):
        RandomStream(5).integers(3, 2)


def test_permutations_are_permutations_and_even():
    stream = RandomStream(11)
    firsts = torch.stack([stream.permutation(4) for _ in range(6000)])
    assert torch.equal(firsts.sort(dim=1).values, torch.arange(4).expand(6000, 4))
    codes = (firsts * torch.tensor([64, 16, 4, 1])).sum(1)
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert stream.permutation(0).shape == (0,)


def test_draws_are_independent_of_each_other():
    stream = RandomStream(3)
    a, b = stream.uniform((100_000,)), stream.uniform((100_000,))
    other = RandomStream(4).uniform((100_000,))
    for x, y in ((a, b), (a, other), (a[1:], a[:-1])):
        assert abs(torch.corrcoef(torch.stack((x, y)))[0, 1]) < 4 / math.sqrt(100_000)


def test_a_saved_stream_goes_on_where_it_was():
    stream = RandomStream(9)
    stream.normal((3,))
    saved = dict(stream.state)
    expected = stream.gumbel((5,)), stream.integers(0, 100, (5,))
    restored = RandomStream(**saved)
    assert torch.equal(restored.gumbel((5,)), expected[0])
    assert torch.equal(restored.integers(0, 100, (5,)), expected[1])


def test_global_generators_are_left_alone():
    before = torch.get_rng_state()
    RandomStream(1).normal((10,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    first = RandomStream(1).uniform((5,))
    torch.manual_seed(2)
    assert torch.equal(RandomStream(1).uniform((5,)), first)


def test_uniform_numbers_never_reach_the_ends():
    for dtype in (torch.float32, torch.float64):
        values = RandomStream(0).uniform((1_000_000,), dtype=dtype)
        assert values.min() > 0
        assert values.max() < 1


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_wrong_seeds_are_named(seed):
    with pytest.raises((TypeError, ValueError), match="`seed` must be an integer of at least 0"):
        RandomStream(seed)


def test_training_and_evaluation_of_a_model_share_no_numbers():
    """Passes of both kinds and both forms take turns on one stream: every word is used once."""
    drawn: list[Tensor] = []
    stream = RandomStream(2)
    for sparse, training in itertools.product((False, True), (True, False, True)):
        model = UnmixingModel(5, 3, sparse_component=sparse, initialise=False).train(training)
        noise = model.draw_noise(4, stream)
        assert noise.select is not None
        drawn.append(noise.select.gumbel.flatten())
        if noise.rng is not None:
            drawn += [draw_sparsity_noise(noise.rng, sample, (5, 3), None).gumbel.flatten() for sample in range(4)]
    numbers = torch.cat(drawn)
    # 23 random bits and 300 numbers: a chance meeting has probability 0.005, and the seed is fixed.
    assert len(numbers.unique()) == len(numbers)
