"""Where the tensors of a training run lie in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse._runtime import extensions

__all__ = ["place_together"]

_HUGE_PAGE, _LINE = 1 << 21, 64


def place_together(tensors: Sequence[Tensor]) -> None:
    """Move tensors to one range of huge pages, side by side; each keeps its identity, its values and its form.

    A step streams through weights and moments. Where they lie on small pages wherever the heap had room, it takes up to
    twice as long: address translations, and pages that displace each other in the cache.

    Parameters
    ----------
    tensors : sequence of Tensor
        Contiguous, in main memory, all of one type. Other tensors that view the same values stay behind.
    """
    sizes = [-(-tensor.nbytes // _LINE) * _LINE for tensor in tensors]
    buffer = torch.empty(sum(sizes) + 2 * _HUGE_PAGE, dtype=torch.uint8)
    offset = -buffer.data_ptr() % _HUGE_PAGE
    extensions.cpu().use_huge_pages(buffer.data_ptr() + offset, -(-sum(sizes) // _HUGE_PAGE) * _HUGE_PAGE)
    for tensor, size in zip(tensors, sizes, strict=True):
        place = buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        tensor.data = place.copy_(tensor.data)
        offset += size
