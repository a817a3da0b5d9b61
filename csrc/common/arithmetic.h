// One number's arithmetic: what the functions of random_math.h and gate_math.h are written in.
//
// They are templates over such a class: `Scalar<float>` for a CUDA thread and for single numbers on the host,
// `Lanes<float>` (cpu/lanes.h) for a vector. The results are the same bits in all three: a product that meets a sum
// goes through `fused`, which rounds once, so nothing is left for a compiler to contract; +, -, *, / and the root
// round correctly everywhere; nothing comes from a mathematical library.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace spectrafuse {

template <class T, class Int>
struct ScalarConversions {
    using Number = T;
    using Real = T;
    using Integer = Int;         // as many lanes of as many bits
    using Wide = std::uint64_t;  // as many lanes of 64 bits, for Philox

    SPECTRAFUSE_SHARED T constant(T x) { return x; }
    SPECTRAFUSE_SHARED Int bits(T x) {
        Int out;
        memcpy(&out, &x, sizeof out);
        return out;
    }
    SPECTRAFUSE_SHARED T from_bits(Int x) {
        T out;
        memcpy(&out, &x, sizeof out);
        return out;
    }
    SPECTRAFUSE_SHARED Int whole(T x) { return static_cast<Int>(x); }  // towards zero
    SPECTRAFUSE_SHARED T real(Int x) { return static_cast<T>(x); }
    // The low half of x times a factor, all 64 bits of it.
    SPECTRAFUSE_SHARED Wide product(Wide x, std::uint32_t factor) {
        return std::uint64_t{static_cast<std::uint32_t>(x)} * factor;
    }
    SPECTRAFUSE_SHARED Int word(Wide x) { return static_cast<Int>(static_cast<std::uint32_t>(x)); }
};

template <class T>
struct Scalar;

template <>
struct Scalar<float> : ScalarConversions<float, std::int32_t> {
    SPECTRAFUSE_SHARED float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
        return __fmaf_rn(a, b, c);
#else
        return __builtin_fmaf(a, b, c);
#endif
    }
    SPECTRAFUSE_SHARED float root(float x) {
#if defined(__CUDA_ARCH__)
        return __fsqrt_rn(x);
#else
        return __builtin_sqrtf(x);
#endif
    }
};

template <>
struct Scalar<double> : ScalarConversions<double, std::int64_t> {
    SPECTRAFUSE_SHARED double fused(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
        return __fma_rn(a, b, c);
#else
        return __builtin_fma(a, b, c);
#endif
    }
    SPECTRAFUSE_SHARED double root(double x) {
#if defined(__CUDA_ARCH__)
        return __dsqrt_rn(x);
#else
        return __builtin_sqrt(x);
#endif
    }
};

}  // namespace spectrafuse
