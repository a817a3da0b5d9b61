"""scikit-learn's conventions: its own checks, its tools around `EBgMCR`, and the same manners for cubes."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_clusterer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.utils import estimator_checks, get_tags

from spectrafuse import DeepGlobalClustering, EBgMCR
from spectrafuse.io.errors import DataError
from spectrafuse.mcr.recipes import trained
from spectrafuse.mcr.synthesize import MixtureSynthesizer

EXPECTED_FAILURES: dict[str, str] = {
    "check_sample_weights_shape": "weights of the spectra's own shape are weights of single values, and are taken",
    "check_sample_weight_equivalence_on_dense_data": "a weight is one over the variance of the noise, which a repeated "
    "spectrum does not change; a spectrum that weighs nothing is refused, not left out in silence",
}
"""Checks of scikit-learn that fail, each with the reason why it has to."""

RECIPE = dataclasses.replace(
    trained,
    name="quick",
    hidden_size_extension=1,
    hidden_layers=1,
    temperature_eval=0.1,
    select_threshold=0.9,
    checkpoint_threshold=0.01,
    checkpoint_interval=0.3,
    adaptive_bands=False,
)
SPECTRA = MixtureSynthesizer(3, 11, snr_db=20.0, random_state=1).generate(19).spectra.numpy()
CHANNELS = [f"{600 + 10 * i} cm-1" for i in range(11)]
FRAME = pd.DataFrame(SPECTRA.astype(np.float64), columns=CHANNELS)


def _quick(**options: Any) -> EBgMCR:
    settings: dict[str, Any] = {"recipe": RECIPE, "max_epoch": 10, "learning_rate": 2e-2, "batch_size": 4, **options}
    return EBgMCR(settings.pop("pool_size", 8), **settings)


@pytest.fixture(scope="module")
def fitted() -> EBgMCR:
    estimator = _quick().fit(SPECTRA)
    assert estimator.n_components_ > 0
    return estimator


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks() -> None:
    report = estimator_checks.check_estimator(
        EBgMCR(pool_size=16, max_epoch=50), expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None
    )
    assert len(EXPECTED_FAILURES) <= 3
    unexpected = {entry["check_name"]: str(entry["exception"]) for entry in report if entry["status"] == "failed"}
    assert unexpected == {}
    failed = {entry["check_name"] for entry in report if entry["status"] == "xfail"}
    assert failed == set(EXPECTED_FAILURES), "an expected failure that passes must leave the list"
    passed = [entry["check_name"] for entry in report if entry["status"] == "passed"]
    assert len(passed) >= 40
    # Tests of array libraries other than numpy run only if an environment variable asks for them.
    skipped = {entry["check_name"] for entry in report if entry["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No component was found", "ignore:X .* feature names")
@pytest.mark.parametrize(
    "name",
    [
        "check_dataframe_column_names_consistency",
        "check_n_features_in_after_fitting",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_global_output_transform_pandas",
    ],
)
def test_checks_that_scikit_learn_keeps_for_its_own_estimators(name: str) -> None:
    getattr(estimator_checks, name)("EBgMCR", EBgMCR(pool_size=8, max_epoch=3))


def test_tags_say_what_is_so(fitted: EBgMCR) -> None:
    tags = get_tags(fitted)
    assert not tags.input_tags.positive_only, "noise makes measured spectra negative here and there"
    assert fitted.transform(-SPECTRA).shape == (19, fitted.n_components_)
    assert not tags.input_tags.allow_nan
    assert not tags.input_tags.sparse
    assert not tags.target_tags.required
    assert tags.transformer_tags is not None
    assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]
    assert not tags.non_deterministic
    assert get_tags(_quick(random_state=None)).non_deterministic


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int16, np.float32),
        (object, np.float32),
    ],
)
def test_numbers_go_out_as_they_came_in(kind: Any, dtype: Any, fitted: EBgMCR) -> None:
    spectra = np.rint(SPECTRA * 8).astype(kind)
    concentration = fitted.transform(spectra)
    assert concentration.dtype == dtype
    assert np.array_equal(concentration, fitted.transform(spectra.astype(np.float32)))
    assert fitted.inverse_transform(concentration).dtype == dtype
    again = clone(fitted)
    both = again.fit_transform(spectra)
    assert both.dtype == dtype
    assert np.array_equal(both, again.transform(spectra))
    tensor = torch.from_numpy(SPECTRA)
    assert fitted.transform(tensor.double()).dtype == np.float64
    assert fitted.transform(tensor).dtype == fitted.transform(tensor.bfloat16()).dtype == np.float32


def test_what_is_refused(fitted: EBgMCR) -> None:
    mixed = SPECTRA.astype(object)
    mixed[3, 2] = {"peak": 1}
    words = SPECTRA.astype(object)
    words[3, 2] = "high"
    cases: list[tuple[Any, type[Exception], str]] = [
        (sparse.csr_array(SPECTRA), TypeError, r"Sparse data was passed as `X`.*X\.toarray"),
        (sparse.coo_matrix(SPECTRA), TypeError, "Sparse data"),
        (SPECTRA + 1j, DataError, "Complex data not supported: `X` has dtype complex64"),
        (torch.from_numpy(SPECTRA + 1j), DataError, "Complex data not supported"),
        (mixed, TypeError, "`X` must hold numbers: .*not 'dict'"),
        (words, DataError, "`X` must hold numbers: .*high"),
        (np.full((2, 2), "a"), DataError, "`X` must hold real numbers"),
        (SPECTRA[0], DataError, r"got shape \(11,\).*Reshape your data"),
        (torch.from_numpy(SPECTRA[0]), DataError, r"got shape \(11,\).*Reshape your data"),
        (SPECTRA[:, :0], DataError, r"0 feature\(s\) \(shape=\(19, 0\)\)"),
        (SPECTRA[:0], DataError, "at least one of each"),
        (SPECTRA[None], DataError, "3 dimensions"),
        ([[1.0, 2.0], [3.0]], DataError, "`X` must be an array of numbers"),
        (3.0, DataError, "`X` must be a table of spectra"),
    ]
    for spectra, error, message in cases:
        for call in (_quick().fit, fitted.transform, fitted.parse, fitted.score, _quick().fit_transform):
            with pytest.raises(error, match=message):
                call(spectra)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was() -> None:
    estimator = _quick(max_epoch=2).fit(FRAME)
    before = estimator.transform(FRAME)
    for wrong in (np.full((4, 5), np.nan), SPECTRA[:, :0], sparse.csr_array(SPECTRA)):
        with pytest.raises((TypeError, ValueError)):
            estimator.fit(wrong)
    assert estimator.n_features_in_ == 11
    assert estimator.feature_names_in_.tolist() == CHANNELS
    assert np.array_equal(estimator.transform(FRAME), before)


def test_data_frames(fitted: EBgMCR) -> None:
    estimator = clone(fitted).set_output(transform="pandas")
    table = estimator.fit_transform(FRAME)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == [f"ebgmcr{i}" for i in range(estimator.n_components_)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(estimator.transform(FRAME).to_numpy(), table.to_numpy())
    assert np.array_equal(table.to_numpy(), fitted.transform(SPECTRA.astype(np.float64)))
    assert estimator.feature_names_in_.tolist() == CHANNELS
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(FRAME[CHANNELS[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator.transform(SPECTRA)
    estimator.fit(SPECTRA)
    assert not hasattr(estimator, "feature_names_in_")
    assert not hasattr(fitted, "feature_names_in_")


@pytest.mark.slow
def test_lists_and_files_have_channels_too(fitted: EBgMCR, tmp_path: Path) -> None:
    from_list = _quick().fit(SPECTRA.tolist())
    np.save(tmp_path / "spectra.npy", SPECTRA)
    from_file = _quick().fit(tmp_path / "spectra.npy")
    for estimator in (from_list, from_file, _quick().fit(torch.from_numpy(SPECTRA))):
        assert estimator.n_features_in_ == 11
        assert estimator.history_ == fitted.history_
    assert from_list.transform(SPECTRA.tolist()).dtype == np.float64
    assert from_file.transform(tmp_path / "spectra.npy").dtype == np.float32
    assert from_file.fit_transform(str(tmp_path / "spectra.npy")).dtype == np.float32


def test_pickled_estimators_go_on_working(fitted: EBgMCR) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.transform(SPECTRA), fitted.transform(SPECTRA))
    assert np.array_equal(again.C_opt_, fitted.C_opt_)
    start = fitted.count_curve_[0]["r2_from"]
    assert again.use_band(start).n_components_ == fitted.count_curve_[0]["count"]


def test_parameters_are_not_touched_and_are_shown(fitted: EBgMCR) -> None:
    options = {"pool_size": 8, "noise": 0.25, "random_state": None, "device": "cpu"}
    estimator = _quick(**options)
    before = estimator.get_params()
    estimator.fit(SPECTRA)
    assert all(estimator.get_params()[name] is value for name, value in before.items())
    assert list(before) == sorted(inspect.signature(EBgMCR).parameters)
    assert "noise=0.25" in repr(estimator)
    assert repr(EBgMCR()) == "EBgMCR()"


def test_the_score_is_the_r2_of_the_reconstruction(fitted: EBgMCR) -> None:
    for spectra in (SPECTRA, SPECTRA[4:11], SPECTRA * 1.5):
        expected = r2_score(spectra, fitted.parse(spectra)["reconstruction"], multioutput="variance_weighted")
        assert fitted.score(spectra) == pytest.approx(expected, rel=1e-5)
    assert fitted.score(SPECTRA) == pytest.approx(fitted.score(SPECTRA, y=np.ones(19)))
    assert fitted.score(SPECTRA[:1]) in (0.0, 1.0)


def test_concentrations_and_spectra_under_the_names_of_pymcr(fitted: EBgMCR) -> None:
    assert fitted.ST_opt_ is fitted.components_
    assert np.array_equal(fitted.C_opt_, fitted.transform(SPECTRA))
    assert fitted.C_opt_ @ fitted.ST_opt_ == pytest.approx(fitted.parse(SPECTRA)["reconstruction"], rel=1e-4, abs=1e-4)
    for name in ("C_opt_", "ST_opt_"):
        with pytest.raises(AttributeError):
            setattr(fitted, name, np.ones((2, 2)))
        with pytest.raises(NotFittedError):
            getattr(_quick(), name)


def test_concentrations_of_another_state_are_not_those_of_the_fit(fitted: EBgMCR, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    changed = [
        EBgMCR.load(tmp_path),
        pickle.loads(pickle.dumps(fitted)).use_band(fitted.count_curve_[0]["r2_from"]),
        pickle.loads(pickle.dumps(fitted)).restrict_to(SPECTRA[:2]),
    ]
    for estimator in changed:
        with pytest.raises(AttributeError, match=r"transform\(X\)"):
            estimator.C_opt_  # noqa: B018  reading it is what is tested
        assert len(estimator.ST_opt_) == estimator.n_components_
    assert np.array_equal(changed[0].fit(SPECTRA).C_opt_, fitted.C_opt_)


def test_pipelines() -> None:
    # Standardising would centre the spectra, and non-negative components cannot describe what is left.
    pipeline = make_pipeline(FunctionTransformer(np.abs, feature_names_out="one-to-one"), MinMaxScaler(), _quick())
    concentration = pipeline.fit_transform(FRAME)
    assert np.array_equal(pipeline.transform(FRAME), concentration)
    scaled = pipeline[:-1].transform(FRAME)
    assert pipeline.score(FRAME) == pipeline[-1].score(scaled)
    copy = clone(pipeline)
    assert not hasattr(copy[-1], "model_")
    seeded = copy.fit(FRAME, ebgmcr__components=scaled[:2], ebgmcr__fixed=[0, 1])
    assert seeded[-1].model_.components()[:2].detach().numpy() == pytest.approx(
        scaled[:2] / np.linalg.norm(scaled[:2], axis=1, keepdims=True), rel=1e-5, abs=1e-6
    )
    names = pipeline.set_output(transform="pandas").fit(FRAME).get_feature_names_out(CHANNELS)
    assert names.tolist() == list(pipeline.transform(FRAME).columns)


@pytest.mark.slow
def test_grid_search() -> None:
    grid = {"pool_size": [2, 6], "noise": [None, 0.5]}
    search = GridSearchCV(_quick(max_epoch=5), grid, cv=2, error_score="raise").fit(SPECTRA)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_params_ in [dict(parameters) for parameters in search.cv_results_["params"]]
    half = SPECTRA[:10], SPECTRA[10:]
    expected = clone(search.estimator).set_params(**search.cv_results_["params"][0]).fit(half[1]).score(half[0])
    assert search.cv_results_["split0_test_score"][0] == expected
    assert search.score(SPECTRA) == search.best_estimator_.score(SPECTRA)
    assert search.transform(SPECTRA).shape == (19, search.best_estimator_.n_components_)


def _cube(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((6, 17, 19)).astype(np.float32)


def _segmentation(**options: Any) -> DeepGlobalClustering:
    settings: dict[str, Any] = {"embed_dim": 4, "crop_size": 8, "batch_size": 2, "max_epoch": 1, "reuse_iter": 1}
    return DeepGlobalClustering(2, **{**settings, **options})


def test_cubes_have_the_same_manners() -> None:
    # check_estimator does not apply: all of its checks fit tables (n, d), and a scene is a cube (bands, rows, columns).
    estimator = _segmentation()
    assert isinstance(estimator, BaseEstimator)
    assert is_clusterer(estimator)
    tags = get_tags(estimator)
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert list(estimator.get_params()) == sorted(inspect.signature(DeepGlobalClustering).parameters)
    assert repr(DeepGlobalClustering()) == "DeepGlobalClustering()"
    assert "embed_dim=4" in repr(estimator)
    with pytest.raises(ValueError, match="Invalid parameter 'clusters'"):
        estimator.set_params(clusters=3)
    with pytest.raises(NotFittedError):
        estimator.predict(_cube())
    before = estimator.get_params()
    assert estimator.fit(_cube()) is estimator
    assert all(estimator.get_params()[name] is value for name, value in before.items())
    assert estimator.n_features_in_ == 6
    labels = estimator.predict(_cube())
    copy = clone(estimator)
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert copy.get_params() == before
    assert np.array_equal(copy.fit_predict(_cube(), y=None), labels)
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.predict(_cube()), labels)
    for wrong in (_cube()[0], _cube() + 1j, _cube()[:4]):
        with pytest.raises(DataError):
            estimator.predict(wrong)
    assert set(vars(_segmentation())) == set(before), "nothing but parameters before fit"
