"""Both crops of a training step in the layout that convolutions are fastest on, and when the encoder takes them so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse import ops
from spectrafuse._runtime.hooks import has_hooks
from spectrafuse.compat.hsi_global_clustering.module.encoder import HyperspectralEncoder
from spectrafuse.dgc.encoder import along_pixels
from spectrafuse.ops.scene_spectra import filled_bands

__all__ = ["ENCODES", "Crops", "as_views", "embed", "replaced", "room_for_both", "side_by_side", "why_one_by_one"]

Crops = Tensor | tuple[Tensor, Tensor]
"""Both together (2B, at least C, h, w), the bands of a pixel side by side and filled up with zeros; or one by one."""

ENCODES = ("forward", "spatial")
"""What an encoder computes with; `spectrafuse.patch` gives it to the published class."""


def replaced(part: Any, kind: type, names: tuple[str, ...]) -> str | None:
    """The first of `names` that a subclass or an instance puts in the place of the class's own.

    Under `spectrafuse.patch` the published classes have those of ours.
    """
    owner = type(part)
    return next((n for n in names if getattr(owner, n, None) is not getattr(kind, n) or n in vars(part)), None)


def why_one_by_one(model: Any) -> str | None:
    """Why `train_step` calls the encoder for each crop, on bands as planes of pixels, which takes longer.

    Parameters
    ----------
    model : HyperspectralClusteringModel

    Returns
    -------
    str or None
        A sentence; None: its convolutions run on both crops together, with the bands of a pixel side by side.
    """
    encoder = model.encoder
    name = replaced(encoder, HyperspectralEncoder, ("__call__", *ENCODES))
    if name is not None:
        return f"{type(encoder).__name__} has its own {name}."
    if nn.modules.module._has_any_global_hook() or any(map(has_hooks, encoder.modules())):
        return "A hook on `encoder`, or on all modules, has to be called."
    for net, kind in ((encoder.spectral_net, nn.Conv1d), (encoder.spatial_net, nn.Conv2d)):
        strange = _strange_layer(net, kind)
        if strange is not None:
            return f"`encoder` has a layer of the caller's, {strange}."
    return None


def _strange_layer(net: nn.Module, kind: type[nn.Module]) -> nn.Module | None:
    """What is neither a ReLU nor a convolution of this kind that keeps the size; the first layer is a convolution."""
    if type(net) is not nn.Sequential or "forward" in vars(net) or not net or type(net[0]) is not kind:
        return net
    return next((layer for layer in net if not _known(layer, kind)), None)


def _known(layer: nn.Module, kind: type[nn.Module]) -> bool:
    if "forward" in vars(layer) or type(layer) is not kind:
        return type(layer) is nn.ReLU and "forward" not in vars(layer)
    if not isinstance(layer, nn.Conv1d):
        return True  # it is called as it is
    (size,) = layer.kernel_size
    options = (layer.stride, layer.dilation, layer.groups, layer.padding_mode, layer.padding)
    return size % 2 == 1 and options == ((1,), (1,), 1, "zeros", (size // 2,))


def room_for_both(encoder: Any, batch: Tensor, crop_size: Sequence[int], before: Crops | None = None) -> Tensor | None:
    """Memory for both crops together of B cubes or crops (B, C, any height, any width); None: `encoder` takes no such.

    Parameters
    ----------
    before : Crops, optional
        Taken again where it has the size: memory that was written to before is faster than fresh memory.
    """
    count, bands = batch.shape[:2]
    if batch.dtype not in (torch.float32, torch.float64) or bands != encoder.spectral_net[0].in_channels:
        return None
    shape, kind = (2 * count, filled_bands(bands), *crop_size), (batch.dtype, batch.device)
    if isinstance(before, Tensor) and before.shape == shape and (before.dtype, before.device) == kind:
        return before
    together = batch.new_empty(2 * count, *crop_size, shape[1]).permute(0, 3, 1, 2)
    together[:, bands:] = 0
    return together


def side_by_side(encoder: Any, first: Tensor, second: Tensor, before: Crops | None = None) -> Crops:
    """Two crops (B, C, h, w) together; as they are where that cannot be, as for crops with gradient."""
    alike = (first.shape, first.dtype, first.device) == (second.shape, second.dtype, second.device)
    if not alike or first.requires_grad or second.requires_grad:
        return first, second
    together = room_for_both(encoder, first, first.shape[2:], before)
    if together is None:
        return first, second
    for crop, spectra in zip((*first, *second), together.permute(0, 2, 3, 1), strict=True):
        ops.scene_spectra(crop, spectra)
    return together


def as_views(together: Tensor, bands: int) -> Tensor:
    """Both crops together as views (B, 2, C, h, w) of a batch, in the same memory."""
    return together[:, :bands].unflatten(0, (2, -1)).transpose(0, 1)


def embed(encoder: Any, crops: Tensor) -> Tensor:
    """Embeddings (2B, D, h, w) of both crops together, as `encoder` gives them one by one."""
    y = crops.flatten(2)
    for layer in encoder.spectral_net:
        y = along_pixels(layer, y) if isinstance(layer, nn.Conv1d) else layer(y)
    embeddings: Tensor = encoder.spatial(y.unflatten(2, crops.shape[2:]))
    return embeddings
