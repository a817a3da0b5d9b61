// Products of a tile's centered matrix with a few columns of weights, summed over its lanes or over its rows.
#pragma once

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr std::int64_t kRows = 4;      // of a register block
constexpr std::int64_t kClusters = 4;  // of a register block

// The tile as rows of lanes. Vector v of a row begins at lane min(v L, lanes - L): the last one overlaps the one
// before, so nothing outside the row is read. What belongs to lanes is stored by slots v L + j, where a slot that
// repeats an earlier lane has weight zero.
template <class T>
struct Matrix {
    const T* data;
    std::int64_t row_stride, rows, width;
    Vector<T> last_counts;  // 1 where a lane of a row's last vector is not repeated, else 0

    Matrix(const T* from, std::int64_t stride, std::int64_t row_count, std::int64_t lane_count)
        : data(from), row_stride(stride), rows(row_count), width(lane_count) {
        for (int j = 0; j < lanes<T>; ++j) last_counts[j] = repeated((vectors() - 1) * lanes<T> + j) ? T(0) : T(1);
    }

    std::int64_t vectors() const { return (width + lanes<T> - 1) / lanes<T>; }
    std::int64_t slots() const { return vectors() * lanes<T>; }
    std::int64_t begin(std::int64_t v) const { return (v + 1) * lanes<T> <= width ? v * lanes<T> : width - lanes<T>; }
    std::int64_t lane(std::int64_t slot) const { return begin(slot / lanes<T>) + slot % lanes<T>; }
    bool repeated(std::int64_t slot) const { return lane(slot) < slot / lanes<T> * lanes<T>; }
};

template <class T, bool PixelLanes>
class Products {
    using V = Vector<T>;
    static constexpr int L = lanes<T>;

    // A vector of one row, around the origin.
    static V centered(const Matrix<T>& m, const T* origin, std::int64_t row, std::int64_t v) {
        const T* from = m.data + row * m.row_stride + m.begin(v);
        // The hardware does not see across the jump from row to row.
        __builtin_prefetch(from + kRows * m.row_stride);
        const V x = load(from);
        if (PixelLanes) return x - origin[row];
        return x - load(origin + v * L);
    }

    // out[row][k] = sum over lanes of x * weight[k][slot], for `Rows` rows and a block of clusters. With `Norm`, adds
    // the squares of these rows to norm[slot].
    template <int Rows, bool Norm>
    static void block_over_lanes(const Matrix<T>& m, const T* origin, std::int64_t row, const T* weight, T* out,
                                 std::int64_t out_stride, T* norm) {
        V sum[Rows][kClusters] = {};
        const std::int64_t vectors = m.vectors(), slots = m.slots();
        for (std::int64_t v = 0; v < vectors; ++v) {
            V x[Rows];
            for (int r = 0; r < Rows; ++r) x[r] = centered(m, origin, row + r, v);
            for (int k = 0; k < kClusters; ++k) {
                const V w = load(weight + k * slots + v * L);
                for (int r = 0; r < Rows; ++r) sum[r][k] += x[r] * w;
            }
            if (!Norm) continue;
            V squares = load(norm + v * L);
            for (int r = 0; r < Rows; ++r) squares += x[r] * x[r];
            store(norm + v * L, squares);
        }
        for (int r = 0; r < Rows; ++r)
            for (int k = 0; k < kClusters; ++k) out[(row + r) * out_stride + k] = sum_lanes<T>(sum[r][k]);
    }

    // out[k][slot] += sum over `Rows` rows of x * weight[row][k], for a block of clusters. With `Norm`, writes the sums
    // of squares of these rows to norm[row].
    template <int Rows, bool Norm>
    static void block_over_rows(const Matrix<T>& m, const T* origin, std::int64_t row, const T* weight,
                                std::int64_t weight_stride, T* out, T* norm) {
        V w[Rows][kClusters], squares[Rows] = {};
        for (int r = 0; r < Rows; ++r)
            for (int k = 0; k < kClusters; ++k) w[r][k] = broadcast<T>(weight[(row + r) * weight_stride + k]);
        const std::int64_t vectors = m.vectors(), slots = m.slots();
        for (std::int64_t v = 0; v < vectors; ++v) {
            V x[Rows];
            for (int r = 0; r < Rows; ++r) x[r] = centered(m, origin, row + r, v);
            for (int k = 0; k < kClusters; ++k) {
                V sum = load(out + k * slots + v * L);
                for (int r = 0; r < Rows; ++r) sum += x[r] * w[r][k];
                store(out + k * slots + v * L, sum);
            }
            if (!Norm) continue;
            const V counts = v + 1 == vectors ? m.last_counts : broadcast<T>(1);
            for (int r = 0; r < Rows; ++r) squares[r] += x[r] * x[r] * counts;
        }
        if (Norm)
            for (int r = 0; r < Rows; ++r) norm[row + r] = sum_lanes<T>(squares[r]);
    }

    template <bool Norm>
    static void sum_over_lanes(const Matrix<T>& m, const T* origin, const T* weight, std::int64_t clusters, T* out,
                               T* norm) {
        std::int64_t row = 0;
        for (; row + kRows <= m.rows; row += kRows)
            block_over_lanes<kRows, Norm>(m, origin, row, weight, out, clusters, norm);
        for (; row < m.rows; ++row) block_over_lanes<1, Norm>(m, origin, row, weight, out, clusters, norm);
    }

    template <bool Norm>
    static void sum_over_rows(const Matrix<T>& m, const T* origin, const T* weight, std::int64_t clusters, T* out,
                              T* norm) {
        std::int64_t row = 0;
        for (; row + kRows <= m.rows; row += kRows)
            block_over_rows<kRows, Norm>(m, origin, row, weight, clusters, out, norm);
        for (; row < m.rows; ++row) block_over_rows<1, Norm>(m, origin, row, weight, clusters, out, norm);
    }

   public:
    // out[row][k] (rows, clusters) = sum over lanes of x weight[k][slot]; the first block also adds the squares to
    // norm[slot] where it is given.
    static void over_lanes(const Matrix<T>& m, const T* origin, const T* weight, std::int64_t clusters, T* out,
                           T* norm) {
        for (std::int64_t k = 0; k < clusters; k += kClusters)
            if (k == 0 && norm != nullptr)
                sum_over_lanes<true>(m, origin, weight, clusters, out, norm);
            else
                sum_over_lanes<false>(m, origin, weight + k * m.slots(), clusters, out + k, nullptr);
    }

    // out[k][slot] (clusters, slots) += sum over rows of x weight[row][k]; the first block also writes the sums of
    // squares to norm[row] where it is given.
    static void over_rows(const Matrix<T>& m, const T* origin, const T* weight, std::int64_t clusters, T* out,
                          T* norm) {
        for (std::int64_t k = 0; k < clusters; k += kClusters)
            if (k == 0 && norm != nullptr)
                sum_over_rows<true>(m, origin, weight, clusters, out, norm);
            else
                sum_over_rows<false>(m, origin, weight + k, clusters, out + k * m.slots(), nullptr);
    }
};

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
