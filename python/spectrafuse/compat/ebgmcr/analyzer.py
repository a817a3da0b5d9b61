"""The published package's solver (its `analyzer.py`), on our model, operations and rules."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.compat.ebgmcr.fitting import FitOptions, Fitting
from spectrafuse.compat.ebgmcr.mcr import EBSelectiveMCR, default_aggreate_function
from spectrafuse.compat.ebgmcr.options import SolverOptions

__all__ = ["BaseEBgMCR", "DenseEBgMCR"]


class BaseEBgMCR(SolverOptions, abc.ABC):
    """What solvers share: their options, and `fit`.

    The options have the published names, defaults and meaning (`spectrafuse.mcr.recipes.published` says it in our
    words). Subclasses say how a fitted solver reads spectra and how it is saved.
    """

    # Under its published name, since `spectrafuse.patch` gives `fit` to the published class.
    __finish_analysis = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eval_temperature={self.temperature_eval})"

    def summary(self, layout_func: Callable[[str], Any] = print) -> None:
        """Give the modules and the options of `fit`, as text, to `layout_func`."""
        names = (
            "mini_batch_size", "checkpoint_criterion", "checkpoint_threshold", "checkpoint_interval", "max_epoch",
            "tol_pattern_nmse", "tol_energy_ratio", "select_prob_threshld", "min_component_coef", "ambiguity_coef",
            "energy_coef", "ambiguity_penalty", "ambiguity_prob_threshold",
        )  # fmt: skip
        options = {name: getattr(self, name) for name in names}
        options["temperature_start"], options["temperature_end"] = self.temperature_max, self.temperature_min
        for name in ("temperature_drop_value", "temperature_drop_epochs", "temperature_eval"):
            options[name] = getattr(self, name)
        listing = str(options).replace(",", ",\n ")
        layout_func(f"{type(self).__name__}(\nMCR Modules: \n{self.stored_mcrs}\nFitting Args:\n{listing}\n")

    def _init_mcrs(
        self,
        num_components: int | Sequence[int],
        dim_components: int,
        components: list[Tensor] | None = None,
        learnable: list[bool] | None = None,
    ) -> None:
        self.stored_mcrs = nn.ModuleList()
        self.num_components = num_components if components is None else [len(matrix) for matrix in components]
        sizes = self.num_components
        for size in sizes:
            module = EBSelectiveMCR(
                num_components=size,
                dim_components=dim_components,
                sparse_component=self.sparse_component,
                non_negative_component=self.non_negative_component,
                hidden_size_extension=self.hidden_size_extension,
                hidden_layers=self.hidden_layers,
                component_norm=self.component_norm,
                learnable_component=True,
                component_post_processing=getattr(self, "component_post_processing", nn.Identity()),
                aggregate_function=getattr(self, "aggregate_function", default_aggreate_function),
                select_prob_threshld=self.select_prob_threshld,
                temperature_train=self.temperature_max,
                temperature_eval=self.temperature_eval,
                langevin_step_size=self.langevin_step_size,
                langevin_noise=self.langevin_noise,
                langevin_steps=self.langevin_steps,
            )
            self.stored_mcrs.append(module)
        trained = learnable or [True] * len(sizes)
        for stored, matrix, train in zip(self.stored_mcrs, components or [], trained, strict=False):
            assert isinstance(stored, EBSelectiveMCR)
            stored.load_components(matrix, train)

    def fit(
        self,
        data: Tensor,
        eval_data: Tensor | None = None,
        show_args: bool = False,
        show_train_info: bool = False,
        show_eval_info: bool = False,
        train_info_display_interval: int = 1,
        eval_info_display_interval: int = 100,
        log_dir: str | None = None,
        log_info_interval: int = 10,
        full_result_filename: str | None = None,
        final_result_filename: str | None = None,
        force_write_file: bool = False,
    ) -> None:
        """Train the modules on spectra (n, d), new ones unless there are some.

        Parameters
        ----------
        data, eval_data : Tensor, shape (n, d)
            Spectra to train on, and to evaluate on after every epoch; None: the same.
        show_args, show_train_info, show_eval_info : bool
            What to print.
        train_info_display_interval, eval_info_display_interval : int
            Steps and epochs between two printed lines.
        log_dir : str, optional
            Folder of TensorBoard's events and, a folder each, of the best state of every band of fit; without it no
            states are kept.
        log_info_interval : int
            Steps between two logged values.
        full_result_filename, final_result_filename : str, optional
            CSV files for the figures of all epochs and of the last.
        force_write_file : bool
            Overwrite such files.

        Raises
        ------
        RuntimeError
            If a result file exists and must not be overwritten.
        KeyboardInterrupt
            Passed on after the files are written, as is what a hook raises once an epoch is done.

        Notes
        -----
        Trains on the prepared kernel calls of the package's own trainer where nothing of the caller's has to be called
        in between; else through autograd. `spectrafuse.compat.ebgmcr.prepared.why_autograd` says which, and why.
        """
        for name in (full_result_filename, final_result_filename):
            if name is not None and os.path.isfile(name) and not force_write_file:
                raise RuntimeError(
                    f"Old result file ({name}) detected. Please set force_write_file=True to overwrite the result file."
                )
        options = FitOptions(
            show_train_info=show_train_info,
            show_eval_info=show_eval_info,
            train_info_display_interval=checks.integer("train_info_display_interval", train_info_display_interval),
            eval_info_display_interval=checks.integer("eval_info_display_interval", eval_info_display_interval),
            log_dir=log_dir,
            log_info_interval=checks.integer("log_info_interval", log_info_interval),
            full_result_filename=full_result_filename,
            final_result_filename=final_result_filename,
        )
        self.__finish_analysis = False
        if len(self.stored_mcrs) == 0:
            self._init_mcrs(self.num_components, data.shape[-1])
        self.stored_mcrs = self.stored_mcrs.to(self.device)
        if show_args:
            self.summary()
        Fitting(self, data, data if eval_data is None else eval_data, options).run()
        self.__finish_analysis = True

    def insert_mcr(self, module: EBSelectiveMCR) -> None:
        """Add a module of one's own, before fitting."""
        if not isinstance(module, EBSelectiveMCR):
            raise InvalidTypeError(f"`module` must be an EBSelectiveMCR; got {type(module).__name__}.")
        if self.__finish_analysis:
            raise RuntimeError(
                f"The {type(self).__name__}.insert_mcr function is used to insert user-defined MCR module before "
                "fitting data."
            )
        self.stored_mcrs.append(module.to(self.device))

    @abc.abstractmethod
    def parse_pattern(self, data: Tensor) -> dict[str, Tensor]: ...

    @abc.abstractmethod
    def save_mcrs(self, path: str) -> None: ...

    @abc.abstractmethod
    def load_mcrs(self, path: str) -> None: ...


class DenseEBgMCR(BaseEBgMCR):
    """The published solver: linear mixing, and modules in folders."""

    def __init__(
        self,
        num_components: int | Sequence[int],
        dim_components: int | None = None,
        sparse_component: bool = False,
        non_negative_component: bool = True,
        component_norm: int | None = 2,
        hidden_size_extension: int | None = 2,
        hidden_layers: int = 2,
        optimizer_class: type[optim.Optimizer] = optim.AdamW,
        optimizer_args: dict[str, Any] = {"lr": 5e-4, "betas": (0.9, 0.995), "weight_decay": 1e-3},  # noqa: B006
        checkpoint_criterion: str | None = "R2",
        checkpoint_threshold: float = 0.97,
        checkpoint_interval: float = 0.005,
        device: str | torch.device = torch.device("cpu"),  # noqa: B008
        mini_batch_size: int = 64,
        max_epoch: int = -1,
        tol_pattern_nmse: float = 0.01,
        tol_energy_ratio: float = 0.5,
        select_prob_threshld: float = 0.9999994,
        min_component_coef: float = 1.0,
        ambiguity_coef: float = 1e-10,
        energy_coef: float = 1e-10,
        ambiguity_penalty: str = "rbf",
        ambiguity_prob_threshold: float = 0.5,
        poly_dim: int = 2,
        matern_nu: float = 1.5,
        temperature_max: float = 1.0,
        temperature_min: float = 0.4,
        temperature_drop_value: float = 0.01,
        temperature_drop_epochs: int = 100,
        temperature_eval: float = 0.01,
        langevin_step_size: float = 0.05,
        langevin_noise: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**given)
        self.component_post_processing: Callable[[Tensor], Tensor] = nn.Identity()
        self.aggregate_function: Callable[[Tensor, Tensor], Tensor] = default_aggreate_function

    def _modules(self) -> list[EBSelectiveMCR]:
        if len(self.stored_mcrs) == 0:
            name = type(self).__name__
            raise RuntimeError(f"No MCR module in {name}, use {name}.fit to acquire the module.")
        return [module for module in self.stored_mcrs if isinstance(module, EBSelectiveMCR)]

    @torch.no_grad()
    def parse_pattern(self, data: Tensor, select_threshold: float | None = None) -> dict[str, Tensor]:
        """Reconstruct spectra with gate noise, as published.

        Parameters
        ----------
        data : Tensor, shape (n, d)
        select_threshold : float, optional
            Replaces `select_prob_threshld`.

        Returns
        -------
        dict of Tensor
            reconstruction (n, d); concentration (n, N, 1) and components (n, N, d), both gated, the latter lazy;
            select_prob (n, N) of 0 and 1. N counts the components of all modules.
        """
        if select_threshold is None:
            select_threshold = self.select_prob_threshld
        checks.number("select_threshold", select_threshold, above=0.0, maximum=1.0)
        modules = self._modules()
        self.stored_mcrs = self.stored_mcrs.eval()
        data = data.to(self.device, modules[0].vanilla_components.dtype)
        outputs = [module(data, select_prob_threshld=select_threshold) for module in modules]
        joined = {
            name: torch.cat([output[key] for output in outputs], dim=1).detach()
            for name, key in (
                ("concentration", "concentration"),
                ("components", "components"),
                ("select_prob", "effective_indices"),
            )
        }
        reconstruction = torch.stack([output["synthesized_pattern"] for output in outputs]).sum(0)
        return {"reconstruction": reconstruction.detach(), **joined}

    def save_mcrs(self, path: str) -> None:
        """Write the module into a folder; several modules into its sub-folders 0, 1, ..."""
        modules = self._modules()
        if len(modules) == 1:
            modules[0].save_pretrained(path)
            return
        for index, module in enumerate(modules):
            module.save_pretrained(os.path.join(path, str(index)))

    def load_mcrs(self, path: str) -> None:
        """Read what `save_mcrs`, or the published package, has written."""
        files = sorted(os.listdir(path), key=lambda name: (len(name), name))
        if any(f.endswith(".safetensors") for f in files) and any(f.endswith(".json") for f in files):
            folders = [path]
        else:
            folders = [folder for folder in (os.path.join(path, f) for f in files) if os.path.isdir(folder)]
        modules = [EBSelectiveMCR(1, 1).from_pretrained(folder) for folder in folders]
        if not modules:
            raise FileNotFoundError(f"'{path}' holds no module: neither its files nor folders with them.")
        lengths = sorted({module.dim_components for module in modules})
        if len(lengths) > 1:
            raise InvalidValueError(f"The modules in '{path}' are for spectra of different lengths: {lengths}.")
        self.stored_mcrs = nn.ModuleList(modules).to(self.device)
        self.dim_components = lengths[0]
