// Similarity of all pairs of components on the CPU, a pair of blocks of 64 at a time.
//
// Squared distances come from inner products around the first component, which lose little where the kernel is smooth;
// the Laplacian and the Matern kernel of order 1/2, which have a kink at 0, get sums of differences, also in their
// gradients. A pair's similarity and slope are computed once, and the slopes enter the gradients of both components
// before the block's buffer is used again; so the backward pass of the operation only scales.
//
// Reads and writes a few d floats a component; computes per pair d multiply-adds, and 2 d more with the gradient (about
// 3 d and 6 d operations for differences): bound by arithmetic.
#include "../common/ambiguity_penalty.h"

#include "pair_blocks.h"
#include "partial_vectors.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T_>
struct VectorMath {
    using T = T_;
    using V = Vector<T>;
    static V exp_nonpositive(V x) { return SPECTRAFUSE_ISA::exp_nonpositive(x); }
    static V root(V x) { return square_root(x); }
    static V where_positive(V condition, V x) { return condition > 0 ? x : V{}; }
};

enum class Distance { product, gram, squares, absolutes };

Distance distance_of(PairKind kind) {
    if (kind == PairKind::poly) return Distance::product;
    if (kind == PairKind::laplacian) return Distance::absolutes;
    return kind == PairKind::matern_1 ? Distance::squares : Distance::gram;
}

// Numbers from one row to the next: an odd number of cache lines, so that a column spreads over all sets of the cache.
template <class T>
std::int64_t pitch(std::int64_t dim) {
    const std::int64_t line = 64 / sizeof(T);
    return ((dim + line - 1) / line | 1) * line;
}

template <class T>
struct Block {
    T *rows, *columns, *offset;  // (64, pitch), (d, 64), (64): |row|^2
    T *sums, *slope_sums;        // (64, pitch), (64)

    static std::int64_t size(const AmbiguityPenalty& a) { return kBlock * (2 * pitch<T>(a.dim) + a.dim + 2); }

    Block(const AmbiguityPenalty& a, std::int64_t index) {
        const std::int64_t wide = kBlock * pitch<T>(a.dim);
        rows = static_cast<T*>(a.workspace) + index * size(a);
        sums = rows + wide;
        columns = sums + wide;
        offset = columns + kBlock * a.dim;
        slope_sums = offset + kBlock;
    }
};

std::int64_t rows_of(const AmbiguityPenalty& a, std::int64_t block) {
    const std::int64_t left = a.count - block * kBlock;
    return left < kBlock ? left : kBlock;
}

template <class T>
std::size_t workspace(const AmbiguityPenalty& a) {
    return sizeof(T) * static_cast<std::size_t>((a.count + kBlock - 1) / kBlock * Block<T>::size(a));
}

template <class T>
void prepare(const AmbiguityPenalty& a, std::int64_t index) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const Block<T> block(a, index);
    const std::int64_t wide = pitch<T>(a.dim);
    const T* origin = static_cast<const T*>(a.components);
    const bool gram = distance_of(a.kernel.kind) == Distance::gram;
    fill_zero(block.rows, Block<T>::size(a));
    for (std::int64_t i = 0; i < rows_of(a, index); ++i) {
        const T* from = origin + (index * kBlock + i) * a.dim;
        V square = {};
        for (std::int64_t d = 0; d < a.dim; d += L) {
            V value = load_first(from + d, a.dim - d);
            if (gram) value -= load_first(origin + d, a.dim - d);
            store_first(block.rows + i * wide + d, value, a.dim - d);
            square += value * value;
        }
        block.offset[i] = sum_lanes<T>(square);
    }
    const T factor = gram ? 2 : 1;
    for (std::int64_t d = 0; d < a.dim; ++d)
        for (std::int64_t i = 0; i < kBlock; ++i) block.columns[d * kBlock + i] = factor * block.rows[i * wide + d];
}

// Similarities and slopes of kRows by kColumns vectors of pairs, from what `add` sums up over dimensions.
template <class T>
void terms(const AmbiguityPenalty& a, const Block<T>& one, const Block<T>& other, std::int64_t i, std::int64_t j,
           Distance distance, PairTerm<Vector<T>> out[kRows][kColumns]) {
    using V = Vector<T>;
    using Math = VectorMath<T>;
    const std::int64_t wide = pitch<T>(a.dim);
    const T *columns = one.columns + i, *rows = other.rows + j * wide;
    V sum[kRows][kColumns] = {};
    switch (distance) {
        case Distance::gram:
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v)
                    sum[r][v] = -load(one.offset + i + v * lanes<T>) - other.offset[j + r];
            [[fallthrough]];
        case Distance::product: add_products(columns, rows, a.dim, wide, sum); break;
        case Distance::squares:
            add_over_dims(columns, rows, a.dim, wide, sum, [](V x, V y) { return (x - y) * (x - y); });
            break;
        case Distance::absolutes:
            add_over_dims(columns, rows, a.dim, wide, sum, [](V x, V y) { return x > y ? x - y : y - x; });
            break;
    }
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kColumns; ++v) {
            const V x = sum[r][v];
            if (distance == Distance::product)
                out[r][v] = term_of_product<Math>(a.kernel, x);
            else if (distance == Distance::absolutes)
                out[r][v] = term_of_absolute<Math>(a.kernel, x);
            else if (distance == Distance::squares)
                out[r][v] = term_of_squared<Math>(a.kernel, x);
            else
                out[r][v] = term_of_squared<Math>(a.kernel, x < 0 ? -x : x - x);  // keeps NaN
        }
}

// Adds combine(slopes[j][i], row_j - row_i) to the sums of i, and the opposite to those of j if `both`.
template <class T, class Combine>
void add_differences(const T* slopes, const Block<T>& one, const Block<T>& other, std::int64_t dim, bool both,
                     const Combine& combine) {
    using V = Vector<T>;
    const std::int64_t wide = pitch<T>(dim);
    for (std::int64_t d = 0; d < dim; d += lanes<T>)
        for (std::int64_t i = 0; i < kBlock; i += kRows) {
            V own[kRows], sum[kRows];
            for (int r = 0; r < kRows; ++r) {
                own[r] = load(one.rows + (i + r) * wide + d);
                sum[r] = load(one.sums + (i + r) * wide + d);
            }
            for (std::int64_t j = 0; j < kBlock; ++j) {
                const V row = load(other.rows + j * wide + d);
                V opposite = {};
                for (int r = 0; r < kRows; ++r) {
                    const V slope = broadcast<T>(slopes[j * kBlock + i + r]);
                    const V term = combine(slope, row - own[r]);
                    sum[r] += term;
                    opposite += term;
                }
                if (both) store(other.sums + j * wide + d, load(other.sums + j * wide + d) - opposite);
            }
            for (int r = 0; r < kRows; ++r) store(one.sums + (i + r) * wide + d, sum[r]);
        }
}

template <class T>
double pair(const AmbiguityPenalty& a, std::int64_t one_index, std::int64_t other_index, void* scratch) {
    constexpr int L = lanes<T>;
    const Block<T> one(a, one_index), other(a, other_index);
    const Distance distance = distance_of(a.kernel.kind);
    const bool both = one_index != other_index;
    T* values = static_cast<T*>(scratch);  // [j][i]: i of block one, j of the other
    T* slopes = values + kBlock * kBlock;
    for (std::int64_t i = 0; i < kBlock; i += kColumns * L)
        for (std::int64_t j = 0; j < kBlock; j += kRows) {
            PairTerm<Vector<T>> term[kRows][kColumns];
            terms(a, one, other, i, j, distance, term);
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v) {
                    store(values + (j + r) * kBlock + i + v * L, term[r][v].value);
                    store(slopes + (j + r) * kBlock + i + v * L, term[r][v].slope);
                }
        }
    const std::int64_t ones = rows_of(a, one_index), others = rows_of(a, other_index);
    if (!both || ones < kBlock || others < kBlock)
        for (std::int64_t j = 0; j < kBlock; ++j)
            for (std::int64_t i = 0; i < kBlock; ++i)
                if (i >= ones || j >= others || (!both && i == j)) values[j * kBlock + i] = slopes[j * kBlock + i] = 0;
    double total = 0;
    for (std::int64_t j = 0; j < kBlock; ++j) {
        Vector<T> sum = {};
        for (std::int64_t i = 0; i < kBlock; i += L) sum += load(values + j * kBlock + i);
        total += static_cast<double>(sum_lanes<T>(sum));
    }
    if (a.gradient == nullptr) return total / (both ? 1 : 2);
    using V = Vector<T>;
    if (distance == Distance::absolutes) {
        add_differences(slopes, one, other, a.dim, both, [](V slope, V x) { return pull_of_absolute(slope, x); });
    } else if (distance == Distance::squares) {
        add_differences(slopes, one, other, a.dim, both, [](V slope, V x) { return slope * x; });
    } else {
        add_both(slopes, one.rows, other.rows, a.dim, pitch<T>(a.dim), one.sums, other.sums, both);
        if (distance == Distance::gram) add_sums(slopes, one.slope_sums, both ? other.slope_sums : nullptr);
    }
    return total / (both ? 1 : 2);
}

template <class T>
void finish(const AmbiguityPenalty& a, std::int64_t index) {
    const Block<T> block(a, index);
    const std::int64_t wide = pitch<T>(a.dim);
    const T scale = static_cast<T>(2.0 / (static_cast<double>(a.count) * static_cast<double>(a.count - 1)));
    for (std::int64_t i = 0; i < rows_of(a, index); ++i) {
        T* to = static_cast<T*>(a.gradient) + (index * kBlock + i) * a.dim;
        for (std::int64_t d = 0; d < a.dim; ++d)
            to[d] = scale * (block.sums[i * wide + d] - block.slope_sums[i] * block.rows[i * wide + d]);
    }
}

template <class T>
constexpr AmbiguityPenaltyKernels kernels = {kBlock,     workspace<T>, 2 * sizeof(T) * kBlock * kBlock,
                                             prepare<T>, pair<T>,      finish<T>};

}  // namespace

extern const AmbiguityPenaltyKernels ambiguity_penalty_kernels[2] = {kernels<float>, kernels<double>};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
