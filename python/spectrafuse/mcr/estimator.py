"""EB-gMCR as a scikit-learn estimator."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from spectrafuse import __version__
from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse._runtime.modes import in_usual_modes
from spectrafuse._runtime.progress import Callback
from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.io.errors import DataError
from spectrafuse.io.spectra import missing_values
from spectrafuse.io.spectral_axis import axis_from_plain
from spectrafuse.mcr import constraints as constraining
from spectrafuse.mcr import inputs, model_io
from spectrafuse.mcr.constraints import Constraint, Knowledge, Mixture
from spectrafuse.mcr.feasible_bands import FeasibleBands, feasible_bands, settled_factors
from spectrafuse.mcr.inputs import Spectra, Table
from spectrafuse.mcr.lazy import in_chunks_of_dask, lazy_concentrations
from spectrafuse.mcr.metrics import FitMetrics, r2_of
from spectrafuse.mcr.model import Aggregate, PostProcessing, UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel, noise_level, squares
from spectrafuse.mcr.preference import Preference
from spectrafuse.mcr.preference import check as check_preference
from spectrafuse.mcr.recipes import Recipe, resolve
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.asked_count import FREELY, AskedCount
from spectrafuse.mcr.refinement.band_noise import correlated
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.refinement.refine import refine_spectra, refine_trained
from spectrafuse.mcr.refinement.stored_result import load_result, save_result
from spectrafuse.mcr.spikes import without_spikes
from spectrafuse.mcr.training import known_components
from spectrafuse.mcr.training.compaction import Compaction
from spectrafuse.mcr.training.known_components import KnownComponents
from spectrafuse.mcr.training.rules import recipe_bands
from spectrafuse.mcr.training.trainer import Trainer, TrainingResult
from spectrafuse.mcr.weighting import Weighting, filled, noise_of_present, noise_of_weighted, weighting_of
from spectrafuse.random import RandomStream

_MOST_PLACES = 100_000
_MOST_NOISE = 1e38
"""What float32 holds."""


class _Task(NamedTuple):
    """What a fit is about, read and checked."""

    data: Table
    noise: NoiseLevel
    recipe: Recipe
    stream: RandomStream
    device: torch.device
    known: KnownComponents | None
    knowledge: Knowledge
    callback: Callback | None


class EBgMCR(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Unmixes spectra and finds how many components there are.

    Spectra are modelled as concentrations times components, behind gates: a component opens for a spectrum if it
    explains more of it than noise would, and is counted if it explains more of all spectra than noise would.

    Parameters
    ----------
    pool_size : int
        Places for components; `n_components` makes more if it needs them. It costs nothing where no networks are
        trained; where they are, time and memory grow with its square, and it should be several times the number
        expected.
    n_components : int or None
        Exactly so many components, the background not counted: the best of several starts. `chosen_reason_` says how
        many the spectra ask for, and what the difference explains. None: the spectra decide.
    max_components : int or None
        At most so many, where `n_components` is None. Neither goes with plug-ins or "published".
    recipe : {"corrected", "trained", "published"} or Recipe
        "corrected" chooses candidates among the spectra and refines them on hard gates, without any training. "trained"
        trains the networks, with the sparsity pressure tied to the noise level, and refines what they found the same
        way. "published" repeats the paper's code, defects included, and may need `max_epoch` to end. Plug-ins need the
        networks, so that "corrected" trains them too.
    non_negative : bool
        Components are non-negative.
    non_negative_concentrations : bool
        False: once the count is found, a last fit lets concentrations be negative, but for those that a `NonNegative`
        constraint names. Components and concentrations may then share what none needs.
    sparse : bool
        The sparse form: a second gate decides which bands a component has.
    component_norm : int or None
        p-norm that every component is divided by; None: none.
    background : bool
        A component that is the same in all bands, as an offset of the detector is. It keeps its shape and is not
        counted: it is the last row of `components_`, and the last column of concentrations, where spectra need it. What
        all bands of a non-negative component share is part of it.
    noise : float or None
        Standard deviation of the noise, in the spectra's unit; None: estimated from the tail of the singular values.
        It sets the level of fit the corrected recipe aims at, never the count. If the singular values do not end in
        those of white noise, a component counts if it explains more than the recipe's `noise_floor` of the spectra.
    robust : bool
        Narrow spikes of single spectra, as of cosmic rays, are drawn through from beside them before the fit, and named
        in `count_evidence_["cautions"]`. Without it each may become a component. All spectra are taken into memory.
    constraints : sequence of Constraint or None
        What is known of concentrations and spectra (`spectrafuse.mcr.constraints`), for a last fit of both, in memory,
        once the count is found. Components keep the size that they have in it, whatever `component_norm` says.
        `transform` of other spectra obeys those that need no table; those that link spectra in the `runs` it is given.
    prefer : {"pure", "smooth", "least volume"} or None
        Which mixture is taken of those that fit equally well, once the count is found: the one that the purest spectra
        lead to, as MCR-ALS, the one of smoothest spectra, or the one whose spectra span the least volume;
        `chosen_reason_` says so. None: the one of fewest open gates that was found, or of least residual where nearly
        all gates are open.
    batch_size : int or None
        Spectra in a training step; None: a quarter of them below 256, else 64.
    max_epoch : int or None
        Epochs of training at most; None: the recipe's (1500; none for "published").
    learning_rate : float
        Of AdamW.
    post_processing : callable, optional
        From normalised components (N, d) to components (N, d), for instance smoothing; in torch, differentiable.
    aggregate : callable, optional
        Nonlinear mixing, in torch: from gated concentrations (B, N, 1) and gated components (B, N, d) to spectra
        (B, d). Only with it are tensors of size (B, N, d) built.
    random_state : int or None
        Seed, 0 <= seed < 2^63; the same seed gives the same bits on one machine. Without training it decides which of
        spectra that are nearly as different from all others is a candidate first. None: a fresh one.
    device : str, torch.device or None
        None: a CUDA device if there is one, else the CPU.

    Attributes
    ----------
    components_ : ndarray, (k, d)
        Used components, of unit norm as `component_norm` says (in the sparse form times their sparsity gates).
    component_ids_ : ndarray of int, (k,)
        Their numbers: known components come first, then those that were found (after training: places in the pool).
    component_names_ : list of str or None
        Their names, as `arrange` was told: by the command `unmix`, numbers by share, and names of known spectra.
    n_components_ : int
        Their number k, the background not counted.
    background_row_ : int or None
        Row of `components_` that is the background; None: there is none.
    count_curve_ : list of dict
        For each band of fit that was reached the state with the fewest components: r2_from, r2_to, count, r2, nmse,
        epoch (nmse_from, nmse_to if a recipe takes its bands in nMSE). Without training these are states that the
        refinement passed through, epoch 0.
    compactions_ : tuple of Compaction
        When components left the pool in training (`Recipe.compact_epochs`): how many parameters a step has moved since,
        and what it changed.
    count_evidence_ : dict or None
        What the count rests on, where the recipe refines: `asked` (`exactly` and `most`, as the user asked, or None),
        `by_the_spectra` (the count that the spectra ask for), `path` (rows count, r2, nmse, cost, chosen: components
        closed one after another, past the chosen count), `reason`, `rise` (what the least component explains, in units
        of what noise would), `rank_check` (singular values above noise, an independent check that decides nothing),
        `residual_excess` and `residual_colour` (1: the residual is the noise expected), `trained_count` or None, and
        `cautions`: what these spectra cannot tell, a sentence each.
    constraint_reports_ : list of dict
        For each of `constraints`: name, active (the fit without it departs from it) and cost (by how much it raises the
        nMSE).
    history_ : list of dict
        One entry an epoch of training, none without: epoch, nmse, r2, mse, count, mean_energy, loss, sparsity_weight,
        temperature. `mse` and `loss` are in the units the training works in.
    stop_reason_, chosen_reason_ : str
        Why training stopped, and why this state was taken: a sentence each.
    noise_ : NoiseLevel
        sigma (the spectra's unit), nmse (its share of the spectra's sum of squares), source, correlation (of the noise
        of neighboring bands; spectra are filtered for it).
    C_opt_, ST_opt_ : ndarray, (n, k) and (k, d)
        Concentrations of the spectra that were fitted, and `components_`, under the names that pyMCR gives them.
    model_ : UnmixingModel
    n_features_in_ : int
        Bands d of the spectra.
    n_iter_ : int
        Epochs of training; 0 without any.
    axis_ : SpectralAxis or None
        Where the bands lie (`values`, `unit`), if the spectra that were fitted say it: a file, `read_spectra`, a scene.
    feature_names_in_ : ndarray of str, (d,)
        Only if the spectra were a data frame with named columns.

    Notes
    -----
    arXiv 2507.23600, sparse form arXiv 2510.20364. `docs/algorithms/ebgmcr.md` has the equations, the published defects
    and, in "How the count is decided", what the corrected recipe adds.

    In evaluation the gates are 0 or 1 and drawn without noise. The published recipe evaluates with gate noise while it
    trains and counts by that; `transform` is deterministic in every recipe.

    Examples
    --------
    Forty mixtures of three spectra that nobody has seen alone:

    >>> import spectrafuse as sf
    >>> mixtures = sf.mcr.MixtureSynthesizer(3, 60, snr_db=30.0).generate(40)
    >>> mcr = sf.EBgMCR(random_state=0).fit(mixtures.spectra)
    >>> mcr.n_components_, mcr.components_.shape
    (3, (3, 60))
    >>> mcr.transform(mixtures.spectra).shape
    (40, 3)
    """

    _fitted_concentrations: NDArray[np.float32] | None
    component_names_: list[str] | None

    def __init__(
        self,
        pool_size: int = 1024,
        *,
        n_components: int | None = None,
        max_components: int | None = None,
        recipe: str | Recipe = "corrected",
        non_negative: bool = True,
        non_negative_concentrations: bool = True,
        sparse: bool = False,
        component_norm: int | None = 2,
        background: bool = False,
        noise: float | None = None,
        robust: bool = False,
        constraints: Sequence[Constraint] | None = None,
        prefer: Preference | None = None,
        batch_size: int | None = None,
        max_epoch: int | None = None,
        learning_rate: float = 5e-4,
        post_processing: PostProcessing | None = None,
        aggregate: Aggregate | None = None,
        random_state: int | None = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self.pool_size = pool_size
        self.n_components = n_components
        self.max_components = max_components
        self.recipe = recipe
        self.non_negative = non_negative
        self.non_negative_concentrations = non_negative_concentrations
        self.sparse = sparse
        self.component_norm = component_norm
        self.background = background
        self.noise = noise
        self.robust = robust
        self.constraints = constraints
        self.prefer = prefer
        self.batch_size = batch_size
        self.max_epoch = max_epoch
        self.learning_rate = learning_rate
        self.post_processing = post_processing
        self.aggregate = aggregate
        self.random_state = random_state
        self.device = device

    @in_usual_modes
    def fit(
        self,
        X: Spectra,
        y: Any = None,
        *,
        sample_weight: Any = None,
        components: Any = None,
        fixed: Any = None,
        runs: Any = None,
        callback: Callback | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 10.0,
    ) -> EBgMCR:
        """Find components in spectra.

        Parameters
        ----------
        X : path, `spectrafuse.io.Spectra`, ndarray or Tensor, (n, d), or Cube, (d, rows, columns), or xarray.DataArray
            Spectra, one a row, or a scene, whose pixels with data are spectra. Of a DataArray the dimension that is
            named as bands are (else the last) is that of the spectra; `transform` gives one back. Negative values are
            allowed: measured spectra have them. NaN stands for a value that is missing: it takes no part in anything,
            and `cautions` say how many there are.
        y : None
            Ignored.
        sample_weight : array_like, (n,) or (n, d), optional
            Weights of the squared residuals, of spectra or of single values: `1 / sigma**2` of a noise map. Only their
            ratios count; 0: takes no part. The noise counts as even then but for these weights, and a given `noise` is
            that of a value whose weight is the geometric mean.
        components : path or array_like, (m, d), optional
            Known components, in the unit of the spectra: the first m components start as these. With a
            `component_norm` their direction counts, without one their size too. Component i of them was found if i is
            in `component_ids_`; one that no spectrum needs does not appear in the results, fixed or not.
        fixed : array_like of bool, (m,), or of int, optional
            Mask or numbers of the rows of `components` that stay as they are; the others are only where the fit
            starts. In the sparse form fixed ones keep all their bands.
        runs : array_like, optional
            Which spectra belong together, one after another, for constraints: lengths of runs that add up to n, or a
            label for each spectrum. None: all are one run.
        callback : callable, optional
            Called with a `Progress` after every epoch, and every second while the result is refined. An exception it
            raises ends the fit.
        checkpoint_dir : path, optional
            A training run is saved there now and then, at its end, and on Ctrl-C (which is then passed on); the best
            state of each band of fit is a model folder in it, written as it improves. A fit with the same parameters
            and data resumes a run it finds there, and ends with the same bits as an uninterrupted one. Without training
            the result is saved, and taken from there by the same fit.
        checkpoint_seconds : float
            Shortest time between two saves of the run.

        Returns
        -------
        EBgMCR
            Itself.

        Raises
        ------
        DataError
            If X cannot be used: infinity, zero everywhere, a spectrum or band without any value, wrong shape, an
            unreadable file.
        ValueError, TypeError
            If a parameter is wrong, X is sparse, or `checkpoint_dir` holds another run.
        """
        recipe = resolve(self.recipe)
        settings = self._settings()
        X = inputs.opened(X, zeros="check", gaps=True)
        data = inputs.open_rows(X, zeros="check", gaps=True)
        spikes = None
        if self.robust:
            data, spikes = without_spikes(data[:])
        places = self._pool(None) - bool(self.background)
        given = known_components.check(components, fixed, (places, data.shape[1]), bool(self.non_negative))
        self._check_asked(recipe, 0 if given is None else len(given.fixed))
        knowledge = self._knowledge(recipe, data.shape, runs)
        given_data, weighting = data, self._weighting(recipe, data, sample_weight)
        if weighting is not None:
            knowledge = knowledge._replace(weighting=weighting, spectra=data[:])
            data = filled(data[:], weighting)
        seed = secrets.randbits(62) if self.random_state is None else self.random_state
        stream = RandomStream(checks.integer("random_state", seed, minimum=0, maximum=2**63 - 1))
        device = checks.device(self.device)
        noise = noise_of_weighted(data, weighting, self.noise, floor=recipe.noise_floor)
        plugged = self.post_processing is not None or self.aggregate is not None
        if recipe.refine and not plugged and not self.sparse and weighting is None:
            noise = correlated(data, noise)
        find = self._train if plugged or recipe.start == "training" or not recipe.refine else self._refine
        result, model = find(
            _Task(data, noise, recipe, stream, device, given, knowledge, callback),
            folder=None if checkpoint_dir is None else Path(checkpoint_dir),
            fingerprint=self._fingerprint(recipe, given_data, device, given, knowledge),
            save_seconds=checks.number("checkpoint_seconds", checkpoint_seconds, minimum=0.0),
            **settings,
        )
        self._fixed_ids = [] if given is None else given.fixed.tolist()
        self._runs: tuple[NDArray[np.int64], ...] = knowledge.runs
        self._take(result, model)
        if spikes is not None and spikes.any() and self.count_evidence_ is not None:
            self.count_evidence_["cautions"].append(evidence.of_spikes(spikes))
        if weighting is not None and weighting.missing and self.count_evidence_ is not None:
            said = missing_values(weighting.missing, weighting.weights.size)
            self.count_evidence_["cautions"].append(f"{said}.")
        # A file's columns have no names.
        validate_data(self, data[:1] if inputs.is_unfolded(X) else X, skip_check_array=True)
        self.n_features_in_ = data.shape[1]
        self.axis_ = inputs.axis_of(X)
        # The refinement may find another level than the singular values show.
        found = result.gates
        of_bands = found is not None and found.weights and (weighting is None or not weighting.given)
        self.noise_: NoiseLevel | None = found.noise if found and not of_bands else noise_of_present(noise, weighting)
        self._fitted_digest = _digest(given_data) if self.constraints else ""
        if self._fitted_concentrations is None:
            self._fitted_concentrations = self._parse(given_data, "concentration")["concentration"]
        if self.n_components_ == 0:
            warnings.warn(f"No component was found: no gate opened for any spectrum. {self.stop_reason_}", stacklevel=2)
        return self

    def _refine(
        self, task: _Task, *, folder: Path | None, fingerprint: dict[str, str], **training: Any
    ) -> tuple[TrainingResult, UnmixingModel]:
        """Candidates chosen among the spectra, refined; a result that is in the folder is taken from there."""

        def build(size: int) -> UnmixingModel:
            model = self._build_model(task.recipe, task.data.shape[1], task.stream, task.known, places=size)
            return model.to(task.device)

        accept = task.recipe.noise_factor * max(task.noise.nmse, task.recipe.noise_floor)
        bands = recipe_bands(task.recipe, accept, *squares(task.data))
        result = None if folder is None else load_result(folder, fingerprint, bands)
        if result is not None:
            return result, build(len(result.state["vanilla_components"]))
        # The last bits of a product depend on how many threads share it.
        with single_blas_thread:
            result, model = refine_spectra(
                build,
                task.data,
                task.noise,
                pool=self._pool(task.known),
                asked=self._asked,
                knowledge=task.knowledge,
                known=task.known,
                non_negative=bool(self.non_negative),
                sparse=bool(self.sparse),
                background=bool(self.background),
                bands=bands,
                floor=task.recipe.noise_floor,
                stream=task.stream,
                callback=task.callback,
            )
        if folder is not None:
            save_result(folder, fingerprint, result)
        return result, model

    def _train(self, task: _Task, **settings: Any) -> tuple[TrainingResult, UnmixingModel]:
        """Networks trained on the whole pool, refined if the recipe says so and no plug-in forbids it."""
        model = self._build_model(task.recipe, task.data.shape[1], task.stream, task.known).to(task.device)
        fixed = [] if task.known is None else task.known.fixed.tolist()
        background = self._pool(task.known) - 1 if self.background else None
        if background is not None:
            fixed.append(background)
        data = task.data[:]
        spectra = torch.from_numpy(data).to(task.device)
        trainer = Trainer(model, spectra, task.recipe, task.noise, task.stream, fixed=fixed, **settings)
        result = trainer.run(task.callback)
        if task.recipe.refine:
            with single_blas_thread:
                result = refine_trained(
                    result,
                    model,
                    data,
                    task.noise,
                    fixed,
                    background=background,
                    asked=self._asked,
                    knowledge=task.knowledge,
                    callback=task.callback,
                )
        return result, model

    def _settings(self) -> dict[str, Any]:
        """The trainer's settings, checked; with them the parameters that nothing else checks."""
        checks.integer("pool_size", self.pool_size, minimum=2 if self.background else 1, maximum=_MOST_PLACES)
        for name in ("n_components", "max_components"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), minimum=1, maximum=_MOST_PLACES)
        if self.noise is not None:
            checks.number("noise", self.noise, minimum=0.0, maximum=_MOST_NOISE)
        for name in ("post_processing", "aggregate"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidTypeError(f"`{name}` must be callable or None; got {type(value).__name__}.")
        return {
            "batch_size": None if self.batch_size is None else checks.integer("batch_size", self.batch_size),
            "max_epoch": None if self.max_epoch is None else checks.integer("max_epoch", self.max_epoch),
            "learning_rate": checks.number("learning_rate", self.learning_rate, above=0.0),
        }

    @property
    def _asked(self) -> AskedCount:
        return AskedCount(self.n_components, self.max_components)

    def _pool(self, known: KnownComponents | None) -> int:
        """Places for components: `pool_size`, or what `n_components` needs beside known ones."""
        given = 0 if known is None else len(known.spectra)
        needed = 0 if self.n_components is None else self.n_components + bool(self.background) + given
        return max(self.pool_size, needed)

    def _check_asked(self, recipe: Recipe, fixed: int) -> None:
        """Whether the count that is asked for can be had."""
        if self._asked == FREELY:
            return
        name = "max_components" if self.n_components is None else "n_components"
        if self.n_components is not None and self.max_components is not None:
            raise InvalidValueError("Give `n_components` or `max_components`, not both.")
        if self.post_processing is not None or self.aggregate is not None:
            raise InvalidValueError(f"`{name}` needs plain mixing: leave `post_processing` and `aggregate` out.")
        if not recipe.refine:
            raise InvalidValueError(f"`{name}` needs a recipe that refines, such as 'corrected'; this one does not.")
        count = self.n_components or self.max_components or 0
        if count < fixed:
            raise InvalidValueError(f"`{name}` must be at least {fixed}, the number of fixed spectra; got {count}.")

    def _knowledge(self, recipe: Recipe, shape: tuple[int, ...], runs: Any) -> Knowledge:
        """The constraints and runs, checked."""
        known = constraining.check(self.constraints, *shape)
        found = constraining.runs_of(runs, shape[0])
        constraining.check_runs(known, found)
        signed = not self.non_negative_concentrations
        check_preference(self.prefer)
        what = "`constraints`, `prefer` and `non_negative_concentrations=False` need"
        if (known or signed or self.prefer) and (
            self.sparse or self.post_processing is not None or self.aggregate is not None
        ):
            raise InvalidValueError(f"{what} plain mixing: leave `sparse` and plug-ins out.")
        if (known or signed or self.prefer) and not recipe.refine:
            raise InvalidValueError(f"{what} a recipe that refines, such as 'corrected'; this one does not.")
        return Knowledge(known, found, signed=signed, prefer=self.prefer)

    def _weighting(self, recipe: Recipe, data: Table, sample_weight: Any) -> Weighting | None:
        """Weights and missing values, checked; None where there are none."""
        if sample_weight is None and not inputs.has_gaps(data):
            return None
        what = "`X` with missing values (NaN)" if sample_weight is None else "`sample_weight`"
        if self.sparse or self.post_processing is not None or self.aggregate is not None:
            raise InvalidValueError(f"{what} needs plain mixing: leave `sparse` and plug-ins out.")
        if recipe.start == "training" or not recipe.refine:
            raise InvalidValueError(f"{what} needs the recipe 'corrected', without training.")
        return weighting_of("X", data[:], sample_weight, banded=not self.background)

    def _build_model(
        self,
        recipe: Recipe,
        features: int,
        stream: RandomStream,
        known: KnownComponents | None,
        *,
        places: int | None = None,
    ) -> UnmixingModel:
        """The model that the parameters ask for, with initial values from `stream`.

        With a number of `places`, it has that many components and networks that were never trained: a layer of zeros
        each.
        """
        model = UnmixingModel(
            self._pool(known) if places is None else places,
            features,
            sparse_component=self.sparse,
            non_negative_component=self.non_negative,
            component_norm=None if self._constrained else self.component_norm,
            hidden_size_extension=recipe.hidden_size_extension if places is None else None,
            hidden_layers=recipe.hidden_layers,
            component_post_processing=self.post_processing,
            aggregate_function=self.aggregate,
            temperature_train=recipe.temperature_max,
            temperature_eval=recipe.temperature_eval,
            select_threshold=recipe.select_threshold,
            langevin_step_size=recipe.langevin_step_size,
            langevin_noise=recipe.langevin_noise,
            langevin_steps=recipe.langevin_steps,
            langevin_options_apply=recipe.langevin_options_apply,
            stream=stream,
        )
        if places is not None:
            with torch.no_grad():
                for part in (model.component_parser, model.concentration_regressor):
                    for values in part.parameters():
                        values.zero_()
        if known is not None:
            known_components.place(model, known)
        if self.background:
            known_components.place_background(model)
        return model

    def _fingerprint(
        self, recipe: Recipe, data: Table, device: torch.device, known: KnownComponents | None, knowledge: Knowledge
    ) -> dict[str, str]:
        """What identifies a run: a saved one is resumed only by the same."""
        parameters = self.get_params(deep=False)
        parameters["recipe"] = recipe
        for name in ("post_processing", "aggregate"):
            parameters[name] = model_io.callable_name(parameters[name])
        with np.printoptions(threshold=sys.maxsize):
            values = {name: repr(value) for name, value in parameters.items()}
            values["runs"] = repr(knowledge.runs) if knowledge.constraints else ""
        if knowledge.weighting is not None:
            values["sample_weight"] = _digest(knowledge.weighting.weights)
        values["device"] = str(device)
        values["X"] = _digest(data)
        if known is not None:
            values["components"] = _digest(known.spectra)
            values["fixed"] = str(known.fixed.tolist())
        values["version"] = __version__
        return values

    def _take(self, result: TrainingResult, model: UnmixingModel) -> None:
        """Make a training result the fitted state."""
        model.load_state_dict(result.state)
        model.gates = result.gates
        self.model_ = model.eval()
        self.n_iter_ = len(result.history)
        self.history_ = result.history
        self.stop_reason_ = result.stop_reason
        self.chosen_reason_ = result.chosen_reason
        self.count_curve_ = result.count_curve(resolve(self.recipe).checkpoint_criterion, self._background_id)
        self.count_evidence_ = result.evidence
        self.compactions_ = result.compactions
        self.constraint_reports_ = (result.evidence or {}).get("constraints", [])
        self._result = result._replace(concentrations=None)
        self._set_components(result.record.component_ids)
        self._fitted_concentrations = result.concentrations

    def arrange(self, order: Any, names: Sequence[str] | None = None) -> EBgMCR:
        """Put the components into another order, and name them; results and model folders keep both.

        Parameters
        ----------
        order : array_like of int, (k,)
            Rows of `components_`, each once, in their new order.
        names : sequence of str, (k,), optional
            In the new order.
        """
        check_is_fitted(self, "model_")
        count, given = len(self.component_ids_), np.asarray(order)
        if given.shape != (count,) or not np.array_equal(np.sort(given), np.arange(count)):
            raise checks.fail("order", f"each of the {count} rows of `components_` once", order)
        if names is not None and (len(names) != count or not all(isinstance(name, str) for name in names)):
            raise checks.fail("names", f"{count} strings", names)
        fitted = self._fitted_concentrations
        self._set_components(self.component_ids_[given].tolist())
        self._fitted_concentrations = None if fitted is None else np.ascontiguousarray(fitted[:, given])
        self.component_names_ = None if names is None else list(names)
        return self

    @torch.no_grad()
    def _set_components(self, ids: list[int]) -> None:
        self.component_ids_ = np.asarray(ids, dtype=np.int64)
        self.background_row_ = ids.index(self._background_id) if self._background_id in ids else None
        self.n_components_ = len(ids) - (self.background_row_ is not None)
        self._fitted_concentrations = None
        self.component_names_ = None
        if self.background_row_ is not None:
            self._fixed_ids = sorted({*self._fixed_ids, ids[self.background_row_]})
        self._indices = torch.as_tensor(self.component_ids_, device=self.model_.vanilla_components.device)
        self.components_ = self.model_.effective_components()[self._indices].cpu().numpy()

    @property
    def _background_id(self) -> int | None:
        """The last place of the pool, if it holds a background."""
        return self.model_.num_components - 1 if self.background else None

    @property
    def C_opt_(self) -> NDArray[np.float32]:
        """Concentrations (n, k) of the spectra that were fitted.

        Raises
        ------
        AttributeError
            Before `fit`, and after `use_band`, `restrict_to` or `load`: `transform` gives them then.
        """
        check_is_fitted(self, "model_")
        if self._fitted_concentrations is None:
            raise AttributeError("`C_opt_` belongs to the state that `fit` ended with; transform(X) gives it anew.")
        return self._fitted_concentrations

    @property
    def cautions_(self) -> list[str]:
        """`count_evidence_["cautions"]`, with components by the names that `arrange` gave them; empty without any."""
        check_is_fitted(self, "model_")
        told = (self.count_evidence_ or {}).get("cautions", ())
        names = (
            {}
            if self.component_names_ is None
            else dict(zip(self.component_ids_.tolist(), self.component_names_, strict=True))
        )
        return [evidence.named(sentence, names) for sentence in told]

    @property
    def ST_opt_(self) -> NDArray[np.float32]:
        """`components_` (k, d), under pyMCR's name."""
        check_is_fitted(self, "model_")
        return self.components_

    def _read(self, X: Spectra) -> Table:
        """Checked spectra (n, d) with as many bands as the fitted ones, and their names where there are names."""
        check_is_fitted(self, "model_")
        named = hasattr(X, "columns")
        if named:  # before the values: a data frame reindexed to other names holds NaN
            validate_data(self, X, reset=False, skip_check_array=True)
        X = inputs.opened(X, zeros="accept", gaps=self.model_.gates is not None)
        data: Table = inputs.open_rows(X, zeros="accept", gaps=self.model_.gates is not None)
        places = inputs.bands_of_model(X, data.shape[1], self.axis_)
        if not np.array_equal(places, np.arange(data.shape[1])):
            data = np.ascontiguousarray(data[:][:, places])
        if not named:
            given = data[:1] if inputs.is_unfolded(X) else X
            validate_data(self, given, reset=False, skip_check_array=True)
        return data

    def _parse(self, data: Table, *wanted: str) -> dict[str, NDArray[Any]]:
        return self.model_.parse_array(data, self._indices, wanted=wanted)

    @in_usual_modes
    def fit_transform(self, X: Spectra, y: Any = None, **fit_params: Any) -> NDArray[np.floating]:
        """Fit, then give the concentrations, as `transform` does."""
        return inputs.folded(X, self.fit(X, y, **fit_params).C_opt_.astype(inputs.result_dtype(X)))

    @in_usual_modes
    def transform(self, X: Spectra, *, runs: Any = None) -> NDArray[np.floating]:
        """Concentrations of spectra.

        Parameters
        ----------
        X : path, `spectrafuse.io.Spectra`, ndarray or Tensor, (n, d), or Cube, (d, rows, columns)
            Where spectra say where their bands lie, as those did that were fitted, the bands of the model are taken, in
            any order and among others.
            NaN, as in `fit`, stands for a value that is missing; a spectrum without any value has NaN concentrations.
        runs : array_like, optional
            As in `fit`: with it constraints that link the spectra of a run, such as `Unimodal`, are obeyed too.

        Returns
        -------
        ndarray, (n, k); of a scene (k, rows, columns)
            Of the components in `components_`, 0 where one is not selected, NaN where a scene has no data. float64 if X
            is, else float32; the model computes in float32. Of a dask array, and a DataArray of xarray that holds one,
            the same kind in its chunks, found when it is computed.
        """
        if in_chunks_of_dask(X):
            check_is_fitted(self, "model_")
            if runs is not None:
                raise DataError("`runs` needs all spectra at once: give X.compute(), or leave `runs` out.")
            return lazy_concentrations(self, X, inputs.result_dtype(X))
        concentration = self._concentrations(self._read(X), runs)
        return inputs.folded(X, concentration.astype(inputs.result_dtype(X), copy=False))

    def _concentrations(self, data: Table, runs: Any = None) -> NDArray[np.float32]:
        """Concentrations (n, k) that obey what is known of any spectra, or of those in runs."""
        start = self._parse(data, "concentration")["concentration"]
        known = constraining.for_any_spectra(constraining.check(self.constraints), in_runs=runs is not None)
        signed = not self.non_negative_concentrations
        if not (known or signed) or not len(start) or not start.shape[1]:
            return start
        found = constraining.runs_of(runs, len(start))
        constraining.check_runs(known, found)
        gates = self.model_.gates
        bands = np.ones(data.shape[1]) if gates is None or gates.weights is None else np.asarray(gates.weights)
        present = ~np.isnan(data[:])
        whole = present.any(1)
        held, free = np.ones(start.shape[1], bool), np.arange(start.shape[1]) != self.background_row_
        mixture = Mixture(
            np.where(present, data[:], 0.0).astype(np.float64),
            np.ones(len(start)),
            bands,
            self.component_ids_,
            free,
            held,
            bool(self.non_negative),
            found,
            None if present.all() else present.astype(np.float64),
            signed,
        )
        first = np.where(whole[:, None], start, 0.0).astype(np.float64)
        with single_blas_thread:
            amounts = constraining.concentrations_of(mixture, first, self.components_.astype(np.float64), known)
        return np.where(whole[:, None], amounts, np.nan).astype(np.float32)

    @in_usual_modes
    def parse(self, X: Spectra) -> dict[str, NDArray[Any]]:
        """Everything the model says about spectra, computed in chunks and for used components only.

        Parameters
        ----------
        X : path, ndarray or Tensor, (n, d)

        Returns
        -------
        dict
            `reconstruction` (n, d), `concentration` (n, k), `component_ids` (k,) and `select_prob` (n, k) with gates of
            0 or 1.
        """
        data = self._read(X)
        parts = self._parse(data, "concentration", "select_prob", "reconstruction")
        if self._constrained:
            parts["concentration"] = amounts = self._concentrations(data)
            parts |= {"select_prob": (amounts != 0).astype(np.float32), "reconstruction": amounts @ self.components_}
        return {**parts, "component_ids": self.component_ids_.copy()}

    @property
    def _constrained(self) -> bool:
        """Concentrations are not those that the model gives."""
        return bool(self.constraints) or not self.non_negative_concentrations

    @in_usual_modes
    def feasible_bands(self, X: Spectra, *, runs: Any = None, tolerance: float | None = None) -> FeasibleBands:
        """How far spectra and concentrations could be others that fit as well under the same constraints.

        Parameters
        ----------
        X : path, `spectrafuse.io.Spectra`, ndarray or Tensor, (n, d)
            The spectra that were fitted, or others of the same components.
        runs : array_like, optional
            As in `fit`. None: those of the fit, where there are as many spectra.
        tolerance : float, optional
            How far below zero an entry may be, as a share of the profile's maximum; None: what the noise can hide, at
            most 0.01.

        Returns
        -------
        FeasibleBands
            `lowest` and `highest` relative contribution of each component, bands of its spectrum and concentrations,
            `sentences` that say so, and `write(folder)` for tables. They start from the result after a last descent
            without a price of gates, as a price cuts the tails of peaks off; under constraints from the result itself.
            Of constraints they know the signs, unimodal concentrations, zeros, closure of all components and known
            spectra; others are named in `sentences`.

        Raises
        ------
        ValueError
            If no component was found, or a plug-in decides how components mix or look.

        Notes
        -----
        Extremes of the signal contribution, as MCR-BANDS: Tauler, Journal of Chemometrics 15 (2001), 627. Up to six
        components they are searched for from three starts; of more, 200 solutions are drawn at random. Both give inner
        bounds. Of more than 5000 spectra the components are settled on 5000 drawn at random.

        Examples
        --------
        >>> import spectrafuse as sf
        >>> spectra = sf.mcr.MixtureSynthesizer(2, 40, snr_db=40.0).generate(20).spectra
        >>> bands = sf.EBgMCR(random_state=0).fit(spectra).feasible_bands(spectra)
        >>> bool((bands.lowest <= bands.highest).all()), len(bands.sentences)
        (True, 2)
        """
        data = self._read(X)[:]
        absent = np.isnan(data)
        if absent.any():
            # As the mixture says: such values change no extreme.
            data = np.where(absent, np.nan_to_num(self._concentrations(data)) @ self.components_, data)
        if self.post_processing is not None or self.aggregate is not None:
            raise InvalidValueError("Feasible bands need plain mixing: this model was fitted with a plug-in.")
        if not len(self.components_):
            raise InvalidValueError("There is no component, so there are no feasible bands.")
        if not self.non_negative_concentrations:
            raise InvalidValueError("Without non-negative concentrations nothing bounds them: there are no bands.")
        if runs is None and len(data) == sum(map(len, self._runs)):
            spans = self._runs
        else:
            spans = constraining.runs_of(runs, len(data))
        gates = self.model_.gates
        noise = gates.noise if gates is not None else self.noise_ or noise_level(data)
        weights = None if gates is None or gates.weights is None else np.asarray(gates.weights)
        held = np.isin(self.component_ids_, self._fixed_ids)
        with single_blas_thread:
            concentrations, components, level = settled_factors(
                data,
                self.components_.astype(np.float64),
                noise,
                weights=weights,
                non_negative=bool(self.non_negative),
                fixed=held,
            )
            if self.constraints:
                labels = np.repeat(np.arange(len(spans)), [len(run) for run in spans])[
                    np.argsort(np.concatenate(spans))
                ]
                components = self.components_.astype(np.float64)
                concentrations = self._constrained_start(data, labels)
            return feasible_bands(
                concentrations,
                components,
                level,
                non_negative_spectra=bool(self.non_negative),
                fixed=held,
                component_ids=self.component_ids_,
                tolerance=None if tolerance is None else checks.number("tolerance", tolerance, minimum=0.0),
                knowledge=Knowledge(constraining.check(self.constraints, *data.shape), spans),
                free=np.arange(len(held)) != self.background_row_,
            )

    def _constrained_start(self, data: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Concentrations under constraints: those of the fit, where these are the spectra that were fitted."""
        fitted = self._fitted_concentrations
        if fitted is not None and len(fitted) == len(data) and _digest(data) == self._fitted_digest:
            return fitted.astype(np.float64)
        return self._concentrations(data, labels).astype(np.float64)

    @in_usual_modes
    def inverse_transform(self, X: Any) -> NDArray[np.floating]:
        """Spectra (n, d) from concentrations (n, k); float64 if these are, else float32."""
        check_is_fitted(self, "model_")
        concentration = np.ascontiguousarray(X, dtype=np.float32)
        if concentration.ndim != 2 or concentration.shape[1] != len(self.components_):
            raise checks.fail("X", f"of shape (n, {len(self.components_)})", concentration.shape)
        spectra = np.empty((len(concentration), self.model_.dim_components), np.float32)
        for rows, part in self.model_.chunks(concentration):
            spectra[rows] = self.model_.recompose(part, self._indices).cpu().numpy()
        return spectra.astype(inputs.result_dtype(X), copy=False)

    @in_usual_modes
    def score(self, X: Spectra, y: Any = None) -> float:
        """R2 of the reconstruction of spectra, against their column means.

        Parameters
        ----------
        X : path, ndarray or Tensor, (n, d)
        y : None
            Ignored.

        Returns
        -------
        float
            At most 1; of spectra without any variation 1 if they are met exactly, else 0. It says how well spectra are
            described, not how many components they have.
        """
        data, model = self._read(X), self.model_
        if inputs.has_gaps(data) or self._constrained:
            return self._score_of_present(data[:])
        metrics = FitMetrics(model.dim_components, device=model.vanilla_components.device)
        for _, spectra in model.chunks(data):
            metrics.update(spectra, model.recompose(model.parse(spectra, self._indices)[0], self._indices))
        return metrics.compute()[1]

    def _score_of_present(self, data: NDArray[np.float32]) -> float:
        there, fit = ~np.isnan(data), np.nan_to_num(self._concentrations(data)) @ self.components_
        weighting = Weighting(there.astype(np.float32), np.ones(len(data)), np.ones(data.shape[1]), 0, False)
        residual, _, variation = weighting.squares(np.where(there, data, 0.0), fit)
        return r2_of(residual, variation)

    @in_usual_modes
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
        if result is None:
            raise checks.fail("r2_from", "used on the estimator that was fitted; band folders are for `load`", r2_from)
        self._take(result.of_band(r2_from), self.model_)
        return self

    @in_usual_modes
    def restrict_to(self, X: Spectra) -> EBgMCR:
        """Let the used components be those that the gates open for these spectra, as after `fit`."""
        data, model = self._read(X), self.model_
        pool = torch.arange(model.num_components, device=model.vanilla_components.device)
        used = torch.zeros(model.num_components, dtype=torch.bool, device=pool.device)
        for _, spectra in model.chunks(data):
            used |= model.parse(spectra, pool)[1].any(dim=0)
        self._set_components(torch.nonzero(used).flatten().tolist())
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the published `param.json` and `model.safetensors`, and `spectrafuse.json`, into a folder."""
        check_is_fitted(self, "model_")
        not_plain = ("recipe", "post_processing", "aggregate", "device", "constraints")
        parameters = self.get_params(deep=False)
        gates = self.model_.gates
        extra = {
            "version": __version__,
            "parameters": {name: value for name, value in parameters.items() if name not in not_plain},
            "recipe": asdict(resolve(self.recipe)),
            "constraints": constraining.as_plain(constraining.check(self.constraints)),
            "plug_ins": {name: model_io.callable_name(parameters[name]) for name in ("post_processing", "aggregate")},
            "select_threshold": self.model_.select_threshold,
            "component_ids": self.component_ids_.tolist(),
            "component_names": self.component_names_,
            "fixed_ids": self._fixed_ids,
            "axis": None if self.axis_ is None else self.axis_.as_plain(),
            "count_curve": self.count_curve_,
            "stop_reason": self.stop_reason_,
            "chosen_reason": self.chosen_reason_,
            "n_iter": self.n_iter_,
            "noise": None if self.noise_ is None else list(self.noise_),
            "gates": None if gates is None else {**gates._asdict(), "open_ids": list(gates.open_ids)},
            "evidence": self.count_evidence_,
            "compactions": self.compactions_,
            "history": self.history_,
        }
        model_io.save(Path(folder), self.model_, extra)

    @classmethod
    @in_usual_modes
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
        extra = model_io.read_extra(path)
        plug_ins: dict[str, Any] = {"post_processing": post_processing, "aggregate": aggregate}
        place = checks.device(device)
        try:
            loaded = cls(**model_io.parameters_of(path, extra, plug_ins), **plug_ins, device=device)
            loaded._restore(path, extra or {}, place)
        except InvalidValueError:
            raise
        except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidValueError(f"'{path}': its JSON files do not describe this model ({reason}).") from error
        return loaded

    def _restore(self, folder: Path, extra: dict[str, Any], device: torch.device) -> None:
        """Take the model and the fitted attributes of a folder; `extra` is what its `spectrafuse.json` holds."""
        model = model_io.read_model(
            folder,
            select_threshold=extra.get("select_threshold", model_io.SOLVER_THRESHOLD),
            langevin_options_apply=resolve(self.recipe).langevin_options_apply,
            post_processing=self.post_processing,
            aggregate=self.aggregate,
        )
        self.model_ = model.to(device)
        self.n_features_in_ = model.dim_components
        self.axis_ = axis_from_plain(extra.get("axis"), model.dim_components)
        self._fixed_ids = extra.get("fixed_ids", [])
        self._runs = ()
        self.constraints = constraining.from_plain(extra.get("constraints", [])) or None
        self.count_curve_ = extra.get("count_curve", [])
        self.stop_reason_ = extra.get("stop_reason", "The folder does not say.")
        self.chosen_reason_ = extra.get("chosen_reason", "The folder does not say.")
        self.n_iter_ = extra.get("n_iter", 0)
        self.history_ = extra.get("history", [])
        self.noise_ = NoiseLevel(*extra["noise"]) if extra.get("noise") else None
        self.count_evidence_ = extra.get("evidence")
        self.constraint_reports_ = (self.count_evidence_ or {}).get("constraints", [])
        self.compactions_ = tuple(Compaction(*one) for one in extra.get("compactions", ()))
        gates = extra.get("gates")
        if gates and self.noise_:
            weights, noise = gates.get("weights"), NoiseLevel(*gates.get("noise", self.noise_))
            places = tuple(gates["open_ids"])
            model.gates = ExactGates(noise, gates["price"], places, None if weights is None else tuple(weights))
        self._set_components(list(extra.get("component_ids", range(model.num_components))))
        if extra.get("component_names") is not None:
            self.arrange(range(len(self.component_ids_)), extra["component_names"])

    @property
    def _n_features_out(self) -> int:
        return len(self.component_ids_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.allow_nan = self.recipe == "corrected"
        tags.non_deterministic = self.random_state is None
        return tags


def _digest(spectra: Table) -> str:
    digest = hashlib.sha256()
    for _, block in inputs.blocks(spectra):
        digest.update(np.ascontiguousarray(block).data)
    return f"{spectra.shape} {digest.hexdigest()}"
