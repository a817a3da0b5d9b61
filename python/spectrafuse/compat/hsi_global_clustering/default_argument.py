"""The published scripts' defaults; the classes' own defaults differ (docs/algorithms/dgc.md, "Recipes")."""

from __future__ import annotations

from typing import Any

from spectrafuse.dgc.recipes import published

DEFAULT_MODEL_KWARGS: dict[str, Any] = {
    "num_bands": 301,
    "encoder_kwargs": {"n_spectral_layers": 3, "spectral_kernel_size": 9, "embed_dim": 32, "bias": False},
    "mean_shift_kwargs": {"embed_dim": 32, "n_clusters": 4, "num_iters": 5},
    "loss_weights": dict(published.loss_weights),
}

DEFAULT_OPTIMIZER_KWARGS: dict[str, Any] = {
    "lr": published.learning_rate,
    "betas": (0.9, 0.999),
    "weight_decay": published.weight_decay,
}

DEFAULT_LOSS_WEIGHT_SCHEDULING = dict.fromkeys(("lambda_unif", "lambda_orth", "lambda_bal", "lambda_cons"), False)

DEFAULT_EMA_DECAY = published.decay
DEFAULT_EMA_KICK = published.kick
DEFAULT_EMA_KICK_SCHEDULING = False
