"""Device functions for the place of one view's pixels in the other view of a pair."""

from __future__ import annotations

import triton
import triton.language as tl

READ_TOLERANCE = tl.constexpr(1e-4)
"""What a bilinear read may take from pixels that are not valid and still count."""


@triton.jit
def is_valid(valid, pixels, inside):
    """The pixels that count: all where there is no mask."""
    return inside if valid is None else inside & (tl.load(valid + pixels, mask=inside, other=0) != 0)


@triton.jit
def reciprocal(x):
    """1 / x in float64 by Newton's method: a division would call a function, which needs a stack."""
    x = x.to(tl.float64)
    guess = (1 / x.to(tl.float32)).to(tl.float64)
    guess *= 2 - x * guess
    return guess * (2 - x * guess)


@triton.jit
def larger(a, b):
    """The larger magnitude, nan where one is nan."""
    return tl.maximum(tl.abs(a), tl.abs(b), propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def other_pixels(geometry, valid, sample, y, x, counts, views, height, width):
    """Where the pixels (y, x) of `sample` lie in the other view of their pair.

    Returns the numbers of the four pixels around the place among all views' pixels, how far the place lies to the right
    of and below the first (0 to 1), and which of the pixels that count on their own side have a valid partner. Without
    `geometry` the place is the same index. Computed in float64: float32 would move the edge of the overlap.
    """
    pairs = views // 2
    # Divisions in 32 bits: those in 64 bits call a function, which needs a stack.
    own = sample.to(tl.int32)
    other = (own + pairs) % views
    first = other.to(tl.int64) * height * width
    if geometry is None:
        same = first + y.to(tl.int64) * width + x
        corners = (same, same, same, same)
        fractions = (tl.zeros_like(same).to(tl.float32), tl.zeros_like(same).to(tl.float32))
    else:
        own_view = geometry + (own % pairs * 2 + own // pairs) * 9
        other_view = geometry + (own % pairs * 2 + other // pairs) * 9
        per_width, per_height = reciprocal(width), reciprocal(height)
        in_x = (2 * x + 1).to(tl.float64) * per_width - 1
        in_y = (2 * y + 1).to(tl.float64) * per_height - 1
        own_x = tl.load(own_view + 2) * in_x + tl.load(own_view + 3) * in_y + tl.load(own_view + 4)
        own_y = tl.load(own_view + 5) * in_x + tl.load(own_view + 6) * in_y + tl.load(own_view + 7)
        there_x = own_x + 2 * (tl.load(own_view + 1) - tl.load(other_view + 1)) * per_width
        there_y = own_y + 2 * (tl.load(own_view) - tl.load(other_view)) * per_height
        a, b, c, d = tl.load(other_view + 2), tl.load(other_view + 3), tl.load(other_view + 5), tl.load(other_view + 6)
        from_x = there_x - tl.load(other_view + 4)
        from_y = there_y - tl.load(other_view + 7)
        per_determinant = reciprocal(a * d - b * c)
        view_x = (d * from_x - b * from_y) * per_determinant
        view_y = (a * from_y - c * from_x) * per_determinant
        furthest = larger(larger(own_x, own_y), larger(there_x, there_y))
        # A singular matrix gives inf or nan, which compare as not inside.
        counts &= larger(furthest, larger(view_x, view_y)) <= 1
        column = ((tl.where(counts, view_x, 0.0) + 1) * width - 1) * 0.5
        row = ((tl.where(counts, view_y, 0.0) + 1) * height - 1) * 0.5
        column = tl.minimum(tl.maximum(column, 0.0), (width - 1).to(tl.float64))
        row = tl.minimum(tl.maximum(row, 0.0), (height - 1).to(tl.float64))
        left = column.to(tl.int64)
        top = row.to(tl.int64)
        upper = first + top * width
        lower = first + tl.minimum(top + 1, height - 1) * width
        right = tl.minimum(left + 1, width - 1)
        corners = (upper + left, upper + right, lower + left, lower + right)
        fractions = ((column - left).to(tl.float32), (row - top).to(tl.float32))
    if valid is not None:
        partner = bilinear(valid, corners, fractions, counts, 0, 1)
        counts &= partner >= 1 - READ_TOLERANCE
    return corners, fractions, counts


@triton.jit
def bilinear(values, corners, fractions, mask, k, ROW: tl.constexpr):
    """Values (pixels, ROW) at column k, interpolated between the corners."""
    upper_left = tl.load(values + corners[0] * ROW + k, mask=mask, other=0).to(tl.float32)
    upper_right = tl.load(values + corners[1] * ROW + k, mask=mask, other=0).to(tl.float32)
    lower_left = tl.load(values + corners[2] * ROW + k, mask=mask, other=0).to(tl.float32)
    lower_right = tl.load(values + corners[3] * ROW + k, mask=mask, other=0).to(tl.float32)
    upper = upper_left + fractions[0] * (upper_right - upper_left)
    lower = lower_left + fractions[0] * (lower_right - lower_left)
    return upper + fractions[1] * (lower - upper)
