"""Every sentence of evidence and cautions, computed anew from spectra and results; one that nothing computes fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.signal import lfilter

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.noise import noise_of_rows
from spectrafuse.mcr.refinement import evidence


class Fit(NamedTuple):
    spectra: np.ndarray
    mcr: EBgMCR

    @property
    def there(self) -> np.ndarray:
        return ~np.isnan(self.spectra)

    @property
    def nmse(self) -> float:
        fit = self.mcr.C_opt_.astype(float) @ self.mcr.components_
        left = np.where(self.there, self.spectra - fit, 0.0)
        return float((left**2).sum() / np.nansum(self.spectra**2))

    @property
    def told(self) -> dict[str, Any]:
        assert self.mcr.count_evidence_ is not None
        return self.mcr.count_evidence_

    def column(self, number: str) -> np.ndarray:
        return self.mcr.C_opt_[:, self.mcr.component_ids_.tolist().index(int(number))]


def _digits(text: str, value: float, digits: int) -> bool:
    return float(text) == float(f"{value:.{digits}g}")


def _pairs(text: str, between: str) -> list[tuple[str, str]]:
    return re.findall(rf"component (\d+) {between} component (\d+)", text)


def _rare(fit: Fit, said: re.Match[str]) -> bool:
    squares = fit.column(said[1]).astype(float) ** 2
    rows = (np.flatnonzero(squares) + 1).tolist()
    if "occurs nearly only" in said[0]:
        rows = [int(i) for i in re.findall(r"\d+", said[2])]
        assert squares[np.array(rows) - 1].sum() >= 0.99 * squares.sum() > 0
        assert len(rows) < np.count_nonzero(squares)
    shape = np.abs(fit.mcr.components_[fit.mcr.component_ids_.tolist().index(int(said[1]))])
    bands = np.flatnonzero(shape >= 0.5 * shape.max()) + 1
    return rows == [int(i) for i in re.findall(r"\d+", said[2])] and {int(i) for i in re.findall(r"\d+", said[3])} == {
        int(bands[0]),
        int(bands[-1]),
    }


def _together(fit: Fit, said: re.Match[str]) -> bool:
    pairs = _pairs(said[1], "without")
    return bool(pairs) and all(not (fit.column(a) > 0)[fit.column(b) == 0].any() for a, b in pairs)


def _alike(fit: Fit, said: re.Match[str]) -> bool:
    ids = fit.mcr.component_ids_.tolist()
    unit = fit.mcr.components_ / np.linalg.norm(fit.mcr.components_, axis=1, keepdims=True)
    pairs = _pairs(said[1], "and")
    return bool(pairs) and all(unit[ids.index(int(a))] @ unit[ids.index(int(b))] > 0.95 for a, b in pairs)


def _misfit(fit: Fit, said: re.Match[str]) -> bool:
    noise = fit.mcr.noise_
    assert noise is not None
    return _digits(said[1], fit.nmse, 3) and _digits(said[2], noise.nmse, 2) and fit.nmse > 10 * noise.nmse


def _reason(fit: Fit, said: re.Match[str]) -> bool:
    noise = fit.mcr.noise_
    assert noise is not None
    return (
        int(said["count"]) == fit.mcr.n_components_
        # Spikes take no part.
        and (fit.mcr.robust or float(said["nmse"]) == pytest.approx(fit.nmse, rel=6e-3))
        and _digits(said["rise"], fit.told["rise"], 3)
        and fit.told["rise"] > 1
        and said["source"] == noise.source
        and _digits(said["noise"], noise.nmse, 3)
        and (said["agreed"] is None) == (fit.told["asked"]["exactly"] is None)
    )


def _against(fit: Fit, said: re.Match[str]) -> bool:
    """What those between the two counts explain on average, in units of what the reason calls noise."""
    gap = int(said["count"]) - int(said["asked"])
    other = abs(gap) if gap else 0
    return (
        int(said["count"]) == fit.mcr.n_components_ == fit.told["asked"]["exactly"]
        and int(said["asked"]) == fit.told["by_the_spectra"] != fit.mcr.n_components_
        and float(said["nmse"]) == pytest.approx(fit.nmse, rel=6e-3)
        and (int(said["gap"]) if said["gap"].isdigit() else 1) == other
        and ((float(said["times"]) > 1) == (gap < 0))
    )


CHOICE = re.compile(
    r" Several mixtures fit equally well with all gates open, and the one (?P<taken>.*) was taken: (\d+) % of its "
    r"concentrations and (\d+) % of its bands may be zero, (\d+) % of its concentrations and (\d+) % of its bands of "
    r"the one that was found first\. It leaves (?P<times>.*) times as much\."
)
TAKEN = {
    "whose spectra span the least volume": "least volume",
    "that the purest spectra lead to": "pure",
    "that the purest bands lead to": "pure bands",
}


def _chosen(fit: Fit, said: re.Match[str]) -> bool:
    """The shares are those of the result, and it has as many zeros as any other but those of the purest bands."""
    tried, noise = fit.told["mixtures"], fit.mcr.noise_
    taken, first = tried[TAKEN[said["taken"]]], tried["first"]
    zeros = {name: facts["concentrations"] + facts["bands"] for name, facts in tried.items() if name != "pure bands"}
    assert noise is not None
    shares = [taken["concentrations"], taken["bands"], first["concentrations"], first["bands"]]
    weights = 1 / noise_of_rows(fit.spectra, noise)[:, None]
    if fit.mcr.model_.gates is not None and fit.mcr.model_.gates.weights is None:
        shapes = fit.mcr.components_.astype(float)
        amounts = np.array([nnls(shapes.T, row)[0] for row in weights * fit.spectra])
        left = weights * fit.spectra - amounts @ shapes
        sigma = np.sqrt((left**2).sum() / (left.size - len(shapes) * sum(left.shape)))
        for share, values, beside in ((shares[0], amounts, shapes.T), (shares[1], shapes.T, amounts)):
            errors = sigma * np.sqrt(np.diagonal(np.linalg.inv(beside.T @ beside)))
            seen = values[(values > 10 * errors).any(1)]
            assert (seen < 2.5 * errors).mean() == pytest.approx(share, abs=0.02)
    return (
        [int(said[i]) for i in (2, 3, 4, 5)] == [round(100 * share) for share in shares]
        and _digits(said["times"], taken["times"], 4)
        and sum(shares[:2]) >= max(zeros.values()) - 0.031
    )


_NUMBER = r"([-+.\de]+\d|\d)"
SENTENCES: dict[str, tuple[str, Callable[[Fit, re.Match[str]], bool]]] = {
    "structured": (
        rf"The singular values do not end in .* What explains more than {_NUMBER} of .* Give `noise` to count them\.",
        lambda fit, said: fit.mcr.noise_.structured and _digits(said[1], fit.mcr.noise_.nmse, 2),
    ),
    "assumed": (
        rf"These spectra are too few .* assumed to be {_NUMBER} of the sum of .*",
        lambda fit, said: fit.mcr.noise_.assumed and _digits(said[1], fit.mcr.noise_.nmse, 2),
    ),
    "loud": (
        rf"What was taken for noise \({_NUMBER} of the sum of squares\) may hold weak components too, .*",
        lambda fit, said: _digits(said[1], fit.mcr.noise_.nmse, 2),
    ),
    "weighted": (r"The noise of the bands is unlike, .*", lambda fit, said: bool(fit.mcr.model_.gates.weights)),
    "correlated": (
        rf"The noise of neighboring bands is correlated \({_NUMBER}\): .*",
        lambda fit, said: said[1] == f"{fit.mcr.noise_.correlation:.2f}" and abs(float(said[1]) - 0.8) < 0.1,
    ),
    "white prices": (
        re.escape(evidence.AT_WHITE_PRICES),
        lambda fit, said: fit.mcr.noise_.source.startswith("assumed"),
    ),
    "lower level": (
        re.escape(evidence.AT_A_LOWER_LEVEL),
        lambda fit, said: "measured on what" in fit.mcr.noise_.source,
    ),
    "misfit": (rf"The components leave {_NUMBER} of .* more than ten times the noise \({_NUMBER}\): .*", _misfit),
    "least": (
        r"The least component stands out of .* less than a factor of two: .*",
        lambda f, s: 1 < f.told["rise"] < 2,
    ),
    "residual": (
        rf"The residual is not .* \(variance {_NUMBER} times as large, spectral density up to {_NUMBER} times its .*",
        lambda fit, said: (
            _digits(said[1], fit.told["residual_excess"], 3)
            and _digits(said[2], fit.told["residual_colour"], 3)
            and (fit.told["residual_excess"] > 1.3 or fit.told["residual_colour"] > 1.5)
        ),
    ),
    "rank": (
        r"(\d+) singular values stand out of the noise\. .*",
        lambda fit, said: int(said[1]) == fit.told["rank_check"] != len(fit.mcr.component_ids_),
    ),
    "rare": (
        r"Component (\d+) occurs (?:nearly )?only in (spectr.*), strongest at (bands? .*) "
        r"\(counted from 1\): .*",
        _rare,
    ),
    "all": (r"Nearly all spectra hold all components, .*", lambda fit, said: bool((fit.mcr.C_opt_ > 0).mean() > 0.9)),
    "together": (r"Components that never occur without another: ([^.]*)\. .*", _together),
    "alike": (r"Of nearly the same shape, and perhaps one component that varies: ([^.]*)\.", _alike),
    "negative": (
        r"(\d+) % of the sum of squares is negative, .*",
        lambda fit, said: said[1] == f"{100 * (np.minimum(fit.spectra, 0) ** 2).sum() / (fit.spectra**2).sum():.0f}",
    ),
    "offset": (
        r"An offset that all bands of a spectrum share makes up (\d+) % of .*",
        lambda fit, said: (
            said[1] == f"{100 * fit.spectra.shape[1] * (fit.spectra.min(1) ** 2).sum() / (fit.spectra**2).sum():.0f}"
        ),
    ),
    "spikes": (
        r"Spikes of (\d+) spectrum were taken for .*: spectrum (\d+) at bands (\d+) to (\d+) \(counted from 1\)\.",
        lambda fit, said: [int(i) for i in said.groups()] == [1, 8, 39, 43],
    ),
    "missing": (
        r"(\d+) of (\d+) values are missing and take no part\.",
        lambda fit, said: (int(said[1]), int(said[2])) == (int((~fit.there).sum()), fit.spectra.size),
    ),
}
REASON = re.compile(
    rf"(?P<count>\d+) components?(?P<agreed>, as asked for and as the spectra say)?, nMSE (?P<nmse>{_NUMBER}): without "
    rf"the least of them the residual rises by (?P<rise>{_NUMBER}) times what noise explains, and one more would gain "
    rf"no more than noise explains \(noise (?P<source>.*), (?P<noise>{_NUMBER}) of the sum of squares\)\."
)
AGAINST = re.compile(
    rf"(?P<count>\d+) components?, as asked for, nMSE (?P<nmse>{_NUMBER})\. The spectra ask for (?P<asked>\d+): the "
    rf"(?P<gap>\d+|one) (more|left out) explains? (on average )?(?P<times>{_NUMBER}) times what noise explains .*"
)


def _mixtures(count: int = 30, *, alpha: float = 0.4, noise: float = 0.004) -> np.ndarray:
    x = np.arange(90)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((20, 7), (45, 8), (70, 9))])
    random = np.random.default_rng(0)
    return random.dirichlet(np.full(3, alpha), count) @ shapes + noise * random.standard_normal((count, 90))


def _spiked_once() -> np.ndarray:
    """All spectra hold all components, so that no gate closes: the spike's is open in most of them."""
    x, random = np.arange(80), np.random.default_rng(40)
    shapes = np.array([np.exp(-0.5 * ((x - c) / w) ** 2) for c, w in ((15, 7), (35, 8), (58, 9))])
    spectra = random.uniform(0.05, 1, (40, 3)) @ shapes + 0.004 * random.standard_normal((40, 80))
    spectra[11, 26] += 3
    return spectra


def _disturbed() -> np.ndarray:
    spectra = _mixtures()
    spectra[7, 39:42] += 3.0
    return spectra


def _with_gaps() -> np.ndarray:
    return np.where(np.random.default_rng(1).random((30, 90)) < 0.03, np.nan, _mixtures())


def _noisy_bands() -> np.ndarray:
    random = np.random.default_rng(2)
    return _mixtures(noise=0.0) + random.standard_normal((30, 90)) * np.where(np.arange(90) < 45, 0.002, 0.06)


def _correlated() -> np.ndarray:
    random = np.random.default_rng(3)
    x = np.arange(200)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((40, 7), (100, 8), (150, 9))])
    noise = lfilter([1.0], [1.0, -0.8], random.standard_normal((60, 200)), axis=1)
    return random.dirichlet(np.full(3, 0.4), 60) @ shapes + 0.02 * noise


def _drifting() -> np.ndarray:
    random = np.random.default_rng(4)
    drift = np.cumsum(np.cumsum(random.standard_normal((30, 90)), axis=1), axis=1)
    return _mixtures(noise=0.0) + 2e-4 * drift


CASES: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any], set[str]]] = {
    "white": (_mixtures, {}, set()),
    "all present": (lambda: _mixtures(alpha=5.0), {}, {"all"}),
    "few": (lambda: _mixtures(5), {}, {"assumed"}),
    "more": (_mixtures, {"n_components": 5}, set()),
    "fewer": (_mixtures, {"n_components": 2}, {"misfit", "rank"}),
    "agreed": (_mixtures, {"n_components": 3}, set()),
    "spike": (_disturbed, {}, {"rare"}),
    "one spike": (_spiked_once, {}, {"rare"}),
    "robust": (_disturbed, {"robust": True}, {"spikes"}),
    "gaps": (_with_gaps, {}, {"missing"}),
    "derivative": (lambda: np.diff(_mixtures(), axis=1), {}, {"negative"}),
    "offset": (lambda: _mixtures() + 5.0, {}, {"offset"}),
    "noisy bands": (_noisy_bands, {}, {"weighted"}),
    "correlated": (_correlated, {}, {"correlated"}),
    "drifting": (_drifting, {}, {"structured"}),
    "loud": (lambda: _mixtures(noise=0.12), {}, {"loud"}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No component was found")
@pytest.mark.parametrize("name", list(CASES))
def test_every_sentence_is_computed(name: str) -> None:
    made, options, expected = CASES[name]
    fit = Fit(made().astype(np.float32), EBgMCR(16, **options))
    fit.mcr.fit(fit.spectra)
    seen = set()
    for caution in fit.told["cautions"]:
        found = [
            (key, check(fit, said))
            for key, (pattern, check) in SENTENCES.items()
            if (said := re.fullmatch(pattern, caution)) is not None
        ]
        assert len(found) == 1, caution
        assert found[0][1], caution
        seen.add(found[0][0])
    assert expected <= seen
    text = fit.mcr.chosen_reason_
    if fit.mcr.n_components_ == 0:
        return
    choice = CHOICE.search(text)
    assert (choice is None) == (not fit.told["mixtures"])
    if choice is not None:
        assert _chosen(fit, choice), text
        text = text[: choice.start()]
    usual, against = REASON.fullmatch(text), AGAINST.fullmatch(text)
    assert (usual is None) != (against is None), text
    # Weighted and filtered spectra have their own sums of squares, as cautions say.
    if usual is not None and not {"weighted", "correlated"} & seen:
        assert _reason(fit, usual), text
    if against is not None:
        assert _against(fit, against), text
