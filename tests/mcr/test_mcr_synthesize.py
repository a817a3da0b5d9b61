"""The paper's generator of mixtures: its distributions and its limits."""

from __future__ import annotations

import pytest
import torch

from spectrafuse.mcr.synthesize import MixtureSynthesizer


@pytest.mark.parametrize("seed", [0, 1])
def test_components_are_unit_rows_at_the_papers_cosines(seed: int) -> None:
    components = MixtureSynthesizer(16, 512, random_state=seed).components
    assert (components >= 0).all()
    assert torch.linalg.vector_norm(components, dim=1) == pytest.approx(torch.ones(16), abs=1e-5)
    cosines = (components @ components.T)[~torch.eye(16, dtype=torch.bool)]
    assert cosines.min() > 0.57
    assert cosines.max() < 0.69
    assert cosines.mean() == pytest.approx(2 / torch.pi, abs=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(5, 23), (23, 5), (7, 7)])
def test_signed_components_start_orthogonal(rows: int, columns: int) -> None:
    components = MixtureSynthesizer(rows, columns, non_negative=False, norm=None).components
    product = components @ components.T if rows <= columns else components.T @ components
    assert torch.allclose(product, torch.eye(min(rows, columns)), atol=1e-5)


def test_concentrations_follow_their_rules() -> None:
    drawn = MixtureSynthesizer(10, 20, min_mixing=2, max_mixing=6, random_state=4).generate(4000)
    present = drawn.concentrations > 0
    how_many = present.sum(1)
    counts = torch.bincount(how_many, minlength=7)[2:7] / 4000
    assert how_many.min() == 2
    assert how_many.max() == 6
    assert counts == pytest.approx(torch.full((5,), 0.2), abs=0.03)
    assert present.float().mean(0) == pytest.approx(torch.full((10,), 0.4), abs=0.04)
    values = drawn.concentrations[present]
    assert values.min() >= 1.0
    assert values.max() <= 10.0
    assert values.mean() == pytest.approx(5.5, abs=0.1)
    assert values.var() == pytest.approx(81 / 12, rel=0.05)


def test_without_noise_the_mixture_is_the_product() -> None:
    drawn = MixtureSynthesizer(4, 33, random_state=2).generate(9)
    assert torch.allclose(drawn.spectra, drawn.concentrations @ drawn.components, atol=1e-5)
    assert drawn.noise.tolist() == [0.0] * 9


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
def test_noise_has_the_stated_ratio_in_each_sample(snr_db: float) -> None:
    drawn = MixtureSynthesizer(
        6, 2048, non_negative=False, concentration_range=(1.0, 10.0), snr_db=snr_db, random_state=7
    ).generate(20)
    clean = drawn.concentrations @ drawn.components
    noise = drawn.spectra - clean
    ratio = 10 * torch.log10(clean.square().mean(1) / noise.square().mean(1))
    assert ratio == pytest.approx(torch.full((20,), snr_db), abs=0.5)
    assert drawn.noise == pytest.approx(noise.std(1), rel=0.08)


def test_dense_spectra_are_clamped_above_zero_and_sparse_ones_at_zero() -> None:
    dense = MixtureSynthesizer(3, 400, snr_db=0.0, random_state=1).generate(50).spectra
    assert dense.min() == pytest.approx(1e-6)
    sparse = MixtureSynthesizer(3, 400, sparsity=0.5, snr_db=0.0, random_state=1).generate(50).spectra
    assert sparse.min() == 0.0


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_sparse_components_have_exactly_the_stated_zeros_and_no_empty_row(sparsity: float) -> None:
    synthesizer = MixtureSynthesizer(11, 13, sparsity=sparsity, random_state=3)
    zeros = synthesizer.components == 0
    assert zeros.sum() == int(11 * 13 * sparsity)
    assert not zeros.all(1).any()
    drawn = MixtureSynthesizer(2, 50, sparsity=0.9, snr_db=10.0, random_state=3).generate(30)
    clean = drawn.concentrations @ drawn.components
    assert (drawn.spectra[clean == 0] == 0).all()


def test_same_seed_same_bits_and_calls_go_on() -> None:
    first = MixtureSynthesizer(5, 17, snr_db=20.0, random_state=9)
    second = MixtureSynthesizer(5, 17, snr_db=20.0, random_state=9)
    one, two = first.generate(6), second.generate(6)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first.generate(6).spectra, one.spectra)
    assert not torch.equal(MixtureSynthesizer(5, 17, random_state=10).components, first.components)


def test_own_components_and_one_component() -> None:
    own = torch.rand(1, 8)
    drawn = MixtureSynthesizer(1, 8, components=own).generate(3)
    assert torch.equal(drawn.components, own)
    assert (drawn.concentrations >= 1).all()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"min_mixing": 4, "max_mixing": 3}, "max_mixing"),
        ({"max_mixing": 6}, "max_mixing"),
        ({"sparsity": 0.95}, "sparsity"),
        ({"concentration_range": (5.0, 1.0)}, "concentration_range"),
        ({"components": torch.ones(2, 2)}, "components"),
    ],
)
def test_wrong_options_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        MixtureSynthesizer(5, 10, **options)
