// Backward of mean shift and assignment. Only the last iteration carries gradient, and z enters its weights detached,
// so with p the embeddings, z' = previous, y = shifted, S = weight_sum, w_ij = exp(-|p_j - z'_i|^2 / (2 b^2)) and
// g_i = dL/dy_i:
//   dL/dp_j = sum_i w_ij (G_i - t_ij / b^2 (p_j - z'_i)),   dL/db = sum_ij w_ij t_ij |p_j - z'_i|^2 / b^3,
//   G_i = g_i / S_i,   t_ij = G_i . (p_j - y_i)
// over all pixels i whose window holds j: a gather, so no two threads write one place. `upstream` computes G and G . (y
// - z') from both outputs' gradients (through the softmax and the normalisation), `gather` the sums. t is computed as
// G . (p - z') - G . (y - z'): nothing is lost to cancellation where p, y and z' are close.
//
// Reads 4 D + 2 K and writes 2 D floats per pixel; computes about 5 window^2 D multiply-adds per pixel: bound by
// arithmetic and by first-level cache reads.
#include "mean_shift_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
std::int64_t line_size(const MeanShiftShape& s) {
    return (s.width + kTilePixels<T> - 1) / kTilePixels<T> * kTilePixels<T>;
}

template <class T>
std::size_t upstream_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>((s.dim + s.clusters) * line_size<T>(s) + 3 * s.dim * kTilePixels<T>);
}

// Loads `count` pixels of a plane-separated tensor (channels, tile), zero behind them.
template <class T>
void load_tile(const void* from, std::int64_t first, std::int64_t plane, std::int64_t channels, std::int64_t count,
               T* tile) {
    const T* source = static_cast<const T*>(from) + first;
    for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t i = 0; i < kTilePixels<T>; ++i)
            tile[c * kTilePixels<T> + i] = i < count ? source[c * plane + i] : T(0);
}

// Neighbours of a pixel that lie outside the image, where the embedding is zero.
inline std::int64_t outside(std::int64_t x, std::int64_t y, const MeanShiftShape& s) {
    const std::int64_t half = s.window / 2;
    const std::int64_t left = x < half ? half - x : 0, right = x + half >= s.width ? x + half - s.width + 1 : 0;
    const std::int64_t top = y < half ? half - y : 0, bottom = y + half >= s.height ? y + half - s.height + 1 : 0;
    return s.window * s.window - (s.window - left - right) * (s.window - top - bottom);
}

template <class T>
void upstream(const MeanShiftBackward& a, std::int64_t row_begin, std::int64_t row_end, double* centers_sum,
              double* bandwidth_rows, void* scratch) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    constexpr int L = lanes<T>;
    const MeanShiftShape& s = a.shape;
    const std::int64_t plane = s.height * s.width, line = line_size<T>(s);
    const T* centers = static_cast<const T*>(a.centers);
    const T inverse_temperature = static_cast<T>(1 / s.temperature);
    const double exponent = -0.5 / (s.bandwidth * s.bandwidth);
    T* unit = static_cast<T*>(scratch);   // (D, line): y / |y|
    T* similarity = unit + s.dim * line;  // (K, line): gradient of the similarities / temperature
    T* y_tile = similarity + s.clusters * line;
    T* g_tile = y_tile + s.dim * P;
    T* z_tile = g_tile + s.dim * P;
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        const std::int64_t sample = row / s.height, y = row % s.height;
        bandwidth_rows[row] = 0;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P;
            const std::int64_t pixel = sample * s.dim * plane + y * s.width + x, flat = row * s.width + x;
            load_tile(a.shifted, pixel, plane, s.dim, count, y_tile);
            if (a.grad_shifted != nullptr)
                load_tile(a.grad_shifted, pixel, plane, s.dim, count, g_tile);
            else
                fill_zero(g_tile, s.dim * P);
            if (a.grad_probs != nullptr) {
                for (std::int64_t i = 0; i < P; ++i) {
                    if (i >= count) {
                        for (std::int64_t k = 0; k < s.clusters; ++k) similarity[k * line + x + i] = 0;
                        continue;
                    }
                    const T* q = static_cast<const T*>(a.probs) + (flat + i) * s.clusters;
                    const T* gradient = static_cast<const T*>(a.grad_probs) + (flat + i) * s.clusters;
                    T mean = 0;
                    for (std::int64_t k = 0; k < s.clusters; ++k) mean += q[k] * gradient[k];
                    for (std::int64_t k = 0; k < s.clusters; ++k)
                        similarity[k * line + x + i] = q[k] * (gradient[k] - mean) * inverse_temperature;
                }
                for (int u = 0; u < kTile; ++u) {
                    V norm = {};
                    for (std::int64_t d = 0; d < s.dim; ++d) {
                        const V v = load(y_tile + d * P + u * L);
                        norm += v * v;
                    }
                    norm = square_root(norm);
                    const V floor = broadcast<T>(static_cast<T>(kNormEpsilon));
                    const V inverse = 1 / larger<T>(norm, floor);
                    V radial = {};  // unit . dL/dunit, zero where the norm is clamped
                    for (std::int64_t d = 0; d < s.dim; ++d) {
                        V g = {};
                        for (std::int64_t k = 0; k < s.clusters; ++k)
                            g += centers[k * s.dim + d] * load(similarity + k * line + x + u * L);
                        const V n = load(y_tile + d * P + u * L) * inverse;
                        radial += n * g;
                        store(unit + d * line + x + u * L, n);
                        store(z_tile + d * P + u * L, g);
                    }
                    radial = norm > floor ? radial : V{};
                    for (std::int64_t d = 0; d < s.dim; ++d) {
                        const std::int64_t at = d * P + u * L;
                        const V g = (load(z_tile + at) - load(unit + d * line + x + u * L) * radial) * inverse;
                        store(g_tile + at, load(g_tile + at) + g);
                    }
                }
            }
            load_tile(a.previous, pixel, plane, s.dim, count, z_tile);
            T weight_sum[P], dot[P];
            for (std::int64_t i = 0; i < P; ++i)
                weight_sum[i] = i < count ? static_cast<const T*>(a.weight_sum)[flat + i] : T(1);
            V squared[kTile] = {}, total[kTile] = {};  // |z'|^2 and G . y, for the neighbours outside the image
            for (int u = 0; u < kTile; ++u) {
                const V inverse = 1 / load(weight_sum + u * L);
                V sum = {};
                for (std::int64_t d = 0; d < s.dim; ++d) {
                    const std::int64_t at = d * P + u * L;
                    const V g = load(g_tile + at) * inverse, z = load(z_tile + at);
                    store(g_tile + at, g);
                    sum += g * (load(y_tile + at) - z);
                    total[u] += g * load(y_tile + at);
                    squared[u] += z * z;
                }
                store(dot + u * L, sum);
            }
            for (std::int64_t d = 0; d < s.dim; ++d)
                store_pixels(static_cast<T*>(a.upstream) + pixel + d * plane, g_tile + d * P, count);
            for (std::int64_t i = 0; i < count; ++i) {
                static_cast<T*>(a.upstream_dot)[flat + i] = dot[i];
                const std::int64_t missing = outside(x + i, y, s);
                if (missing == 0) continue;
                const double distance = squared[i / L][i % L];
                bandwidth_rows[row] -= missing * __builtin_exp(distance * exponent) * total[i / L][i % L] * distance;
            }
        }
        if (a.grad_probs == nullptr) continue;
        for (std::int64_t k = 0; k < s.clusters; ++k)
            for (std::int64_t d = 0; d < s.dim; ++d) {
                V sum = {};
                for (std::int64_t x = 0; x < line; x += L)
                    sum += load(similarity + k * line + x) * load(unit + d * line + x);
                centers_sum[k * s.dim + d] += sum_lanes<T>(sum);
            }
    }
}

template <class T>
std::size_t gather_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>(2 * RowRing<T>::size(s.dim, s) + RowRing<T>::size(1, s) +
                                                2 * s.dim * kTilePixels<T>);
}

template <class T, int Window>
void gather_rows(const MeanShiftBackward& a, std::int64_t row_begin, std::int64_t row_end, double* bandwidth_rows,
                 T* scratch) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    constexpr int L = lanes<T>;
    const MeanShiftShape& s = a.shape;
    const std::int64_t plane = s.height * s.width, pitch = row_pitch<T>(s);
    const std::int64_t dense[4] = {s.dim * plane, plane, s.width, 1}, flat[4] = {plane, plane, s.width, 1};
    RowRing<T> z_ring(static_cast<const T*>(a.previous), dense, s.dim, s, scratch);
    scratch += RowRing<T>::size(s.dim, s);
    RowRing<T> g_ring(static_cast<const T*>(a.upstream), dense, s.dim, s, scratch);
    scratch += RowRing<T>::size(s.dim, s);
    RowRing<T> dot_ring(static_cast<const T*>(a.upstream_dot), flat, 1, s, scratch);
    T* p = scratch + RowRing<T>::size(1, s);
    T* gradient = p + s.dim * P;
    const T exponent = static_cast<T>(-0.5 / (s.bandwidth * s.bandwidth));
    const T inverse_variance = static_cast<T>(1 / (s.bandwidth * s.bandwidth));
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        z_ring.center_on(row);
        g_ring.center_on(row);
        dot_ring.center_on(row);
        const std::int64_t sample = row / s.height, y = row % s.height;
        double bandwidth_sum = 0;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P;
            const T* from = static_cast<const T*>(a.embeddings) + sample * a.stride[0] + y * a.stride[2];
            for (std::int64_t d = 0; d < s.dim; ++d)
                for (std::int64_t i = 0; i < P; ++i)
                    p[d * P + i] = i < count ? from[d * a.stride[1] + (x + i) * a.stride[3]] : T(0);
            fill_zero(gradient, s.dim * P);
            V along_bandwidth[kTile] = {};
            for (int dy = 0; dy < Window; ++dy) {
                const T *z_row = z_ring.at(dy) + x, *g_row = g_ring.at(dy) + x, *dot_row = dot_ring.at(dy) + x;
                V weight[Window][kTile] = {}, pull[Window][kTile];
                for (int dx = 0; dx < Window; ++dx)
                    for (int u = 0; u < kTile; ++u) pull[dx][u] = -load(dot_row + u * L + dx);
                for (std::int64_t d = 0; d < s.dim; ++d)
                    for (int u = 0; u < kTile; ++u) {
                        const V own = load(p + d * P + u * L);
                        for (int dx = 0; dx < Window; ++dx) {
                            const V difference = own - load(z_row + d * pitch + u * L + dx);
                            weight[dx][u] += difference * difference;
                            pull[dx][u] += difference * load(g_row + d * pitch + u * L + dx);
                        }
                    }
                for (int dx = 0; dx < Window; ++dx)
                    for (int u = 0; u < kTile; ++u) {
                        const V distance = weight[dx][u];
                        weight[dx][u] = exp_nonpositive(distance * exponent);
                        pull[dx][u] *= weight[dx][u];
                        along_bandwidth[u] += pull[dx][u] * distance;
                        pull[dx][u] *= inverse_variance;
                    }
                for (std::int64_t d = 0; d < s.dim; ++d)
                    for (int u = 0; u < kTile; ++u) {
                        T* at = gradient + d * P + u * L;
                        const V own = load(p + d * P + u * L);
                        V sum = load(at);
                        for (int dx = 0; dx < Window; ++dx) {
                            sum += weight[dx][u] * load(g_row + d * pitch + u * L + dx);
                            sum += pull[dx][u] * (load(z_row + d * pitch + u * L + dx) - own);
                        }
                        store(at, sum);
                    }
            }
            for (std::int64_t d = 0; d < s.dim; ++d)
                store_pixels(static_cast<T*>(a.grad_embeddings) + sample * s.dim * plane + d * plane + y * s.width + x,
                             gradient + d * P, count);
            for (std::int64_t i = 0; i < count; ++i) bandwidth_sum += along_bandwidth[i / L][i % L];
        }
        bandwidth_rows[row] += bandwidth_sum;
    }
}

template <class T>
void gather(const MeanShiftBackward& a, std::int64_t begin, std::int64_t end, double* bandwidth_rows, void* scratch) {
    T* memory = static_cast<T*>(scratch);
    switch (a.shape.window) {
        case 1: return gather_rows<T, 1>(a, begin, end, bandwidth_rows, memory);
        case 3: return gather_rows<T, 3>(a, begin, end, bandwidth_rows, memory);
        case 5: return gather_rows<T, 5>(a, begin, end, bandwidth_rows, memory);
        case 7: return gather_rows<T, 7>(a, begin, end, bandwidth_rows, memory);
        case 9: return gather_rows<T, 9>(a, begin, end, bandwidth_rows, memory);
        case 11: return gather_rows<T, 11>(a, begin, end, bandwidth_rows, memory);
    }
}

}  // namespace

extern const MeanShiftBackwardKernels mean_shift_backward_kernels[2] = {
    {upstream_scratch<float>, upstream<float>, gather_scratch<float>, gather<float>},
    {upstream_scratch<double>, upstream<double>, gather_scratch<double>, gather<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
