"""Counter-based random numbers: one seeded stream per fit, the same words on every device.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of
(seed, step, index), so a stream is saved and restored by two integers, and no global generator is read or written.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse._runtime import checks, extensions
from spectrafuse._runtime.errors import InvalidValueError

_MASK = 0xFFFFFFFF
_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply_high_low(multiplier: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32-bit product, in int64 arithmetic that never overflows."""
    low = multiplier * (x & 0xFFFF)
    high = multiplier * (x >> 16)
    total = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (total >> 32), total & _MASK


def philox_block(counter: Sequence[Tensor], key0: int, key1: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32-10 of four counter words (int64 tensors of 32-bit values) under a key of two words."""
    x0, x1, x2, x3 = counter
    for _ in range(10):
        high0, low0 = _multiply_high_low(_MULTIPLIER[0], x0)
        high1, low1 = _multiply_high_low(_MULTIPLIER[1], x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ key0, low1, high0 ^ x3 ^ key1, low0
        key0, key1 = (key0 + _WEYL[0]) & _MASK, (key1 + _WEYL[1]) & _MASK
    return x0, x1, x2, x3


def philox_words(seed: int, step: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """`count` words of the stream (seed, step): int64 values in [0, 2^32).

    Word i is output i % 4 of Philox 4x32-10 with counter (i // 4 low, i // 4 high, step low, step high) and the
    seed's two halves as key. The C++ extension makes them on the CPU where it is built, torch elsewhere: the same.
    """
    if torch.device(device).type == "cpu" and extensions.cpu_reason() is None:
        out = torch.empty(count, dtype=torch.int64, device="cpu")
        extensions.cpu().philox_words(seed, step, count, out.data_ptr())
        return out
    return _philox_words_in_torch(seed, step, count, device)


def _philox_words_in_torch(seed: int, step: int, count: int, device: torch.device | str) -> Tensor:
    index = torch.arange((count + 3) // 4, dtype=torch.int64, device=device)
    steps = [torch.full_like(index, step & _MASK), torch.full_like(index, (step >> 32) & _MASK)]
    block = philox_block((index & _MASK, index >> 32, *steps), seed & _MASK, (seed >> 32) & _MASK)
    return torch.stack(block, dim=1).reshape(-1)[:count]


def _units_in_torch(seed: int, step: int, count: int, working: torch.dtype, device: torch.device | str) -> Tensor:
    """`count` numbers inside (0, 1) in float64: of 23 bits and a half for float32, 52 and a half for float64."""
    if working == torch.float64:
        words = philox_words(seed, step, 2 * count, device).view(count, 2)
        return (((words[:, 0] << 20) | (words[:, 1] >> 12)).to(torch.float64) + 0.5) * 2.0**-52
    return ((philox_words(seed, step, count, device) >> 9).to(torch.float64) + 0.5) * 2.0**-23


def fill_in_torch(
    distribution: str, seed: int, step: int, count: int, working: torch.dtype, device: torch.device | str
) -> Tensor:
    """Standard numbers of a distribution, computed in float64 and rounded once to `working`."""
    if distribution == "normal":
        half = (count + 1) // 2
        unit = _units_in_torch(seed, step, 2 * half, working, device)
        radius = torch.sqrt(-2.0 * torch.log(unit[:half]))
        angle = (2.0 * math.pi) * unit[half:]
        out = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)))[:count]
    else:
        unit = _units_in_torch(seed, step, count, working, device)
        if distribution == "logistic":
            out = torch.log(unit) - torch.log1p(-unit)
        elif distribution == "gumbel":
            out = -torch.log(-torch.log(unit))
        else:
            out = unit
    return out.to(working)


def _run_kernel(out: Tensor, distribution: str, seed: int, step: int, low: float, scale: float) -> None:
    crossing = (distribution, seed, step, out.numel(), low, scale, out.data_ptr())
    if extensions.on_gpu(out.device):
        extensions.run_on_gpu("random_fill", out.device, extensions.DTYPE_CODE[out.dtype], *crossing)
    else:
        extensions.run("random_fill", out.dtype, out.device, *crossing)


def _has_kernel(device: torch.device) -> bool:
    """Whether an extension makes the numbers of this device; a GPU's are compared with torch's before the first use."""
    if extensions.on_gpu(device):
        return extensions.cuda_kernel_reason(device.type) is None and _makes_the_same(device)
    return extensions.cpu_kernel_reason(device.type) is None


_verdicts: dict[torch.device, bool] = {}
_FEW, _ROUNDING = 65, 1e-5


def _makes_the_same(device: torch.device) -> bool:
    if device not in _verdicts:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # nothing can be looked at now
        try:
            _verdicts[device] = all(
                torch.allclose(_few(name, dtype, device), fill_in_torch(name, 1, 2, _FEW, dtype, "cpu"), atol=_ROUNDING)
                for name in ("uniform", "normal", "logistic", "gumbel")
                for dtype in extensions.DTYPE_CODE
            )
        except RuntimeError:
            _verdicts[device] = False
        if not _verdicts[device]:
            said = f"The kernel of random numbers is not used: on {device} it failed, or gave others than torch."
            warnings.warn(said, RuntimeWarning, stacklevel=4)
    return _verdicts[device]


def _few(distribution: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    out = torch.empty(_FEW, dtype=dtype, device=device)
    _run_kernel(out, distribution, 1, 2, 0.0, 1.0)
    return out.cpu()


class RandomStream:
    """A seeded stream of random tensors that owns nothing but a seed and a step.

    Parameters
    ----------
    seed : int
        0 <= seed < 2^63.
    step : int
        Number of draws already made; every draw uses one step, whatever its size.
    device : torch.device or str
        Where draws are made unless a call says otherwise.

    Notes
    -----
    Uniform numbers lie in the open interval (0, 1), so their logarithms are finite. Copy `state` to save a stream.

    Numbers are made by the extensions in one pass, on the CPU and on GPUs the same bits, with every instruction set
    and number of threads. Where they are missing, and on other devices, torch makes them from the same random words:
    equal up to rounding, a few units in the last place of the larger of 1 and the number.

    Examples
    --------
    >>> from spectrafuse import RandomStream
    >>> stream = RandomStream(7)
    >>> first = stream.normal((2, 3))
    >>> stream.state
    {'seed': 7, 'step': 1}
    >>> bool((RandomStream(7).normal((2, 3)) == first).all())
    True
    """

    def __init__(self, seed: int, step: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed = checks.integer("seed", seed, minimum=0)
        self.step = checks.integer("step", step, minimum=0)
        self.device = torch.device(device)

    def __repr__(self) -> str:
        return f"RandomStream(seed={self.seed}, step={self.step}, device={str(self.device)!r})"

    @property
    def state(self) -> dict[str, int]:
        """What `RandomStream(**state)` needs to go on from here."""
        return {"seed": self.seed, "step": self.step}

    def _words(self, count: int, device: torch.device | str | None) -> Tensor:
        words = philox_words(self.seed, self.step, count, self.device if device is None else device)
        self.step += 1
        return words

    def fill(self, out: Tensor, distribution: str, *, low: float = 0.0, scale: float = 1.0) -> Tensor:
        """Overwrite a dense tensor with `low + scale * number`; what a draw of its shape, dtype and device returns.

        Parameters
        ----------
        out : Tensor
            Floats narrower than 32 bits are rounded from float32.
        distribution : {"uniform", "normal", "logistic", "gumbel"}
            Standard ones, uniform in (0, 1).
        """
        working = extensions.working_dtype(out.dtype)
        if out.dtype is working and _has_kernel(out.device):
            _run_kernel(out, distribution, self.seed, self.step, low, scale)
        else:
            numbers = fill_in_torch(distribution, self.seed, self.step, out.numel(), working, out.device)
            out.copy_((low + scale * numbers).view(out.shape))
        self.step += 1
        return out

    def _fill(
        self,
        distribution: str,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | str | None,
        low: float = 0.0,
        scale: float = 1.0,
    ) -> Tensor:
        """`low + scale * number` of one step; floats narrower than 32 bits are drawn as float32."""
        chosen = self.device if device is None else torch.device(device)
        out = torch.empty(tuple(shape), dtype=extensions.working_dtype(dtype), device=chosen)
        return self.fill(out, distribution, low=low, scale=scale).to(dtype)

    def uniform(
        self,
        shape: Sequence[int] = (),
        low: float = 0.0,
        high: float = 1.0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Uniform numbers in (low, high): 24 random bits for 32-bit and narrower floats, 52 for float64."""
        return self._fill("uniform", shape, dtype, device, low, high - low)

    def normal(
        self,
        shape: Sequence[int] = (),
        std: float = 1.0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Normal numbers of mean 0 (Box-Muller)."""
        return self._fill("normal", shape, dtype, device, scale=std)

    def gumbel(
        self,
        shape: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Standard Gumbel numbers, -log(-log(u))."""
        return self._fill("gumbel", shape, dtype, device)

    def logistic(
        self,
        shape: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Standard logistic numbers log(u / (1 - u)), the difference of two independent Gumbel numbers."""
        return self._fill("logistic", shape, dtype, device)

    def integers(
        self, low: int, high: int, shape: Sequence[int] = (), *, device: torch.device | str | None = None
    ) -> Tensor:
        """Integers from low to high, both included (int64); the range may span at most 2^31 values."""
        span = high - low + 1
        if not 1 <= span <= 2**31:
            raise InvalidValueError(f"`low` and `high` must satisfy low <= high < low + 2^31; got {low} and {high}.")
        words = self._words(math.prod(shape), device)
        return (low + ((words * span) >> 32)).reshape(tuple(shape))

    def permutation(self, count: int, *, device: torch.device | str | None = None) -> Tensor:
        """A random permutation of 0 .. count-1 (int64)."""
        words = self._words(2 * count, device).reshape(count, 2)
        return torch.argsort((words[:, 0] << 30) | (words[:, 1] >> 2), stable=True)
