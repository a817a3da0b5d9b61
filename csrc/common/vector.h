// Short vectors of the instruction set this file is compiled for, on the compiler's vector extension.
//
// Kernel files are compiled once per instruction set, each into its own namespace. They use nothing from the standard
// library that is a template or inline: the linker would keep one copy for all instruction sets.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#define SPECTRAFUSE_ISA avx512
#define SPECTRAFUSE_VECTOR_BYTES 64
#define SPECTRAFUSE_TILE_VECTORS 1
#elif defined(__AVX2__)
#define SPECTRAFUSE_ISA avx2
#define SPECTRAFUSE_VECTOR_BYTES 32
#define SPECTRAFUSE_TILE_VECTORS 2
#else
#define SPECTRAFUSE_ISA baseline
#define SPECTRAFUSE_VECTOR_BYTES 16
#define SPECTRAFUSE_TILE_VECTORS 2
#endif

namespace spectrafuse::SPECTRAFUSE_ISA {

typedef float FloatVector __attribute__((vector_size(SPECTRAFUSE_VECTOR_BYTES)));
typedef double DoubleVector __attribute__((vector_size(SPECTRAFUSE_VECTOR_BYTES)));
typedef std::int32_t IntVector __attribute__((vector_size(SPECTRAFUSE_VECTOR_BYTES)));
typedef std::int64_t LongVector __attribute__((vector_size(SPECTRAFUSE_VECTOR_BYTES)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    using type = FloatVector;
};
template <>
struct VectorOf<double> {
    using type = DoubleVector;
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int lanes = SPECTRAFUSE_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
    Vector<T> v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class T>
inline void store(T* to, Vector<T> v) {
    __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
inline Vector<T> broadcast(T x) {
    return x - Vector<T>{};
}

template <class T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
    return a > b ? a : b;
}

// By halves: the upper half of the lanes is added to the lower one until two are left.
template <class T, int Count>
inline T sum_halves(const T* from) {
    if constexpr (Count == 2) {
        return from[0] + from[1];
    } else {
        typedef T Half __attribute__((vector_size(Count / 2 * sizeof(T))));
        Half low, high;
        __builtin_memcpy(&low, from, sizeof low);
        __builtin_memcpy(&high, from + Count / 2, sizeof high);
        low += high;
        T sums[Count / 2];
        __builtin_memcpy(sums, &low, sizeof sums);
        return sum_halves<T, Count / 2>(sums);
    }
}

template <class T>
inline T sum_lanes(Vector<T> v) {
    T values[lanes<T>];
    store(values, v);
    return sum_halves<T, lanes<T>>(values);
}

inline FloatVector square_root(FloatVector v) {
    for (int i = 0; i < lanes<float>; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
}

inline DoubleVector square_root(DoubleVector v) {
    for (int i = 0; i < lanes<double>; ++i) v[i] = __builtin_sqrt(v[i]);
    return v;
}

// exp(x) for x <= 0, within 2 ulp; 0 where the result would be subnormal. The argument is split as n ln 2 + r with
// |r| <= ln 2 / 2, the polynomial is the one of Cephes (float) or Taylor's to the power 13 (double).
inline FloatVector exp_nonpositive(FloatVector x) {
    const float smallest = -87.0f;
    const FloatVector clamped = x < smallest ? broadcast<float>(smallest) : x;  // keeps NaN
    const IntVector n = __builtin_convertvector(clamped * 1.44269504f - 0.5f, IntVector);
    const FloatVector whole = __builtin_convertvector(n, FloatVector);
    const FloatVector r = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
    FloatVector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const IntVector scale_bits = (n + 127) << 23;
    FloatVector scale;
    __builtin_memcpy(&scale, &scale_bits, sizeof scale);
    return x < smallest ? FloatVector{} : p * scale;
}

inline DoubleVector exp_nonpositive(DoubleVector x) {
    const double smallest = -708.0;
    const DoubleVector clamped = x < smallest ? broadcast<double>(smallest) : x;  // keeps NaN
    const LongVector n = __builtin_convertvector(clamped * 1.4426950408889634 - 0.5, LongVector);
    const DoubleVector whole = __builtin_convertvector(n, DoubleVector);
    const DoubleVector r = (clamped - whole * 0.693145751953125) - whole * 1.42860682030941723212e-6;
    DoubleVector p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    const LongVector scale_bits = (n + 1023) << 52;
    DoubleVector scale;
    __builtin_memcpy(&scale, &scale_bits, sizeof scale);
    return x < smallest ? DoubleVector{} : p * scale;
}

}  // namespace spectrafuse::SPECTRAFUSE_ISA
