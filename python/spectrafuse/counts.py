"""Arithmetic and traffic of the operations, by count: what benchmarks, profiles and estimates measure time against.

Operations are additions and multiplications; bytes are those that must be read and written however the operation is
carried out, of numbers of four bytes. This file imports nothing of the package, so that another version of the package
can be measured with the counts of this one.
"""

from __future__ import annotations

from typing import NamedTuple

BYTES = 4
"""Of a number, float32."""


class Work(NamedTuple):
    """What one call does."""

    operations: int
    bytes: int


class Counts(NamedTuple):
    """What an operation does in each direction."""

    forward: Work
    backward: Work
    both: Work

    def of(self, direction: str) -> Work:
        """Of "forward", "backward" or "both"."""
        return {"forward": self.forward, "backward": self.backward, "both": self.both}[direction]


def _counts(operations: tuple[int, int], numbers: tuple[int, int], numbers_of_both: int | None = None) -> Counts:
    """From operations, and numbers that are read or written, forward and backward."""
    both = sum(numbers) if numbers_of_both is None else numbers_of_both
    return Counts(
        Work(operations[0], BYTES * numbers[0]),
        Work(operations[1], BYTES * numbers[1]),
        Work(sum(operations), BYTES * both),
    )


def adamw_outer(batch: int, inputs: int, outputs: int) -> Work:
    """Two operations per weight and row for the gradient, twelve for the update; weight and both moments are read and
    written."""
    return Work((2 * batch + 12) * inputs * outputs, 6 * BYTES * inputs * outputs)


def ambiguity_penalty(count: int, dim: int, laplacian: bool = False) -> Counts:
    """For a pair, d multiply-adds or differences for its similarity, and two sums of d for the gradients."""
    pairs = count * (count - 1) // 2 * dim
    forward = 3 if laplacian else 2
    return _counts((forward * pairs, 2 * forward * pairs), (count * dim, 2 * count * dim), 2 * count * dim)


def clustering_objective(pixels: int, dim: int, clusters: int, iterations: int, window: int) -> Counts:
    """Of both views' `pixels` together: mean shift as in `mean_shift_assign`, and 2 per cluster and dimension for each
    product with centers or sums; embeddings and their gradient, z before the last iteration, assignments and their
    reads."""
    neighbours = window**2 * dim
    forward = 5 * iterations * neighbours + 6 * clusters * dim
    backward = 9 * neighbours + 8 * clusters * dim
    return _counts(
        (pixels * forward, pixels * backward),
        (pixels * (2 * dim + 3 * clusters), pixels * (6 * dim + 4 * clusters)),
    )


def convolution(pixels: int, inputs: int, outputs: int, taps: int) -> Counts:
    """A product of the weights with every pixel's neighbourhood; backward one for the input and one for the weight.

    Values are read and written once, the weights are few.
    """
    product, weights = 2 * pixels * inputs * outputs * taps, inputs * outputs * taps
    values = pixels * (inputs + outputs)
    return _counts((product, 2 * product), (values + weights, 2 * values + 2 * weights))


def dense_mean_shift(batch: int, dim: int, pixels: int, iterations: int) -> Counts:
    """For two pixels 3 D multiply-adds and 20 for the exponential forward, 7 D and as many backward."""
    pairs, values = batch * pixels**2 // 2 * iterations, batch * pixels * iterations
    return Counts(
        Work(pairs * (6 * dim + 20), BYTES * values * (2 * dim + 1)),
        Work(pairs * (14 * dim + 20), BYTES * values * (4 * dim + 1)),
        Work(pairs * (20 * dim + 40), BYTES * values * (6 * dim + 1)),
    )


def extract_crop_pairs(batch: int, bands: int, pixels: int) -> Work:
    """Three interpolations of three operations; every value of both windows read, every value of the views written."""
    values = 2 * batch * bands * pixels
    return Work(9 * values, 2 * BYTES * values)


def gate(batch: int, components: int) -> Counts:
    """Forward reads energies and noise and writes gates and energies; backward reads three tensors, writes one."""
    gates = batch * components
    return _counts((40 * gates, 15 * gates), (8 * gates, 8 * gates))


def energy_gate(batch: int, components: int, width: int) -> Counts:
    """`skinny_linear` and `gate`."""
    layer, after = skinny_linear(batch, width, 2 * components), gate(batch, components)
    return Counts(*(Work(a.operations + b.operations, a.bytes + b.bytes) for a, b in zip(layer, after, strict=True)))


def gated_mixture(batch: int, components: int, bands: int) -> Counts:
    """A product of a sample's weight and a component forward, two of them backward; components are read once, and once
    more with their gradient written."""
    product, values = 2 * batch * components * bands, components * bands
    return _counts((product, 2 * product), (values, 2 * values))


def mean_shift_assign(pixels: int, dim: int, clusters: int, iterations: int, window: int) -> Counts:
    """5 per neighbour, dimension and iteration forward, 9 for the one iteration that is differentiated."""
    neighbours = pixels * window**2 * dim
    return _counts(
        (5 * iterations * neighbours, 9 * neighbours),
        (pixels * (3 * dim + clusters + 1), pixels * (5 * dim + 2 * clusters)),
    )


def random_fill(count: int) -> Work:
    """About 60 a number, most of them for its random words; it is written once."""
    return Work(60 * count, BYTES * count)


def scene_spectra(bands: int, pixels: int, filled: int) -> Work:
    """A product and a sum for the norm, two divisions and a difference; bands are filled up to `filled`."""
    return Work(5 * bands * pixels, BYTES * pixels * (bands + filled))


def skinny_linear(batch: int, inputs: int, outputs: int) -> Counts:
    """Two per weight and row for each product: the layer, and the gradients of its input and its weight; the weights
    are read once in each direction, and their gradient is written."""
    weights = inputs * outputs
    return _counts((2 * batch * weights, 4 * batch * weights), (weights, 2 * weights))


def sparse_gated_mixture(batch: int, components: int, bands: int) -> Counts:
    """About 300 a gate in each direction, most of them random words; three tensors like the components."""
    gates, values = batch * components * bands, 3 * components * bands
    return _counts((300 * gates, 300 * gates), (values, 2 * values))


def spectral_compactness(pixels: int, bands: int, clusters: int) -> Counts:
    """One product with the spectra each way, and the norms."""
    values, numbers = 2 * pixels * bands, pixels * (bands + clusters + 1)
    return _counts((values * (clusters + 1), values * clusters), (numbers, numbers))
