"""AdamW that forms weight gradients inside its step, from what the backward pass of a layer leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse.ops.adamw_outer import AdamwOptions, AddressedEntry, Entry, update, update_cpu, update_layer
from spectrafuse.ops.skinny_linear import ACTIVATIONS, hidden_gradient, input_gradient, layer


class Stash:
    """Inputs and output gradients of layers, by the parameter whose gradient is their product.

    A parameter may occur more than once in a step: its pairs add up.
    """

    def __init__(self) -> None:
        self._pairs: dict[Tensor, list[tuple[Tensor, Tensor]]] = {}

    def add(self, parameter: Tensor, x: Tensor, grad_y: Tensor) -> None:
        """Leave x (B, I) and grad_y (B, O); the gradient of the parameter, seen as (O, I), is `grad_y.T @ x`."""
        self._pairs.setdefault(parameter, []).append((x, grad_y))

    def take(self, parameter: Tensor) -> tuple[Tensor, Tensor] | None:
        """What was left for a parameter since the last time, as one pair; None: nothing."""
        pairs = self._pairs.pop(parameter, None)
        if pairs is None or len(pairs) == 1:
            return None if pairs is None else pairs[0]
        return torch.cat([x for x, _ in pairs]), torch.cat([grad_y for _, grad_y in pairs])

    def clear(self) -> None:
        """Forget everything, as a step does."""
        self._pairs.clear()


Layers = Sequence[tuple[Tensor, Tensor]]
"""Weights and biases."""


def layer_inputs(layers: Layers, activation: str, x: Tensor) -> list[Tensor]:
    """What each layer of a network takes, with an activation between them; the last one is not computed."""
    values = [x]
    for weight, bias in layers[:-1]:
        values.append(layer(values[-1], weight, bias, activation))
    return values


class _StashingNetwork(torch.autograd.Function):
    """Linear layers with an activation between them; weights and biases get no `.grad`, their pairs are stashed."""

    @staticmethod
    def forward(ctx: Any, stash: Stash, activation: str, x: Tensor, *parameters: Tensor) -> Tensor:
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        values = layer_inputs(layers, activation, x)
        ctx.stash, ctx.activation, ctx.biases = stash, activation, parameters[1::2]
        ctx.save_for_backward(*values, *parameters[::2])
        return layer(values[-1], *layers[-1], "none")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, count = grads[0], len(ctx.biases)
        values, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        ones = grad.new_ones((len(grad), 1))
        for i in reversed(range(count)):
            ctx.stash.add(weights[i], values[i], grad)
            ctx.stash.add(ctx.biases[i], grad, ones)
            if i > 0:
                grad = hidden_gradient(grad, weights[i], values[i], ctx.activation)
        grad_x = input_gradient(grad, weights[0]) if ctx.needs_input_grad[2] else None
        return None, None, grad_x, *(2 * count * [None])


def stashing_network(layers: Iterable[nn.Linear], activation: str, x: Tensor, stash: Stash) -> Tensor:
    """Linear layers with an activation between them, whose weight gradients an `OuterAdamW` forms.

    Parameters
    ----------
    layers : iterable of nn.Linear
    activation : {"none", "tanh", "relu"}
    x : Tensor, (B, I)
    stash : Stash
        Backward leaves there what the weight gradients are made of; no parameter gets a `.grad`.

    Returns
    -------
    Tensor, (B, O)
    """
    parameters = [parameter for linear in layers for parameter in (linear.weight, linear.bias)]
    output: Tensor = _StashingNetwork.apply(stash, activation, x, *parameters)
    return output


class OuterAdamW(torch.optim.AdamW):
    """AdamW for parameters with a `.grad`, a stashed pair, or both.

    Its state has the form of `torch.optim.AdamW`'s, so each reads what the other has saved.

    Parameters
    ----------
    parameters : iterable of Parameter
        Dense.
    lr, betas, weight_decay, eps
        As for `torch.optim.AdamW`.

    Attributes
    ----------
    stash : Stash
        Where the layers' backward passes leave their pairs; `step` takes them.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, weight_decay=weight_decay, eps=eps)
        self.stash = Stash()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients and stashed pairs."""
        super().zero_grad(set_to_none)
        self.stash.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # One call for all parameters that have done as many steps.
            by_step: dict[int, list[Entry]] = {}
            for step, entry in self._entries(group):
                step += 1
                by_step.setdefault(int(step), []).append(entry)
            for number, entries in by_step.items():
                update(entries, _options(group), number)
        return loss

    @torch.no_grad()
    def step_as(self, number: Tensor) -> None:
        """A step like `step`'s for parameters that have all done as many, for a CUDA graph to hold.

        Parameters
        ----------
        number : Tensor, ()
            float32, of this step, counted from 1; on the parameters' device, where a replay finds the present one. The
            optimizer's own numbers of steps are left to `advance`.
        """
        for group in self.param_groups:
            entries = [entry for _, entry in self._entries(group)]
            if entries:
                update(entries, _options(group), number)

    @torch.no_grad()
    def step_layer(self, weight: Tensor, x: Tensor, grad_y: Tensor, number: Tensor, activation: str) -> Tensor:
        """A step like `step_as`'s of one layer's weight alone, on a GPU: the same pass makes the gradient of its input.

        Parameters
        ----------
        weight : Parameter, (O, I)
            float32.
        x : Tensor, (B, I)
            Values of an activation, at most 64 rows.
        grad_y : Tensor, (B, O)
            Their layer's output gradient.
        number : Tensor, ()
            As for `step_as`.
        activation : {"tanh", "relu"}

        Returns
        -------
        Tensor, (B, I)
            The gradient before that activation, by the weight before the step.
        """
        (group,) = self.param_groups
        _, tensors = self.present(weight, (weight.shape[0], weight.shape[1]))  # type: ignore[arg-type]
        return update_layer((x, grad_y, *tensors), _options(group), number, x, ACTIVATIONS.index(activation))

    @property
    def steps_done(self) -> int:
        """Of the parameter that has done most."""
        return max((int(state["step"]) for state in self.state.values() if state), default=0)

    def advance(self, steps: int) -> None:
        """Count steps that `step_as` has made."""
        torch._foreach_add_([state["step"] for state in self.state.values() if state], steps)

    def _entries(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Entry]]:
        """Of the parameters that have a gradient: number of steps, and what `update` takes."""
        for parameter in group["params"]:
            pair = self._pair(parameter)
            if pair is not None:
                step, tensors = self.present(parameter, (pair[1].shape[1], pair[0].shape[1]))
                yield step, (*pair, *tensors)

    def present(self, parameter: nn.Parameter, shape: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """A parameter's number of steps, and its values and two moments seen as (O, I)."""
        first, second = self.moments(parameter)
        return self.state[parameter]["step"], (parameter.data.view(shape), first.view(shape), second.view(shape))

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Running means of a parameter's gradient and of its square; they begin as zeros."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state["exp_avg"], state["exp_avg_sq"]

    def _pair(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor] | None:
        """What a parameter's gradient is the product of; None: it has none."""
        pair, gradient = self.stash.take(parameter), parameter.grad
        if gradient is None:
            return pair
        if pair is not None:
            gradient = gradient + (pair[1].T @ pair[0]).view(gradient.shape)
        # A gradient that exists already is a product too, of one row and the number 1.
        return gradient.reshape(1, -1), gradient.new_ones((1, 1))


def _options(group: dict[str, Any]) -> AdamwOptions:
    beta1, beta2 = group["betas"]
    return AdamwOptions(group["lr"], beta1, beta2, group["eps"], group["weight_decay"])


class SteadySteps:
    """Steps of an `OuterAdamW` that move the same parameters on the CPU again and again: they are looked up once.

    A context: the optimizer's own numbers of steps follow at its end.

    Parameters
    ----------
    optimizer : OuterAdamW
        With one group of parameters.
    parameters : sequence of Parameter
        That have done as many steps each.
    shapes : sequence of (int, int)
        (O, I) of each.

    Attributes
    ----------
    tensors : list of (Tensor, Tensor, Tensor)
        Values and moments of each parameter, (O, I).
    """

    def __init__(
        self, optimizer: OuterAdamW, parameters: Sequence[nn.Parameter], shapes: Sequence[tuple[int, int]]
    ) -> None:
        (group,) = optimizer.param_groups
        self._options = _options(group)
        present = [optimizer.present(p, shape) for p, shape in zip(parameters, shapes, strict=True)]
        self._steps, self.tensors = [step for step, _ in present], [tensors for _, tensors in present]
        self._before = int(self._steps[0])
        self._done = 0

    def __enter__(self) -> SteadySteps:
        return self

    def __exit__(self, *error: object) -> None:
        torch._foreach_add_(self._steps, self._done)

    def step(self, entries: Sequence[AddressedEntry]) -> None:
        """One step of all parameters, each with what its gradient is the product of."""
        self._done += 1
        update_cpu(self.tensors[0][0].dtype, entries, self._options, self._before + self._done)
