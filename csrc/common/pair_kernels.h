// The similarity kernels of ambiguity_penalty and their slopes, for a vector on the host or a number on a device.
#pragma once

#include "host_device.h"

namespace spectrafuse {

enum class PairKind { poly, laplacian, rbf, matern_1, matern_3, matern_5, matern_7 };

struct PairKernel {
    PairKind kind;
    int power;
    double offset, scale;
    double quadratic;  // of matern_7: 14/5, or 21/5 as published
    // Made on the host: a GPU divides doubles slowly.
    double inverse = 1 / scale, inverse_square = 1 / (scale * scale);
};

template <class V>
struct PairTerm {
    V value;
    V slope;  // dvalue/dz_i is slope times z_j (poly), sign(z_j - z_i) (laplacian) or z_j - z_i (the others)
};

// From the inner product of two rows.
template <class Math>
SPECTRAFUSE_SHARED PairTerm<typename Math::V> term_of_product(const PairKernel& kernel, typename Math::V product) {
    using T = typename Math::T;
    const typename Math::V base = product + static_cast<T>(kernel.offset);
    typename Math::V lower = base * T(0) + T(1);
    for (int i = 1; i < kernel.power; ++i) lower = lower * base;
    return {lower * base, lower * static_cast<T>(kernel.power)};
}

// From the sum of absolute differences.
template <class Math>
SPECTRAFUSE_SHARED PairTerm<typename Math::V> term_of_absolute(const PairKernel& kernel, typename Math::V distance) {
    using T = typename Math::T;
    const typename Math::V value = Math::exp_nonpositive(distance * static_cast<T>(-kernel.inverse));
    return {value, value * static_cast<T>(kernel.inverse)};
}

// What a pair of the Laplacian adds to the gradient of one row, from the other row's number less its own.
template <class V>
SPECTRAFUSE_SHARED V pull_of_absolute(V slope, V difference) {
    return difference > 0 ? slope : (difference < 0 ? -slope : V{});
}

// From the squared Euclidean distance. With r the distance over the scale and k(r) the kernel, the slope is -k'(r) /
// (r scale^2); for Matern kernels above order 1/2 the division by r cancels. At r = 0 the kernel of order 1/2 has a
// kink, and slope 0.
template <class Math>
SPECTRAFUSE_SHARED PairTerm<typename Math::V> term_of_squared(const PairKernel& kernel, typename Math::V squared) {
    using T = typename Math::T;
    using V = typename Math::V;
    const T inverse = static_cast<T>(kernel.inverse_square);
    const V square = squared * inverse;
    if (kernel.kind == PairKind::rbf) {
        const V value = Math::exp_nonpositive(square * T(-0.5));
        return {value, value * inverse};
    }
    const V r = Math::root(square);
    if (kernel.kind == PairKind::matern_1) {
        const V value = Math::exp_nonpositive(-r);
        return {value, Math::where_positive(r, value * inverse / r)};
    }
    const T a = kernel.kind == PairKind::matern_3   ? T(1.7320508075688772)
                : kernel.kind == PairKind::matern_5 ? T(2.2360679774997897)
                                                    : T(2.6457513110645906);
    const V decay = Math::exp_nonpositive(r * -a);
    if (kernel.kind == PairKind::matern_3) return {(a * r + T(1)) * decay, decay * (T(3) * inverse)};
    if (kernel.kind == PairKind::matern_5)
        return {(a * r + square * T(5.0 / 3) + T(1)) * decay, (a * r + T(1)) * decay * (T(5.0 / 3) * inverse)};
    const T q = static_cast<T>(kernel.quadratic);
    const V value = (a * r + square * q + square * r * (a * T(7.0 / 15)) + T(1)) * decay;
    const V slope = (r * (a * (q - T(7.0 / 5))) + square * T(49.0 / 15) + (T(7) - 2 * q)) * decay * inverse;
    return {value, slope};
}

}  // namespace spectrafuse
