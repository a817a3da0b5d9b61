"""The training losses of both views and the sums the centers are updated from, term by term as published.

Source: arXiv 2512.24172, training objective, with the public code's details. The aligned consistency is not
published: the public code compares pixels of different places (`consistency`), `aligned_consistency` those of
one place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PROB_EPS = 1e-6


# What a read may take from pixels that are not valid and still count: far above the rounding of a coordinate, so
# that reads at whole pixels do not depend on it, and far below what matters.
READ_TOLERANCE = 1e-4


def mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the values, of all or of those that are valid; without any: 0, with zero gradient."""
    if valid is None:
        return values.sum() / max(values.numel(), 1)
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def compactness(rows: Tensor, probs: Tensor, centers: Tensor, valid: Tensor | None = None) -> Tensor:
    """sum_ik q_ik max(1 - z_i . c_k, 0) / (B N) for rows (B, N, D), probs (B, N, K) and centers (K, D)."""
    distance = (1.0 - torch.matmul(rows, centers.t())).clamp(min=0.0)
    return mean_over((probs * distance).sum(-1), valid)


def uniform_assignment(probs: Tensor, labels: Tensor, eps: float = PROB_EPS, valid: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood of pseudo-labels (B N,), in the order (b, y, x), for probs (B, N, K)."""
    log_probs = torch.log(probs.reshape(-1, probs.shape[-1]).clamp(min=eps))
    likelihood = F.nll_loss(log_probs, labels, reduction="none")
    return mean_over(likelihood, None if valid is None else valid.reshape(-1))


def orthogonality(centers: Tensor) -> Tensor:
    """Squared Frobenius norm of C C^T - I, diagonal included, for centers (K, D)."""
    identity = torch.eye(centers.shape[0], dtype=centers.dtype, device=centers.device)
    return ((centers @ centers.t() - identity) ** 2).sum()


def balance(probs: Tensor, eps: float = PROB_EPS, valid: Tensor | None = None) -> Tensor:
    """Entropy -sum_k m_k log m_k of the marginal m_k = mean_i q_ik + eps, for probs (B, N, K); no pixel: 0."""
    if valid is None:
        valid = torch.ones(probs.shape[:2], dtype=torch.bool, device=probs.device)
    marginal = torch.where(valid.unsqueeze(-1), probs, 0.0).sum(dim=(0, 1)) / valid.sum().clamp(min=1) + eps
    return torch.where(valid.any(), -(marginal * torch.log(marginal)).sum(), 0.0)


def symmetric_divergence(first: Tensor, second: Tensor, eps: float = PROB_EPS) -> Tensor:
    """0.5 (KL(a|b) + KL(b|a)) over the last axis, with a = first + eps and b = second + eps."""
    a, b = first + eps, second + eps
    forth = (a * (a.log() - b.log())).sum(dim=-1)
    back = (b * (b.log() - a.log())).sum(dim=-1)
    return 0.5 * (forth + back)


def consistency(
    first: Tensor, second: Tensor, eps: float = PROB_EPS, valid: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Mean symmetric divergence of two views' probs (B, N, K) at the same index, with gradient to both.

    `valid` has both views' valid pixels (B, N); a pair counts where both are.
    """
    return mean_over(symmetric_divergence(first, second, eps), None if valid is None else valid[0] & valid[1])


def aligned_places(own: Tensor, other: Tensor, crop_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where the pixels of one view lie in the other view.

    Parameters
    ----------
    own, other : Tensor (B, 9)
        Geometry of the two views: corner y, corner x, the affine matrix (2, 3) by rows, band shift.
    crop_size : (int, int)
        Height and width of both views.

    Returns
    -------
    places : Tensor (B, h, w, 2)
        x and y in the other view's normalised coordinates, as `torch.nn.functional.grid_sample` takes them.
    valid : Tensor (B, h, w)
        True where the pixel's place lies inside its own crop window and the other one and was reflected in
        neither, and inside the other view; windows and views reach from -1 to 1, half a pixel beyond the
        outer centers.
    """
    batch = own.shape[0]
    height, width = crop_size
    own_theta, other_theta = own[:, 2:8].reshape(batch, 2, 3), other[:, 2:8].reshape(batch, 2, 3)
    in_own_window = F.affine_grid(own_theta, [batch, 1, height, width], align_corners=False)
    size = torch.tensor([width, height], dtype=own.dtype, device=own.device)
    # A window spans 2 in normalised coordinates.
    offset = (own[:, :2] - other[:, :2]).flip(1) * 2 / size
    in_other_window = in_own_window + offset[:, None, None]
    inverse, _ = torch.linalg.inv_ex(other_theta[:, :, :2])
    from_origin = in_other_window - other_theta[:, None, None, :, 2]
    places = (inverse[:, None, None] @ from_origin.unsqueeze(-1)).squeeze(-1)
    inside = [(coordinates.abs() <= 1).all(-1) for coordinates in (in_own_window, in_other_window, places)]
    valid = inside[0] & inside[1] & inside[2]
    return torch.where(valid.unsqueeze(-1), places, 0.0), valid


def _read(images: Tensor, places: Tensor) -> Tensor:
    """Read images (B, c, h, w) at places (B, h, w, 2) by bilinear interpolation, border reads clamped."""
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


def aligned_consistency(
    first: Tensor, second: Tensor, geometry: Tensor, valid: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean symmetric divergence of two views at the same place of the scene, in both directions.

    Every pixel of one view is compared with the other view's probs at its place, read by bilinear
    interpolation and without gradient. The mean is over the pixels of both directions whose places lie in
    both views and, given `valid`, that are valid and read valid pixels only; without any, value and gradient
    are zero.

    Parameters
    ----------
    first, second : Tensor (B, h, w, K)
    geometry : Tensor (B, 2, 9)
    valid : pair of Tensor (B, h, w) of bool, optional

    Returns
    -------
    Tensor (), and the number of pixels () int64
    """
    if first.shape[0] == 0:  # affine_grid takes no empty batch
        return first.sum(), first.new_zeros((), dtype=torch.int64)
    height, width = first.shape[1:3]
    geometry = geometry.to(first.device, first.dtype)
    total, count = first.new_zeros(()), first.new_zeros(())
    for own, other, view in ((first, second, 0), (second, first, 1)):
        places, counts = aligned_places(geometry[:, view], geometry[:, 1 - view], (height, width))
        if valid is not None:
            missing = (~valid[1 - view]).to(own.dtype).unsqueeze(1)
            counts = counts & valid[view] & (_read(missing, places)[:, 0] <= READ_TOLERANCE)
        read = _read(other.detach().permute(0, 3, 1, 2), places)
        divergence = symmetric_divergence(own, read.permute(0, 2, 3, 1))
        total = total + torch.where(counts, divergence, 0.0).sum()
        count = count + counts.sum()
    return total / count.clamp(min=1), count.long()


def memory_order_rows(shifted: Tensor) -> Tensor:
    """Rows (B h w, D) of shifted embeddings (B, D, h, w) by memory order: the published, wrong, pairing."""
    return shifted.reshape(-1, shifted.shape[1])


def pixel_rows(shifted: Tensor) -> Tensor:
    """Rows (B h w, D) of shifted embeddings (B, D, h, w), one per pixel."""
    return shifted.permute(0, 2, 3, 1).reshape(-1, shifted.shape[1])


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
        Mass, sums and counts are detached.
    """
    batch, dim, height, width = embeddings.shape
    batch //= 2
    pixels, clusters = height * width, centers.shape[0]
    compact, marginal, uniform = [], [], []
    for view in range(2):
        span = slice(view * batch, (view + 1) * batch)
        rows = embeddings[span].reshape(batch, dim, pixels).permute(0, 2, 1)
        view_probs = probs[span].reshape(batch, pixels, clusters)
        view_valid = None if valid is None else valid[span].reshape(batch, pixels)
        compact.append(compactness(rows, view_probs, centers, view_valid))
        marginal.append(balance(view_probs, valid=view_valid))
        if pseudo_labels is not None:
            uniform.append(uniform_assignment(view_probs, pseudo_labels[view], valid=view_valid))
    both_valid = None if valid is None else (valid[:batch], valid[batch:])
    counted = torch.ones(probs.shape[:3], dtype=torch.bool, device=probs.device) if valid is None else valid
    counted = counted.reshape(2, batch * pixels)
    if aligned:
        assert geometry is not None
        agreement, compared = aligned_consistency(probs[:batch], probs[batch:], geometry, both_valid)
    else:
        agreement = consistency(probs[:batch], probs[batch:], valid=both_valid)
        compared = (counted[0] & counted[1]).sum()
    flat_probs = probs.detach().reshape(-1, clusters)
    if valid is not None:
        flat_probs = torch.where(valid.reshape(-1, 1), flat_probs, 0.0)
    flat_rows = (memory_order_rows if memory_order_sums else pixel_rows)(shifted.detach())
    return (
        torch.stack(compact),
        (uniform[0] + uniform[1]) / 2 if uniform else probs.new_zeros(()),
        orthogonality(centers),
        (marginal[0] + marginal[1]) / 2,
        agreement,
        flat_probs.sum(dim=0),
        flat_probs.t() @ flat_rows,
        torch.stack((*counted.sum(1), compared)),
    )
