// The parts of mean shift and assignment that work on one tile of pixels, shared by all kernels that shift.
#pragma once

#include "mean_shift_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// One iteration: z (D, tile) from the window; `sum` receives the weights' sum + epsilon.
template <class T, int Window>
void shift_tile(const RowRing<T>& ring, std::int64_t x, std::int64_t pitch, std::int64_t dim, T exponent, T* z, T* next,
                Vector<T>* sum) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (int u = 0; u < kTile; ++u) sum[u] = broadcast<T>(static_cast<T>(kWeightEpsilon));
    fill_zero(next, dim * kTilePixels<T>);
    for (int dy = 0; dy < Window; ++dy) {
        const T* row = ring.at(dy) + x;
        V weight[Window][kTile] = {};
        for (std::int64_t d = 0; d < dim; ++d)
            for (int u = 0; u < kTile; ++u) {
                const V center = load(z + d * kTilePixels<T> + u * L);
                for (int dx = 0; dx < Window; ++dx) {
                    const V difference = load(row + d * pitch + u * L + dx) - center;
                    weight[dx][u] += difference * difference;
                }
            }
        for (int dx = 0; dx < Window; ++dx)
            for (int u = 0; u < kTile; ++u) {
                weight[dx][u] = exp_nonpositive(weight[dx][u] * exponent);
                sum[u] += weight[dx][u];
            }
        for (std::int64_t d = 0; d < dim; ++d)
            for (int u = 0; u < kTile; ++u) {
                V total = load(next + d * kTilePixels<T> + u * L);
                for (int dx = 0; dx < Window; ++dx) total += weight[dx][u] * load(row + d * pitch + u * L + dx);
                store(next + d * kTilePixels<T> + u * L, total);
            }
    }
    for (int u = 0; u < kTile; ++u) {
        const V inverse = 1 / sum[u];
        for (std::int64_t d = 0; d < dim; ++d) {
            const std::int64_t at = d * kTilePixels<T> + u * L;
            store(z + at, load(next + at) * inverse);
        }
    }
}

// products (Clusters, tile) of rows of the centers with a tile (D, pitch); the sums are independent of each other.
template <class T, int Clusters>
void project_clusters(const T* tile, std::int64_t pitch, const T* centers, std::int64_t dim, T* products) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (int u = 0; u < kTile; ++u) {
        V sum[Clusters] = {};
        for (std::int64_t d = 0; d < dim; ++d) {
            const V v = load(tile + d * pitch + u * L);
            for (int k = 0; k < Clusters; ++k) sum[k] += centers[k * dim + d] * v;
        }
        for (int k = 0; k < Clusters; ++k) store(products + k * kTilePixels<T> + u * L, sum[k]);
    }
}

// products (K, tile) = C . tile (D, pitch).
template <class T>
void project_tile(const T* tile, std::int64_t pitch, const T* centers, const MeanShiftShape& s, T* products) {
    std::int64_t k = 0;
    for (; k + 4 <= s.clusters; k += 4)
        project_clusters<T, 4>(tile, pitch, centers + k * s.dim, s.dim, products + k * kTilePixels<T>);
    for (; k < s.clusters; ++k)
        project_clusters<T, 1>(tile, pitch, centers + k * s.dim, s.dim, products + k * kTilePixels<T>);
}

// probs (K, tile) = softmax of (z / |z|) C^T / temperature.
template <class T>
void assign_tile(const T* z, const T* centers, const MeanShiftShape& s, T* probs) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    project_tile(z, kTilePixels<T>, centers, s, probs);
    for (int u = 0; u < kTile; ++u) {
        V norm = {};
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const V v = load(z + d * kTilePixels<T> + u * L);
            norm += v * v;
        }
        norm = larger<T>(square_root(norm), broadcast<T>(static_cast<T>(kNormEpsilon)));
        const V scale = static_cast<T>(1 / s.temperature) / norm;
        V largest = load(probs + u * L) * scale;
        for (std::int64_t k = 1; k < s.clusters; ++k)
            largest = larger<T>(largest, load(probs + k * kTilePixels<T> + u * L) * scale);
        V total = {};
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            T* at = probs + k * kTilePixels<T> + u * L;
            const V q = exp_nonpositive(load(at) * scale - largest);
            total += q;
            store(at, q);
        }
        const V inverse = 1 / total;
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            T* at = probs + k * kTilePixels<T> + u * L;
            store(at, load(at) * inverse);
        }
    }
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
