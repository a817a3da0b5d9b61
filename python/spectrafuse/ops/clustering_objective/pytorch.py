"""The training losses of both views and the sums for the centers, with few passes over the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

PROB_EPS = 1e-6
# What a read may take from pixels that are not valid and still count.
READ_TOLERANCE = 1e-4


def _apply(theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of theta (B, 2, 3) applied to normalised coordinates that broadcast to (B, h, w)."""
    coefficients = theta[:, :, :, None, None]
    first = coefficients[:, 0, 0] * x + coefficients[:, 0, 1] * y + coefficients[:, 0, 2]
    second = coefficients[:, 1, 0] * x + coefficients[:, 1, 1] * y + coefficients[:, 1, 2]
    return first, second


def _aligned_places(own: Tensor, other: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Column and row (B, h, w), in pixels of the other view, of one view's pixels, and where they are valid.

    Valid: inside the own crop window, the other crop window and the other view, each from -1 to 1 in
    normalised coordinates, that is half a pixel beyond the outer pixel centers.
    """
    x = (2 * torch.arange(width, device=own.device, dtype=own.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=own.device, dtype=own.dtype) + 1) / height - 1
    own_x, own_y = _apply(own[:, 2:8].reshape(-1, 2, 3), x, y[:, None])
    offset = 2 * (own[:, :2] - other[:, :2])[:, :, None, None]
    other_x, other_y = own_x + offset[:, 1] / width, own_y + offset[:, 0] / height
    a, b, shift_x, c, d, shift_y = other[:, 2:8, None, None].unbind(1)
    determinant = a * d - b * c
    from_x, from_y = other_x - shift_x, other_y - shift_y
    view_x = (d * from_x - b * from_y) / determinant
    view_y = (a * from_y - c * from_x) / determinant
    furthest = own_x.abs()
    for coordinate in (own_y, other_x, other_y, view_x, view_y):
        furthest = torch.maximum(furthest, coordinate.abs())
    # A singular matrix gives inf or nan, which compare as not valid.
    valid = furthest <= 1
    column = ((torch.where(valid, view_x, 0.0) + 1) * width - 1) / 2
    row = ((torch.where(valid, view_y, 0.0) + 1) * height - 1) / 2
    return column.clamp(0, width - 1), row.clamp(0, height - 1), valid


def _bilinear(probs: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Read probs (B, h, w, K) at columns and rows (B, h, w) inside the image."""
    batch, height, width, clusters = probs.shape
    left, top = column.floor(), row.floor()
    right_weight, bottom_weight = (column - left).unsqueeze(-1), (row - top).unsqueeze(-1)
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    flat = probs.reshape(-1, clusters)
    base = torch.arange(batch, device=probs.device)[:, None, None] * height

    def read(rows: Tensor, columns: Tensor) -> Tensor:
        return flat[(base + rows) * width + columns]

    upper = torch.lerp(read(top, left), read(top, right), right_weight)
    lower = torch.lerp(read(bottom, left), read(bottom, right), right_weight)
    return torch.lerp(upper, lower, bottom_weight)


def _symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """0.5 (KL(a|b) + KL(b|a)) = 0.5 sum (a - b) (log a - log b) over the last axis."""
    a, b = first + PROB_EPS, second + PROB_EPS
    return 0.5 * ((a - b) * (a.log() - b.log())).sum(-1)


def _aligned_consistency(probs: Tensor, geometry: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean divergence of the views at the same place, and where it counts; what is read carries no gradient."""
    batch, height, width, _ = probs.shape
    geometry = geometry.to(probs.device, probs.dtype)
    own, other = geometry.transpose(0, 1).flatten(0, 1), geometry.flip(1).transpose(0, 1).flatten(0, 1)
    column, row, counts = _aligned_places(own, other, height, width)
    if valid is not None:
        missing = (~valid).to(probs.dtype).roll(batch // 2, dims=0).unsqueeze(-1)
        counts = counts & valid & (_bilinear(missing, column, row).squeeze(-1) <= READ_TOLERANCE)
    read = _bilinear(probs.detach().roll(batch // 2, dims=0), column, row)
    return _mean(_symmetric_divergence(probs, read), counts), counts


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of all values, or of the valid ones; without any: 0, with zero gradient."""
    if valid is None:
        return values.sum() / max(values.numel(), 1)
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def clustering_terms(
    embeddings: Tensor,
    shifted: Tensor,
    probs: Tensor,
    centers: Tensor,
    geometry: Tensor | None,
    *,
    aligned: bool,
    pseudo_labels: Tensor | None,
    memory_order_sums: bool,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The losses of both views and the sums for the centers, from finished assignments.

    Parameters
    ----------
    embeddings, shifted : Tensor (2B, D, h, w)
        First views of all samples, then second views: the encoder's embeddings and the moved ones.
    probs : Tensor (2B, h, w, K)
    centers : Tensor (K, D)
    geometry : Tensor (B, 2, 9) or None
        Needed if `aligned`.
    aligned : bool
        Consistency at the same place of the scene, or at the same index as published.
    pseudo_labels : Tensor (2, B h w) or None
    memory_order_sums : bool
        Pair assignments and moved embeddings as published.
    valid : Tensor (2B, h, w) of bool, or None
        Pixels that count.

    Returns
    -------
    compactness (2,), uniform (), orthogonality (), balance (), consistency (), mass (K,), sums (K, D), counts (3,)
        Mass, sums and counts are detached. float64 for float64 inputs, else float32.
    """
    views, dim, height, width = embeddings.shape
    pairs = views // 2
    clusters = centers.shape[0]
    working = embeddings.dtype if embeddings.dtype == torch.float64 else torch.float32
    embeddings, probs, centers = embeddings.to(working), probs.to(working), centers.to(working)
    # Assignments that count: zero where a pixel is not valid.
    counted = probs if valid is None else torch.where(valid.unsqueeze(-1), probs, 0.0)
    columns = counted.reshape(views, height * width, clusters).transpose(1, 2)
    pixels = centers.new_full((2,), pairs * height * width)
    if valid is not None:
        pixels = valid.reshape(2, pairs * height * width).sum(1)
    pixels_or_one = pixels.clamp_min(1)

    similarity = centers @ embeddings.reshape(views, dim, height * width)
    distance = columns * (1 - similarity).clamp_min(0)
    compactness = distance.unflatten(0, (2, pairs)).sum((1, 2, 3)) / pixels_or_one

    uniform = probs.new_zeros(())
    if pseudo_labels is not None:
        likelihood = probs.reshape(2, pairs * height * width, clusters).gather(2, pseudo_labels.unsqueeze(2))
        surprise = -likelihood.squeeze(2).clamp_min(PROB_EPS).log()
        if valid is not None:
            surprise = torch.where(valid.reshape(2, pairs * height * width), surprise, 0.0)
        uniform = (surprise.sum(1) / pixels_or_one).mean()

    identity = torch.eye(clusters, dtype=working, device=centers.device)
    orthogonality = (centers @ centers.t() - identity).square().sum()

    marginal = counted.unflatten(0, (2, pairs)).sum((1, 2, 3)) / pixels_or_one.unsqueeze(1) + PROB_EPS
    entropy = -(marginal * marginal.log()).sum(1)
    balance = torch.where(pixels > 0, entropy, 0.0).mean()

    if aligned:
        assert geometry is not None
        consistency, compared = _aligned_consistency(probs, geometry, valid)
    else:
        divergence = _symmetric_divergence(probs[:pairs], probs[pairs:])
        compared = torch.ones_like(divergence, dtype=torch.bool) if valid is None else valid[:pairs] & valid[pairs:]
        consistency = _mean(divergence, None if valid is None else compared)

    with torch.no_grad():
        mass = columns.sum((0, 2))
        moved = shifted.detach().to(working)
        if memory_order_sums:
            sums = counted.reshape(-1, clusters).t() @ moved.reshape(-1, dim)
        else:
            sums = (columns @ moved.reshape(views, dim, height * width).transpose(1, 2)).sum(0)
    counts = torch.stack((*pixels.long(), compared.sum()))
    return compactness, uniform, orthogonality, balance, consistency, mass, sums, counts
