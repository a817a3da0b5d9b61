// Backward of mean shift and assignment. Only the last iteration carries gradient, and z enters its weights detached,
// so with p the embeddings, z' = previous, y = shifted, S = weight_sum, w_ij = exp(-|p_j - z'_i|^2 / (2 b^2)) and
// g_i = dL/dy_i:
//   dL/dp_j = sum_i w_ij (G_i - t_ij / b^2 (p_j - z'_i)),   dL/db = sum_ij w_ij t_ij |p_j - z'_i|^2 / b^3,
//   G_i = g_i / S_i,   t_ij = G_i . (p_j - y_i).
// `upstream` computes G and G . (y - z') from both outputs' gradients (through the softmax and the normalisation),
// mean_shift_gather.cpp the sums. t is computed as G . (p - z') - G . (y - z'): nothing is lost to cancellation where
// p, y and z' are close.
//
// Reads 3 D + 2 K and writes D + 1 floats per pixel: bound by memory.
#include "mean_shift_upstream.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
std::size_t upstream_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>((s.dim + s.clusters) * line_size<T>(s) +
                                                (3 * s.dim + 2 * s.clusters) * kTilePixels<T>);
}

template <class T>
void upstream(const MeanShiftBackward& a, std::int64_t row_begin, std::int64_t row_end, double* centers_sum,
              double* bandwidth_rows, void* scratch) {
    constexpr std::int64_t P = kTilePixels<T>;
    const MeanShiftShape& s = a.shape;
    const std::int64_t plane = s.height * s.width, line = line_size<T>(s);
    const T* centers = static_cast<const T*>(a.centers);
    T* unit = static_cast<T*>(scratch);   // (D, line): y / |y|
    T* similarity = unit + s.dim * line;  // (K, line): gradient of the similarities
    T* y_tile = similarity + s.clusters * line;
    T* g_tile = y_tile + s.dim * P;
    T* z_tile = g_tile + s.dim * P;
    T* probs = z_tile + s.dim * P;
    T* grad_probs = probs + s.clusters * P;
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        bandwidth_rows[row] = 0;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P, flat = row * s.width + x;
            const std::int64_t pixel = row / s.height * s.dim * plane + row % s.height * s.width + x;
            load_planes(static_cast<const T*>(a.shifted) + pixel, plane, s.dim, count, y_tile);
            if (a.grad_shifted != nullptr)
                load_planes(static_cast<const T*>(a.grad_shifted) + pixel, plane, s.dim, count, g_tile);
            else
                fill_zero(g_tile, s.dim * P);
            if (a.grad_probs != nullptr) {
                load_interleaved(static_cast<const T*>(a.probs) + flat * s.clusters, s.clusters, count, probs);
                load_interleaved(static_cast<const T*>(a.grad_probs) + flat * s.clusters, s.clusters, count,
                                 grad_probs);
                softmax_backward_tile(probs, grad_probs, s, similarity + x, line);
                cosine_backward_tile(y_tile, centers, s, similarity + x, line, unit + x, z_tile, g_tile);
            }
            load_planes(static_cast<const T*>(a.previous) + pixel, plane, s.dim, count, z_tile);
            Vector<T> weight_sum[kTile];
            for (std::int64_t i = 0; i < P; ++i)
                weight_sum[i / lanes<T>][i % lanes<T>] =
                    i < count ? static_cast<const T*>(a.weight_sum)[flat + i] : T(1);
            bandwidth_rows[row] +=
                write_upstream(s, row, x, count, y_tile, z_tile, weight_sum, g_tile, a.upstream, a.upstream_dot);
        }
        if (a.grad_probs != nullptr) add_products(similarity, line, s.clusters, unit, line, s.dim, line, centers_sum);
    }
}

}  // namespace

extern const MeanShiftBackwardKernels mean_shift_assign_backward_kernels[2] = {
    {upstream_scratch<float>, upstream<float>},
    {upstream_scratch<double>, upstream<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
