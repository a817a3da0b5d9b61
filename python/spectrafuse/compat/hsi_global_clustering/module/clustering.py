"""The published mean-shift module's name, arguments and losses on `spectrafuse.ops`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectrafuse import ops
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.dgc.model import Clusters
from spectrafuse.ops.clustering_objective import balance, compactness, consistency, orthogonality, uniform_assignment

__all__ = ["UnrolledMeanShift", "equally_frequent_labels"]


def equally_frequent_labels(pixels: int, clusters: int, device: torch.device) -> Tensor:
    """Labels (pixels,) from 0 to clusters - 1 in random order, from torch's global generator as published."""
    each = torch.arange(clusters, device=device)
    labels = torch.cat((each.repeat_interleave(pixels // clusters), each[: pixels % clusters]))
    return labels[torch.randperm(pixels, device=device)]


class UnrolledMeanShift(Clusters):
    """Mean shift, soft assignment to trainable centers, and the losses

    See docs/algorithms/dgc.md, "Mean shift and assignment" and "Losses".

    Parameters
    ----------
    embed_dim, n_clusters, num_iters : int
        Embedding length D, clusters K, iterations T (0: the embeddings stay as they are).
    learn_bandwidth : bool
        Whether `log_bandwidth` is a parameter or a buffer.
    init_bandwidth, temp : float
        Initial bandwidth, and temperature of the assignment; positive.
    use_approx : bool
        A window of `kernel_size` x `kernel_size` pixels, odd, instead of all pixels.
    kernel_size : int
        Side of the window.

    Notes
    -----
    Initial centers come from torch's global generator, as published.
    """

    def __init__(
        self,
        embed_dim: int = 32,
        n_clusters: int = 4,
        num_iters: int = 5,
        learn_bandwidth: bool = True,
        init_bandwidth: float = 1.0,
        temp: float = 0.05,
        use_approx: bool = True,
        kernel_size: int = 5,
    ) -> None:
        # Not Clusters' own initialization: it draws from a RandomStream.
        nn.Module.__init__(self)
        self.embed_dim = embed_dim
        self.n_clusters = n_clusters
        self.num_iters = num_iters
        self.learn_bandwidth = learn_bandwidth
        self.temp = temp
        self.use_approx = use_approx
        self.kernel_size = kernel_size
        start = (torch.tensor(float(init_bandwidth)).exp() - 1).log()
        if learn_bandwidth:
            self.log_bandwidth = nn.Parameter(start)
        else:
            self.register_buffer("log_bandwidth", start)
        self.cluster_centers = nn.Parameter(F.normalize(torch.randn(n_clusters, embed_dim), p=2, dim=1))

    def _shift(self, embeddings: Tensor, centers: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Shifted embeddings (B, D, H, W) and assignments (B, H, W, K)."""
        window, dense = (ops.operations()[name] for name in ("mean_shift_assign", "dense_mean_shift"))
        literally = eps != 1e-6  # the kernels know one value
        options: dict[str, Any] = {"window": self.kernel_size, "temperature": self.temp}
        if self.use_approx and self.num_iters > 0:
            options["num_iters"] = self.num_iters
            if literally:
                return window.reference(embeddings, centers, self.bandwidth, eps=eps, **options)
            return ops.mean_shift_assign(embeddings, centers, self.bandwidth, **options)
        if self.num_iters == 0:
            shifted = embeddings
        elif literally:
            shifted = dense.reference(embeddings, self.bandwidth, num_iters=self.num_iters, eps=eps)
        else:
            shifted = ops.dense_mean_shift(embeddings, self.bandwidth, num_iters=self.num_iters)
        return window.reference(shifted, centers, self.bandwidth, num_iters=0, **options)

    def forward(
        self,
        embeddings: Tensor,
        eps: float = 1e-6,
        return_probs: bool = False,
        return_labels: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Shift embeddings and assign them to clusters.

        Parameters
        ----------
        embeddings : Tensor (B, D, H, W)
            Of unit length over D.
        eps : float
            Added to the sum of the weights.
        return_probs, return_labels : bool
            Also return assignments (B, H, W, K), and the most probable clusters (B, H, W).

        Returns
        -------
        Tensor or tuple
            Shifted embeddings (B, D, H, W), not normalized; alone, or first in a tuple with what else was asked for.
        """
        shifted, probs = self._shift(embeddings, self.cluster_centers.to(embeddings.dtype), eps)
        outputs: tuple[Tensor, ...] = (shifted,)
        if return_probs:
            outputs += (probs,)
        if return_labels:
            outputs += (probs.argmax(-1),)
        return outputs[0] if len(outputs) == 1 else outputs

    def get_cluster_centers(self) -> Tensor:
        """Cluster centers (K, D)."""
        return self.cluster_centers

    @torch.no_grad()
    def assign_clusters(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Assignments (B, H, W, K) and labels (B, H, W), in evaluation mode and without gradient."""
        training = self.training
        self.eval()
        try:
            _, probs, labels = self.forward(embeddings, return_probs=True, return_labels=True)
        finally:
            self.train(training)
        return probs, labels

    def compute_compactness_loss(self, z_normed: Tensor, probs: Tensor) -> Tensor:
        """Mean distance 1 - cosine of embeddings (B, N, D) to the centers, weighted by probs (B, N, K)."""
        return compactness(z_normed, probs, self.cluster_centers)

    def compute_orthogonality_loss(self) -> Tensor:
        """Squared entries of C C^T - I, summed, diagonal included."""
        return orthogonality(self.cluster_centers)

    def compute_balance_loss(self, probs: Tensor, eps: float = 1e-6) -> Tensor:
        """Entropy of the clusters' shares in probs (B, N, K); adding it to a loss favors one cluster, as published."""
        return balance(probs, eps)

    def compute_uniform_assignment_loss(self, probs: Tensor, eps: float = 1e-6) -> Tensor:
        """Mean negative log-likelihood in probs (B, N, K) of equally frequent random labels (global generator)."""
        clusters = probs.shape[-1]
        return uniform_assignment(
            probs, equally_frequent_labels(probs.numel() // clusters, clusters, probs.device), eps
        )

    def compute_consistency_loss(self, p1: Tensor, p2: Tensor, eps: float = 1e-6) -> Tensor:
        """Mean symmetric Kullback-Leibler divergence of p1 and p2 (B, N, K), index by index."""
        return consistency(p1, p2, eps)

    @torch.no_grad()
    def prune_low_mass_clusters(self, probs: Tensor, threshold: float = 0.005) -> Tensor:
        """Remove clusters whose mean probability is below `threshold`.

        Parameters
        ----------
        probs : Tensor (B, N, K)
        threshold : float

        Returns
        -------
        Tensor of int64
            Numbers of the clusters that are left, in order.

        Raises
        ------
        ValueError
            If none would be left.

        Notes
        -----
        The parameter stays the same object and takes a new shape: an optimizer made before it has state of the old
        shape, so make a new one to train on.
        """
        share = probs.mean(dim=(0, 1))
        kept = (share >= threshold).nonzero().view(-1)
        if kept.numel() == 0:
            raise InvalidValueError(
                f"`threshold` must leave at least one cluster; the largest has a share of {share.max().item():.4g}, "
                f"below {threshold:g}."
            )
        self.cluster_centers.grad = None
        self.cluster_centers.data = F.normalize(self.cluster_centers[kept], p=2, dim=1)
        self.n_clusters = kept.numel()
        return kept
