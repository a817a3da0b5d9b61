"""What a GPU can do by its specification, and from that how long a kernel should take: estimates, no measurements.

A kernel takes the longest of three times: its traffic at the speed of memory (or of the L2 cache, where all of it fits
in), its arithmetic at the speed of the float32 units, and what it reads from the L1 cache; each on as many
multiprocessors as its blocks occupy, with as many warps as registers and shared memory let reside; and the time to
start a kernel from a recorded graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

WARP = 32
_REGISTERS = 65536
_REGISTER_UNIT, _SHARED_UNIT = 256, 128

# What kernels reach of a specification: a large copy, and float32 units that also load, compare and count.
_OF_BANDWIDTH, _OF_ARITHMETIC = 0.85, 0.6
_OF_PRODUCTS = 0.5
"""Of the float32 units by the convolutions and products of torch's libraries, without tensor cores."""
_L2_SPEED = 2.5
"""Times memory's; traffic counts as the cache's where it is at most half as large."""
_L1_BYTES_PER_CLOCK = 128
_WARPS_TO_HIDE_LATENCY = 12
_MEMORY_LATENCY, _BYTES_IN_FLIGHT = 600e-9, 32
START_SECONDS = 2e-6


@dataclass(frozen=True)
class Gpu:
    """A model of GPU, as specified.

    Attributes
    ----------
    target : str
        Of the code that runs on it.
    multiprocessors : int
    clock : float
        Boost, GHz.
    bandwidth : float
        Of its memory, GB/s.
    l2 : float
        MB.
    """

    name: str
    target: str
    multiprocessors: int
    clock: float
    bandwidth: float
    l2: float

    @property
    def arithmetic(self) -> float:
        """Additions and multiplications a second: 128 lanes a multiprocessor, two to a fused instruction."""
        return 2 * 128 * self.multiprocessors * self.clock * 1e9


# Multiprocessors, boost clock and memory bandwidth: NVIDIA's product pages; L2 caches: NVIDIA's whitepapers of the
# architectures (GA102, Ada, RTX Blackwell, H100). H200 stands for the data centre.
GPUS = (
    Gpu("RTX 3060", "sm_86", 28, 1.78, 360, 3),
    Gpu("RTX 3080", "sm_86", 68, 1.71, 760, 5),
    Gpu("RTX 4060", "sm_89", 24, 2.46, 272, 24),
    Gpu("RTX 4080", "sm_89", 76, 2.51, 716.8, 64),
    Gpu("RTX 4090", "sm_89", 128, 2.52, 1008, 72),
    Gpu("RTX 5090", "sm_120", 170, 2.41, 1792, 96),
    Gpu("H200", "sm_90", 132, 1.98, 4800, 50),
)


class Limits(NamedTuple):
    """What can reside on a multiprocessor, and bytes of shared memory the system takes of every block."""

    warps: int
    blocks: int
    shared: int
    reserved: int


# CUDA programming guide, "Compute Capabilities", technical specifications.
LIMITS = {
    "sm_75": Limits(32, 16, 64 * 1024, 0),
    "sm_80": Limits(64, 32, 164 * 1024, 1024),
    "sm_86": Limits(48, 16, 100 * 1024, 1024),
    "sm_89": Limits(48, 24, 100 * 1024, 1024),
    "sm_90": Limits(64, 32, 228 * 1024, 1024),
    "sm_120": Limits(48, 24, 100 * 1024, 1024),
}


class Occupancy(NamedTuple):
    """How much of a multiprocessor a kernel can fill."""

    blocks: int
    warps: int
    share: float
    limit: str
    """"registers", "shared memory", "warps" or "blocks"."""


def occupancy(target: str, threads: int, registers: int, shared: int) -> Occupancy:
    """From registers a thread and bytes of shared memory a block, without what the system takes.

    Raises
    ------
    ValueError
        If not even one block fits.
    """
    limits, warps = LIMITS[target], math.ceil(threads / WARP)
    per_warp = math.ceil(registers * WARP / _REGISTER_UNIT) * _REGISTER_UNIT
    per_block = math.ceil((shared + limits.reserved) / _SHARED_UNIT) * _SHARED_UNIT
    fits = {
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
        "registers": _REGISTERS // per_warp // warps if registers else limits.blocks,
        "shared memory": limits.shared // per_block if per_block else limits.blocks,
    }
    limit = min(fits, key=lambda name: fits[name])
    if fits[limit] < 1:
        raise ValueError(f"A block of {threads} threads does not fit on {target}: too much of its {limit}.")
    return Occupancy(fits[limit], fits[limit] * warps, fits[limit] * warps / limits.warps, limit)


@dataclass(frozen=True)
class Launch:
    """A kernel as it is started.

    Attributes
    ----------
    table, kernel : str
        File and row in `benchmarks/resources`.
    threads, blocks : int
        Of a block, and in all.
    operations, bytes : int
        By count, of `spectrafuse.counts`.
    near : int
        Bytes read from the L1 cache or shared memory.
    """

    table: str
    kernel: str
    threads: int
    blocks: int
    operations: int
    bytes: int
    near: int = 0


@dataclass(frozen=True)
class Library:
    """Work that torch's own kernels do.

    Attributes
    ----------
    kernels : int
        That are started.
    """

    name: str
    operations: int
    bytes: int
    kernels: int = 1


class Estimate(NamedTuple):
    """What a kernel should take, and what limits it."""

    seconds: float
    bound: str
    """"memory", "L2 cache", "arithmetic", "L1 cache" or "start"."""
    occupancy: Occupancy | None


def estimate(gpu: Gpu, work: Launch | Library, resources: Mapping[str, int] | None = None) -> Estimate:
    """How long a kernel should take.

    Parameters
    ----------
    resources : mapping
        `registers` and `shared` of a `Launch` on the GPU's target.
    """
    in_cache = work.bytes <= gpu.l2 * 1e6 / 2
    memory = "L2 cache" if in_cache else "memory"
    bandwidth = gpu.bandwidth * 1e9 * _OF_BANDWIDTH * (_L2_SPEED if in_cache else 1.0)
    if isinstance(work, Library):
        times = {memory: work.bytes / bandwidth, "arithmetic": work.operations / (gpu.arithmetic * _OF_PRODUCTS)}
        return _longest(times, START_SECONDS * work.kernels, None)
    assert resources is not None
    found = occupancy(gpu.target, work.threads, resources["registers"], resources["shared"])
    # The last blocks of a launch leave multiprocessors idle, and so does one of few blocks.
    share = work.blocks / gpu.multiprocessors / math.ceil(work.blocks / gpu.multiprocessors)
    resident = min(work.blocks / (gpu.multiprocessors * share), found.blocks) * math.ceil(work.threads / WARP)
    arithmetic = gpu.arithmetic * _OF_ARITHMETIC * share * min(1.0, resident / _WARPS_TO_HIDE_LATENCY)
    in_flight = resident * WARP * _BYTES_IN_FLIGHT * gpu.multiprocessors * share
    near = gpu.multiprocessors * share * gpu.clock * 1e9 * _L1_BYTES_PER_CLOCK
    times = {
        memory: work.bytes / min(bandwidth, in_flight / _MEMORY_LATENCY),
        "arithmetic": work.operations / arithmetic,
        "L1 cache": work.near / near,
    }
    return _longest(times, START_SECONDS, found)


def _longest(times: Mapping[str, float], start: float, found: Occupancy | None) -> Estimate:
    bound = max(times, key=lambda name: times[name])
    return Estimate(times[bound] + start, "start" if times[bound] < start else bound, found)
