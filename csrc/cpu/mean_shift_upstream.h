// Per-pixel parts of the backward through assignment and last mean-shift iteration, one tile of pixels at a time: from
// the gradient of the probabilities to that of the shifted embeddings y, and from there to what the gather needs.
#pragma once

#include "mean_shift_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// Gradient of the similarities from that of the probabilities, both (K, tile): q (g - q . g) / temperature, written
// with pitch `line`.
template <class T>
void softmax_backward_tile(const T* probs, const T* grad_probs, const MeanShiftShape& s, T* similarity,
                           std::int64_t line) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    const T inverse_temperature = static_cast<T>(1 / s.temperature);
    for (int u = 0; u < kTile; ++u) {
        const std::int64_t lane = u * lanes<T>;
        V mean = {};
        for (std::int64_t k = 0; k < s.clusters; ++k)
            mean += load(probs + k * P + lane) * load(grad_probs + k * P + lane);
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            const V q = load(probs + k * P + lane), g = load(grad_probs + k * P + lane);
            store(similarity + k * line + lane, q * (g - mean) * inverse_temperature);
        }
    }
}

// products (D, tile) = C^T . weights (K, line).
template <class T>
void combine_tile(const T* centers, const MeanShiftShape& s, const T* weights, std::int64_t line, T* products) {
    using V = Vector<T>;
    for (int u = 0; u < kTile; ++u)
        for (std::int64_t d = 0; d < s.dim; ++d) {
            V sum = {};
            for (std::int64_t k = 0; k < s.clusters; ++k)
                sum += centers[k * s.dim + d] * load(weights + k * line + u * lanes<T>);
            store(products + d * kTilePixels<T> + u * lanes<T>, sum);
        }
}

// Adds dL/dy to gradient (D, tile) through the similarities (y / |y|) . c_k, whose gradient is (K, line); writes y /
// |y| to unit (D, line). `products` (D, tile) is scratch.
template <class T>
void cosine_backward_tile(const T* y, const T* centers, const MeanShiftShape& s, const T* similarity, std::int64_t line,
                          T* unit, T* products, T* gradient) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    combine_tile(centers, s, similarity, line, products);
    for (int u = 0; u < kTile; ++u) {
        const std::int64_t lane = u * lanes<T>;
        V norm = {};
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const V v = load(y + d * P + lane);
            norm += v * v;
        }
        norm = square_root(norm);
        const V floor = broadcast<T>(static_cast<T>(kNormEpsilon));
        const V inverse = 1 / larger<T>(norm, floor);
        V radial = {};  // unit . dL/dunit, zero where the norm is clamped
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const V n = load(y + d * P + lane) * inverse;
            radial += n * load(products + d * P + lane);
            store(unit + d * line + lane, n);
        }
        radial = norm > floor ? radial : V{};
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const V g = (load(products + d * P + lane) - load(unit + d * line + lane) * radial) * inverse;
            store(gradient + d * P + lane, load(gradient + d * P + lane) + g);
        }
    }
}

// Neighbours of a pixel that lie outside the image, where the embedding is zero.
inline std::int64_t outside(std::int64_t x, std::int64_t y, const MeanShiftShape& s) {
    const std::int64_t half = s.window / 2;
    const std::int64_t left = x < half ? half - x : 0, right = x + half >= s.width ? x + half - s.width + 1 : 0;
    const std::int64_t top = y < half ? half - y : 0, bottom = y + half >= s.height ? y + half - s.height + 1 : 0;
    return s.window * s.window - (s.window - left - right) * (s.window - top - bottom);
}

// What the gather reads of the tile at (row, x): `upstream` G = gradient / weight_sum and `upstream_dot` G . (y - z).
// `gradient` (D, tile) becomes G. Returns the part of dL/dbandwidth (times bandwidth^3) that comes from neighbours
// outside the image, which no pixel gathers.
template <class T>
double write_upstream(const MeanShiftShape& s, std::int64_t row, std::int64_t x, std::int64_t count, const T* y,
                      const T* z, const Vector<T>* weight_sum, T* gradient, void* upstream, void* upstream_dot) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    constexpr int L = lanes<T>;
    const std::int64_t plane = s.height * s.width, image_row = row % s.height;
    const double exponent = -0.5 / (s.bandwidth * s.bandwidth);
    V dot[kTile] = {}, squared[kTile] = {}, total[kTile] = {};  // G . (y - z), |z|^2, G . y
    for (int u = 0; u < kTile; ++u) {
        const V inverse = 1 / weight_sum[u];
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const std::int64_t at = d * P + u * L;
            const V g = load(gradient + at) * inverse, point = load(z + at);
            store(gradient + at, g);
            dot[u] += g * (load(y + at) - point);
            total[u] += g * load(y + at);
            squared[u] += point * point;
        }
    }
    T* to = static_cast<T*>(upstream) + row / s.height * s.dim * plane + image_row * s.width + x;
    for (std::int64_t d = 0; d < s.dim; ++d) store_pixels(to + d * plane, gradient + d * P, count);
    double along_bandwidth = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        static_cast<T*>(upstream_dot)[row * s.width + x + i] = dot[i / L][i % L];
        const std::int64_t missing = outside(x + i, image_row, s);
        if (missing == 0) continue;
        const double distance = squared[i / L][i % L];
        along_bandwidth -= missing * __builtin_exp(distance * exponent) * total[i / L][i % L] * distance;
    }
    return along_bandwidth;
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
