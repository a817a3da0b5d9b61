"""Epochs of the standard model straight through the C++ kernels: no graph of autograd, no dispatcher.

At small pools these take several times as long as the work itself. Forward and backward are written out; the noise, the
kernels and what they are given are those of `UnmixingModel.forward`. Everything a pass reads and writes stays where it
is from one pass to the next, so its kernel calls are put together once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spectrafuse import backends
from spectrafuse._runtime import extensions
from spectrafuse._runtime.hooks import has_hooks
from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.model import linear_layers
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.mcr.training.optimizer import OuterAdamW, SteadySteps
from spectrafuse.ops.adamw_outer import MOST_ROWS, addressed
from spectrafuse.ops.ambiguity_penalty import component_penalty_call, kernel_options
from spectrafuse.ops.gate import Langevin, gate_backward_arguments, gate_forward_arguments
from spectrafuse.ops.gated_mixture import mixture_arguments as dense_arguments
from spectrafuse.ops.skinny_linear import MOST_ROWS as LAYER_ROWS
from spectrafuse.ops.skinny_linear import input_gradient_call, layer_call
from spectrafuse.ops.sparse_gated_mixture import mixture_arguments as sparse_arguments
from spectrafuse.random import RandomStream

__all__ = ["DirectEpochs", "EpochModel", "StreamNoise", "why_not"]

OPERATIONS = (
    "adamw_outer", "ambiguity_penalty", "energy_gate", "gate", "gated_mixture", "skinny_linear", "sparse_gated_mixture",
)  # fmt: skip


class EpochModel(Protocol):
    """What an epoch reads of a model: an `UnmixingModel`, or another package's model that is read as one."""

    num_components: int
    dim_components: int
    pool_size: int
    sparse_component: bool
    non_negative_component: bool
    component_norm: int | None
    temperature_train: float
    temperature_eval: float
    aggregate_function: Callable[..., Any] | None
    component_post_processing: Callable[..., Any] | None
    component_parser: nn.Module
    component_sparsity: nn.Module
    concentration_regressor: nn.Module

    vanilla_components: nn.Parameter

    @property
    def select_threshold(self) -> float: ...

    @property
    def learnable_component(self) -> bool: ...

    @property
    def langevin(self) -> Langevin: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...


class Noise(Protocol):
    """Where the random numbers of a pass come from.

    Attributes
    ----------
    of_both_classes : bool
        Whether `draw` fills in Gumbel numbers (B, N, 2) of both classes, or their difference (B, N).
    """

    of_both_classes: bool

    def draw(self, langevin: Tensor | None, gumbel: Tensor | None, rng: Tensor | None, langevin_std: float) -> None:
        """Fill in a batch's numbers; None: not wanted. `rng` (2,) int64 takes the seed and step of sparsity gates."""


class StreamNoise:
    """Noise of a `RandomStream`, in the order of `UnmixingModel.draw_noise`."""

    of_both_classes = False

    def __init__(self, stream: RandomStream) -> None:
        self._stream = stream

    def draw(self, langevin: Tensor | None, gumbel: Tensor | None, rng: Tensor | None, langevin_std: float) -> None:
        """As `Noise.draw`."""
        if langevin is not None:
            self._stream.fill(langevin, "normal", scale=langevin_std)
        if gumbel is not None:
            self._stream.fill(gumbel, "logistic")
        if rng is not None:
            rng.copy_(torch.tensor((self._stream.seed, self._stream.step)))
            self._stream.step += 1


def why_not(model: EpochModel, recipe: Recipe, batch_size: int = 1) -> str | None:
    """Why a model, where it is, cannot be trained this way in batches of this size, in a sentence; None: it can.

    It can without plug-ins, without hooks, and with C++ kernels everywhere.
    """
    reason, values = not_standard(model, recipe), model.vanilla_components
    if reason is not None:
        return reason
    if values.device.type != "cpu":
        return f"The model is on {values.device}, where steps are recorded instead."
    if values.dtype not in extensions.DTYPE_CODE:
        return f"The model must be in float32 or float64; got {values.dtype}."
    if batch_size > MOST_ROWS:
        return f"A batch may have {MOST_ROWS} spectra; got {batch_size}."
    other = [operation for operation in OPERATIONS if backends.choose(operation, "cpu") != "cpu"]
    return f"These operations do not run their C++ kernels here: {', '.join(other)}." if other else None


def not_standard(model: EpochModel, recipe: Recipe) -> str | None:
    """What a model or recipe asks for that the kernels do not know, in a sentence; None: nothing."""
    if any(map(has_hooks, model.modules())) or nn.modules.module._has_any_global_hook():
        return "A hook on a module has to be called."
    if model.aggregate_function is not None or model.component_post_processing is not None:
        return "A function of the caller's mixes or post-processes the components."
    if model.component_norm not in (None, 1, 2):
        return f"The kernels know components without a norm, and norms 1 and 2; got {model.component_norm}."
    if recipe.ambiguity_coef > 0 and recipe.ambiguity_kernel == "linear":
        return "The kernels know the ambiguity penalties laplacian, rbf, poly and matern; got linear."
    return None


Call = Callable[[], Any]


class _Network:
    """One of the model's two networks on some rows of spectra: the calls of a pass, and where they leave what.

    Parameters
    ----------
    module : nn.Module
    activation, last : str
        Of the hidden layers, and of the last one.
    x : Tensor, (B, d)
    """

    def __init__(self, module: nn.Module, activation: str, last: str, x: Tensor) -> None:
        layers = linear_layers(module)
        self._layers = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
        self._activation, self._values = activation, [x]
        self.calls: list[Call] = []
        for i, (weight, bias) in enumerate(self._layers):
            kind = activation if i < len(layers) - 1 else last
            y = x.new_empty((len(x), len(weight)))
            before = torch.empty_like(y) if kind == "abs" else None
            self.calls.append(layer_call(self._values[-1], weight, bias, kind, y, before))
            self._values.append(y)
        self.output, self.before = y, before

    def backward(self, grad: Tensor) -> tuple[list[Call], list[tuple[Tensor, Tensor]]]:
        """From the gradient before the last activation: calls, and the pairs whose products are the gradients.

        The pairs are in the order of the module's parameters.
        """
        calls: list[Call] = []
        pairs, ones = [], grad.new_ones((len(grad), 1))
        for i in reversed(range(len(self._layers))):
            value = self._values[i]
            pairs += [(grad, ones), (value, grad)]
            if i > 0:
                upstream, grad = grad, torch.empty_like(value)
                calls.append(input_gradient_call(upstream, self._layers[i][0], grad))
                if self._activation == "tanh":
                    calls.append(partial(torch.ops.aten.tanh_backward.grad_input, grad, value, grad_input=grad))
                else:
                    calls.append(partial(torch.ops.aten.threshold_backward.grad_input, grad, value, 0, grad_input=grad))
        return calls, pairs[::-1]


class _Pass:
    """Forward pass of `rows` spectra, in batches of `batch`, with or without the noise of training or evaluation.

    Attributes
    ----------
    x, mixture : Tensor, (rows, d)
        Spectra, to be filled in, and their reconstruction.
    used : Tensor, (batches, N)
    sums : Tensor, (6,)
        Energies, their squares, gates, the sparse form's energies and their squares, squared residuals: of the last
        batch.
    """

    def __init__(
        self, epochs: DirectEpochs, rows: int, batch: int, *, training: bool, noisy: bool, of_both_classes: bool
    ) -> None:
        model, new = epochs.model, epochs.components.new_empty
        count = model.num_components
        self.epochs = epochs
        self.tau = model.temperature_train if training else model.temperature_eval
        self.hard_threshold = None if training else model.select_threshold
        self.x, self.mixture, self.sums = new((rows, model.dim_components)), new((rows, model.dim_components)), new(6)
        self.sums.zero_()
        self.evaluator = _Network(epochs.evaluator, "tanh", "none", self.x)
        self.regressor = _Network(epochs.regressor, "relu", "abs", self.x)
        self.select_prob, self.select_energy = new((rows, count)), new((rows, count, 2))
        self.used = new((-(-rows // batch), count), dtype=torch.bool)
        langevin = model.langevin if training else None
        self.shift = self.std = 0.0
        if langevin is not None:
            self.shift, self.std = langevin.step_size * langevin.steps, langevin.noise * math.sqrt(langevin.steps)
        self.gumbel = new((rows, count, 2) if of_both_classes else (rows, count)) if noisy else None
        self.langevin = new((rows, count, 2)) if noisy and langevin is not None and langevin.steps > 0 else None
        self.rng = new(2, dtype=torch.int64) if noisy and model.sparse_component else None
        self.batches = [self._of_batch(i, slice(start, start + batch)) for i, start in enumerate(range(0, rows, batch))]

    def _of_batch(self, index: int, rows: slice) -> tuple[Tensor | None, Tensor | None, Call, Call]:
        """Where a batch's noise goes, and its calls: gates and mixture."""
        model, (e_sum, e_squares, gate_sum, *_) = self.epochs.model, self.sums
        energy = self.evaluator.output.view(len(self.x), -1, 2)[rows]
        gumbel, langevin = (None if noise is None else noise[rows] for noise in (self.gumbel, self.langevin))
        prob = self.select_prob[rows]
        gate = gate_forward_arguments(
            energy, gumbel, langevin, self.tau, self.shift, self.hard_threshold, self.epochs.recipe.used_threshold,
            (prob, self.select_energy[rows], e_sum, e_squares, self.used[index], gate_sum),
        )  # fmt: skip
        mix = self.mixing(self.regressor.output[rows], prob)
        kernel, outputs = "gated_mixture", [self.mixture[rows]]
        if model.sparse_component:
            kernel, outputs = "sparse_gated_mixture", [*outputs, self.sums[3], self.sums[4]]
        return (
            gumbel,
            langevin,
            extensions.prepared("gate_forward", energy.dtype, *gate),
            extensions.prepared(f"{kernel}_forward", *mix, *(t.data_ptr() for t in outputs)),
        )

    def mixing(self, concentration: Tensor, prob: Tensor) -> tuple[Any, ...]:
        """What a mixture's kernels take first, the device left out."""
        epochs = self.epochs
        inputs = concentration, prob, epochs.components
        if epochs.model.sparse_component:
            dtype, _, *rest = sparse_arguments(
                (*inputs, epochs.sparsity_energy), (self.rng, None, None), (self.tau, self.shift, self.std),
                *epochs.form,
            )  # fmt: skip
        else:
            dtype, _, *rest = dense_arguments(*inputs, *epochs.form)
        return dtype, *rest

    def forward(self, noise: Noise) -> None:
        """Mixture, gates and sums of what is in `x`."""
        for call in self.evaluator.calls:
            call()
        for call in self.regressor.calls:
            call()
        for gumbel, langevin, gate, mix in self.batches:
            noise.draw(langevin, gumbel, self.rng, self.std)
            gate()
            mix()


class _Step(_Pass):
    """Forward and backward pass of one batch.

    Attributes
    ----------
    weights : Tensor, (6,)
        Of `sums` in the loss, the penalty aside; the one of the gates is to be filled in.
    pairs : list of (Tensor, Tensor)
        Whose products are the gradients of the trained parameters.
    loss : Tensor, ()
        Of the last run.
    penalty : float
        Of the components that the last run used, without its weight; 0 where it has none.
    energies : int
        Number of the energies whose sum `energy_sum` is.
    """

    def __init__(self, epochs: DirectEpochs, rows: int, of_both_classes: bool) -> None:
        super().__init__(epochs, rows, rows, training=True, noisy=True, of_both_classes=of_both_classes)
        model, recipe, x = epochs.model, epochs.recipe, self.x
        self.energies = self.select_energy.numel()
        if model.sparse_component:
            self.energies += 2 * rows * epochs.components.numel()
        self.weights = x.new_zeros(6)
        # Rounded step by step as autograd does.
        self.weights[1] = x.new_full((), recipe.energy_coef) / (2 * rows * model.pool_size)
        self.weights[5] = 1.0 / x.numel()
        grads = [torch.empty_like(t) for t in (self.regressor.output, self.select_prob)]
        grad_energy, upstream = torch.empty_like(self.select_energy), torch.empty_like(x)
        self._held = grads  # calls know their addresses only
        mixing = self.mixing(self.regressor.output, self.select_prob)
        outputs = tuple(t.data_ptr() for t in (*grads, *epochs.gradients))
        if model.sparse_component:
            mix = extensions.prepared("sparse_gated_mixture_backward", *mixing, (upstream.data_ptr(), 0, 0), outputs)
        else:
            mix = extensions.prepared("gated_mixture_backward", *mixing, upstream.data_ptr(), outputs)
        gate = gate_backward_arguments(
            (grads[1], None, None, self.weights[1], self.weights[2]), self.select_prob, self.select_energy, self.tau,
            False, grad_energy,
        )  # fmt: skip
        assert self.regressor.before is not None
        signs = torch.empty_like(grads[0])
        evaluator_calls, evaluator_pairs = self.evaluator.backward(grad_energy.view(rows, -1))
        regressor_calls, regressor_pairs = self.regressor.backward(grads[0])
        self._calls: list[Call] = [
            partial(torch.sub, self.mixture, x, out=upstream),
            partial(torch.dot, upstream.view(-1), upstream.view(-1), out=self.sums[5]),
            partial(upstream.mul_, 2.0 / x.numel()),
            mix,
            extensions.prepared("gate_backward", x.dtype, *gate),
            partial(torch.sgn, self.regressor.before, out=signs),
            partial(grads[0].mul_, signs),
            *evaluator_calls,
            *regressor_calls,
        ]
        self._penalty: Call = float
        if recipe.ambiguity_coef > 0:
            self._penalty = component_penalty_call(
                epochs.components, self.used, epochs.form, kernel_options(**recipe.penalty_options()),
                recipe.ambiguity_coef, epochs.gradients[0] if model.learnable_component else None,
            )  # fmt: skip
        one = x.new_ones((1, 1))
        self.pairs = [*evaluator_pairs, *regressor_pairs]
        if model.learnable_component:
            self.pairs.append((epochs.gradients[0].view(1, -1), one))
        if model.sparse_component:
            self.pairs.append((epochs.gradients[1].view(1, -1), one))

    def run(self, noise: Noise) -> None:
        """Loss and gradients of what is in `x`."""
        self.forward(noise)
        for call in self._calls:
            call()
        self.penalty = self._penalty()
        self.loss = torch.dot(self.sums, self.weights) + self.epochs.recipe.ambiguity_coef * self.penalty

    @property
    def squared_error(self) -> Tensor:
        """Mean squared error () of the last run."""
        return self.sums[5] / self.x.numel()

    @property
    def energy_sum(self) -> Tensor:
        """Sum () of all gates' energies in the last run, the sparse form's too."""
        return self.sums[0] + self.sums[3]


class DirectEpochs:
    """Training and evaluation epochs of one model.

    Parameters
    ----------
    model : EpochModel
        One that `why_not` accepts.
    recipe : Recipe
    optimizer : OuterAdamW
    """

    def __init__(self, model: EpochModel, recipe: Recipe, optimizer: OuterAdamW) -> None:
        self.model, self.recipe, self.optimizer = model, recipe, optimizer
        self.evaluator: nn.Module = model.component_parser.energy_evaluator  # type: ignore[assignment]
        self.regressor = model.concentration_regressor
        energy = model.component_sparsity.energy
        assert isinstance(energy, nn.Parameter)
        layers = [*self.evaluator.parameters(), *self.regressor.parameters()]
        self._trained = list(layers)
        if model.learnable_component:
            self._trained.append(model.vanilla_components)
        if model.sparse_component:
            self._trained.append(energy)
        self.components = model.vanilla_components.detach()
        self.sparsity_energy = energy.detach().view(*self.components.shape, 2)
        self.form = model.non_negative_component, model.component_norm or 0
        shapes = [self.components, *([self.sparsity_energy] if model.sparse_component else [])]
        self.gradients = [torch.empty_like(t) for t in shapes]
        # A bias is a product too, and so are gradients that exist already: of one row and the number 1.
        self._shapes = [(len(p), p.shape[1]) if p.ndim == 2 else (1, len(p)) for p in layers]
        self._shapes += [(1, p.numel()) for p in self._trained[len(layers) :]]
        self._passes: dict[str, tuple[tuple[Any, ...], dict[Any, Any]]] = {}

    def _passes_of(self, kind: str, tensors: Sequence[Tensor]) -> dict[Any, Any]:
        """Those made before, unless they hold what is so no longer: a number of threads, options, addresses."""
        model = self.model
        settings = (
            torch.get_num_threads(), model.temperature_train, model.temperature_eval, model.select_threshold,
            model.langevin, *(t.data_ptr() for t in tensors),
        )  # fmt: skip
        if kind not in self._passes or self._passes[kind][0] != settings:
            self._passes[kind] = settings, {}
        return self._passes[kind][1]

    @torch.no_grad()
    def train(
        self, spectra: Tensor, batches: Sequence[Tensor], noise: Noise, sparsity_weight: float
    ) -> Iterator[_Step]:
        """One step for each batch (B,) of sample numbers.

        Yields
        ------
        step : _Step
            Right after it; valid until the next.
        """
        weight = spectra.new_full((), sparsity_weight)
        with SteadySteps(self.optimizer, self._trained, self._shapes) as steps:
            passes = self._passes_of("train", [tensor for tensors in steps.tensors for tensor in tensors])
            for indices in batches:
                rows = len(indices)
                if rows not in passes:
                    made = _Step(self, rows, noise.of_both_classes)
                    entries = [(*pair, *tensors) for pair, tensors in zip(made.pairs, steps.tensors, strict=True)]
                    passes[rows] = made, [addressed(entry) for entry in entries]
                step, addresses = passes[rows]
                torch.index_select(spectra, 0, indices, out=step.x)
                step.weights[2] = weight / rows / self.model.pool_size
                step.run(noise)
                steps.step(addresses)
                yield step

    @torch.no_grad()
    def evaluate(self, spectra: Tensor, batch_size: int, noise: Noise, metrics: FitMetrics) -> Tensor:
        """Adds the fit of spectra (n, d) to `metrics`, batch by batch; components (N,) that some sample selects.

        The networks see as many batches at a time as their kernel takes rows.
        """
        passes = self._passes_of("evaluate", list(self.model.parameters()))
        used = torch.zeros(self.model.num_components, dtype=torch.bool)
        for group in spectra.split(batch_size * max(1, LAYER_ROWS // batch_size)):
            sizes = len(group), batch_size
            if sizes not in passes:
                passes[sizes] = _Pass(
                    self, *sizes, training=False, noisy=self.recipe.noisy_evaluation,
                    of_both_classes=noise.of_both_classes,
                )  # fmt: skip
            found = passes[sizes]
            found.x.copy_(group)
            found.forward(noise)
            metrics.update(group, found.mixture, batch_size)
            used |= found.used.any(0)
        return used
