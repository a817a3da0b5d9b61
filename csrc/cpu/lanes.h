// A vector's arithmetic for the shared functions: `Lanes<T>` is to them what `Scalar<T>` is for one number.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/arithmetic.h"
#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {

typedef std::uint64_t WideVector __attribute__((vector_size(SPECTRAFUSE_VECTOR_BYTES)));

inline WideVector product_of_low_halves(WideVector a, WideVector b) {
#if defined(__AVX512F__)
    // Without a mask GCC 12 warns about an operand of its own that it leaves undefined.
    return (WideVector)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (WideVector)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (WideVector)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

inline FloatVector fused_lanes(FloatVector a, FloatVector b, FloatVector c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#else
    FloatVector out = {};
    for (int i = 0; i < lanes<float>; ++i) out[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return out;
#endif
}

inline DoubleVector fused_lanes(DoubleVector a, DoubleVector b, DoubleVector c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_pd(a, b, c);
#else
    DoubleVector out = {};
    for (int i = 0; i < lanes<double>; ++i) out[i] = __builtin_fma(a[i], b[i], c[i]);
    return out;
#endif
}

template <class T, class Int>
struct LaneConversions {
    using Number = T;
    using Real = Vector<T>;
    using Integer = Int;

    SPECTRAFUSE_SHARED Real constant(T x) { return broadcast<T>(x); }
    SPECTRAFUSE_SHARED Integer bits(Real x) { return (Integer)x; }
    SPECTRAFUSE_SHARED Real from_bits(Integer x) { return (Real)x; }
    SPECTRAFUSE_SHARED Integer whole(Real x) { return __builtin_convertvector(x, Integer); }
    SPECTRAFUSE_SHARED Real real(Integer x) { return __builtin_convertvector(x, Real); }
    SPECTRAFUSE_SHARED Real fused(Real a, Real b, Real c) { return fused_lanes(a, b, c); }
    SPECTRAFUSE_SHARED Real root(Real x) { return square_root(x); }
};

template <class T>
struct Lanes;

template <>
struct Lanes<double> : LaneConversions<double, LongVector> {
    using Wide = WideVector;

    SPECTRAFUSE_SHARED Wide counting_from(std::uint64_t first) {
        Wide out;
        for (int i = 0; i < lanes<double>; ++i) out[i] = first + i;
        return out;
    }
    SPECTRAFUSE_SHARED Wide product(Wide x, std::uint32_t factor) {
        return product_of_low_halves(x, WideVector{} + factor);
    }
    SPECTRAFUSE_SHARED LongVector word(Wide x) { return (LongVector)(x & 0xFFFFFFFFu); }
};

// 64 bits for each of the lanes of a float vector.
struct WidePair {
    WideVector even, odd;

    WidePair operator>>(int count) const { return {even >> count, odd >> count}; }
    WidePair operator^(const WidePair& other) const { return {even ^ other.even, odd ^ other.odd}; }
    WidePair operator^(std::uint64_t other) const { return {even ^ other, odd ^ other}; }
};

template <>
struct Lanes<float> : LaneConversions<float, IntVector> {
    using Wide = WidePair;

    SPECTRAFUSE_SHARED Wide counting_from(std::uint64_t first) {
        Wide out;
        for (int i = 0; i < lanes<double>; ++i) {
            out.even[i] = first + 2 * i;
            out.odd[i] = first + 2 * i + 1;
        }
        return out;
    }
    SPECTRAFUSE_SHARED Wide product(const Wide& x, std::uint32_t factor) {
        return {product_of_low_halves(x.even, WideVector{} + factor),
                product_of_low_halves(x.odd, WideVector{} + factor)};
    }
    SPECTRAFUSE_SHARED IntVector word(const Wide& x) { return (IntVector)((x.even & 0xFFFFFFFFu) | (x.odd << 32)); }
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
