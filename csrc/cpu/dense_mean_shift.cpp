// All-pairs mean shift on the CPU, a pair of blocks of 64 pixels at a time.
//
// With x_ij = -|z_i - z_j|^2 / (2 b^2), w = exp(x), S_i = sum_j w_ij + epsilon, y_i = sum_j w_ij z_j / S_i and g =
// dL/dy:
//   G_i = g_i / S_i,   u_ij = w_ij (G_i . (z_j - y_i) + G_j . (z_i - y_j)) / b^2
//   dL/dz_i = sum_j w_ij G_j + sum_j u_ij (z_j - z_i),   dL/db = -2 b sum_i<j u_ij x_ij
// w and u are symmetric, so each is computed once for two pixels and enters the sums of both. Distances come from inner
// products of the state around a point amid it; weights live in a block's buffer only, and backward computes them
// again.
//
// Reads and writes a few D floats a pixel; computes per pair of pixels 3 D multiply-adds and an exponential forward, 7
// D backward: bound by arithmetic.
#include "../common/dense_mean_shift.h"

#include "pair_blocks.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr double kWeightEpsilon = 1e-6;
constexpr std::int64_t kOriginPixels = 256;
static_assert(kBlock == kDenseBlock);

template <class T>
std::int64_t padded(std::int64_t dim) {
    const std::int64_t line = 64 / sizeof(T);
    return (dim + line - 1) / line * line;
}

// A block's part of the workspace. Rows hold a pixel's numbers, padded with zeros; columns hold a dimension's pixels.
template <class T>
struct Block {
    T *rows, *columns;            // (64, D padded) z around the origin; (D, 64) the same over b^2
    T *grad_rows, *grad_columns;  // likewise G
    T *offset, *dot;              // (64): |z|^2 / (2 b^2), infinite behind the last pixel; G . y / b^2
    T *sums, *weight_sums;        // (64, D padded) and (64)

    static std::int64_t size(const DenseIteration& a, bool backward) {
        const std::int64_t rows = kBlock * padded<T>(a.dim), columns = kBlock * a.dim;
        return (backward ? 2 : 1) * (rows + columns) + rows + 3 * kBlock;
    }

    Block(const DenseIteration& a, bool backward, std::int64_t image, std::int64_t block) {
        const std::int64_t wide = kBlock * padded<T>(a.dim), narrow = kBlock * a.dim;
        const std::int64_t blocks = (a.pixels + kBlock - 1) / kBlock;
        T* memory =
            static_cast<T*>(a.workspace) + a.batch * padded<T>(a.dim) + (image * blocks + block) * size(a, backward);
        rows = memory;
        columns = rows + wide;
        sums = columns + narrow;
        offset = sums + wide;
        dot = offset + kBlock;
        weight_sums = dot + kBlock;
        grad_rows = weight_sums + kBlock;
        grad_columns = grad_rows + wide;
    }
};

template <class T>
T* origin_of(const DenseIteration& a, std::int64_t image) {
    return static_cast<T*>(a.workspace) + image * padded<T>(a.dim);
}

template <class T>
const T* pixel(const void* from, const DenseIteration& a, std::int64_t image, std::int64_t index) {
    return static_cast<const T*>(from) + (image * a.pixels + index) * a.dim;
}

template <class T, bool Backward>
std::size_t workspace(const DenseIteration& a) {
    const std::int64_t blocks = (a.pixels + kBlock - 1) / kBlock;
    return sizeof(T) * static_cast<std::size_t>(a.batch * (padded<T>(a.dim) + blocks * Block<T>::size(a, Backward)));
}

// The mean of a few pixels, evenly spread: around it products of float32 numbers lose the fewest digits.
template <class T>
void find_origin(const DenseIteration& a, std::int64_t image) {
    T* origin = origin_of<T>(a, image);
    fill_zero(origin, a.dim);
    const std::int64_t step = a.pixels / kOriginPixels + 1, count = (a.pixels + step - 1) / step;
    for (std::int64_t i = 0; i < a.pixels; i += step)
        for (std::int64_t d = 0; d < a.dim; ++d) origin[d] += pixel<T>(a.state, a, image, i)[d] / count;
}

template <class T, bool Backward>
void prepare(const DenseIteration& a, std::int64_t image, std::int64_t index) {
    const Block<T> block(a, Backward, image, index);
    const T* origin = origin_of<T>(a, image);
    const std::int64_t wide = padded<T>(a.dim);
    const T inverse = static_cast<T>(1 / (a.bandwidth * a.bandwidth));
    fill_zero(block.rows, kBlock * wide);
    fill_zero(block.columns, kBlock * a.dim);
    fill_zero(block.sums, kBlock * wide);
    fill_zero(block.weight_sums, kBlock);
    if (Backward) {
        fill_zero(block.grad_rows, kBlock * wide);
        fill_zero(block.grad_columns, kBlock * a.dim);
        fill_zero(block.dot, kBlock);
    }
    for (std::int64_t i = 0; i < kBlock; ++i) {
        const std::int64_t at = index * kBlock + i;
        block.offset[i] = static_cast<T>(__builtin_inf());
        if (at >= a.pixels) continue;
        const T* z = pixel<T>(a.state, a, image, at);
        T squared = 0;
        for (std::int64_t d = 0; d < a.dim; ++d) {
            const T value = z[d] - origin[d];
            squared += value * value;
            block.rows[i * wide + d] = value;
            block.columns[d * kBlock + i] = value * inverse;
        }
        block.offset[i] = squared * inverse / 2;
        if (!Backward) continue;
        const T* y = pixel<T>(a.shifted, a, image, at);
        const T* g = pixel<T>(a.grad, a, image, at);
        const T total = static_cast<const T*>(a.totals)[image * a.pixels + at];
        T dot = 0;
        for (std::int64_t d = 0; d < a.dim; ++d) {
            const T value = g[d] / total;
            dot += value * (y[d] - origin[d]);
            block.grad_rows[i * wide + d] = value;
            block.grad_columns[d * kBlock + i] = value * inverse;
        }
        block.dot[i] = dot * inverse;
    }
}

template <class T, bool Backward>
double pair(const DenseIteration& a, std::int64_t image, std::int64_t one_index, std::int64_t other_index,
            void* scratch) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const Block<T> one(a, Backward, image, one_index), other(a, Backward, image, other_index);
    const bool both = one_index != other_index;
    const std::int64_t wide = padded<T>(a.dim);
    T* weights = static_cast<T*>(scratch);  // [j][i]: i of block one, j of the other
    T* pulls = weights + kBlock * kBlock;
    V along_bandwidth = {};
    for (std::int64_t i = 0; i < kBlock; i += kColumns * L)
        for (std::int64_t j = 0; j < kBlock; j += kRows) {
            V x[kRows][kColumns];
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v) x[r][v] = -load(one.offset + i + v * L) - other.offset[j + r];
            add_products(one.columns + i, other.rows + j * wide, a.dim, wide, x);
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v) {
                    x[r][v] = x[r][v] > 0 ? V{} : x[r][v];
                    store(weights + (j + r) * kBlock + i + v * L, exp_nonpositive(x[r][v]));
                }
            if (!Backward) continue;
            V t[kRows][kColumns];
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v) t[r][v] = -load(one.dot + i + v * L) - other.dot[j + r];
            add_products(one.grad_columns + i, other.rows + j * wide, a.dim, wide, t);
            add_products(one.columns + i, other.grad_rows + j * wide, a.dim, wide, t);
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kColumns; ++v) {
                    const std::int64_t at = (j + r) * kBlock + i + v * L;
                    const V weight = load(weights + at), pull = weight * t[r][v];
                    // A pixel behind the last one has weight 0 at an infinite distance.
                    along_bandwidth += weight == 0 ? V{} : pull * x[r][v];
                    store(pulls + at, pull);
                }
        }
    const T *one_rows = Backward ? one.grad_rows : one.rows, *other_rows = Backward ? other.grad_rows : other.rows;
    add_both(weights, one_rows, other_rows, a.dim, wide, one.sums, other.sums, both);
    if (Backward) add_both(pulls, one.rows, other.rows, a.dim, wide, one.sums, other.sums, both);
    add_sums(Backward ? pulls : weights, one.weight_sums, both ? other.weight_sums : nullptr);
    return static_cast<double>(sum_lanes<T>(along_bandwidth)) / (both ? 1 : 2);
}

template <class T, bool Backward>
void finish(const DenseIteration& a, std::int64_t image, std::int64_t index) {
    const Block<T> block(a, Backward, image, index);
    const T* origin = origin_of<T>(a, image);
    const std::int64_t wide = padded<T>(a.dim);
    for (std::int64_t i = 0; i < kBlock && index * kBlock + i < a.pixels; ++i) {
        const std::int64_t at = image * a.pixels + index * kBlock + i;
        T* to = static_cast<T*>(a.result) + at * a.dim;
        const T *sums = block.sums + i * wide, weight_sum = block.weight_sums[i];
        if (Backward) {
            for (std::int64_t d = 0; d < a.dim; ++d) to[d] = sums[d] - weight_sum * block.rows[i * wide + d];
        } else {
            const T total = weight_sum + static_cast<T>(kWeightEpsilon);
            static_cast<T*>(a.totals)[at] = total;
            for (std::int64_t d = 0; d < a.dim; ++d) to[d] = (sums[d] + origin[d] * weight_sum) / total;
        }
    }
}

template <class T, bool Backward>
constexpr DenseMeanShiftKernels kernels = {workspace<T, Backward>, (Backward ? 2 : 1) * sizeof(T) * kBlock * kBlock,
                                           find_origin<T>,         prepare<T, Backward>,
                                           pair<T, Backward>,      finish<T, Backward>};

}  // namespace

extern const DenseMeanShiftKernels dense_mean_shift_kernels[2][2] = {
    {kernels<float, false>, kernels<float, true>},
    {kernels<double, false>, kernels<double, true>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
