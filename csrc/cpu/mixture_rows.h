// Rows of a pool of components as the mixture kernels read them: absolute values, zero-padded, with their lengths.
#pragma once

#include "../common/arithmetic.h"
#include "../common/gated_mixture.h"
#include "partial_vectors.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// Samples whose sums a kernel keeps in registers together.
constexpr int kSamples = SPECTRAFUSE_VECTOR_BYTES == 64 ? 8 : 4;
constexpr int kColumnVectors = 2;
template <class T>
constexpr std::int64_t kColumns = kColumnVectors * lanes<T>;

template <class T>
std::int64_t padded_bands(const MixturePool& a) {
    return (a.bands + kColumns<T> - 1) / kColumns<T> * kColumns<T>;
}

inline std::int64_t padded_batch(const MixturePool& a) { return (a.batch + kSamples - 1) / kSamples * kSamples; }

template <class T>
std::size_t partial_size(const MixturePool& a) {
    return sizeof(T) * static_cast<std::size_t>(padded_batch(a) * padded_bands<T>(a));
}

// Copies row `n` to `to` (|V| if non-negative, zero behind the last band) and returns what its values are divided by.
template <class T>
T load_row(const MixturePool& a, std::int64_t n, T* to) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const T* from = static_cast<const T*>(a.raw) + n * a.bands;
    V sum = {};
    for (std::int64_t j = 0; j < padded_bands<T>(a); j += L) {
        const V raw = j < a.bands ? load_first(from + j, a.bands - j) : V{};
        const V magnitude = raw < 0 ? -raw : raw;
        store(to + j, a.non_negative ? magnitude : raw);
        if (a.norm == 2) sum += raw * raw;
        if (a.norm == 1) sum += magnitude;
    }
    const T total = folded<T>(sum);
    if (a.norm == 0 || total == 0) return 1;
    return a.norm == 1 ? total : static_cast<T>(__builtin_sqrt(static_cast<double>(total)));
}

template <class T>
T weight_of(const MixturePool& a, std::int64_t sample, std::int64_t n, T length) {
    const std::int64_t at = sample * a.components + n;
    return mixing_weight(static_cast<const T*>(a.concentration)[at], static_cast<const T*>(a.select_prob)[at], length);
}

// sum - a * b, rounded once. Left to the compiler, it would be rounded once or twice by where the arrays in a loop lie.
template <class T>
T less_product(T sum, T a, T b) {
    return Scalar<T>::fused(-a, b, sum);
}

// Gradients of concentration and gate from the one of the weight times the length.
template <class T>
void store_weight_gradients(const MixturePool& a, std::int64_t sample, std::int64_t n, T along_weight, T length,
                            void* grad_concentration, void* grad_select_prob) {
    const std::int64_t at = sample * a.components + n;
    const T c = static_cast<const T*>(a.concentration)[at], s = static_cast<const T*>(a.select_prob)[at];
    const T scaled = along_weight / length;
    static_cast<T*>(grad_concentration)[at] = scaled * s * s;
    static_cast<T*>(grad_select_prob)[at] = 2 * scaled * c * s;
}

template <class T>
void store_raw_gradient(const MixturePool& a, std::int64_t n, const T* along_spectrum, T along_length, T length,
                        void* grad_raw) {
    const T* raw = static_cast<const T*>(a.raw) + n * a.bands;
    T* to = static_cast<T*>(grad_raw) + n * a.bands;
    for (std::int64_t j = 0; j < a.bands; ++j)
        to[j] = raw_gradient(raw[j], along_spectrum[j], along_length, length, a.non_negative, a.norm);
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
