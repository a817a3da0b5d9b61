"""Components that no spectrum has selected for long leave the pool: training goes on with the rest."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectrafuse._runtime import checks
from spectrafuse.mcr.model import UnmixingModel, linear_layers
from spectrafuse.mcr.training.known_components import FAR_ENERGY
from spectrafuse.mcr.training.optimizer import OuterAdamW

__all__ = ["Compaction", "Pool"]

_SMALLEST_SHARE = 0.1


class Compaction(NamedTuple):
    """One reduction of the pool, as plain values.

    Attributes
    ----------
    epoch : int
        After which it happened.
    components_before, components_after : int
    parameters_before, parameters_after : int
        That a step of the optimizer moves.
    error : float
        Largest change of a reconstruction with the soft gates of training, over the largest value of the spectra;
        with the hard gates of evaluation there is none.
    """

    epoch: int
    components_before: int
    components_after: int
    parameters_before: int
    parameters_after: int
    error: float


class Pool:
    """A model, and the part of it that trains; the model keeps its size and its components their numbers.

    Parameters
    ----------
    model : UnmixingModel
    optimizer : OuterAdamW
        Of the model.
    fixed : sequence of int
        Components that stay.
    patience : int or None
        Epochs without a selection after which a component may leave; None: never.

    Attributes
    ----------
    part : UnmixingModel
        What trains; hidden layers are the model's own.
    optimizer : OuterAdamW
        Of `part`.
    ids : list of int
        Numbers in the model of the part's components.
    done : list of Compaction

    Raises
    ------
    ValueError
        If components can leave a model with a plug-in, which may count on all of them.
    """

    def __init__(self, model: UnmixingModel, optimizer: OuterAdamW, fixed: Sequence[int], patience: int | None) -> None:
        plug_ins = model.aggregate_function is not None or model.component_post_processing is not None
        if patience is not None and plug_ins:
            raise checks.fail("compact_epochs", "None for a model with `post_processing` or `aggregate`", patience)
        self.model = self.part = model
        self.optimizer, self.patience = optimizer, patience
        self.ids, self.done = list(range(model.num_components)), list[Compaction]()
        self._fixed, self._last_used = set(fixed), [0] * model.num_components

    def selected(self, used: Sequence[float], epoch: int) -> list[int]:
        """Numbers of the components whose flag is set, which this remembers."""
        ids = [self.ids[i] for i, flag in enumerate(used) if flag]
        for i in ids:
            self._last_used[i] = epoch
        return ids

    def compact(self, spectra: Tensor, epoch: int) -> bool:
        """Let components go that have waited long enough, where a tenth of the part would; says whether any did."""
        if self.patience is None:
            return False
        kept = [i for i in self.ids if i in self._fixed or epoch - self._last_used[i] < self.patience]
        if not kept or len(kept) > (1 - _SMALLEST_SHARE) * len(self.ids):
            return False
        before, parameters = len(self.ids), _trained(self.part)
        mixture = _soft_mixture(self.part, spectra)
        self.reduce_to(kept)
        error = float((_soft_mixture(self.part, spectra) - mixture).abs().max() / spectra.abs().max().clamp_min(1e-30))
        self.done.append(Compaction(epoch, before, len(kept), parameters, _trained(self.part), error))
        return True

    @torch.no_grad()
    def reduce_to(self, ids: Sequence[int]) -> None:
        """Make these components the part; the gates of the others stay shut in the model."""
        self.write_back()
        *_, weight, bias = self.model.component_parser.energy_evaluator.parameters()  # type: ignore[union-attr]
        gone = sorted(set(self.ids) - set(ids))
        weight.view(self.model.num_components, 2, -1)[gone] = 0.0
        bias.view(self.model.num_components, 2)[gone] = bias.new_tensor((FAR_ENERGY, -FAR_ENERGY))

        count, places = len(self.ids), torch.tensor([self.ids.index(i) for i in ids], device=weight.device)

        def rows(values: Tensor) -> Tensor:
            return values.detach().view(count, -1)[places].view(-1, *values.shape[1:])

        owned = {id(values) for _, _, values in _of_components(self.part)}
        shared = {id(p): p for p in self.part.parameters() if id(p) not in owned}
        part = copy.deepcopy(self.part, dict(shared))
        part.num_components = len(ids)
        (group,) = self.optimizer.param_groups
        states = {parameter: state for parameter, state in self.optimizer.state.items() if id(parameter) in shared}
        for (owner, name, _), (_, _, old) in zip(_of_components(part), _of_components(self.part), strict=True):
            new = nn.Parameter(rows(old), requires_grad=old.requires_grad)
            setattr(owner, name, new)
            if isinstance(owner, nn.Linear):
                owner.out_features = len(new)
            state = self.optimizer.state.get(old)
            if state:
                moments = {key: rows(state[key]) for key in ("exp_avg", "exp_avg_sq")}
                states[new] = {"step": state["step"], **moments}
        self.optimizer = OuterAdamW(
            [p for p in part.parameters() if p.requires_grad],
            lr=group["lr"],
            betas=group["betas"],
            weight_decay=group["weight_decay"],
        )
        self.optimizer.state.update(states)
        self.part, self.ids = part, list(ids)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the model what the part has learned."""
        if self.part is not self.model:
            for (_, _, whole), (_, _, values) in zip(
                _of_components(self.model), _of_components(self.part), strict=True
            ):
                places = torch.tensor(self.ids, device=values.device)
                whole.view(self.model.num_components, -1)[places] = values.view(len(self.ids), -1)

    def state(self) -> dict[str, Any]:
        """As plain values, for `load_state`."""
        return {"ids": self.ids, "last_used": self._last_used, "done": [list(one) for one in self.done]}

    def load_state(self, state: dict[str, Any]) -> bool:
        """Resume from what `state` gave, with the model's values of then; says whether components had left."""
        left = len(state["ids"]) < len(self.ids)
        if left:
            self.reduce_to(state["ids"])
        self._last_used = list(state["last_used"])
        self.done = [Compaction(*one) for one in state["done"]]
        return left


def _of_components(model: UnmixingModel) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Owner, name and values of every parameter that has a part for each component."""
    owners: list[tuple[nn.Module, str]] = [(model, "vanilla_components"), (model.component_sparsity, "energy")]
    for layers in (model.component_parser.energy_evaluator, model.concentration_regressor):
        last = linear_layers(layers)[-1]  # type: ignore[arg-type]
        owners += [(last, "weight"), (last, "bias")]
    return [(owner, name, getattr(owner, name)) for owner, name in owners]


def _trained(model: UnmixingModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def _soft_mixture(model: UnmixingModel, spectra: Tensor) -> Tensor:
    """Reconstruction (n, d) with the gates of training, without noise."""
    training = model.training
    mixture = torch.cat([model.train()(x).mixture for x in spectra.split(256)])
    model.train(training)
    return mixture
