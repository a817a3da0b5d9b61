"""`adamw_outer` against torch's own AdamW."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spectrafuse import RandomStream, use_backend
from spectrafuse.composed import adamw_outer as composed_module
from spectrafuse.ops.adamw_outer import adamw_outer

OPTIONS = {"lr": 5e-4, "beta1": 0.9, "beta2": 0.995, "eps": 1e-8, "weight_decay": 1e-3}
STEPS = 20


@pytest.mark.parametrize("chunk_elements", [None, 1, 40])
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(16, 37, 23), (1, 1, 1), (3, 5, 1), (2, 1, 7), (0, 4, 3)])
def test_equals_torch_over_twenty_steps(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    backend: str,
    chunk_elements: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if chunk_elements is not None:
        monkeypatch.setattr(composed_module, "_CHUNK_ELEMENTS", chunk_elements)
    batch, width, outputs = shape
    stream = RandomStream(41)
    start = stream.normal((outputs, width), 0.05, dtype=dtype)
    expected = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [expected],
        lr=OPTIONS["lr"],
        betas=(OPTIONS["beta1"], OPTIONS["beta2"]),
        weight_decay=1e-3,
        foreach=False,
    )
    weight = start.clone().requires_grad_(True)
    moments = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, STEPS + 1):
        x = stream.normal((width, batch), dtype=dtype).T
        grad_y = stream.normal((batch, outputs), 1e-3, dtype=dtype)
        expected.grad = grad_y.T @ x
        optimizer.step()
        with use_backend(backend):
            adamw_outer(x, grad_y, weight, *moments, step=step, **OPTIONS)
    epsilon = torch.finfo(dtype).eps
    state = optimizer.state[expected]
    torch.testing.assert_close(moments[0], state["exp_avg"], rtol=0, atol=64 * epsilon * 1e-2)
    torch.testing.assert_close(moments[1], state["exp_avg_sq"], rtol=0, atol=64 * epsilon * 1e-4)
    # A step has size lr whatever the gradient, so one that cancels to its rounding error moves by more.
    assert (weight - expected).abs().max() <= 64 * epsilon * start.abs().max() + 1e3 * epsilon * OPTIONS["lr"]
    assert (weight - start).abs().max() > 0.1 * OPTIONS["lr"] or batch == 0
    assert weight.grad_fn is None


def test_the_whole_gradient_is_never_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def recording(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        sizes.append(out.numel())
        return product(left, right, out=out)

    monkeypatch.setattr(torch, "mm", recording)
    monkeypatch.setattr(composed_module, "_CHUNK_ELEMENTS", 100)
    weight = torch.zeros(37, 23)
    moments = torch.zeros_like(weight), torch.zeros_like(weight)
    adamw_outer(torch.ones(2, 23), torch.ones(2, 37), weight, *moments, step=1, **OPTIONS)
    assert sum(sizes) == 37 * 23
    assert max(sizes) <= 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 5)}, "`x` must be"),
        ({"grad_y": torch.zeros(3, 4)}, "`grad_y` must be"),
        ({"exp_avg": torch.zeros(4, 2)}, "`exp_avg` must be"),
        ({"exp_avg_sq": torch.zeros(4, 3).double()}, "`exp_avg_sq` must have dtype"),
        ({"beta1": 1.0}, "`beta1` must be a finite number of at least 0 and below 1"),
        ({"step": 0}, "`step` must be an integer of at least 1"),
        ({"lr": -1.0}, "`lr` must be"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": torch.zeros(2, 3),
        "grad_y": torch.zeros(2, 4),
        "weight": torch.zeros(4, 3),
        "exp_avg": torch.zeros(4, 3),
        "exp_avg_sq": torch.zeros(4, 3),
        "step": 1,
        **OPTIONS,
    } | change
    with pytest.raises((ValueError, TypeError), match=message):
        adamw_outer(**arguments)
