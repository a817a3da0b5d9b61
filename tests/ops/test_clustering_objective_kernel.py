"""The fused kernels of the training objective against the reference, through registration and autograd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from helpers import assert_close_to_max, assert_same_bits_at_any_number_of_threads, saved_sizes
from helpers.clustering_inputs import TEMPERATURE, VARIANTS, evaluate, inputs, plain_views
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.backends import BackendUnavailableError
from spectrafuse.ops.clustering_objective import clustering_objective, reference
from spectrafuse.ops.clustering_objective.pytorch import clustering_terms

# pairs, dim, height, width, clusters, window, iterations
SHAPES = [
    (1, 5, 1, 1, 1, 5, 2),
    (1, 4, 1, 37, 3, 3, 1),
    (2, 8, 7, 13, 3, 5, 3),
    (1, 3, 9, 2, 2, 7, 2),
    (2, 32, 5, 19, 4, 5, 5),
    (1, 17, 3, 40, 7, 11, 2),
    (1, 6, 4, 33, 1, 1, 4),
    (1, 8, 11, 67, 19, 9, 2),
    (1, 128, 3, 17, 256, 5, 2),
    (0, 4, 5, 5, 3, 5, 5),
]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_reference(shape, dtype, variant):
    *sizes, window, iterations = shape
    leaves, keywords, valid, upstream = inputs(*sizes, dtype)
    options = {"num_iters": iterations, "window": window, **VARIANTS[variant]}
    actual = evaluate("cpu", leaves, keywords, valid, upstream, **options)
    exact = evaluate("reference", [x.double() for x in leaves], keywords, valid, upstream.double(), **options)
    # A value is a sum of at most window^2 + dim rounded products; the softmax multiplies errors by 1 / temperature.
    rounding = 8 * torch.finfo(dtype).eps * (window * window + sizes[1]) / TEMPERATURE
    for i, (got, want) in enumerate(zip(actual, exact, strict=True)):
        assert got.dtype == dtype
        # Upstream gradients are of order 1; one pixel or one cluster leaves some values near zero.
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        allowed = rounding if dtype == torch.float32 else (1e-9 if i < 8 else 1e-8)
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * scale)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_bits_at_any_number_of_threads(variant):
    data = inputs(2, 16, 23, 31, 5, torch.float32)
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", *data, **VARIANTS[variant]))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", range(5))
def test_gradient_of_one_term_alone(term, variant):
    leaves, keywords, valid, _ = inputs(2, 6, 7, 9, 3)
    leaves = [x.requires_grad_() for x in leaves]
    options = {**keywords, "window": 3, "temperature": 0.5, **VARIANTS[variant]}
    options["valid"] = valid if options.pop("masked", False) else None
    gradients = []
    for backend in ("cpu", "reference"):
        with use_backend(backend):
            value = clustering_objective(*leaves, **options)[term].sum()
        gradients.append(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))
    for got, want in zip(*gradients, strict=True):
        assert_close_to_max(got, want, 1e-10)


def test_gradcheck_of_the_last_iteration():
    """With one iteration z is the embedding itself, detached: compare with z held fixed by hand."""
    leaves, keywords, valid, upstream = inputs(1, 3, 4, 5, 2)
    leaves = [x.requires_grad_() for x in leaves]
    fixed = leaves[0].detach().clone()

    def last_iteration(e, c, b):
        columns = F.unfold(e, 3, padding=1).view(2, 3, 9, 20)
        weight = torch.exp(-(columns - fixed.view(2, 3, 1, 20)).square().sum(1) / (2 * b**2))
        z = ((weight.unsqueeze(1) * columns).sum(2) / (weight.sum(1, keepdim=True) + 1e-6)).view(2, 3, 4, 5)
        probs = torch.softmax(torch.einsum("bdhw,kd->bhwk", F.normalize(z, dim=1), c) / TEMPERATURE, -1)
        labels = keywords["pseudo_labels"]
        terms = clustering_terms(
            e, z, probs, c, None, aligned=False, pseudo_labels=labels, memory_order_sums=False, valid=valid
        )
        return (*terms[:5], probs)

    assert torch.autograd.gradcheck(last_iteration, leaves)
    expected = last_iteration(*leaves)
    loss = sum((weight + 1) * term.sum() for weight, term in enumerate(expected[:5])) + (expected[5] * upstream).sum()
    wanted = torch.autograd.grad(loss, leaves)
    options = {"num_iters": 1, "window": 3, "masked": True, "aligned": False}
    actual = evaluate("cpu", leaves, keywords, valid, upstream, **options)[8:]
    for got, want in zip(actual, wanted, strict=True):
        assert_close_to_max(got, want, 1e-12)


def test_views_without_overlap_agree_by_definition():
    leaves, keywords, *_ = inputs(1, 6, 5, 6, 3)
    leaves = [x.requires_grad_() for x in leaves]
    for far in ((20.0, 0.0), (0.0, 30.0), (5.0, 0.0)):
        keywords["geometry"] = plain_views((0.0, 0.0), far)
        with use_backend("cpu"):
            value = clustering_objective(*leaves, **keywords).consistency
        assert value.item() == 0
        assert all(not gradient.any() for gradient in torch.autograd.grad(value, leaves))
    # A warp without an inverse: the way back has no answer.
    keywords["geometry"][0, 1] = 0.0
    with use_backend("cpu"):
        actual = clustering_objective(*leaves, **keywords)
    with use_backend("reference"):
        torch.testing.assert_close(actual.consistency, clustering_objective(*leaves, **keywords).consistency)
    assert actual.consistency > 0


@pytest.mark.parametrize("aligned", [True, False])
def test_degenerate_embeddings_and_saturated_assignments_stay_finite(aligned):
    (embeddings, centers, bandwidth), *rest = inputs(1, 4, 5, 18, 3, torch.float32)
    identical = embeddings[:1, :, :1, :1].expand_as(embeddings)
    for e, c, b in (
        (torch.zeros_like(embeddings), centers, bandwidth),
        (identical, centers, bandwidth),
        (embeddings, 1e4 * centers, bandwidth),
        (embeddings, centers, bandwidth * 1e-3),
    ):
        got = evaluate("cpu", (e, c, b), *rest, aligned=aligned)
        want = evaluate("reference", (e, c, b), *rest, aligned=aligned)
        assert all(torch.isfinite(x).all() for x in got)
        for a, w in zip(got[:8], want[:8], strict=True):
            torch.testing.assert_close(a, w, rtol=1e-3, atol=1e-4)


def test_strided_inputs():
    (embeddings, centers, bandwidth), keywords, valid, upstream = inputs(2, 6, 9, 10, 3, torch.float32)
    want = evaluate("cpu", (embeddings, centers, bandwidth), keywords, valid, upstream, masked=True)
    wide = torch.zeros(4, 6, 9, 20)[..., ::2]
    strided = {
        "geometry": keywords["geometry"].mT.contiguous().mT,
        "pseudo_labels": keywords["pseudo_labels"].T.contiguous().T,
    }
    for view in (embeddings.to(memory_format=torch.channels_last), wide.copy_(embeddings)):
        leaves = [view.requires_grad_(), centers.T.contiguous().T.requires_grad_(), bandwidth.requires_grad_()]
        with use_backend("cpu"):
            terms = clustering_objective(*leaves, temperature=TEMPERATURE, valid=valid.mT.contiguous().mT, **strided)
        loss = sum((weight + 1) * term.sum() for weight, term in enumerate(terms[:5]))
        gradients = torch.autograd.grad(loss + (terms.probs * upstream.mT.contiguous().mT).sum(), leaves)
        for got, expected in zip((*terms[:8], *gradients), want, strict=True):
            assert torch.equal(got, expected)


def test_offsets_beyond_2_to_the_31():
    """Rows 1.2e9 elements apart: the memory between them is reserved, never touched."""
    rows, pitch = 3, 1_200_000_000
    far = torch.empty(pitch * (rows - 1) + 100, dtype=torch.float32).as_strided((2, 4, rows, 8), (32, 8, pitch, 1))
    (embeddings, *others), *rest = inputs(1, 4, rows, 8, 2, torch.float32)
    far.copy_(embeddings)
    with use_backend("cpu"):
        got, want = (clustering_objective(e, *others, **rest[0]) for e in (far, embeddings))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype):
    leaves, keywords, valid, upstream = inputs(1, 8, 6, 21, 3, dtype)
    narrow = evaluate("cpu", leaves, keywords, valid, upstream.float())
    wide = evaluate("cpu", [x.float() for x in leaves], keywords, valid, upstream.float())
    for i, (got, want) in enumerate(zip(narrow, wide, strict=True)):
        assert got.dtype == (torch.float32 if i < 7 else dtype)
        # The gradient of the narrow assignments arrives rounded.
        tolerance = 0 if i < 7 else 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(got.float(), want, rtol=tolerance, atol=tolerance)


def test_labels_that_are_no_cluster_give_nan():
    leaves, keywords, *_ = inputs(1, 4, 5, 6, 3)
    for label in (-1, 3, 2**40):
        keywords["pseudo_labels"][1, 7] = label
        with use_backend("cpu"):
            terms = clustering_objective(*leaves, **keywords)
        assert terms.uniform.isnan()
        assert not terms.balance.isnan()


@pytest.mark.parametrize("variant", ["corrected", "published"])
def test_what_is_kept(variant):
    """Assignments and the last z; without gradient, nothing of the pixels' size."""
    leaves, keywords, *_ = inputs(2, 8, 9, 10, 3, torch.float32)
    options = {**keywords, **VARIANTS[variant]}
    pixels = 4 * 9 * 10
    with use_backend("cpu"), saved_sizes() as sizes:
        clustering_objective(*[x.requires_grad_() for x in leaves], **options, return_probs=False)
    # Embeddings, z, assignments, pseudo-labels; then centers, bandwidth, geometry, marginals, counts.
    assert sorted(sizes, reverse=True)[:4] == [pixels * 8, pixels * 8, pixels * 3, pixels]
    assert sum(sizes) <= pixels * 20 + 100
    with use_backend("cpu"), torch.no_grad():
        outputs = torch.ops.spectrafuse.clustering_objective(
            *leaves, options.get("geometry"), None, None, 2, 5, 0.1, variant == "published", False, False
        )
        short = clustering_objective(*leaves, **options, return_probs=False)
        full = clustering_objective(*leaves, **options)
    assert sum(x.numel() for x in outputs) < 100
    assert short.probs.numel() == 0
    assert all(torch.equal(a, b) for a, b in zip(short[:7], full[:7], strict=True))


@pytest.mark.slow
def test_opcheck():
    for dtype, published in itertools.product((torch.float32, torch.float64), (False, True)):
        leaves, keywords, valid, _ = inputs(1, 4, 5, 6, 3, dtype)
        geometry = None if published else keywords["geometry"]
        leaves = [x.requires_grad_() for x in leaves]
        arguments = (*leaves, geometry, keywords["pseudo_labels"], valid, 3, 5, 0.1, published, True, True)
        torch.library.opcheck(torch.ops.spectrafuse.clustering_objective.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "variant"), [("auto", "corrected"), ("auto", "published"), ("auto", "masked"), ("torch", "masked")]
)
def test_compiles_without_graph_breaks(backend, variant):
    leaves, keywords, valid, upstream = inputs(1, 4, 6, 7, 3, torch.float32)
    size = {"num_iters": 2, "window": 3}
    want = evaluate(backend, leaves, keywords, valid, upstream, **size, **VARIANTS[variant])
    options = {"temperature": TEMPERATURE, **size, **keywords, **VARIANTS[variant]}
    options["valid"] = valid if options.pop("masked", False) else None
    leaves = [x.clone().requires_grad_() for x in leaves]
    torch._dynamo.reset()
    with use_backend(backend):
        compiled = torch.compile(
            lambda e, c, b: tuple(clustering_objective(e, c, b, **options)), fullgraph=True, backend="aot_eager"
        )
        terms = compiled(*leaves)
    loss = sum((weight + 1) * term.sum() for weight, term in enumerate(terms[:5])) + (terms[7] * upstream).sum()
    loss.backward()
    for got, expected in zip((*terms[:8], *(x.grad for x in leaves)), want, strict=True):
        torch.testing.assert_close(got.detach(), expected, rtol=1e-4, atol=1e-5)


def test_windows_beyond_the_kernel_run_in_pytorch_unless_it_is_forced():
    data = inputs(1, 3, 6, 7, 2)
    auto, want = (evaluate(backend, *data, window=13) for backend in ("auto", "reference"))
    assert_close_to_max(auto[8], want[8], 1e-11)
    with pytest.raises(BackendUnavailableError, match="windows up to 11, got 13"):
        evaluate("cpu", *data, window=13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 4}, "`window` must be an odd integer; got 4"),
        ({"num_iters": 0}, "`num_iters` must be an integer of at least 1; got 0"),
        ({"temperature": float("inf")}, "`temperature` must be a finite number above 0; got inf"),
        ({"bandwidth": torch.ones(1)}, r"`bandwidth` must be a tensor \(\)"),
    ],
)
def test_wrong_arguments_get_one_clear_sentence(change, message):
    arguments = {"embeddings": torch.zeros(2, 4, 5, 5), "centers": torch.zeros(3, 4), "bandwidth": torch.ones(())}
    with pytest.raises((TypeError, ValueError), match=message):
        clustering_objective(**{**arguments, "geometry": torch.zeros(1, 2, 9), **change})


def test_logarithm_of_the_divergence_is_accurate():
    """Hard assignments of a single pixel, whose logarithm spans the whole range of the ratio."""
    for angle in torch.linspace(0, 1.5, 40, dtype=torch.float64):
        e = torch.stack((torch.cos(angle), torch.sin(angle))).view(1, 2, 1, 1)
        pair = torch.cat((e, torch.tensor([[1.0], [0.0]], dtype=torch.float64).view(1, 2, 1, 1)))
        leaves = (pair, torch.eye(2, dtype=torch.float64), torch.ones((), dtype=torch.float64))
        with use_backend("cpu"):
            terms = clustering_objective(*leaves, None, num_iters=1, window=1, aligned=False)
        exact = reference.consistency(terms.probs[:1].reshape(1, 1, 2), terms.probs[1:].reshape(1, 1, 2))
        torch.testing.assert_close(terms.consistency, exact, rtol=1e-12, atol=1e-18)


def test_the_kernel_is_what_auto_takes():
    assert extensions.cpu_reason() is None
    leaves, keywords, *_ = inputs(1, 4, 5, 6, 3, torch.float32)
    with use_backend("auto"):
        auto = clustering_objective(*leaves, **keywords)
    with use_backend("cpu"):
        forced = clustering_objective(*leaves, **keywords)
    assert all(torch.equal(a, b) for a, b in zip(auto, forced, strict=True))


def test_what_its_kernels_do_not_take() -> None:
    def sums(dim: int = 3, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
        inputs = tensors((2, dim, 12, 13), (2, dim), (), dtype=dtype)
        return ops.clustering_objective(*inputs, None, aligned=False, **options).sums

    calls = {
        "all_pairs": lambda: sums(dense=True),
        "large_window": lambda: sums(window=13),
        "many_dimensions": lambda: sums(dim=129),
        "not_float64": lambda: sums(**DOUBLE),
    }
    check_limits("clustering_objective", calls)
