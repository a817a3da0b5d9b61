// From random words to uniform, normal, logistic and Gumbel numbers: the same bits on host, vector unit and device
// (arithmetic.h says why). Polynomials: Cephes (logarithm, float), fdlibm (logarithm, double), Taylor (sine and cosine
// of at most an eighth of a turn).
#pragma once

#include "arithmetic.h"

namespace spectrafuse {

// 23 bits and a half, exact in float: inside (0, 1), and so is one minus it.
template <class A>
SPECTRAFUSE_SHARED typename A::Real unit_of_word(typename A::Integer word) {
    using T = typename A::Number;
    return (A::real((word >> 9) & 0x7FFFFF) + T(0.5)) * T(1.0 / 8388608.0);
}

// 52 bits and a half from two words, for double.
template <class A>
SPECTRAFUSE_SHARED typename A::Real unit_of_words(typename A::Integer first, typename A::Integer second) {
    return (A::real((first << 20) | (second >> 12)) + 0.5) * (1.0 / 4503599627370496.0);
}

// ((first x + c1) x + c2) x + ...
template <class A>
SPECTRAFUSE_SHARED typename A::Real horner(typename A::Real, typename A::Real value) {
    return value;
}
template <class A, class... More>
SPECTRAFUSE_SHARED typename A::Real horner(typename A::Real x, typename A::Real value, typename A::Number next,
                                           More... more) {
    return horner<A>(x, A::fused(value, x, A::constant(next)), more...);
}

// x = 2^exponent (1 + fraction) with 1 + fraction in [sqrt(1/2), sqrt(2)), for x > 0 that is not subnormal.
template <class A>
struct LogarithmParts {
    typename A::Real exponent, fraction;
};

template <class A>
SPECTRAFUSE_SHARED LogarithmParts<A> logarithm_parts(typename A::Real x, typename A::Integer root_of_half,
                                                     int mantissa_bits) {
    using T = typename A::Number;
    using Integer = typename A::Integer;
    const Integer bits = A::bits(x), above = bits - root_of_half, one = Integer{} + 1;
    // The exponent in its place, without the bits below: shifting a negative exponent to the left is not defined.
    const Integer exponent_bits = above & ~((one << mantissa_bits) - one);
    return {A::real(above >> mantissa_bits), A::from_bits(bits - exponent_bits) - T(1)};
}

template <class A>
SPECTRAFUSE_SHARED typename A::Real logarithm(typename A::Real x, float) {
    using Real = typename A::Real;
    const LogarithmParts<A> p = logarithm_parts<A>(x, typename A::Integer{} + 0x3F3504F3, 23);
    const Real f = p.fraction, square = f * f;
    Real y = horner<A>(f, A::constant(7.0376836292e-2f), -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f,
                       1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f);
    y = y * f * square;
    y = A::fused(p.exponent, A::constant(-2.12194440e-4f), y);
    y = A::fused(square, A::constant(-0.5f), y);
    return A::fused(p.exponent, A::constant(0.693359375f), f + y);
}

template <class A>
SPECTRAFUSE_SHARED typename A::Real logarithm(typename A::Real x, double) {
    using Real = typename A::Real;
    const LogarithmParts<A> p = logarithm_parts<A>(x, typename A::Integer{} + 0x3FE6A09E667F3BCD, 52);
    const Real f = p.fraction, half_square = f * f * 0.5, s = f / (f + 2.0), z = s * s;
    const Real series = horner<A>(z, A::constant(1.479819860511658591e-01), 1.531383769920937332e-01,
                                  1.818357216161805012e-01, 2.222219843214978396e-01, 2.857142874366239149e-01,
                                  3.999999999940941908e-01, 6.666666666666735130e-01);
    const Real small =
        A::fused(p.exponent, A::constant(1.90821492927058770002e-10), s * A::fused(z, series, half_square));
    return A::fused(p.exponent, A::constant(6.93147180369123816490e-01), f - (half_square - small));
}

// log x for x > 0 that is not subnormal.
template <class A>
SPECTRAFUSE_SHARED typename A::Real logarithm(typename A::Real x) {
    return logarithm<A>(x, typename A::Number{});
}

// Sine and cosine of a part of a turn, at most 1/8 either way.
template <class A>
struct Direction {
    typename A::Real cosine, sine;
};

template <class A>
SPECTRAFUSE_SHARED Direction<A> small_direction(typename A::Real turn, float) {
    const typename A::Real t = turn * turn;
    return {horner<A>(t, A::constant(-26.4262562f), 60.2446404f, -85.4568176f, 64.9393921f, -19.7392082f, 1.0f),
            turn * horner<A>(t, A::constant(42.0586929f), -76.7058563f, 81.6052475f, -41.3417015f, 6.28318548f)};
}

template <class A>
SPECTRAFUSE_SHARED Direction<A> small_direction(typename A::Real turn, double) {
    const typename A::Real t = turn * turn;
    return {horner<A>(t, A::constant(0.28200596845579123), -1.714390711088672, 7.9035363713184692, -26.426256783374399,
                      60.244641371876661, -85.456817206693728, 64.939394022668296, -19.739208802178716, 1.0),
            turn * horner<A>(t, A::constant(0.10422916220813984), -0.71812230177850056, 3.819952584848282,
                             -15.09464257682299, 42.058693944897655, -76.705859753061389, 81.605249276075057,
                             -41.341702240399762, 6.2831853071795862)};
}

// Sine and cosine of a turn in [0, 1]; the reduction to an eighth of a turn is exact.
template <class A>
SPECTRAFUSE_SHARED Direction<A> direction(typename A::Real turn) {
    using T = typename A::Number;
    using Integer = typename A::Integer;
    const Integer quarter = A::whole(A::fused(turn, A::constant(T(4)), A::constant(T(0.5))));
    const Direction<A> d = small_direction<A>(A::fused(A::real(quarter), A::constant(T(-0.25)), turn), T{});
    const typename A::Real cosine = (quarter & 1) != 0 ? d.sine : d.cosine;
    const typename A::Real sine = (quarter & 1) != 0 ? d.cosine : d.sine;
    constexpr int sign = 8 * sizeof(T) - 2;  // moves bit 1 of a quarter to the sign
    return {A::from_bits(A::bits(cosine) ^ (((quarter + 1) & 2) << sign)),
            A::from_bits(A::bits(sine) ^ ((quarter & 2) << sign))};
}

// Two independent standard normal numbers from two units (Box and Muller).
template <class A>
struct NormalPair {
    typename A::Real first, second;
};

template <class A>
SPECTRAFUSE_SHARED NormalPair<A> normal_pair(typename A::Real radius_unit, typename A::Real turn) {
    using T = typename A::Number;
    const typename A::Real radius = A::root(logarithm<A>(radius_unit) * T(-2));
    const Direction<A> d = direction<A>(turn);
    return {radius * d.cosine, radius * d.sine};
}

// log(u / (1 - u)): the difference of two standard Gumbel numbers.
template <class A>
SPECTRAFUSE_SHARED typename A::Real logistic(typename A::Real unit) {
    using T = typename A::Number;
    return logarithm<A>(unit / (T(1) - unit));
}

template <class A>
SPECTRAFUSE_SHARED typename A::Real gumbel(typename A::Real unit) {
    return -logarithm<A>(-logarithm<A>(unit));
}

}  // namespace spectrafuse
