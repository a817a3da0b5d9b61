"""pyMCR's call, against pyMCR where it is installed and against plain alternating least squares always."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.plain_als import Array, plain_als
from spectrafuse.compat.pymcr import McrAR
from spectrafuse.mcr.constraints import Closure, Unimodal
from spectrafuse.mcr.matching import match_components


def _data() -> tuple[Array, Array, Array]:
    x = np.arange(60)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((15, 6), (25, 7), (42, 9))])
    random = np.random.default_rng(0)
    amounts = random.dirichlet(np.full(3, 0.5), 40)
    return amounts @ shapes + 0.003 * random.standard_normal((40, 60)), amounts, shapes


def test_from_spectra_or_concentrations() -> None:
    spectra, amounts, shapes = _data()
    start = shapes + 0.05
    other = plain_als(spectra, start)
    for given in ({"ST": start}, {"C": np.maximum(amounts - 0.05, 0)}, {"C": amounts, "ST": start}):
        found = McrAR().fit(spectra, **given)
        assert found.err[0] <= 1.01 * np.mean((spectra - other[0] @ other[1]) ** 2)
        assert match_components(found.ST_opt_, shapes).cosine.min() > 0.99
        np.testing.assert_array_equal(found.D_opt_, found.C_opt_ @ found.ST_opt_)
        assert min(found.C_opt_.min(), found.ST_opt_.min()) >= 0


def test_what_is_fixed_stays() -> None:
    spectra, amounts, shapes = _data()
    found = McrAR().fit(spectra, C=amounts, ST=shapes + 0.05, c_fix=[2], st_fix=[0])
    np.testing.assert_array_equal(found.ST_opt_[0], shapes[0] + 0.05)
    np.testing.assert_allclose(found.C_opt_[:, 2], amounts[:, 2], atol=1e-9)


def test_without_a_start_the_count_is_found() -> None:
    spectra, _, shapes = _data()
    found = McrAR(c_constraints=[Closure(1.0)]).fit(spectra)
    assert found.estimator_ is not None
    assert len(found.ST_opt_) == 3
    assert match_components(found.ST_opt_, shapes).cosine.min() > 0.99
    np.testing.assert_allclose(found.C_opt_.sum(1), 1.0, atol=1e-6)
    assert found.reports_[0].name == "Closure on concentrations"


def test_signs_are_constraints() -> None:
    spectra, _amounts, shapes = _data()
    centered = spectra - spectra.mean(0)
    assert McrAR(c_constraints=[]).fit(centered, ST=shapes).C_opt_.min() < -0.1


def test_what_cannot_be_says_so() -> None:
    spectra, amounts, shapes = _data()
    for options, kind, said in (
        ({"C": amounts[:5]}, ValueError, r"`C` must have shape \(40, k\)"),
        ({"ST": shapes[:, :5]}, ValueError, r"`ST` must have shape \(k, 60\)"),
        ({"C": amounts[:, :2], "ST": shapes}, ValueError, "`C` has 2 components, `ST` 3"),
        ({"C": amounts, "st_fix": [0]}, TypeError, "`st_fix` is about `ST`, which is not given"),
        ({"ST": shapes, "st_fix": [3]}, ValueError, "from 0 to 2"),
        ({"ST": shapes, "st_fix": ["a"]}, TypeError, "`st_fix` must hold whole numbers; got \\['a'\\]"),
        ({"ST": np.full_like(shapes, np.nan)}, ValueError, "`ST` must be finite"),
        ({"C": amounts * 1j}, ValueError, "`C` must hold real numbers.* complex128"),
    ):
        with pytest.raises(kind, match=said):
            McrAR().fit(spectra, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be about spectra"):
        McrAR(st_constraints=[Unimodal()]).fit(spectra, ST=shapes)
    with pytest.raises(TypeError, match="must hold constraints; got str"):
        McrAR(c_constraints=["no"]).fit(spectra, ST=shapes)


@pytest.mark.filterwarnings("ignore")
def test_against_pymcr() -> None:
    peers = pytest.importorskip("pymcr.constraints", reason="the part peers is not installed")
    from pymcr.mcr import McrAR as Other

    spectra, _, shapes = _data()
    limit = peers.ConstraintCutAbove(1.0)
    options = {"c_constraints": [peers.ConstraintNonneg(), limit], "st_constraints": [peers.ConstraintNonneg()]}
    other = Other(max_iter=200, tol_increase=50, **options)
    other.fit(spectra, ST=shapes + 0.05, st_fix=[1])
    found = McrAR(**options).fit(spectra, ST=shapes + 0.05, st_fix=[1])
    np.testing.assert_allclose(found.ST_opt_[1], other.ST_opt_[1])
    assert found.err[0] <= 1.01 * np.mean((spectra - other.C_opt_ @ other.ST_opt_) ** 2)
    assert match_components(found.ST_opt_, other.ST_opt_).cosine.min() > 0.99
