"""EB-gMCR as a scikit-learn estimator."""

from __future__ import annotations

import os
import secrets
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from spectrafuse import _checks
from spectrafuse._progress import Callback
from spectrafuse.mcr import preparation, storage
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel, noise_level
from spectrafuse.mcr.passes import Aggregate, PostProcessing
from spectrafuse.mcr.preparation import Spectra
from spectrafuse.mcr.recipes import Recipe, resolve
from spectrafuse.mcr.trainer import Trainer, TrainingResult
from spectrafuse.random import RandomStream

_CHUNK_ROWS = 1024
_AGGREGATE_CHUNK_ENTRIES = 2**24


class EBgMCR(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Unmixes spectra and finds how many components there are.

    Spectra are modelled as concentrations times components. Out of a pool of candidates much larger than any expected
    number, energy-based gates select the few that are needed; the number found comes from the gates.

    Parameters
    ----------
    pool_size : int
        Candidate components; several times the number expected. Time and memory grow with its square.
    recipe : {"corrected", "published"} or Recipe
        "corrected" ties the sparsity pressure to the noise level and ends by itself; "published" repeats the paper's
        code, defects included, and may need `max_epoch` to end.
    non_negative : bool
        Components are non-negative. Concentrations always are.
    sparse : bool
        The sparse form: a second gate decides which channels a component has.
    component_norm : int or None
        p-norm that every component is divided by; None: none.
    noise : float or None
        Standard deviation of the noise, in the spectra's unit; None: estimated from the tail of the singular values.
        It sets the level of fit the corrected recipe aims at, never the count.
    batch_size : int or None
        Spectra in a training step; None: a quarter of them below 256, else 64.
    max_epoch : int or None
        Epochs at most; None: the recipe's (5000; none for "published").
    learning_rate : float
        Of AdamW.
    initial_components : array_like, (k, d), optional
        Start of the first k components of the pool, k at most `pool_size`.
    learnable_components : bool
        False: components stay as given; `initial_components` must then fill the pool.
    post_processing : callable, optional
        From normalised components (N, d) to components (N, d), for instance smoothing; in torch, differentiable.
    aggregate : callable, optional
        Nonlinear mixing, in torch: from gated concentrations (B, N, 1) and gated components (B, N, d) to spectra
        (B, d). Only with it are tensors of size (B, N, d) built.
    random_state : int or None
        Seed, 0 <= seed < 2^63; the same seed gives the same bits on one machine. None: a fresh one.
    device : str, torch.device or None
        None: a CUDA device if there is one, else the CPU.

    Attributes
    ----------
    components_ : ndarray, (n_components_, d)
        Used components, of unit norm as `component_norm` says (in the sparse form times their sparsity gates).
    component_ids_ : ndarray of int, (n_components_,)
        Their places in the pool.
    n_components_ : int
    count_curve_ : list of dict
        For each band of fit that was reached the state with the fewest components: r2_from, r2_to, count, r2, nmse,
        epoch (nmse_from, nmse_to if a recipe takes its bands in nMSE).
    history_ : list of dict
        One entry an epoch: epoch, nmse, r2, mse, count, mean_energy, loss, sparsity_weight, temperature. `mse` and
        `loss` are in the units the training works in.
    stop_reason_, chosen_reason_ : str
        Why training stopped, and why this state was taken: a sentence each.
    noise_ : NoiseLevel
        sigma (the spectra's unit), nmse (its share of the spectra's sum of squares), source.
    model_ : UnmixingModel
    n_features_in_, n_iter_ : int

    Notes
    -----
    arXiv 2507.23600, sparse form arXiv 2510.20364. In evaluation the gates are 0 or 1 and drawn without noise. The
    published recipe evaluates with gate noise while it trains and counts by that; `transform` is deterministic in
    every recipe.

    Examples
    --------
    >>> mcr = EBgMCR(pool_size=128).fit("spectra.csv")  # doctest: +SKIP
    >>> concentrations = mcr.transform("spectra.csv")  # doctest: +SKIP
    """

    def __init__(
        self,
        pool_size: int = 1024,
        *,
        recipe: str | Recipe = "corrected",
        non_negative: bool = True,
        sparse: bool = False,
        component_norm: int | None = 2,
        noise: float | None = None,
        batch_size: int | None = None,
        max_epoch: int | None = None,
        learning_rate: float = 5e-4,
        initial_components: Any = None,
        learnable_components: bool = True,
        post_processing: PostProcessing | None = None,
        aggregate: Aggregate | None = None,
        random_state: int | None = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self.pool_size = pool_size
        self.recipe = recipe
        self.non_negative = non_negative
        self.sparse = sparse
        self.component_norm = component_norm
        self.noise = noise
        self.batch_size = batch_size
        self.max_epoch = max_epoch
        self.learning_rate = learning_rate
        self.initial_components = initial_components
        self.learnable_components = learnable_components
        self.post_processing = post_processing
        self.aggregate = aggregate
        self.random_state = random_state
        self.device = device

    def fit(
        self,
        X: Spectra,
        y: None = None,
        *,
        callback: Callback | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 10.0,
    ) -> EBgMCR:
        """Find components in spectra.

        Parameters
        ----------
        X : path, ndarray or Tensor, (n, d)
            Spectra, one a row.
        y : None
            Ignored.
        callback : callable, optional
            Called with a `Progress` after every epoch. An exception it raises ends the fit.
        checkpoint_dir : path, optional
            The run is saved there now and then, at its end, and on Ctrl-C (which is then passed on); the best state of
            each band of fit is a model folder in it. A fit with the same parameters and data continues a run it finds
            there, and ends with the same bits as an uninterrupted one.
        checkpoint_seconds : float
            Shortest time between two saves.

        Returns
        -------
        EBgMCR
            Itself.

        Raises
        ------
        DataError
            If X cannot be used: NaN, infinity, zero everywhere, wrong shape, an unreadable file.
        ValueError, TypeError
            If a parameter is wrong, or `checkpoint_dir` holds another run.
        """
        recipe = resolve(self.recipe)
        settings = preparation.check_parameters(self)
        data = preparation.read(X, zeros="warn")
        seed = secrets.randbits(62) if self.random_state is None else self.random_state
        stream = RandomStream(_checks.integer("random_state", seed, minimum=0))
        model = preparation.build_model(self, recipe, data.shape[1], stream).to(self._device())
        spectra = torch.from_numpy(data)
        noise = noise_level(spectra, self.noise)
        trainer = Trainer(
            model,
            spectra.to(self._device()),
            recipe,
            noise,
            stream,
            **settings,
            folder=None if checkpoint_dir is None else Path(checkpoint_dir),
            fingerprint=preparation.fingerprint(self, recipe, data, self._device()),
            save_seconds=_checks.number("checkpoint_seconds", checkpoint_seconds, minimum=0.0),
        )
        self._take(trainer.run(callback), model, data.shape[1])
        self.noise_: NoiseLevel | None = noise
        if self.n_components_ == 0:
            warnings.warn(
                f"No component was found: no gate opened for any spectrum. {self.stop_reason_}",
                UserWarning,
                stacklevel=2,
            )
        return self

    def fit_transform(self, X: Spectra, y: None = None, **fit_params: Any) -> NDArray[np.float32]:
        """Fit, then give the concentrations (n, n_components_)."""
        return self.fit(X, y, **fit_params).transform(X)

    def transform(self, X: Spectra) -> NDArray[np.float32]:
        """Concentrations of spectra.

        Parameters
        ----------
        X : path, ndarray or Tensor, (n, d)

        Returns
        -------
        ndarray, (n, n_components_)
            Of the components in `components_`, 0 where one is not selected.
        """
        return self._parse(X, reconstruct=False)["concentration"]

    def parse(self, X: Spectra) -> dict[str, NDArray[Any]]:
        """Everything the model says about spectra, computed in chunks and for used components only.

        Parameters
        ----------
        X : path, ndarray or Tensor, (n, d)

        Returns
        -------
        dict
            `reconstruction` (n, d), `concentration` (n, n_components_), `component_ids` (n_components_,) and
            `select_prob` (n, n_components_) with gates of 0 or 1.
        """
        return self._parse(X, reconstruct=True)

    def inverse_transform(self, X: Any) -> NDArray[np.float32]:
        """Spectra (n, d) from concentrations (n, n_components_)."""
        check_is_fitted(self, "model_")
        concentration = np.asarray(X, dtype=np.float32)
        if concentration.ndim != 2 or concentration.shape[1] != self.n_components_:
            raise _checks.fail("X", f"of shape (n, {self.n_components_})", concentration.shape)
        rows = [self._recompose(torch.from_numpy(part)) for part in self._chunks(concentration)]
        return np.concatenate(rows) if rows else np.empty((0, self.n_features_in_), np.float32)

    def use_band(self, r2_from: float) -> EBgMCR:
        """Take the state of another row of `count_curve_` instead of the chosen one.

        Parameters
        ----------
        r2_from : float
            The row's `r2_from` (`nmse_from` if the bands are in nMSE).

        Raises
        ------
        ValueError
            If there is no such row, or the estimator was loaded from a folder: band folders are loaded by themselves.
        """
        check_is_fitted(self, "model_")
        result: TrainingResult | None = getattr(self, "_result", None)
        kept = [] if result is None else [b for b in result.bands if b.name in result.keeper.slots]
        for band in kept:
            if np.isclose(band.start, r2_from, rtol=0, atol=1e-9):
                assert result is not None
                record = result.keeper.slots[band.name].record
                reason = f"Band {band.name} was asked for: {record.size} components, epoch {record.epoch}."
                state = result.keeper.state(band.name)
                taken = result._replace(state=state, record=record, chosen_reason=reason)
                self._take(taken, self.model_, self.n_features_in_)
                return self
        known = ", ".join(f"{band.start:g}" for band in kept) or "none"
        raise _checks.fail("r2_from", f"where a row of `count_curve_` begins that is in memory ({known})", r2_from)

    def restrict_to(self, X: Spectra) -> EBgMCR:
        """Let the used components be those that the gates open for these spectra, as after `fit`."""
        check_is_fitted(self, "model_")
        everything = torch.arange(self.model_.num_components, device=self.model_.vanilla_components.device)
        used = np.zeros(self.model_.num_components, dtype=bool)
        for part in self._chunks(self._read(X)):
            spectra = torch.from_numpy(part).to(everything.device)
            used |= self.model_.parse(spectra, everything)[1].any(dim=0).cpu().numpy()
        self._set_components(np.flatnonzero(used).tolist())
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the published `param.json` and `model.safetensors`, and `spectrafuse.json`, into a folder."""
        check_is_fitted(self, "model_")
        storage.save(Path(folder), self.model_, storage.describe(self))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        post_processing: PostProcessing | None = None,
        aggregate: Aggregate | None = None,
        device: str | torch.device | None = None,
    ) -> EBgMCR:
        """Read a folder written by `save`, a band's folder, or one of the published code.

        Parameters
        ----------
        folder : path
        post_processing, aggregate : callable, optional
            Plug-ins the model was fitted with; they are not in the folder.
        device : str, torch.device or None

        Returns
        -------
        EBgMCR
            Without `spectrafuse.json` nothing says which components are used: all are, until `restrict_to` is called.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If the folder is damaged or a plug-in it was fitted with is not given.
        """
        path = Path(folder)
        extra = storage.load_extra(path)
        plug_ins: dict[str, Any] = {"post_processing": post_processing, "aggregate": aggregate}
        loaded = cls(**storage.parameters_of(path, extra, plug_ins), **plug_ins, device=device)
        storage.restore(loaded, path, extra, loaded._device())
        loaded._set_components(loaded.component_ids_.tolist())
        return loaded

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _device(self) -> torch.device:
        if self.device is None:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def _read(self, X: Spectra) -> NDArray[np.float32]:
        data = preparation.read(X, zeros="accept")
        found, expected = data.shape[1], self.n_features_in_
        if found != expected:
            name = type(self).__name__
            raise ValueError(f"X has {found} features, but {name} is expecting {expected} features as input.")
        return data

    def _take(self, result: TrainingResult, model: UnmixingModel, features: int) -> None:
        """Make a training result the fitted state."""
        model.load_state_dict(result.state)
        self.model_ = model.eval()
        self.n_features_in_ = features
        self.n_iter_ = len(result.history)
        self.history_ = result.history
        self.stop_reason_ = result.stop_reason
        self.chosen_reason_ = result.chosen_reason
        self.count_curve_ = result.count_curve(resolve(self.recipe).checkpoint_criterion)
        self._result = result
        self._set_components(result.record.component_ids)

    @torch.no_grad()
    def _set_components(self, ids: list[int]) -> None:
        self.component_ids_ = np.asarray(ids, dtype=np.int64)
        self.n_components_ = len(ids)
        self._indices = torch.as_tensor(self.component_ids_, device=self.model_.vanilla_components.device)
        self.components_ = self.model_.effective_components()[self._indices].cpu().numpy()

    def _chunks(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        rows = _CHUNK_ROWS
        if self.aggregate is not None:
            rows = max(1, min(rows, _AGGREGATE_CHUNK_ENTRIES // self.model_.vanilla_components.numel()))
        return [array[start : start + rows] for start in range(0, len(array), rows)]

    def _recompose(self, concentration: Tensor) -> NDArray[np.float32]:
        return self.model_.recompose(concentration.to(self._indices.device), self._indices).cpu().numpy()

    def _parse(self, X: Spectra, *, reconstruct: bool) -> dict[str, NDArray[Any]]:
        check_is_fitted(self, "model_")
        data = self._read(X)
        parts: dict[str, list[NDArray[Any]]] = {"concentration": [], "select_prob": []}
        if reconstruct:
            parts["reconstruction"] = []
        for part in self._chunks(data):
            spectra = torch.from_numpy(part).to(self._indices.device)
            concentration, select_prob = self.model_.parse(spectra, self._indices)
            parts["concentration"].append(concentration.cpu().numpy())
            parts["select_prob"].append(select_prob.cpu().numpy())
            if reconstruct:
                parts["reconstruction"].append(self._recompose(concentration))
        parsed: dict[str, NDArray[Any]] = {name: np.concatenate(rows) for name, rows in parts.items()}
        parsed["component_ids"] = self.component_ids_.copy()
        return parsed
