"""Distance of spectra to the mean spectra of their clusters."""

from __future__ import annotations

import pytest
import torch

from helpers import (
    assert_close_to_max,
    assert_same_bits_at_any_number_of_threads,
    seeds,
)
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse.ops.spectral_compactness import spectral_compactness

backends = pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])


def draw(shape, clusters, seed=0):
    stream = RandomStream(seed)
    batch, _, height, width = shape
    spectra = stream.normal(shape, dtype=torch.float64)
    probs = (2 * stream.normal((batch, height, width, clusters), dtype=torch.float64)).softmax(-1)
    return spectra, probs


def brute_force(spectra, probs):
    """The definition, with every difference written out."""
    rows, weights = spectra.movedim(1, -1).flatten(0, 2), probs.flatten(0, 2)
    means = torch.einsum("ik,ic->kc", weights, rows) / weights.sum(0)[:, None]
    differences = rows[:, None] - means[None]
    return (weights[:, :, None] * differences.square()).sum() / rows.numel()


@backends
@pytest.mark.parametrize(
    ("shape", "clusters"), [((2, 7, 5, 3), 4), ((1, 1, 1, 11), 2), ((3, 301, 2, 2), 1), ((1, 4, 13, 1), 16)]
)
def test_definition(shape, clusters, backend):
    inputs = [t.requires_grad_() for t in draw(shape, clusters, seed=sum(shape))]
    expected = brute_force(*inputs)
    expected_gradients = torch.autograd.grad(expected, inputs)
    with use_backend(backend):
        actual = spectral_compactness(*inputs)
        gradients = torch.autograd.grad(actual, inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-14)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-13)


@backends
def test_gradcheck(backend):
    inputs = tuple(t.requires_grad_() for t in draw((2, 3, 2, 2), 3))
    with use_backend(backend):
        assert torch.autograd.gradcheck(spectral_compactness, inputs)
        assert torch.autograd.gradcheck(lambda q: spectral_compactness(inputs[0].detach(), q), inputs[1])


@backends
def test_one_pixel_is_its_own_mean(backend):
    spectra, probs = draw((1, 6, 1, 1), 3)
    with use_backend(backend):
        torch.testing.assert_close(spectral_compactness(spectra, probs), torch.zeros((), dtype=torch.float64))


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cluster_without_mass_adds_nothing(backend, dtype):
    spectra, probs = (t.to(dtype) for t in draw((2, 6, 4, 3), 3))
    padded = torch.cat((probs, torch.zeros_like(probs[..., :1])), dim=-1).requires_grad_()
    with use_backend(backend):
        value = spectral_compactness(spectra, padded)
        torch.testing.assert_close(value, spectral_compactness(spectra, probs))
        (gradient,) = torch.autograd.grad(value, padded)
    assert torch.isfinite(gradient).all()


@backends
@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_that_are_not_valid_take_no_part(backend, channels_last):
    spectra, probs = draw((3, 6, 5, 7), 3, seed=8)
    valid = RandomStream(9).uniform((3, 5, 7), dtype=torch.float64) > 0.4
    valid[1] = False
    kept = [t[valid].unsqueeze(0).unsqueeze(0).requires_grad_() for t in (spectra.movedim(1, -1), probs)]
    expected = brute_force(kept[0].movedim(-1, 1), kept[1])
    expected_gradients = torch.autograd.grad(expected, kept)
    spectra.movedim(1, -1)[~valid] = float("nan")
    probs[~valid] = float("inf")
    if channels_last:
        spectra = spectra.contiguous(memory_format=torch.channels_last)
    inputs = (spectra.requires_grad_(), probs.requires_grad_())
    with use_backend(backend):
        actual = spectral_compactness(*inputs, valid)
        gradients = torch.autograd.grad(actual, inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-14)
    for gradient, want in zip((gradients[0].movedim(1, -1), gradients[1]), expected_gradients, strict=True):
        torch.testing.assert_close(gradient[valid], want[0, 0], rtol=1e-10, atol=1e-13)
        assert (gradient[~valid] == 0).all()


@backends
def test_no_valid_pixel(backend):
    inputs = [t.requires_grad_() for t in draw((2, 4, 3, 3), 2)]
    with use_backend(backend):
        value = spectral_compactness(*inputs, torch.zeros(2, 3, 3, dtype=torch.bool))
        gradients = torch.autograd.grad(value, inputs)
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)


# batch, bands, height, width, clusters
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 3, 1, 17, 2),
    (2, 301, 23, 31, 4),
    (3, 37, 1, 5, 5),
    (1, 16, 40, 61, 7),
    (2, 19, 13, 1, 33),
    (1, 5, 3, 3, 256),
]
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every other pixel": lambda x: torch.cat((x, x), -1)[..., : x.shape[-1]].mT.contiguous().mT,
    "every other band": lambda x: torch.stack((x, x), 2).flatten(1, 2)[:, ::2],
    "bands reversed in memory": lambda x: torch.stack((x, -x), -1)[..., 0],
}


@pytest.mark.instruction_sets
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_reference(shape, dtype, masked):
    *sizes, clusters = shape
    spectra, probs = draw(tuple(sizes), clusters, seed=seeds.fresh_seed())
    valid = None
    if masked:
        valid = RandomStream(sum(shape)).uniform((sizes[0], *sizes[2:])) > 0.3
        valid[..., : sizes[3] // 2] = True
    inputs = [t.to(dtype).double().requires_grad_() for t in (spectra, probs)]
    with use_backend("reference"):
        expected = spectral_compactness(*inputs, valid)
    expected_gradients = torch.autograd.grad(expected, inputs)
    # Squared distances of values of order 1: every term of a sum over bands or pixels brings one rounding.
    eps = torch.finfo(dtype).eps
    allowed = 16 * eps * (sizes[1] + 16)
    # The mean over all pixels walks at random with their roundings, in the reference too.
    of_the_mean = allowed / sizes[1] + 4 * eps * (sizes[0] * sizes[2] * sizes[3]) ** 0.5
    for layout in LAYOUTS.values():
        leaves = [layout(spectra.to(dtype)).requires_grad_(), probs.to(dtype).requires_grad_()]
        with use_backend("cpu"):
            actual = spectral_compactness(*leaves, valid)
        gradients = torch.autograd.grad(actual, leaves)
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=of_the_mean)
        for got, want in zip(gradients, expected_gradients, strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed / inputs[0].numel() * sizes[1])


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_same_bits_at_any_number_of_threads(layout):
    spectra, probs = (t.float() for t in draw((3, 33, 47, 31), 5))
    spectra = LAYOUTS[layout](spectra)

    def results():
        leaf = probs.clone().requires_grad_()
        with use_backend("cpu"):
            value = spectral_compactness(spectra, leaf)
        return value.detach(), *torch.autograd.grad(value, leaf)

    assert_same_bits_at_any_number_of_threads(results)


@pytest.mark.slow
def test_opcheck():
    valid = RandomStream(3).uniform((2, 4, 5)) > 0.5
    for dtype, mask in ((torch.float32, None), (torch.float64, valid)):
        spectra, probs = (t.to(dtype).requires_grad_() for t in draw((2, 3, 4, 5), 3))
        op = torch.ops.spectrafuse.spectral_compactness.default
        torch.library.opcheck(op, (spectra, probs, mask))
        torch.library.opcheck(op, (spectra.detach(), probs, mask), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    spectra, probs = draw((2, 7, 5, 6), 3)
    leaf, expected = probs.clone().requires_grad_(), probs.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(spectral_compactness, fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(spectra, leaf), leaf)
    torch.testing.assert_close(gradient, torch.autograd.grad(spectral_compactness(spectra, expected), expected)[0])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_float32_with_a_large_common_spectrum(backend):
    spectra, probs = draw((2, 50, 9, 9), 4)
    spectra, probs = (spectra + 3000).float(), probs.float()
    with use_backend(backend):
        actual = spectral_compactness(spectra, probs)
    # The spectra themselves are rounded already; what is left is the rounding of the overall mean.
    assert_close_to_max(actual.double(), brute_force(spectra.double(), probs.double()), 1e-5)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype, backend):
    spectra, probs = (t.to(dtype) for t in draw((1, 20, 6, 6), 3))
    with use_backend(backend):
        actual = spectral_compactness(spectra, probs)
    assert actual.dtype == dtype
    assert_close_to_max(actual.double(), brute_force(spectra.double(), probs.double()), torch.finfo(dtype).eps)


def test_strided_inputs():
    spectra, probs = draw((2, 4, 3, 5), 3)
    with use_backend("torch"):
        expected = spectral_compactness(spectra, probs)
        strided = spectra.movedim(1, -1).contiguous().movedim(-1, 1), probs.movedim(-1, 1).contiguous().movedim(1, -1)
        torch.testing.assert_close(spectral_compactness(*strided), expected)


def test_offsets_beyond_2_to_the_31():
    """Bands 2**31 elements apart: the memory between them is reserved, never touched."""
    spectra, probs = (t.float() for t in draw((1, 2, 3, 5), 3))
    far = torch.empty(2**31 + 16 + 15).as_strided((1, 2, 3, 5), (0, 2**31 + 16, 5, 1)).copy_(spectra)
    with use_backend("cpu"):
        torch.testing.assert_close(spectral_compactness(far, probs), spectral_compactness(spectra, probs))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_the_spectra_and_nothing_else_of_their_size_is_kept_for_backward(backend):
    spectra, probs = draw((4, 40, 6, 6), 3)
    saved = 0

    def pack(tensor):
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        spectral_compactness(spectra, probs.requires_grad_())
    assert saved < 1.5 * spectra.numel()


@pytest.mark.parametrize(
    ("valid", "error", "message"),
    [
        (torch.ones(2, 4, 5), TypeError, "`valid` must have one of the dtypes bool"),
        (torch.ones(2, 5, 4, dtype=torch.bool), ValueError, r"`valid` must be of shape \(2, 4, 5\)"),
    ],
)
def test_wrong_valid(valid, error, message):
    with pytest.raises(error, match=message):
        spectral_compactness(torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, 2), valid)


@pytest.mark.parametrize(
    ("spectra", "probs", "error", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 2), ValueError, "`spectra` must be a tensor"),
        (torch.zeros(0, 3, 4, 5), torch.zeros(0, 4, 5, 2), ValueError, "at least one pixel"),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 5, 4, 2), ValueError, "`probs` must be a tensor of shape"),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, 2).double(), TypeError, "`probs` must have dtype"),
    ],
)
def test_wrong_arguments(spectra, probs, error, message):
    with pytest.raises(error, match=message):
        spectral_compactness(spectra, probs)


def test_what_its_kernels_do_not_take() -> None:
    calls = {"not_float64": lambda: ops.spectral_compactness(*tensors((1, 3, 2, 2), (1, 2, 2, 2), **DOUBLE))}
    check_limits("spectral_compactness", calls)
