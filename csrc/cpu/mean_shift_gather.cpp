// The last step of every backward through mean shift: with p the embeddings, z' = previous, G = upstream,
// w_ij = exp(-|p_j - z'_i|^2 / (2 b^2)) and t_ij = G_i . (p_j - z'_i) - upstream_dot_i,
//   dL/dp_j = sum_i w_ij (G_i - t_ij / b^2 (p_j - z'_i)),   dL/db = sum_ij w_ij t_ij |p_j - z'_i|^2 / b^3
// over all pixels i whose window holds j: a gather, so no two threads write one place.
//
// Reads 3 D and writes D floats per pixel (reads D more where it adds); computes about 5 window^2 D multiply-adds per
// pixel: bound by arithmetic and by first-level cache reads.
#include "mean_shift_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
std::size_t gather_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>(2 * RowRing<T>::size(s.dim, s) + RowRing<T>::size(1, s) +
                                                2 * s.dim * kTilePixels<T>);
}

template <class T, int Window>
void gather_rows(const MeanShiftGather& a, std::int64_t row_begin, std::int64_t row_end, double* bandwidth_rows,
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
            T* result = static_cast<T*>(a.grad_embeddings) + sample * s.dim * plane + y * s.width + x;
            if (a.add)
                load_planes(result, plane, s.dim, count, gradient);
            else
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
            for (std::int64_t d = 0; d < s.dim; ++d) store_pixels(result + d * plane, gradient + d * P, count);
            for (std::int64_t i = 0; i < count; ++i) bandwidth_sum += along_bandwidth[i / L][i % L];
        }
        bandwidth_rows[row] += bandwidth_sum;
    }
}

template <class T>
void gather(const MeanShiftGather& a, std::int64_t begin, std::int64_t end, double* bandwidth_rows, void* scratch) {
    dispatch_window(a.shape.window, [&](auto window) {
        gather_rows<T, decltype(window)::value>(a, begin, end, bandwidth_rows, static_cast<T*>(scratch));
    });
}

}  // namespace

extern const MeanShiftGatherKernels mean_shift_gather_kernels[2] = {
    {gather_scratch<float>, gather<float>},
    {gather_scratch<double>, gather<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
