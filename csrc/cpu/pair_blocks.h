// Products of two blocks of 64 rows: the register kernels of the operations on all pairs.
//
// Rows of a block lie `wide` numbers apart, padded with zeros to whole vectors; columns hold a dimension's 64 numbers.
// A buffer of 64 x 64 weights is [j][i] with i a row of the first block, in vectors, and j one of the other.
#pragma once

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr std::int64_t kBlock = 64;
#if defined(__AVX512F__)
constexpr int kColumns = 4, kRows = 4, kOutputs = 8;  // vectors and rows of register blocks
#else
constexpr int kColumns = 2, kRows = 4, kOutputs = 4;
#endif
constexpr int kOutputVectors = 2;

template <class T>
void fill_zero(T* to, std::int64_t count) {
    __builtin_memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

// to[r][v] += sum over d of combine(columns[d][v], rows[r][d]).
template <class T, class Combine>
inline void add_over_dims(const T* columns, const T* rows, std::int64_t dim, std::int64_t wide,
                          Vector<T> to[kRows][kColumns], const Combine& combine) {
    using V = Vector<T>;
    V sum[kRows][kColumns];
    __builtin_memcpy(sum, to, sizeof sum);  // registers: the compiler cannot know that `to` is not read through `rows`
    for (std::int64_t d = 0; d < dim; ++d) {
        V column[kColumns];
        for (int v = 0; v < kColumns; ++v) column[v] = load(columns + d * kBlock + v * lanes<T>);
        for (int r = 0; r < kRows; ++r) {
            const V row = broadcast<T>(rows[r * wide + d]);
            for (int v = 0; v < kColumns; ++v) sum[r][v] += combine(column[v], row);
        }
    }
    __builtin_memcpy(to, sum, sizeof sum);
}

template <class T>
inline void add_products(const T* columns, const T* rows, std::int64_t dim, std::int64_t wide,
                         Vector<T> to[kRows][kColumns]) {
    add_over_dims(columns, rows, dim, wide, to, [](Vector<T> column, Vector<T> row) { return column * row; });
}

// out[r][d] += sum over k of weights[r * RowStride + k * Stride] * rows[k][d], for `kOutputs` rows and `Vectors`
// vectors.
template <class T, int RowStride, int Stride, int Vectors>
void add_weighted(const T* weights, const T* rows, std::int64_t wide, T* out) {
    using V = Vector<T>;
    V acc[kOutputs][Vectors] = {};
    for (std::int64_t k = 0; k < kBlock; ++k) {
        V row[Vectors];
        for (int v = 0; v < Vectors; ++v) row[v] = load(rows + k * wide + v * lanes<T>);
        for (int r = 0; r < kOutputs; ++r) {
            const V weight = broadcast<T>(weights[r * RowStride + k * Stride]);
            for (int v = 0; v < Vectors; ++v) acc[r][v] += row[v] * weight;
        }
    }
    for (int r = 0; r < kOutputs; ++r)
        for (int v = 0; v < Vectors; ++v) {
            T* to = out + r * wide + v * lanes<T>;
            store(to, load(to) + acc[r][v]);
        }
}

// out (64, wide) += weights rows, with the weight of output row r and summed row k at r * RowStride + k * Stride.
template <class T, int RowStride, int Stride>
void add_block(const T* weights, const T* rows, std::int64_t dim, std::int64_t wide, T* out) {
    constexpr int L = lanes<T>;
    for (std::int64_t d = 0; d < dim;) {
        const bool several = d + L < dim;
        for (std::int64_t r = 0; r < kBlock; r += kOutputs)
            if (several)
                add_weighted<T, RowStride, Stride, kOutputVectors>(weights + r * RowStride, rows + d, wide,
                                                                   out + r * wide + d);
            else
                add_weighted<T, RowStride, Stride, 1>(weights + r * RowStride, rows + d, wide, out + r * wide + d);
        d += (several ? kOutputVectors : 1) * L;
    }
}

// Adds the sums of weights[j][i] over j to `one`, and over i to `other` unless it is null.
template <class T>
void add_sums(const T* weights, T* one, T* other) {
    constexpr int L = lanes<T>;
    for (std::int64_t j = 0; j < kBlock; ++j) {
        Vector<T> row = {};
        for (std::int64_t i = 0; i < kBlock; i += L) {
            const Vector<T> w = load(weights + j * kBlock + i);
            row += w;
            store(one + i, load(one + i) + w);
        }
        if (other != nullptr) other[j] += sum_lanes<T>(row);
    }
}

// Both blocks' sums of weights[j][i] times the rows of the other.
template <class T>
void add_both(const T* weights, const T* one_rows, const T* other_rows, std::int64_t dim, std::int64_t wide,
              T* one_sums, T* other_sums, bool both) {
    add_block<T, 1, kBlock>(weights, other_rows, dim, wide, one_sums);
    if (both) add_block<T, kBlock, 1>(weights, one_rows, dim, wide, other_sums);
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
