"""What a fitted estimator holds, and how it is put there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from spectrafuse.mcr import evaluation, inputs
from spectrafuse.mcr.inputs import Spectra
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.recipes import Recipe, resolve
from spectrafuse.mcr.training.result import TrainingResult


class FittedMixture:
    """The fitted part of `EBgMCR`."""

    recipe: str | Recipe
    model_: UnmixingModel
    n_components_: int
    background: bool
    _fitted_concentrations: NDArray[np.float32] | None

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
    def ST_opt_(self) -> NDArray[np.float32]:
        """`components_`, under pyMCR's name."""
        check_is_fitted(self, "model_")
        return self.components_

    def _read(self, X: Spectra) -> NDArray[np.float32]:
        check_is_fitted(self, "model_")
        return inputs.read_fitted(self, X)  # type: ignore[arg-type]  # its only heir is EBgMCR

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
        self._result = result._replace(concentrations=None)
        self._set_components(result.record.component_ids)
        self._fitted_concentrations = result.concentrations

    @torch.no_grad()
    def _set_components(self, ids: list[int]) -> None:
        self.component_ids_ = np.asarray(ids, dtype=np.int64)
        self.background_row_ = ids.index(self._background_id) if self._background_id in ids else None
        self.n_components_ = len(ids) - (self.background_row_ is not None)
        self._fitted_concentrations = None
        self._indices = torch.as_tensor(self.component_ids_, device=self.model_.vanilla_components.device)
        self.components_ = self.model_.effective_components()[self._indices].cpu().numpy()

    @property
    def _background_id(self) -> int | None:
        """The last place of the pool, if it holds a background."""
        return self.model_.num_components - 1 if self.background else None

    def _parse(self, data: NDArray[np.float32], *wanted: str) -> dict[str, NDArray[Any]]:
        return evaluation.parse(self.model_, self._indices, data, wanted=wanted)
