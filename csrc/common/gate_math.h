// The arithmetic of one gate, forward and backward, for host, vector unit and device (arithmetic.h).
#pragma once

#include "arithmetic.h"
#include "random_math.h"

namespace spectrafuse {

// 2^n (1 + r + ...): the end of the exponential function, which needs the exponent's place and bias.
template <class A>
SPECTRAFUSE_SHARED typename A::Real power_of_two(typename A::Integer n, float) {
    return A::from_bits((n + 127) << 23);
}
template <class A>
SPECTRAFUSE_SHARED typename A::Real power_of_two(typename A::Integer n, double) {
    return A::from_bits((n + 1023) << 52);
}

// exp(r) - 1 - r over r^2 for |r| <= ln 2 / 2: Cephes (float), Taylor (double).
template <class A>
SPECTRAFUSE_SHARED typename A::Real exponential_series(typename A::Real r, float) {
    return horner<A>(r, A::constant(1.9875691500e-4f), 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                     1.6666665459e-1f, 5.0000001201e-1f);
}
template <class A>
SPECTRAFUSE_SHARED typename A::Real exponential_series(typename A::Real r, double) {
    return horner<A>(r, A::constant(1.0 / 6227020800.0), 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
                     1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5);
}

// exp(x) for x <= 0; 0 where the result would be subnormal.
template <class A>
SPECTRAFUSE_SHARED typename A::Real exponential(typename A::Real x) {
    using T = typename A::Number;
    using Real = typename A::Real;
    const Real smallest = A::constant(sizeof(T) == 4 ? T(-87) : T(-708)), zero = A::constant(T(0));
    const Real inside = x < smallest ? smallest : x;  // keeps NaN
    const typename A::Integer n = A::whole(A::fused(inside, A::constant(T(1.4426950408889634)), A::constant(T(-0.5))));
    Real r = A::fused(A::real(n), A::constant(sizeof(T) == 4 ? T(-0.693359375) : T(-0.693145751953125)), inside);
    r = A::fused(A::real(n), A::constant(sizeof(T) == 4 ? T(2.12194440e-4) : T(-1.42860682030941723212e-6)), r);
    const Real grown = A::fused(exponential_series<A>(r, T{}), r * r, r) + T(1);
    return x < smallest ? zero : grown * power_of_two<A>(n, T{});
}

// 1 / (1 + exp(-x)), to the last bits at both ends.
template <class A>
SPECTRAFUSE_SHARED typename A::Real sigmoid(typename A::Real x) {
    using T = typename A::Number;
    using Real = typename A::Real;
    const Real decay = exponential<A>(x < T(0) ? x : -x);
    const Real one = A::constant(T(1));
    return (x < T(0) ? decay : one) / (decay + T(1));
}

// What the gates of a call share.
template <class T>
struct GateOptions {
    T shift, inverse_tau;  // shift: step size times steps of the refinement
};

template <class A>
struct GateNumbers {
    typename A::Real select_prob, energy0, energy1;  // the energies refined and negated
};

template <class A>
SPECTRAFUSE_SHARED GateNumbers<A> gate_numbers(const GateOptions<typename A::Number>& options, typename A::Real energy0,
                                               typename A::Real energy1, typename A::Real noise0,
                                               typename A::Real noise1, typename A::Real difference) {
    const typename A::Real refined0 = options.shift - energy0 - noise0, refined1 = options.shift - energy1 - noise1;
    return {sigmoid<A>((refined0 - refined1 + difference) * options.inverse_tau), refined0, refined1};
}

// Derivative of the gate by the first negated energy, and its negative by the second.
template <class A>
SPECTRAFUSE_SHARED typename A::Real gate_slope(const GateOptions<typename A::Number>& options,
                                               typename A::Real select_prob) {
    using T = typename A::Number;
    return select_prob * (T(1) - select_prob) * options.inverse_tau;
}

}  // namespace spectrafuse
