"""`DeepGlobalClustering`: label-free segmentation of hyperspectral scenes as a scikit-learn estimator."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from spectrafuse import __version__
from spectrafuse._runtime import checks, ranks
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.modes import in_usual_modes
from spectrafuse._runtime.progress import Callback
from spectrafuse.dgc import metrics
from spectrafuse.dgc.model_io import Model, published_extra, read_model, write_model
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.inference import DEFAULT_MEMORY, budget, cluster_mass, label_map
from spectrafuse.dgc.prediction.lazy import in_chunks_of_dask, lazy_label_map
from spectrafuse.dgc.prototype_model import PrototypeModel
from spectrafuse.dgc.recipes import CHANGEABLE, Recipe, resolve
from spectrafuse.dgc.scenes import axis_of, check_bands, read_scenes, with_bands_of_model
from spectrafuse.dgc.training.checkpoint import fingerprint
from spectrafuse.dgc.training.choice import resolve_normalization
from spectrafuse.dgc.training.initialise import new_model
from spectrafuse.dgc.training.prototypes import (
    FOR_PIXELS,
    FOR_REGIONS,
    Prototypes,
    SpectraSample,
    find_prototypes,
)
from spectrafuse.dgc.training.trainer import Trainer
from spectrafuse.dgc.tree import agreement, groups_at, merges
from spectrafuse.dgc.windows import WindowedScene, fitted_to, for_training
from spectrafuse.io.bands import BandsOf, as_plain
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import asked_by_estimator
from spectrafuse.io.labeled import is_xarray, labels_like
from spectrafuse.io.nodata import as_nodata
from spectrafuse.io.spectral_axis import SpectralAxis, axis_from_plain
from spectrafuse.random import RandomStream

_MODEL_SHAPE = ("embed_dim", "n_spectral_layers", "spectral_kernel_size", "num_iters", "window", "temperature")
_OF_NETWORK = (
    "recipe", *(name for name in CHANGEABLE if name != "normalization"), *_MODEL_SHAPE, "batch_size", "precision",
    "log_dir",
)  # fmt: skip
_NOT_TRAINED = (
    "Nothing was trained: each pixel got the cluster whose typical spectrum is nearest, made to agree with alike "
    "pixels around it."
)


class DeepGlobalClustering(ClusterMixin, BaseEstimator):
    """Segments hyperspectral scenes without labels (Deep Global Clustering, arXiv 2512.24172).

    Parameters
    ----------
    n_clusters : int
        Clusters to look for.
    recipe : {"corrected", "published"} or Recipe
        How to train; `published` repeats the paper's code with its mistakes, `corrected` puts them right.
    network : bool, optional
        Whether a network is trained on the labels that the spectra give (True), or these are only made to agree with
        their like around them (False; `spectrafuse.dgc.prototype_model`), which takes seconds and is as good on most
        scenes. None: False, unless anything else is asked for that concerns the network: another recipe, a shape of
        the network, a length of the training.
    embed_dim : int
        Length of a pixel's embedding.
    normalization : {"auto", "meanstd", "minmax", "unit", "snv", "unit+meanstd", "signal+meanstd"}, optional
        Every scene is normalised by its own statistics, in `predict` too. "auto": chosen from the scenes, without
        labels, see `normalization_reason_`. None: as the recipe says, "auto" in `corrected`.
    crop_size, batch_size : int
        Side of the training crops in pixels (None: 32 for `corrected`, 64 for `published`); crop pairs per step.
    max_epoch, learning_rate, reuse_iter, patience, tolerance : optional
        Replace the recipe's values: most epochs; first learning rate; steps per batch and epoch; epochs in a row
        whose label maps must agree to end early (0: never); variation of information, in nats, up to which they agree.
    precision : {"float32", "bfloat16"}
        Type of the encoder's convolutions in training.
    random_state : int or None
        Seed; the same seed, data and machine give the same bits. None draws a new seed.
    device : str or torch.device, optional
        None: the GPU if there is one, else the CPU.
    n_spectral_layers, spectral_kernel_size : int
        Of the encoder; the kernel is odd.
    num_iters, window : int
        Mean-shift iterations, and odd side of their window in pixels.
    temperature, bandwidth : float
        Of the soft assignment, and of the mean shift at first, which is learned then. Without a bandwidth: as the
        recipe says; it follows the noise in `corrected` and starts at 1 in `published`.
    max_memory : int
        Bytes that `predict`, and `fit` for its last look at the scenes, may use beyond what the process holds already
        and the label maps, on the host and on a GPU: it decides how many rows are read and segmented at a time.
    nodata : float, optional
        Value that says that a pixel has no data (NaN or "nan": only NaN does); None: an ENVI header's, if any. Such
        pixels take no part, and their label is -1: see `spectrafuse.io.nodata` and `spectrafuse.dgc.windows`.
    bands : str, array_like of int or bool, optional
        The bands to use, as in `spectrafuse.io.read_cube`: "0-95,110-", "drop 1340-1460nm", numbers, "all". None: all
        but those that a file says are bad, or that hold nothing in one of the scenes. The model keeps them, and
        `predict` takes the same bands of every scene.
    log_dir : path, optional
        Folder for TensorBoard (needs the package tensorboard).

    Attributes
    ----------
    model_ : SegmentationModel, or PrototypeModel without a network
    cluster_centers_ : ndarray (K, D)
    cluster_mass_ : ndarray (K,) or None
        Mean probability of every cluster over the training scenes, computed from them when it is first asked for: they
        must still be there, unchanged. `save`, pickling and copying keep it if it has been asked for before; without
        that, and for a published model folder, it is None after `load`.
    merges_ : ndarray (K - 1, 4)
        In which order clusters merge, and at which height; `at` cuts this tree.
    cluster_mapping_ : dict or None
        {label: [clusters]} as given to `merge_clusters`.
    normalization_ : Normalization
        The method that is used.
    normalization_reason_ : str
        One sentence on why, where it was chosen from the scenes; else empty.
    history_ : list of dict
        One entry per epoch: loss and its terms, entropy and stability (`nmi`, `vi`) of the label maps, and more.
    stop_reason_ : str
        Why the training ended, in one sentence.
    n_features_in_ : int
        Bands d that are used.
    n_iter_ : int
        Epochs that ran.
    bands_ : ndarray of int (d,)
        Their numbers in the scenes, from 0.
    n_bands_in_ : int
        Bands of the scenes.
    axis_ : SpectralAxis or None
        Where the bands lie (`values`, `unit`), if the first scene says it. Of scenes that say it too, `predict` takes
        the bands that lie there, and refuses a scene that lacks one.

    Examples
    --------
    A scene of two materials, the left half and the right half:

    >>> import numpy as np
    >>> import spectrafuse as sf
    >>> rng = np.random.default_rng(0)
    >>> spectra = rng.uniform(0.2, 1.0, (2, 12))
    >>> truth = np.repeat([0, 1], 12)[None, :].repeat(24, axis=0)
    >>> scene = np.moveaxis(spectra[truth], 2, 0) + rng.normal(0, 0.02, (12, 24, 24))
    >>> segmentation = sf.DeepGlobalClustering(n_clusters=2, max_epoch=1, crop_size=16, random_state=0)
    >>> labels = segmentation.fit(scene, layout="chw").predict(scene, layout="chw")
    >>> labels.shape, sf.dgc.metrics.normalized_mutual_information(labels, truth) > 0.9
    ((24, 24), True)
    """

    _scenes: Sequence[Cube]
    _mass: np.ndarray | None
    _means: np.ndarray | None
    _shares: np.ndarray | None
    axis_: SpectralAxis | None

    def __init__(
        self,
        n_clusters: int = 4,
        *,
        recipe: str | Recipe = "corrected",
        network: bool | None = None,
        embed_dim: int = 32,
        normalization: str | None = None,
        crop_size: int | None = None,
        batch_size: int = 4,
        max_epoch: int | None = None,
        learning_rate: float | None = None,
        reuse_iter: int | None = None,
        patience: int | None = None,
        tolerance: float | None = None,
        precision: str = "float32",
        random_state: int | None = 0,
        device: str | torch.device | None = None,
        n_spectral_layers: int = 3,
        spectral_kernel_size: int = 9,
        num_iters: int = 5,
        window: int = 5,
        temperature: float = 0.05,
        bandwidth: float | None = None,
        max_memory: int = DEFAULT_MEMORY,
        nodata: float | str | None = None,
        bands: Any = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.recipe = recipe
        self.network = network
        self.embed_dim = embed_dim
        self.normalization = normalization
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.max_epoch = max_epoch
        self.learning_rate = learning_rate
        self.reuse_iter = reuse_iter
        self.patience = patience
        self.tolerance = tolerance
        self.precision = precision
        self.random_state = random_state
        self.device = device
        self.n_spectral_layers = n_spectral_layers
        self.spectral_kernel_size = spectral_kernel_size
        self.num_iters = num_iters
        self.window = window
        self.temperature = temperature
        self.bandwidth = bandwidth
        self.max_memory = max_memory
        self.nodata = nodata
        self.bands = bands
        self.log_dir = log_dir

    @in_usual_modes
    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        mask: Any = None,
        layout: str = "auto",
        callback: Callback | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> DeepGlobalClustering:
        """Train on scenes.

        Parameters
        ----------
        X : path, `Cube`, array_like or tensor (bands, rows, columns), or list of these
            Scenes of any sizes with the same bands. Files are read crop by crop where `spectrafuse.io.open_cube` can;
            arrays of Dask and Zarr, and `xarray.DataArray` of them, by the chunks that a crop touches. An array, also a
            memory map that can be written, must not change before the call ends: it is not copied, and changes are not
            noticed.
        y : None
            Ignored.
        mask : array_like of bool (rows, columns), optional; for a list of scenes, a list of these or None
            True for pixels without data.
        layout : {"auto", "chw", "hwc", "hcw", "cwh"}
            Order of the axes: c for bands, h for rows, w for columns. "auto": as files say it, by the names of an
            xarray's dimensions, and (bands, rows, columns) for arrays and tensors.
        callback : callable, optional
            Called with a `Progress` after every epoch.
        checkpoint_dir : path, optional
            Folder of the saved state, written after every epoch. A later fit with the same parameters, data and folder
            goes on from there and ends with the same bits as an uninterrupted one.

        Raises
        ------
        DataError
            If the data cannot be used.
        TypeError, ValueError
            For a wrong parameter, or a `checkpoint_dir` that belongs to another run.
        """
        self._fit(self._training_scenes(X, mask, layout), callback, checkpoint_dir)
        return self

    def _training_scenes(self, X: Any, mask: Any, layout: str) -> list[Cube]:
        with asked_by_estimator():
            scenes = read_scenes(X, zeros="check", nodata=self.nodata, mask=mask, layout=layout, bands=self.bands)
        return with_bands_of_model(scenes, axis_of(scenes[0]))

    def _scenes_to_label(self, X: Any, mask: Any, layout: str) -> list[Cube]:
        own = BandsOf(self.n_bands_in_, self.bands_)
        with asked_by_estimator():
            scenes = read_scenes(X, zeros="accept", nodata=self.nodata, mask=mask, layout=layout, bands=own)
        return with_bands_of_model(scenes, self.axis_)

    def _fit(
        self,
        scenes: Sequence[Cube],
        callback: Callback | None,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> None:
        recipe = resolve(self.recipe, **{name: getattr(self, name) for name in CHANGEABLE})
        device = checks.device(self.device)
        n_bands = scenes[0].shape[0]
        check_bands(scenes, n_bands, "scene 0")
        drawn = ranks.from_first(lambda: secrets.randbits(31))
        seed = drawn if self.random_state is None else self.random_state
        stream = RandomStream(checks.integer("random_state", seed, minimum=0, maximum=2**63 - 1))
        shape = {name: getattr(self, name) for name in _MODEL_SHAPE}
        model: Model
        if self.trains_network:
            model = new_model(recipe, n_bands, self.n_clusters, stream, **shape).to(device)
        else:
            model = PrototypeModel.of_sizes(n_bands, self.n_clusters)
        for scene in scenes:  # raised now, not after the training
            budget(model, scene.shape, self.max_memory, mapped=scene.mapped is not None, probs=True)
        identity: dict[str, Any] = {}
        if checkpoint_dir is not None or ranks.together():
            identity = fingerprint(self.get_params(), recipe, device, scenes)
            ranks.meet(identity)
        method, reason = ranks.from_first(
            lambda: resolve_normalization(recipe.normalization, scenes, self.n_clusters, stream.seed)
        )
        how = Normalization(method)
        if isinstance(model, PrototypeModel):
            fitted = fitted_to(scenes, how)
            windowed = [WindowedScene(*pair, device) for pair in zip(scenes, fitted, strict=True)]
            found = ranks.from_first(lambda: find_prototypes(windowed, self.n_clusters, stream))
            model = PrototypeModel(found.projection, found.means, found.bandwidth, found.variance)
            self._set_model(model, method, reason, found)
            self.history_, self.stop_reason_, self.n_iter_ = [], _NOT_TRAINED, 0
        else:
            trainer = Trainer(
                model,
                for_training(scenes, how, device),
                recipe,
                stream,
                batch_size=self.batch_size,
                precision=self.precision,
                log_dir=self.log_dir,
            )
            trainer.run(callback=callback, checkpoint_dir=checkpoint_dir, fingerprint=identity)
            self._set_model(model, method, reason, trainer.prototypes)
            self.history_, self.stop_reason_, self.n_iter_ = trainer.history, trainer.stop_reason, trainer.epoch
        self.bands_, self.n_bands_in_ = scenes[0].band_numbers, scenes[0].n_file_bands or n_bands
        self.axis_ = axis_of(scenes[0])
        self._scenes, self._mass = scenes, None

    @property
    def trains_network(self) -> bool:
        """Whether `fit` trains a network: `network`, or what the other parameters ask for.

        Raises
        ------
        ValueError
            If `network` is False and another parameter concerns the network.
        """
        usual = signature(type(self)).parameters
        asked = [name for name in _OF_NETWORK if getattr(self, name) != usual[name].default]
        if self.network is False and asked:
            raise InvalidValueError(
                f"`{asked[0]}` concerns the network: leave it out, or give network=True; got "
                f"{getattr(self, asked[0])!r} with network=False."
            )
        return bool(asked) if self.network is None else bool(self.network)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _set_model(self, model: Model, normalization: str, reason: str, prototypes: Prototypes | None = None) -> None:
        self.model_ = model.eval()
        self.normalization_reason_ = reason
        self._means = self._shares = None
        if prototypes is not None:
            compared = prototypes.means * prototypes.scale, prototypes.shares
            self._means, self._shares = (x.cpu().double().numpy() for x in compared)
        self.normalization_ = Normalization(normalization)
        self.n_features_in_ = self.n_bands_in_ = model.n_bands
        self.bands_ = np.arange(model.n_bands)
        self.axis_ = None
        self.cluster_mapping_: dict[int, list[int]] | None = None
        self._scenes, self._mass = (), None

    @property
    def cluster_mass_(self) -> np.ndarray | None:
        """Mean probability of every cluster over the training scenes (K,); None where these are not known."""
        check_is_fitted(self, "model_")
        if self._mass is None and self._scenes:
            self._mass = self._measure_mass(self._scenes)
        return self._mass

    @in_usual_modes
    def _measure_mass(self, scenes: Sequence[Cube]) -> np.ndarray:
        return cluster_mass(self.model_, scenes, self.normalization_, memory=self.max_memory).numpy()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the training scenes.
        return super().__getstate__() | ({"_scenes": ()} if hasattr(self, "_scenes") else {})

    @property
    def cluster_centers_(self) -> np.ndarray:
        """Cluster centres (K, D), unit length; without a network the prototypes behind their linear map."""
        check_is_fitted(self, "model_")
        return self.model_.centers.detach().cpu().numpy().copy()

    @in_usual_modes
    def predict(
        self, X: Any, *, mask: Any = None, layout: str = "auto", max_memory: int | None = None, out: Any = None
    ) -> np.ndarray | list[np.ndarray]:
        """Labels of scenes.

        Parameters
        ----------
        X : path, `Cube`, array_like or tensor (bands, rows, columns), or list of these
            As in `fit`. Scenes of any sizes; each is normalised by its own statistics and processed by strips of rows;
            in one piece by a model whose mean shift takes all pixels (a published one without `use_approx`).
        mask, layout : as in `fit`
        max_memory : int, optional
            Instead of the estimator's own.
        out : path or list of paths, optional
            `.npy` files that the labels are written to as they come, so that no map is in memory as a whole; what is
            returned is mapped from them.

        Returns
        -------
        ndarray (rows, columns) of int64, or a list of them for a list
            Clusters, or after `merge_clusters` the labels they were merged to; -1 for pixels without data. Of an
            `xarray.DataArray` a DataArray with its coordinates and attributes; of a dask array, and of a DataArray that
            holds one, a dask array in its chunks whose labels are found when it is computed, without `out`.

        Raises
        ------
        NotFittedError, DataError, ValueError
            Before `fit`; if the data cannot be used, or do not have the bands of the training scenes; if `max_memory`
            is not enough for a scene, with what is.
        """
        check_is_fitted(self, "model_")
        return self._predict(X, self._scenes_to_label(X, mask, layout), max_memory, out, layout=layout)

    def predict_with_confidence(
        self, X: Any, *, mask: Any = None, layout: str = "auto", max_memory: int | None = None, out: Any = None
    ) -> tuple[Any, Any]:
        """Labels of scenes, and how clear they are; the scenes are read once.

        Parameters
        ----------
        X, mask, layout, max_memory : as in `predict`
        out : path or list of paths, optional
            As in `predict`; the confidences go to `<stem>-confidence.npy` beside each.

        Returns
        -------
        labels : as `predict` gives them
        confidence : ndarray (rows, columns), float32, or a list of them for a list
            Probability of the pixel's cluster less that of the best cluster with another label: 0, they are alike; 1,
            no doubt. Without a network, one less the ratio of the distances to them. NaN for pixels without data.
        """
        check_is_fitted(self, "model_")
        scenes = self._scenes_to_label(X, mask, layout)
        several = isinstance(X, (list, tuple))
        files = list(out) if several and out is not None else [out] * len(scenes)
        maps = [_empty_map(scene.shape[1:], file) for scene, file in zip(scenes, files, strict=False)]
        labels = self._predict(X, scenes, max_memory, out, maps, layout)
        return labels, maps if several else maps[0]

    def _predict(
        self,
        X: Any,
        scenes: Sequence[Cube],
        max_memory: int | None = None,
        out: Any = None,
        confidence: Sequence[np.ndarray] | None = None,
        layout: str = "auto",
    ) -> Any:
        check_bands(scenes, self.n_features_in_, "the model")
        several = isinstance(X, (list, tuple))
        files: list[Any] = [None] * len(scenes) if out is None else list(out) if several else [out]
        if len(files) != len(scenes):
            raise checks.fail("out", f"a list of {len(scenes)} paths, one a scene", f"{len(files)} of them")
        memory = self.max_memory if max_memory is None else max_memory
        how, mapping = self.normalization_, self.cluster_mapping_
        sure: Sequence[Any] = [None] * len(scenes) if confidence is None else confidence
        maps = [
            lazy_label_map(self.model_, x, how, memory=memory, mapping=mapping)
            if in_chunks_of_dask(x) is not None and file is None and margin is None
            else label_map(self.model_, x, how, memory=memory, mapping=mapping, file=file, confidence=margin)
            for x, file, margin in zip(scenes, files, sure, strict=True)
        ]
        names = self._label_names()
        given = X if several else [X]
        maps = [
            labels_like(x, labels, names, layout) if is_xarray(x) else labels
            for x, labels in zip(given, maps, strict=True)
        ]
        return maps if several else maps[0]

    def _label_names(self) -> list[str]:
        mapping = self.cluster_mapping_
        return [f"cluster {i}" for i in range(self.model_.n_clusters if mapping is None else max(mapping) + 1)]

    @in_usual_modes
    def fit_predict(
        self,
        X: Any,
        y: None = None,
        *,
        mask: Any = None,
        layout: str = "auto",
        callback: Callback | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """`fit`, then the labels of the same scenes; files are read once."""
        scenes = self._training_scenes(X, mask, layout)
        self._fit(scenes, callback, checkpoint_dir)
        return self._predict(X, scenes, layout=layout)

    @property
    def merges_(self) -> np.ndarray:
        """In which order clusters merge, (K - 1, 4), and at which height: `spectrafuse.dgc.tree.merges`.

        By the mean spectra that the clusters were found with; by their centres where the recipe has none.
        """
        check_is_fitted(self, "model_")
        return merges(self.cluster_centers_ if self._means is None else self._means, self._shares)

    def at(self, n_clusters: int) -> DeepGlobalClustering:
        """A copy that gives fewer clusters, without another training: the tree `merges_` is cut where so many are left.

        Parameters
        ----------
        n_clusters : int
            From 1 to the number of clusters of the model.

        Returns
        -------
        DeepGlobalClustering
            `predict` gives labels from 0 to `n_clusters` - 1; `cluster_mapping_` says which clusters they are made of.
        """
        fewer = copy(self)
        return fewer.merge_clusters(dict(enumerate(groups_at(self.merges_, n_clusters))))

    @in_usual_modes
    def level_agreement(self, levels: Sequence[int]) -> dict[int, float]:
        """How well two halves of the training scenes agree on so many clusters: a reason to rely on them, or not to.

        Parameters
        ----------
        levels : sequence of int
            Numbers of clusters, from 2 to that of the model.

        Returns
        -------
        dict
            {clusters: adjusted Rand index}; 1, both halves give the same clusters; 0, no more than chance. Empty where
            the training scenes are not known, after `load` for example.
        """
        check_is_fitted(self, "model_")
        if not self._scenes:
            return {}
        cpu = torch.device("cpu")
        scenes = [WindowedScene(scene, self.normalization_.fit(scene), cpu) for scene in self._scenes]
        count = self.model_.n_clusters
        space = FOR_REGIONS if isinstance(self.model_, PrototypeModel) else FOR_PIXELS
        return agreement(SpectraSample(scenes, count, space), count, levels, RandomStream(0))

    def merge_clusters(self, mapping: Mapping[int, Sequence[int]] | None) -> DeepGlobalClustering:
        """Make `predict` return merged labels.

        Parameters
        ----------
        mapping : dict or None
            {label: [clusters]} that names every cluster of the model once; None undoes a merge.
        """
        check_is_fitted(self, "model_")
        count = self.model_.n_clusters
        if mapping is not None and (named := len(metrics.label_of_cluster(mapping, range(count)))) > count:
            raise InvalidValueError(f"`mapping` names cluster {named - 1}; the model has {count}.")
        self.cluster_mapping_ = None if mapping is None else {int(k): [int(c) for c in v] for k, v in mapping.items()}
        return self

    def prune(self, threshold: float = 0.005, X: Any = None, *, layout: str = "auto") -> DeepGlobalClustering:
        """Remove clusters with a small share of the pixels; the others are numbered anew, in the same order.

        Parameters
        ----------
        threshold : float
            Least mean probability of a cluster that stays, in [0, 1].
        X : scenes, optional
            Where the shares are taken; without it, `cluster_mass_`.
        layout : as in `fit`

        Raises
        ------
        ValueError
            If no cluster would be left, or the shares are not known and `X` is not given.
        """
        mass = self.cluster_mass_ if X is None else self._measure_mass(self._scenes_to_label(X, None, layout))
        if mass is None:
            raise InvalidValueError("This model does not say how large its clusters are; give scenes as `X`.")
        kept = self.model_.prune(torch.from_numpy(mass), threshold)
        self._mass = None if self._mass is None else self._mass[kept]
        self._means = None if self._means is None else self._means[kept]
        self._shares = None if self._shares is None else self._shares[kept]
        if self.cluster_mapping_ is not None:
            number = {old: new for new, old in enumerate(kept)}
            merged = {k: [number[c] for c in v if c in number] for k, v in self.cluster_mapping_.items()}
            self.cluster_mapping_ = {label: members for label, members in merged.items() if members}
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a model folder: `config.json`, `weights.safetensors`, `spectrafuse.json`.

        It holds `cluster_mass_` only if that has been asked for before, since it takes another pass over the scenes.
        """
        check_is_fitted(self, "model_")
        parameters = {k: v for k, v in self.get_params().items() if k not in ("device", "log_dir")}
        parameters["nodata"] = None if self.nodata is None else str(as_nodata(self.nodata))  # JSON has no NaN
        parameters["bands"] = as_plain(self.bands)
        if isinstance(self.recipe, Recipe):
            parameters["recipe"] = self.recipe.as_dict()
        extra = {
            "spectrafuse": __version__,
            "estimator": type(self).__name__,
            "parameters": parameters,
            "normalization": self.normalization_.method,
            "normalization_reason": self.normalization_reason_,
            "bands": {"of": self.n_bands_in_, "used": self.bands_.tolist()},
            "axis": None if self.axis_ is None else self.axis_.as_plain(),
            "mapping": None if self.cluster_mapping_ is None else list(self.cluster_mapping_.items()),
            "cluster_mass": self._mass,
            "cluster_means": self._means,
            "cluster_shares": self._shares,
            "history": self.history_,
            "stop_reason": self.stop_reason_,
            "n_iter": self.n_iter_,
        }
        write_model(folder, self.model_, extra)

    @classmethod
    @in_usual_modes
    def load(cls, folder: str | os.PathLike[str], *, device: str | torch.device | None = None) -> DeepGlobalClustering:
        """A fitted estimator from a model folder, also from one that the published code wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing or damaged.
        """
        model, extra = read_model(folder, checks.device(device))
        extra = extra or published_extra(model)
        try:
            parameters = dict(extra["parameters"])
            if isinstance(parameters.get("recipe"), dict):
                parameters["recipe"] = Recipe(**parameters["recipe"])
            estimator = cls(**parameters, device=device)
            estimator._set_model(model, extra["normalization"], extra.get("normalization_reason", ""))
            if (bands := extra.get("bands")) is not None:
                used, total = np.array(bands["used"], dtype=np.int64), int(bands["of"])
                if used.shape != (model.n_bands,) or (np.diff(used, prepend=-1, append=total) < 1).any():
                    raise InvalidValueError(
                        f"the bands are not {model.n_bands} numbers below {total}, each above the one before"
                    )
                estimator.bands_, estimator.n_bands_in_ = used, total
            estimator.axis_ = axis_from_plain(extra.get("axis"), model.n_bands)
            mass = extra.get("cluster_mass")
            estimator._mass = None if mass is None else np.asarray(mass, dtype=np.float64)
            if (means := extra.get("cluster_means")) is not None:
                estimator._means = np.array(means, dtype=np.float64).reshape(model.n_clusters, -1)
                estimator._shares = np.array(extra["cluster_shares"], dtype=np.float64).reshape(model.n_clusters)
                if not (np.isfinite(estimator._means).all() and np.isfinite(estimator._shares).all()):
                    raise InvalidValueError("the means of the clusters are not finite")
            estimator.history_ = extra.get("history", [])
            estimator.stop_reason_ = extra["stop_reason"]
            estimator.n_iter_ = extra.get("n_iter", 0)
            mapping = extra.get("mapping")
            return estimator if mapping is None else estimator.merge_clusters(dict(mapping))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidValueError(
                f"{os.fspath(folder)}: spectrafuse.json does not describe this model ({error})."
            ) from error


def _empty_map(shape: tuple[int, ...], file: str | os.PathLike[str] | None) -> np.ndarray:
    """A float32 map in memory, or in a file beside the one with the labels.

    Raises
    ------
    OSError
        If there is no room for it: writing to a map that the disk cannot hold would stop the process.
    """
    if file is None:
        return np.empty(shape, np.float32)
    beside = Path(file).with_name(f"{Path(file).stem}-confidence.npy")
    ranks.from_first(lambda: _make_map(beside, shape))
    made: np.ndarray = np.lib.format.open_memmap(beside, "r+")
    return made


def _make_map(beside: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(beside, "w+", np.float32, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with beside.open("r+b") as written:
                os.posix_fallocate(written.fileno(), 0, beside.stat().st_size)
        except OSError as error:
            beside.unlink()
            raise OSError(error.errno, error.strerror, os.fspath(beside)) from error
