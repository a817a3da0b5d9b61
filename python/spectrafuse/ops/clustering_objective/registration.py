"""The kernels of `clustering_objective`, registered with torch.

Embeddings may have any float type and strides; the working type is float64 for float64 embeddings, else float32.
Without `geometry` the views are compared index by index. Returned terms, mass, sums and probs are as in
`ClusteringTerms`, of the working type. For the backward:

    probs      (2B, h, w, K)   the assignments; (0, h, w, K) without keep_probs
    previous   (2B, D, h, w)   z before the last iteration, working type; (0, D, h, w) without keep_previous
    marginals  (2, K) float64  mean assignment + 1e-6 of each view's valid pixels
    counts     (3,) int64      valid pixels of both views, and the pairs that the consistency compared

Everything lies on the embeddings' device. Differentiable outputs: the five terms and probs. A gradient that is not
given counts as zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register

Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""compactness, uniform, orthogonality, balance, consistency, mass, sums, probs, previous, marginals, counts"""


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


class _Inputs:
    """The tensors both kernels read, in the types and layouts they take; alive as long as their addresses."""

    def __init__(
        self,
        embeddings: Tensor,
        centers: Tensor,
        geometry: Tensor | None,
        pseudo_labels: Tensor | None,
        valid: Tensor | None,
    ) -> None:
        working = extensions.working_dtype(embeddings.dtype)
        self.embeddings = embeddings.to(working)
        self.tensors = (
            self.embeddings,
            centers.to(working).contiguous(),
            None if geometry is None else geometry.to(torch.float64).contiguous(),
            None if pseudo_labels is None else pseudo_labels.contiguous(),
            None if valid is None else valid.contiguous(),
        )
        self.dtype_code = extensions.DTYPE_CODE[working]
        self.sizes = (*embeddings.shape, centers.shape[0])
        self.addresses = [_address(x) for x in self.tensors]


def _forward_cpu(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    num_iters: int,
    window: int,
    temperature: float,
    memory_order_sums: bool,
    keep_probs: bool,
    keep_previous: bool,
) -> Outputs:
    inputs = _Inputs(embeddings, centers, geometry, pseudo_labels, valid)
    e = inputs.embeddings
    views, dim, height, width = e.shape
    clusters = centers.shape[0]
    # The consistency reads the assignments of the other view, so they are needed even where nobody keeps them.
    probs = e.new_empty((views, height, width, clusters))
    previous = e.new_empty((views if keep_previous else 0, dim, height, width))
    shifted = e.new_empty((views, dim, height, width)) if memory_order_sums else None
    mass = torch.empty(clusters, dtype=torch.float64, device="cpu")
    sums = torch.empty((clusters, dim), dtype=torch.float64, device="cpu")
    marginals = torch.empty((2, clusters), dtype=torch.float64, device="cpu")
    counts = torch.empty(3, dtype=torch.int64, device="cpu")
    terms = extensions.cpu().clustering_objective_forward(
        inputs.dtype_code, inputs.sizes, e.stride(), num_iters, window, bandwidth.item(), temperature,
        inputs.addresses, probs.data_ptr(), previous.data_ptr() if keep_previous else 0, _address(shifted),
        mass.data_ptr(), sums.data_ptr(), marginals.data_ptr(), counts.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    uniform, orthogonality, balance, consistency = (e.new_tensor(term) for term in terms[2:])
    return (
        e.new_tensor(terms[:2]),
        uniform,
        orthogonality,
        balance,
        consistency,
        mass.to(e.dtype),
        sums.to(e.dtype),
        probs if keep_probs else probs.new_empty((0, height, width, clusters)),
        previous,
        marginals,
        counts,
    )


def _backward_cpu(
    grad_compactness: Tensor | None,
    grad_uniform: Tensor | None,
    grad_orthogonality: Tensor | None,
    grad_balance: Tensor | None,
    grad_consistency: Tensor | None,
    grad_probs: Tensor | None,
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    probs: Tensor,
    previous: Tensor,
    marginals: Tensor,
    counts: Tensor,
    window: int,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = _Inputs(embeddings, centers, geometry, pseudo_labels, valid)
    scalars = (grad_uniform, grad_orthogonality, grad_balance, grad_consistency)
    terms = [0.0, 0.0] if grad_compactness is None else grad_compactness.tolist()
    terms += [0.0 if gradient is None else gradient.item() for gradient in scalars]
    from_probs = None if grad_probs is None else grad_probs.to(previous.dtype).contiguous()
    upstream, upstream_dot = torch.empty_like(previous), torch.empty_like(probs[..., 0])
    grad_embeddings = torch.empty_like(previous)
    grad_centers = torch.empty(centers.shape, dtype=torch.float64, device="cpu")
    grad_bandwidth = extensions.cpu().clustering_objective_backward(
        inputs.dtype_code, inputs.sizes, inputs.embeddings.stride(), window, bandwidth.item(), temperature,
        inputs.addresses, probs.data_ptr(), previous.data_ptr(), marginals.data_ptr(), counts.data_ptr(),
        _address(from_probs), terms, (upstream.data_ptr(), upstream_dot.data_ptr()), grad_embeddings.data_ptr(),
        grad_centers.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return (
        grad_embeddings.to(embeddings.dtype),
        grad_centers.to(centers.dtype),
        torch.full_like(bandwidth, grad_bandwidth),
    )


def _forward_fake(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    num_iters: int,
    window: int,
    temperature: float,
    memory_order_sums: bool,
    keep_probs: bool,
    keep_previous: bool,
) -> Outputs:
    views, dim, height, width = embeddings.shape
    clusters = centers.shape[0]
    working = extensions.working_dtype(embeddings.dtype)

    def empty(*shape: int, dtype: torch.dtype = working) -> Tensor:
        return embeddings.new_empty(shape, dtype=dtype)

    return (
        empty(2),
        empty(),
        empty(),
        empty(),
        empty(),
        empty(clusters),
        empty(clusters, dim),
        empty(views if keep_probs else 0, height, width, clusters),
        empty(views if keep_previous else 0, dim, height, width),
        empty(2, clusters, dtype=torch.float64),
        empty(3, dtype=torch.int64),
    )


def _backward_fake(
    grad_compactness: Tensor | None,
    grad_uniform: Tensor | None,
    grad_orthogonality: Tensor | None,
    grad_balance: Tensor | None,
    grad_consistency: Tensor | None,
    grad_probs: Tensor | None,
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return embeddings.new_empty(embeddings.shape), centers.new_empty(centers.shape), torch.empty_like(bandwidth)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    window, temperature = inputs[7:9]
    mass, sums, probs, *kept = output[5:]
    ctx.save_for_backward(*inputs[:6], probs, *kept)
    ctx.mark_non_differentiable(mass, sums, *kept)
    ctx.set_materialize_grads(False)
    ctx.window, ctx.temperature = window, temperature


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_terms, of_probs = grads[:5], grads[7]
    if of_probs is None and all(gradient is None for gradient in of_terms):
        return (None,) * 12
    results = _gradients(*of_terms, of_probs, *ctx.saved_tensors, ctx.window, ctx.temperature)
    return (*results, *(None,) * 9)


_gradients = register(
    "clustering_objective_backward", _backward_cpu, _backward_fake, triton="clustering_objective.backward"
)
_objective = register(
    "clustering_objective",
    _forward_cpu,
    _forward_fake,
    triton="clustering_objective.forward",
    backward=_backward,
    setup_context=_setup_context,
)


def clustering_objective(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    *,
    num_iters: int,
    window: int,
    temperature: float,
    memory_order_sums: bool,
    return_probs: bool,
    dense: bool,
) -> tuple[Tensor, ...]:
    """Terms, mass, sums, assignments and counts."""
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in (embeddings, centers, bandwidth))
    place = None if geometry is None else geometry.to(embeddings.device)
    *fused, probs, _, _, counts = _objective(
        embeddings, centers, bandwidth, place, pseudo_labels, valid, num_iters, window, temperature,
        memory_order_sums, return_probs or differentiated, differentiated,
    )  # fmt: skip
    probs = probs if return_probs else probs[:0]
    return *fused, probs.to(embeddings.dtype), counts
