"""The published encoder's name and arguments on `spectrafuse.dgc.encoder`."""

from __future__ import annotations

from torch import nn

from spectrafuse.dgc.encoder import Encoder

__all__ = ["HyperspectralEncoder"]


class HyperspectralEncoder(Encoder):
    """Cubes (B, C, H, W) to embeddings (B, D, H, W) of unit length (docs/algorithms/dgc.md, "Encoder").

    Parameters
    ----------
    num_bands : int
        Bands C.
    n_spectral_layers, spectral_kernel_size : int
        Conv1d + ReLU layers along the flattened pixels, and their odd kernel.
    embed_dim : int
        Embedding length D.
    bias, inplace : bool
        Of the convolutions, and of the ReLUs.

    Notes
    -----
    Initial weights come from torch's global generator in the published order: a seed gives the published weights.
    Under autocast the embeddings leave in float32 instead of the narrow type.
    """

    def __init__(
        self,
        num_bands: int,
        n_spectral_layers: int = 3,
        spectral_kernel_size: int = 3,
        embed_dim: int = 32,
        bias: bool = True,
        inplace: bool = False,
    ) -> None:
        # Not Encoder's own initialization: it draws from a RandomStream.
        nn.Module.__init__(self)
        self.num_bands = num_bands
        self.n_spectral_layers = n_spectral_layers
        self.spectral_kernel_size = spectral_kernel_size
        self.embed_dim = embed_dim
        self.bias = bias
        self.inplace = inplace
        layers: list[nn.Module] = []
        for layer in range(n_spectral_layers):
            inputs = embed_dim if layer else num_bands
            padding = spectral_kernel_size // 2
            layers += [nn.Conv1d(inputs, embed_dim, spectral_kernel_size, padding=padding, bias=bias)]
            layers += [nn.ReLU(inplace=inplace)]
        self.spectral_net = nn.Sequential(*layers)
        layers = []
        for _ in range(2):
            layers += [nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=bias), nn.ReLU(inplace=inplace)]
        self.spatial_net = nn.Sequential(*layers)

    @property
    def n_bands(self) -> int:  # type: ignore[override]
        """Bands C, under the name that `spectrafuse.dgc` uses."""
        return self.num_bands
