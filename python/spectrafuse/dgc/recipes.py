"""Recipes: every choice of a training run in one place (docs/algorithms/dgc.md, "Recipes" and "Published defects")."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.dgc.normalise import METHODS

CHANGEABLE = (
    "normalization",
    "crop_size",
    "max_epoch",
    "learning_rate",
    "reuse_iter",
    "patience",
    "tolerance",
    "bandwidth",
)
"""Choices that the estimator has under the same name."""


AUTO = "auto"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Parameters
    ----------
    name : str
        What messages and files call it.
    normalization : str
        A method of `Normalization`, used where the estimator is not told otherwise; or "auto", which chooses between
        `signal+meanstd` and `meanstd` by the scenes (`spectrafuse.dgc.training.choice`).
    aligned : bool
        Consistency between pixels of the same place in the scene; False compares the same index of both crops.
    uniform, orthogonality, balance, consistency, spectral : float
        Weights of the loss terms, at least 0; 0 leaves a term out. Compactness has weight 1.
    maximise_balance : bool
        Subtract the entropy of the cluster shares, so that minimising the loss fills the clusters evenly; False adds
        it, as published, which favours one cluster.
    spectral_labels : bool
        Take the labels of the uniform term from clusters of the spectra (`spectrafuse.dgc.training.prototypes`)
        instead of drawing them at random.
    memory_order_sums : bool
        Pair the sums of the centre update as the published code does: by memory order, so with the wrong numbers.
    second_forward : bool
        Log and update the centres from a second forward pass after the optimiser's step.
    fade_uniform, fade_kick : bool
        Whether the uniform weight and the kick fade to 0 over the epochs.
    decay, kick : float
        Of the centre update: share of the old centre, and size of the push that an empty cluster gets.
    learning_rate, learning_rate_end : float
        Of AdamW in the first epoch, and the share of it that is left after the last, linear in between.
    weight_decay : float
        Of AdamW; the centres are parameters too.
    clip : float
        Largest norm of the gradient.
    max_epoch, reuse_iter : int
        Epochs, and steps per loaded batch.
    whole_batches : bool
        An epoch visits every scene once, in padded batches that each serve `reuse_iter` steps (published). False: every
        step draws its crops from scenes at random, and an epoch has `reuse_iter * ceil(scenes / batch_size)` steps.
    crop_size : int
        Side of the square training crops in pixels.
    start_from_data : bool
        Start the centres among the embeddings of the first crops instead of anywhere on the sphere.
    spectral_start : bool
        Start the encoder as a classifier of single spectra that gives the spectral labels, instead of at random; takes
        effect with `spectral_labels` and `start_from_data`.
    bias : bool
        Whether the encoder's convolutions have biases.
    bandwidth : float or None
        Of the mean shift at first; it is learned then. None: it follows the noise
        (`spectrafuse.dgc.training.initialise`).
    even_coverage : bool
        Continue the scenes by half a crop on all sides, by reflection, so that crops show every pixel equally often.
        Otherwise they show the middle of a small scene many times as often as its border.
    patience : int
        Epochs in a row whose label maps agree before training ends early; 0 never ends it early.
    tolerance : float
        Variation of information, in nats, up to which two epochs' maps agree.
    min_overlap, max_overlap, degrees, translate, scale_low, scale_high : float
        Of the crop pairs, as in `spectrafuse.ops.sample_crop_pairs`.
    max_shift_bands : int
        Largest circular shift of the bands.
    """

    name: str
    normalization: str
    aligned: bool
    uniform: float
    orthogonality: float
    balance: float
    consistency: float
    spectral: float
    maximise_balance: bool
    memory_order_sums: bool
    second_forward: bool
    fade_uniform: bool
    fade_kick: bool
    learning_rate: float
    learning_rate_end: float
    max_epoch: int
    reuse_iter: int
    whole_batches: bool
    spectral_labels: bool = False
    crop_size: int = 64
    start_from_data: bool = False
    spectral_start: bool = False
    bias: bool = False
    bandwidth: float | None = 1.0
    even_coverage: bool = False
    patience: int = 0
    tolerance: float = 0.0
    decay: float = 0.99
    kick: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    min_overlap: float = 0.2
    max_overlap: float = 0.8
    degrees: float = 10.0
    translate: float = 0.1
    scale_low: float = 0.9
    scale_high: float = 1.1
    max_shift_bands: int = 2

    def __post_init__(self) -> None:
        checks.choice("normalization", self.normalization, (AUTO, *METHODS))
        for name in (
            "uniform",
            "orthogonality",
            "balance",
            "consistency",
            "spectral",
            "kick",
            "weight_decay",
            "tolerance",
        ):
            checks.number(name, getattr(self, name), minimum=0)
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("learning_rate_end", self.learning_rate_end, minimum=0, maximum=1)
        checks.number("decay", self.decay, minimum=0, maximum=1)
        checks.number("clip", self.clip, above=0)
        if self.bandwidth is not None:
            checks.number("bandwidth", self.bandwidth, above=0)
        for name in ("max_epoch", "reuse_iter", "crop_size"):
            checks.integer(name, getattr(self, name))
        for name in ("patience", "max_shift_bands"):
            checks.integer(name, getattr(self, name), minimum=0)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights under the names of a published `config.json`."""
        return {"orth": self.orthogonality, "bal": self.balance, "unif": self.uniform, "cons": self.consistency}

    def as_dict(self) -> dict[str, Any]:
        """Every choice as a plain value; `Recipe(**values)` restores it."""
        return asdict(self)


published = Recipe(
    name="published",
    normalization="meanstd",
    aligned=False,
    uniform=2.0,
    orthogonality=0.001,
    balance=2.0,
    consistency=1.0,
    spectral=0.0,
    maximise_balance=False,
    memory_order_sums=True,
    second_forward=True,
    fade_uniform=False,
    fade_kick=True,
    learning_rate=1e-4,
    learning_rate_end=1.0,
    max_epoch=10,
    reuse_iter=10,
    whole_batches=True,
)
"""The published training, defects of the losses and of the centre update included."""

corrected = Recipe(
    name="corrected",
    normalization=AUTO,
    aligned=True,
    uniform=6.0,
    orthogonality=0.001,
    balance=0.5,
    consistency=1.0,
    spectral=0.0,
    maximise_balance=True,
    memory_order_sums=False,
    second_forward=False,
    fade_uniform=False,
    fade_kick=True,
    learning_rate=5e-4,
    learning_rate_end=0.02,
    max_epoch=20,
    reuse_iter=10,
    whole_batches=False,
    spectral_labels=True,
    crop_size=32,
    start_from_data=True,
    spectral_start=True,
    bias=True,
    bandwidth=None,
    even_coverage=True,
    max_shift_bands=0,
)
"""The published idea with its mistakes put right, and labels from the spectra that tie clusters to materials.

Training starts from a classifier of those labels, so that no cluster has to be found again, and averages over as much
noise as there is.

Bands are not shifted: a shift moves spectra away from their cluster's mean and joins the two ends of the spectrum.
"""

RECIPES = {recipe.name: recipe for recipe in (published, corrected)}


def resolve(recipe: str | Recipe, **changes: Any) -> Recipe:
    """A recipe by name or as given, with the changes that are not None.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or a change that is no field of a recipe or has a wrong value.
    """
    if isinstance(recipe, str):
        recipe = RECIPES[checks.choice("recipe", recipe, RECIPES)]
    elif not isinstance(recipe, Recipe):
        raise InvalidTypeError(f"`recipe` must be one of {', '.join(map(repr, RECIPES))} or a Recipe; got {recipe!r}.")
    known = {field.name for field in fields(Recipe)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise InvalidTypeError(f"A recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})
