// First backward kernel of the training objective: from the gradients of all terms, and of the assignments from
// outside, to what the gather of mean_shift_gather.cpp reads. The last iteration runs again from z before it, so that
// neither its result nor its weights' sum is stored; so does the read of the other view. The gradient that reaches the
// embeddings directly, through the compactness, goes to grad_embeddings, where the gather adds the rest.
//
// Reads 2 D + 6 K and writes 2 D + 1 floats per pixel; computes 3 window^2 D multiply-adds per pixel: bound by
// arithmetic and by first-level cache reads.
#include "../common/clustering_objective.h"
#include "../common/random_math.h"
#include "clustering_pairs.h"
#include "lanes.h"
#include "mean_shift_tile.h"
#include "mean_shift_upstream.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
std::size_t scratch_bytes(const MeanShiftShape& s) {
    return sizeof(T) *
           static_cast<std::size_t>(RowRing<T>::size(s.dim, s) + (s.dim + 2 * s.clusters) * line_size<T>(s) +
                                    (4 * s.dim + 4 * s.clusters) * kTilePixels<T>);
}

// Adds dL/dq of all terms to grad_probs (K, tile), and writes dL/d(e . c_k) to direct (K, line).
template <class T>
void terms_backward_tile(const ClusteringBackward& a, const ClusteringGradients& g, std::int64_t row, std::int64_t x,
                         std::int64_t count, const T* probs, const T* read, const T* similarity, T* grad_probs,
                         T* direct, std::int64_t line) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    constexpr int L = lanes<T>;
    const MeanShiftShape& s = a.in.shape;
    const std::int64_t view = row >= s.batch / 2 * s.height, flat = row * s.width + x;
    T valid[P];
    for (std::int64_t i = 0; i < P; ++i) valid[i] = i < count && (a.in.valid == nullptr || a.in.valid[flat + i]);
    const T compactness = static_cast<T>(g.compactness[view]), consistency = static_cast<T>(0.5 * g.consistency);
    const T epsilon = static_cast<T>(kProbEpsilon);
    for (std::int64_t k = 0; k < s.clusters; ++k) {
        const T marginal = static_cast<T>(g.marginal[view * s.clusters + k]);
        for (int u = 0; u < kTile; ++u) {
            const std::int64_t at = k * P + u * L;
            const V q = load(probs + at), counts = load(valid + u * L), distance = 1 - load(similarity + at);
            const V p = q + epsilon, other = load(read + at) + epsilon;
            V sum = load(grad_probs + at) + counts * (compactness * (distance < 0 ? V{} : distance) + marginal);
            sum += consistency * (logarithm<Lanes<T>>(p / other) + (p - other) / p);
            store(grad_probs + at, sum);
            store(direct + k * line + u * L, distance < 0 ? V{} : -compactness * counts * q);
        }
    }
    if (a.in.labels == nullptr) return;
    const T surprise = static_cast<T>(g.surprise[view]);
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t label = a.in.labels[flat + i];
        if (valid[i] == 0 || label < 0 || label >= s.clusters || probs[label * P + i] < epsilon) continue;
        grad_probs[label * P + i] -= surprise / probs[label * P + i];
    }
}

template <class T, int Window>
void upstream_rows(const ClusteringBackward& a, const ClusteringGradients& g, std::int64_t row_begin,
                   std::int64_t row_end, double* centers_sum, double* bandwidth_rows, T* scratch) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    const MeanShiftShape& s = a.in.shape;
    const T* centers = static_cast<const T*>(a.in.centers);
    const T* all_probs = static_cast<const T*>(a.probs);
    const std::int64_t pitch = row_pitch<T>(s), plane = s.height * s.width, line = line_size<T>(s);
    const T exponent = static_cast<T>(-0.5 / (s.bandwidth * s.bandwidth));
    RowRing<T> ring(static_cast<const T*>(a.in.embeddings), a.in.stride, s.dim, s, scratch);
    T* unit = scratch + RowRing<T>::size(s.dim, s);      // (D, line): y / |y|
    T* similarity_row = unit + s.dim * line;             // (K, line): dL/d(unit . c_k)
    T* direct_row = similarity_row + s.clusters * line;  // (K, line): dL/d(e . c_k)
    T* previous = direct_row + s.clusters * line;
    T* y = previous + s.dim * P;
    T* gradient = y + s.dim * P;
    T* spare = gradient + s.dim * P;
    T* probs = spare + s.dim * P;
    T* read = probs + s.clusters * P;
    T* similarity = read + s.clusters * P;
    T* grad_probs = similarity + s.clusters * P;
    V weight_sum[kTile];
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        ring.center_on(row);
        const T* own = ring.at(Window / 2) + Window / 2;
        bandwidth_rows[row] = 0;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P, flat = row * s.width + x;
            const std::int64_t pixel = row / s.height * s.dim * plane + row % s.height * s.width + x;
            load_planes(static_cast<const T*>(a.previous) + pixel, plane, s.dim, count, previous);
            __builtin_memcpy(y, previous, sizeof(T) * static_cast<std::size_t>(s.dim * P));
            shift_tile<T, Window>(ring, x, pitch, s.dim, exponent, y, spare, weight_sum);

            load_interleaved(all_probs + flat * s.clusters, s.clusters, count, probs);
            read_pairs(a.in, all_probs, row, x, count, probs, read);
            project_tile(own + x, pitch, centers, s, similarity);
            if (a.grad_probs != nullptr)
                load_interleaved(static_cast<const T*>(a.grad_probs) + flat * s.clusters, s.clusters, count,
                                 grad_probs);
            else
                fill_zero(grad_probs, s.clusters * P);
            terms_backward_tile(a, g, row, x, count, probs, read, similarity, grad_probs, direct_row + x, line);

            fill_zero(gradient, s.dim * P);
            softmax_backward_tile(probs, grad_probs, s, similarity_row + x, line);
            cosine_backward_tile(y, centers, s, similarity_row + x, line, unit + x, spare, gradient);
            bandwidth_rows[row] +=
                write_upstream(s, row, x, count, y, previous, weight_sum, gradient, a.upstream, a.upstream_dot);

            combine_tile(centers, s, direct_row + x, line, spare);
            T* to = static_cast<T*>(a.grad_embeddings) + pixel;
            for (std::int64_t d = 0; d < s.dim; ++d) store_pixels(to + d * plane, spare + d * P, count);
        }
        add_products(similarity_row, line, s.clusters, unit, line, s.dim, line, centers_sum);
        add_products(direct_row, line, s.clusters, own, pitch, s.dim, line, centers_sum);
    }
}

template <class T>
void upstream(const ClusteringBackward& a, const ClusteringGradients& g, std::int64_t begin, std::int64_t end,
              double* centers_sum, double* bandwidth_rows, void* scratch) {
    dispatch_window(a.in.shape.window, [&](auto window) {
        upstream_rows<T, decltype(window)::value>(a, g, begin, end, centers_sum, bandwidth_rows,
                                                  static_cast<T*>(scratch));
    });
}

}  // namespace

extern const ClusteringBackwardKernels clustering_objective_backward_kernels[2] = {
    {scratch_bytes<float>, upstream<float>},
    {scratch_bytes<double>, upstream<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
