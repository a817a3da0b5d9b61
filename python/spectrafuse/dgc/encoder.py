"""The encoder: bands to L2-normalised pixel embeddings (docs/algorithms/dgc.md, "Encoder")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spectrafuse._runtime import checks
from spectrafuse._runtime.layers import without_values
from spectrafuse.random import RandomStream


def _default_initialisation(conv: nn.Conv1d | nn.Conv2d, stream: RandomStream) -> None:
    """torch's default for convolutions, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), drawn from `stream`."""
    bound = 1.0 / math.sqrt(math.prod(conv.weight.shape[1:]))
    with torch.no_grad():
        for parameter in (conv.weight, conv.bias):
            if parameter is not None:
                parameter.copy_(stream.uniform(parameter.shape, -bound, bound))


def along_pixels(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution with stride 1 and the same length, which leaves its input in the layout it comes in.

    torch's own 1-D convolution copies an input whose channels lie side by side. Here it is an image of one row.

    Parameters
    ----------
    layer : nn.Conv1d
        With an odd kernel.
    x : Tensor (n, any number, pixels)
        Channels beyond the weight's count as zero.

    Returns
    -------
    Tensor (n, D, pixels)
    """
    weight = layer.weight.unsqueeze(2)
    if x.shape[1] > layer.in_channels:
        weight = nn.functional.pad(weight, (0, 0, 0, 0, 0, x.shape[1] - layer.in_channels))
    row = nn.functional.conv2d(x.unsqueeze(2), weight, layer.bias, padding=(0, layer.kernel_size[0] // 2))
    return row.squeeze(2)


class PixelConv(nn.Conv1d):
    """`nn.Conv1d` along the pixels as `along_pixels` computes it."""

    def forward(self, x: Tensor) -> Tensor:
        """Channels (n, D, pixels) from channels (n, any number, pixels)."""
        return along_pixels(self, x)


def _conv1d(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Conv1d:
    layer = without_values(PixelConv, inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    assert isinstance(layer, nn.Conv1d)
    return layer


def _conv2d(channels: int, bias: bool) -> nn.Conv2d:
    layer = without_values(nn.Conv2d, channels, channels, 3, padding=1, bias=bias)
    assert isinstance(layer, nn.Conv2d)
    return layer


class Encoder(nn.Module):
    """Convolutions along the flattened pixels, then over the image, then L2 normalisation.

    Parameters
    ----------
    n_bands : int
        Bands of a cube.
    embed_dim : int
        Length D of an embedding.
    n_spectral_layers : int
        Conv1d + ReLU layers, at least 1; the bands are the channels of the first.
    spectral_kernel_size : int
        Odd. The convolution runs along the row-major flattened pixels: it mixes raster neighbours and wraps from the
        end of a row to the start of the next.
    bias : bool
        Whether the convolutions have biases.
    stream : RandomStream, optional
        Where initial weights are drawn from; seed 0 without it.

    Notes
    -----
    arXiv 2512.24172, sec. 3; names of the parameters as published: `spectral_net.0.weight` ..
    """

    def __init__(
        self,
        n_bands: int,
        embed_dim: int = 32,
        *,
        n_spectral_layers: int = 3,
        spectral_kernel_size: int = 9,
        bias: bool = False,
        stream: RandomStream | None = None,
    ) -> None:
        super().__init__()
        self.n_bands = checks.integer("n_bands", n_bands, maximum=1_000_000)
        self.embed_dim = checks.integer("embed_dim", embed_dim, maximum=10_000)
        self.n_spectral_layers = checks.integer("n_spectral_layers", n_spectral_layers, maximum=1000)
        self.spectral_kernel_size = checks.integer("spectral_kernel_size", spectral_kernel_size, maximum=10_000)
        if spectral_kernel_size % 2 == 0:
            raise checks.fail("spectral_kernel_size", "an odd integer", spectral_kernel_size)
        self.bias = bool(bias)
        stream = RandomStream(0) if stream is None else stream
        layers: list[nn.Module] = []
        for i in range(n_spectral_layers):
            inputs = n_bands if i == 0 else embed_dim
            layers += [_conv1d(inputs, embed_dim, spectral_kernel_size, self.bias), nn.ReLU()]
        self.spectral_net = nn.Sequential(*layers)
        self.spatial_net = nn.Sequential(
            _conv2d(embed_dim, self.bias), nn.ReLU(), _conv2d(embed_dim, self.bias), nn.ReLU()
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                _default_initialisation(module, stream)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (n, D, rows, columns), unit length or zero, of cubes (n, bands, rows, columns).

        Cubes may have more bands, if those are zero: `CropBatch.padded`. Everything stays in the layout of the cubes.
        """
        batch, bands, height, width = x.shape
        y = self.spectral_net(x.reshape(batch, bands, height * width))
        return self.spatial(y.reshape(batch, self.embed_dim, height, width))

    def spatial(self, y: Tensor) -> Tensor:
        """Embeddings (n, D, rows, columns) from what `spectral_net` gives, in the shape of the image."""
        y = self.spatial_net(y)
        # Half-precision norms would lose the unit length: under autocast the embeddings leave in float32.
        if y.dtype in (torch.bfloat16, torch.float16):
            y = y.float()
        return nn.functional.normalize(y, p=2, dim=1, eps=1e-12)
