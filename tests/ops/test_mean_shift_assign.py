"""mean_shift_assign through every layer: implementations, registration, autograd, shapes that hurt."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import (
    GOLDEN_GRADIENT_RTOL,
    GOLDEN_RTOL,
    assert_close_to_max,
    assert_same_bits_at_any_number_of_threads,
    golden,
)
from helpers.limits import DOUBLE, check_limits, tensors
from helpers.mean_shift_inputs import evaluate, inputs
from spectrafuse import backends, ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.ops import mean_shift_assign, mean_shift_labels

LOCAL_GOLDENS = [0, 1, 2, 3, 7]
IMPLEMENTATIONS = ["reference", "torch", "cpu"]
# batch, dim, height, width, clusters, window, iterations
SHAPES = [
    (1, 5, 1, 1, 1, 5, 2),
    (1, 4, 1, 37, 3, 3, 1),
    (2, 8, 7, 13, 3, 5, 3),
    (1, 3, 9, 2, 2, 7, 2),
    (2, 32, 5, 19, 4, 5, 5),
    (1, 17, 3, 40, 7, 11, 2),
    (1, 6, 4, 33, 1, 1, 4),
    (1, 8, 11, 67, 19, 9, 2),
    (0, 4, 5, 5, 3, 5, 5),
]


@pytest.mark.parametrize("backend", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", LOCAL_GOLDENS)
def test_reproduces_the_published_outputs_and_gradients(case, backend):
    g = golden(f"dgc_mean_shift_{case}")
    log_bandwidth = torch.tensor(g["log_bandwidth"], dtype=torch.float64, requires_grad=True)
    embeddings, centers = g["embeddings"].requires_grad_(), g["centers"].requires_grad_()
    options = {"num_iters": g["num_iters"], "window": g["window"], "temperature": g["temperature"]}
    with use_backend(backend):
        shifted, probs = mean_shift_assign(embeddings, centers, F.softplus(log_bandwidth), **options)
        labels = mean_shift_labels(embeddings, centers, F.softplus(log_bandwidth), **options)
    ((shifted * g["grad_shifted"]).sum() + (probs * g["grad_probs"]).sum()).backward()
    torch.testing.assert_close(shifted, g["shifted"], rtol=GOLDEN_RTOL, atol=1e-15)
    torch.testing.assert_close(probs, g["probs"], rtol=GOLDEN_RTOL, atol=1e-15)
    assert torch.equal(labels, g["labels"])
    assert_close_to_max(embeddings.grad, g["grad_embeddings"], GOLDEN_GRADIENT_RTOL)
    assert_close_to_max(centers.grad, g["grad_centers"], GOLDEN_GRADIENT_RTOL)
    assert_close_to_max(log_bandwidth.grad, g["grad_log_bandwidth"], GOLDEN_GRADIENT_RTOL)


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_reference(shape, dtype):
    *sizes, window, iterations = shape
    data = inputs(*sizes, dtype)
    options = {"num_iters": iterations, "window": window, "temperature": 0.2}
    exact = evaluate("reference", *(x.double() for x in data[:3]), [g.double() for g in data[3]], **options)
    actual = evaluate("cpu", *data, **options)
    # A value is a sum of at most window^2 * dim rounded products; the softmax multiplies errors by 1 / temperature.
    allowed = 8 * torch.finfo(dtype).eps * (window * window + sizes[1]) / 0.2
    for got, want in zip(actual, exact, strict=True):
        assert got.dtype == dtype
        # Inputs and upstream gradients are of order 1; a window of one pixel leaves bandwidth a gradient near zero.
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * scale)


def test_same_bits_at_any_number_of_threads():
    data = inputs(2, 16, 23, 31, 5, torch.float32)
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", *data))


def test_gradcheck_of_the_last_iteration():
    """With one iteration z is the embedding itself, detached: compare with z held fixed by hand."""
    embeddings, centers, bandwidth, _ = inputs(1, 3, 4, 5, 2, torch.float64)
    window, temperature = 3, 0.5
    fixed = embeddings.clone()

    def last_iteration(e, c, b):
        columns = F.unfold(e, window, padding=1).view(1, 3, 9, 20)
        weight = torch.exp(-(columns - fixed.view(1, 3, 1, 20)).square().sum(1) / (2 * b**2))
        z = (weight.unsqueeze(1) * columns).sum(2) / (weight.sum(1, keepdim=True) + 1e-6)
        return z.view(1, 3, 4, 5), torch.softmax(F.normalize(z, dim=1).transpose(1, 2) @ c.T / temperature, -1)

    leaves = [x.requires_grad_() for x in (embeddings, centers, bandwidth)]
    assert torch.autograd.gradcheck(last_iteration, leaves)
    expected = torch.autograd.grad(sum((o * o).sum() for o in last_iteration(*leaves)), leaves)
    with use_backend("cpu"):
        outputs = mean_shift_assign(*leaves, num_iters=1, window=window, temperature=temperature)
    actual = torch.autograd.grad(sum((o * o).sum() for o in outputs), leaves)
    for got, want in zip(actual, expected, strict=True):
        assert_close_to_max(got, want, 1e-12)


def test_gradient_of_one_output_alone():
    data = inputs(1, 4, 6, 7, 3, torch.float64)
    for which in (0, 1):
        results = {}
        for backend in ("reference", "cpu"):
            leaves = [x.detach().clone().requires_grad_() for x in data[:3]]
            with use_backend(backend):
                output = mean_shift_assign(*leaves, window=3)[which]
            results[backend] = torch.autograd.grad((output * data[3][which]).sum(), leaves, allow_unused=True)
        for got, want in zip(results["cpu"], results["reference"], strict=True):
            want = torch.zeros_like(got) if want is None else want
            assert_close_to_max(got, want, 1e-11) if want.abs().max() > 0 else None
            assert torch.isfinite(got).all()


def test_strided_inputs():
    embeddings, centers, bandwidth, grads = inputs(2, 6, 9, 10, 3, torch.float32)
    want = evaluate("cpu", embeddings, centers, bandwidth, grads)
    wide = torch.zeros(2, 6, 9, 20)[..., ::2]
    for view in (
        embeddings.to(memory_format=torch.channels_last),
        wide.copy_(embeddings),
        embeddings.mT.contiguous().mT,
    ):
        assert not view.is_contiguous()
        with use_backend("cpu"):
            shifted, probs = mean_shift_assign(view, centers.T.contiguous().T, bandwidth)
        assert torch.equal(shifted, want[0])
        assert torch.equal(probs, want[1])
    one = embeddings[:1].expand(3, -1, -1, -1)
    with use_backend("cpu"):
        assert torch.equal(mean_shift_assign(one, centers, bandwidth).shifted[2], want[0][0])


def test_offsets_beyond_2_to_the_31():
    """Rows 1.2e9 elements apart: the memory between them is reserved, never touched."""
    rows, pitch = 3, 1_200_000_000
    storage = torch.empty(pitch * (rows - 1) + 100, dtype=torch.float32)
    far = storage.as_strided((1, 4, rows, 8), (0, 8, pitch, 1))
    embeddings, centers, bandwidth, _ = inputs(1, 4, rows, 8, 2, torch.float32)
    far.copy_(embeddings)
    with use_backend("cpu"):
        got, want = (
            mean_shift_assign(far, centers, bandwidth),
            mean_shift_assign(embeddings, centers, bandwidth),
        )
    assert torch.equal(got.shifted, want.shifted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype):
    embeddings, centers, bandwidth, _ = inputs(1, 8, 6, 21, 3, dtype)
    with use_backend("cpu"):
        narrow = mean_shift_assign(embeddings, centers, bandwidth)
        wide = mean_shift_assign(embeddings.float(), centers.float(), bandwidth.float())
    assert torch.equal(narrow.shifted, wide.shifted.to(dtype))
    assert torch.equal(narrow.probs, wide.probs.to(dtype))


def test_zero_embeddings_and_saturated_assignments_stay_finite():
    embeddings, centers, bandwidth, grads = inputs(1, 4, 5, 18, 3, torch.float32)
    for e, c, b in (
        (torch.zeros_like(embeddings), centers, bandwidth),
        (embeddings, 1e4 * centers, bandwidth),
        (torch.ones_like(embeddings), centers, bandwidth),
        (embeddings, centers, bandwidth * 1e-3),
    ):
        got, want = evaluate("cpu", e, c, b, grads), evaluate("reference", e, c, b, grads)
        assert all(torch.isfinite(x).all() for x in got)
        assert (got[1].sum(-1) - 1).abs().max() < 1e-5
        assert_close_to_max(got[0], want[0], 1e-5) if want[0].abs().max() > 0 else None


def test_nan_in_one_pixel_reaches_its_windows_only():
    embeddings, centers, bandwidth, _ = inputs(1, 4, 9, 20, 3, torch.float32)
    embeddings[0, 1, 4, 10] = float("nan")
    with use_backend("cpu"):
        shifted, probs = mean_shift_assign(embeddings, centers, bandwidth, num_iters=1, window=3)
    expected = torch.zeros(9, 20, dtype=torch.bool)
    expected[3:6, 9:12] = True
    assert torch.equal(shifted[0].isnan().any(0), expected)
    assert torch.equal(probs[0].isnan().any(-1), expected)


@pytest.mark.slow
def test_opcheck():
    for dtype in (torch.float32, torch.float64):
        embeddings, centers, bandwidth, _ = inputs(2, 4, 5, 6, 3, dtype)
        leaves = [x.requires_grad_() for x in (embeddings, centers, bandwidth)]
        arguments = (*leaves, 3, 5, 0.1)
        torch.library.opcheck(torch.ops.spectrafuse.mean_shift_assign.default, arguments)
        torch.library.opcheck(torch.ops.spectrafuse.mean_shift_labels.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_compiles_without_graph_breaks(backend):
    embeddings, centers, bandwidth, grads = inputs(1, 4, 6, 7, 3, torch.float32)
    want = evaluate(backend, embeddings, centers, bandwidth, grads)
    leaves = [x.clone().requires_grad_() for x in (embeddings, centers, bandwidth)]
    torch._dynamo.reset()
    with use_backend(backend):
        compiled = torch.compile(lambda e, c, b: mean_shift_assign(e, c, b), fullgraph=True, backend="aot_eager")
        shifted, probs = compiled(*leaves)
    ((shifted * grads[0]).sum() + (probs * grads[1]).sum()).backward()
    torch.testing.assert_close(shifted.detach(), want[0])
    torch.testing.assert_close(leaves[0].grad, want[2], rtol=1e-4, atol=1e-5)


def test_labels_are_the_argmax_without_a_gradient():
    embeddings, centers, bandwidth, _ = inputs(2, 6, 9, 19, 5, torch.float32)
    for backend in IMPLEMENTATIONS:
        with use_backend(backend):
            labels = mean_shift_labels(embeddings.requires_grad_(), centers, bandwidth)
            probs = mean_shift_assign(embeddings, centers, bandwidth).probs
        assert not labels.requires_grad
        assert torch.equal(labels, probs.argmax(-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"embeddings": torch.zeros(3, 4, 5)},
            r"`embeddings` must be a tensor \(batch, dim, height, width\)",
        ),
        (
            {"embeddings": torch.zeros(1, 4, 5, 5, dtype=torch.int32)},
            "`embeddings` must have one of the dtypes",
        ),
        ({"embeddings": [[1.0]]}, "`embeddings` must be a tensor .*got list"),
        ({"centers": torch.zeros(3, 5)}, r"`centers` must be of shape \(K, 4\).*got shape \(3, 5\)"),
        ({"centers": torch.zeros(0, 4)}, "`centers` must be of shape"),
        ({"centers": torch.zeros(3, 4).double()}, "`centers` must have dtype torch.float32"),
        ({"bandwidth": torch.ones(1)}, r"`bandwidth` must be a tensor \(\)"),
        ({"window": 4}, "`window` must be an odd integer; got 4"),
        ({"num_iters": 0}, "`num_iters` must be an integer of at least 1; got 0"),
        ({"num_iters": True}, "`num_iters` must be an integer"),
        ({"temperature": 0.0}, "`temperature` must be a finite number above 0; got 0"),
        ({"temperature": float("nan")}, "`temperature` must be a finite number above 0; got nan"),
    ],
)
def test_wrong_arguments_get_one_clear_sentence(change, message):
    arguments = {
        "embeddings": torch.zeros(1, 4, 5, 5),
        "centers": torch.zeros(3, 4),
        "bandwidth": torch.ones(()),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        mean_shift_assign(**{**arguments, **change})


def test_windows_beyond_the_kernel_run_in_pytorch_unless_it_is_forced():
    embeddings, centers, bandwidth, grads = inputs(1, 3, 6, 7, 2, torch.float64)
    auto = evaluate("auto", embeddings, centers, bandwidth, grads, window=13)
    assert_close_to_max(auto[2], evaluate("reference", embeddings, centers, bandwidth, grads, window=13)[2], 1e-11)
    with (
        use_backend("cpu"),
        pytest.raises(backends.BackendUnavailableError, match="windows up to 11, got 13"),
    ):
        mean_shift_assign(embeddings, centers, bandwidth, window=13)


def test_auto_takes_the_kernel_on_the_cpu():
    assert extensions.cpu_reason() is None
    assert backends.choose("mean_shift_assign", "cpu") == "cpu"


def test_what_its_kernels_do_not_take() -> None:
    def shifted(dim: int = 3, window: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        inputs = tensors((1, dim, 12, 13), (2, dim), (), dtype=dtype)
        return ops.mean_shift_assign(*inputs, window=window).shifted

    calls = {
        "large_window": lambda: shifted(window=13),
        "many_dimensions": lambda: shifted(dim=129),
        "not_float64": lambda: shifted(**DOUBLE),
    }
    check_limits("mean_shift_assign", calls)
