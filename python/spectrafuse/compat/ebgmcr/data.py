"""Data sources of the published package (its `data.py`): synthetic mixtures, and two real sets in CSV files."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.compat.ebgmcr.checks import Option, flag, integer, number, optional, whole_number
from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.compat.ebgmcr.recipes import SelectedComponents
from spectrafuse.io.spectra import read_spectra
from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer

__all__ = ["CsvComponentMixtureLoader", "RandomComponentMixtureSynthesizer"]


def _device(name: str, value: Any) -> torch.device:
    if value is None:
        return torch.device("cpu")
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.device("cpu" if value < 0 else f"cuda:{value}")
    return torch.device(value)


class RandomComponentMixtureSynthesizer:
    """Mixtures of random components, seeded by torch's global generator.

    `spectrafuse.mcr.synthesize.MixtureSynthesizer` under the published names.

    Parameters
    ----------
    component_number, component_dim : int
        Components N and their length d.
    component_sparsity : float
        Share of zeros in the components.
    non_negative_component, orthogonal_component : bool
    component_norm : int or None
    min_mixing_component, max_mixing_component : int
        Components in a sample; at most -1: all.
    min_concentration, max_concentration : float
    signal_to_nosie_ratio : float or None
        In dB; None: no noise.
    components : Tensor, shape (N, d), optional
        Instead of random ones; their number, length, sparsity and sign replace the options.
    device : int, torch.device or None
        -1 and None: the CPU.
    """

    component_number = Option(integer(1))
    component_dim = Option(integer(1))
    component_sparsity = Option(number(minimum=0.0, maximum=1.0))
    non_negative_component = Option(flag)
    orthogonal_component = Option(flag)
    component_norm = Option(optional(integer(1)))
    min_mixing_component = Option(integer(1))
    max_mixing_component = Option(whole_number)
    min_concentration = Option(number(above=0.0))
    max_concentration = Option(number(above=0.0))
    signal_to_nosie_ratio = Option(optional(number(minimum=0.0)))
    device = Option(_device)

    def __init__(
        self,
        component_number: int,
        component_dim: int,
        component_sparsity: float = 0.0,
        non_negative_component: bool = True,
        orthogonal_component: bool = True,
        component_norm: int | None = None,
        min_mixing_component: int = 1,
        max_mixing_component: int = -1,
        min_concentration: float = 1.0,
        max_concentration: float = 10.0,
        signal_to_nosie_ratio: float | None = None,
        components: Tensor | None = None,
        device: int | torch.device | None = None,
    ) -> None:
        self.component_number = component_number
        self.component_dim = component_dim
        self.component_sparsity = component_sparsity
        self.non_negative_component = non_negative_component
        self.orthogonal_component = orthogonal_component
        self.component_norm = component_norm
        self.min_mixing_component = min_mixing_component
        self.max_mixing_component = max_mixing_component
        self.min_concentration = min_concentration
        self.max_concentration = max_concentration
        self.signal_to_nosie_ratio = signal_to_nosie_ratio
        self.device = device
        if components is not None:
            self.component_number, self.component_dim = components.shape
            self.component_sparsity = float((components == 0).float().mean())
            self.non_negative_component = bool((components >= 0).all())
            self.orthogonal_component = False
            self.component_norm = None
        else:
            components = self._synthesizer(None).components
        self.components: Tensor = components.detach().to(self.device)

    def _synthesizer(self, components: Tensor | None) -> MixtureSynthesizer:
        return MixtureSynthesizer(
            self.component_number,
            self.component_dim,
            sparsity=self.component_sparsity,
            non_negative=self.non_negative_component,
            orthogonal=self.orthogonal_component,
            norm=self.component_norm,
            min_mixing=self.min_mixing_component,
            max_mixing=self.max_mixing_component if self.max_mixing_component > 0 else None,
            concentration_range=(self.min_concentration, self.max_concentration),
            snr_db=self.signal_to_nosie_ratio,
            components=components,
            random_state=int(torch.randint(2**62, ())),
        )

    def __repr__(self) -> str:
        norm = "" if self.component_norm is None else f", component_norm={self.component_norm}"
        return (
            f"{type(self).__name__}(component_number={self.component_number}, component_dim={self.component_dim}, "
            f"non_negative={self.non_negative_component}{norm})"
        )

    def generate(
        self, sample_number: int, separation_mode: bool = False
    ) -> Tensor | tuple[Tensor, Tensor, Tensor, list[int]]:
        """Draw mixtures.

        Parameters
        ----------
        sample_number : int
            Number of samples n.
        separation_mode : bool
            Return what they are made of, too.

        Returns
        -------
        data : Tensor, shape (n, d)
        weights : Tensor, shape (n, k)
            Concentrations of the components of each sample, k as many as the largest sample has, padded with 0.
        selected_components : Tensor, shape (n, k, d), lazy
        selected_indices : list of int
            Components that some sample holds.
        """
        mixtures = self._synthesizer(self.components.cpu()).generate(sample_number)
        data = mixtures.spectra.to(self.device)
        if not separation_mode:
            return data
        weights, indices = _by_sample(mixtures)
        used = (mixtures.concentrations > 0).any(dim=0).nonzero().squeeze(1).tolist()
        selected = LazyTensor(SelectedComponents(mixtures.components.to(self.device), indices.to(self.device)))
        return data, weights.to(self.device), selected, used

    def __call__(
        self, sample_number: int | None = None, separation_mode: bool = False, device: Any = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor, list[int]]:
        if device is not None:
            self.device = device
        return self.generate(1 if sample_number is None else sample_number, separation_mode=separation_mode)


def _by_sample(mixtures: Mixtures) -> tuple[Tensor, Tensor]:
    """Concentrations and components (n, k) of each sample in random order, absent ones last."""
    present = mixtures.concentrations > 0
    most = int(present.sum(dim=1).max())
    order = torch.rand(present.shape).masked_fill(~present, 2.0).argsort(dim=1)[:, :most]
    return mixtures.concentrations.gather(1, order), order


class CsvComponentMixtureLoader:
    """Two real data sets from CSV files, "carbs" and "nir".

    Parameters
    ----------
    data_dir : str
        Folder of carbs_D_spectra.csv, carbs_C_concentrations.csv, carbs_S_endmembers.csv, nir_D_spectra.csv and
        nir_C_concentrations.csv.
    """

    def __init__(self, data_dir: str = "real_dataset") -> None:
        self.data_dir = data_dir
        self._map: dict[str, tuple[str, str, str | None]] = {
            "carbs": ("carbs_D_spectra.csv", "carbs_C_concentrations.csv", "carbs_S_endmembers.csv"),
            "nir": ("nir_D_spectra.csv", "nir_C_concentrations.csv", None),
        }

    def _read(self, name: str) -> Tensor:
        path = os.path.join(self.data_dir, name)
        return torch.from_numpy(read_spectra(path, header=True, index=False, spectra_in="rows").data)

    def __call__(
        self, batch_size: int | None = None, dataset: str = "carbs", device: str | torch.device = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Spectra (n, d), concentrations (n, k) and components (d, k) of `batch_size` random samples, or of all.

        Where there is no file of components they are the least-squares solution for the concentrations.
        """
        if dataset not in self._map:
            raise InvalidValueError(f"Unknown dataset '{dataset}'; choose from {list(self._map)}")
        spectra_file, concentration_file, component_file = self._map[dataset]
        spectra, concentrations = self._read(spectra_file), self._read(concentration_file)
        if component_file is None:
            components = (torch.linalg.pinv(concentrations) @ spectra).T
        else:
            components = self._read(component_file)[:, 1:]
        count = len(spectra)
        if batch_size is not None and batch_size > count:
            raise InvalidValueError(f"batch_size={batch_size} > number of samples={count}")
        chosen = torch.arange(count)
        if batch_size is not None and batch_size < count:
            chosen = torch.randperm(count)[:batch_size]
        return spectra[chosen].to(device), concentrations[chosen].to(device), components.to(device)
