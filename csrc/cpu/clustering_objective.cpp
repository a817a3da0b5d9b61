// The training objective on the CPU. Kernel 1 goes over the rows of both views: window patches, mean shift, assignment
// (mean_shift_tile.h), and from the same tile of pixels compactness, likelihood of the labels, mass and sums. Kernel 2
// compares every assignment with the other view's at its place. The moved embeddings never leave the tile.
//
// Kernel 1 reads D floats and writes D + K per pixel; computes 3 window^2 D multiply-adds per pixel and iteration and
// 3 K D beside them: bound by arithmetic and by first-level cache reads. Kernel 2 reads about 5 K floats per pixel and
// takes K logarithms: bound by memory and by the places' arithmetic.
#include "../common/clustering_objective.h"

#include "../common/random_math.h"
#include "clustering_pairs.h"
#include "lanes.h"
#include "mean_shift_tile.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
std::size_t assign_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>(RowRing<T>::size(s.dim, s) + (s.dim + s.clusters) * line_size<T>(s) +
                                                (2 * s.dim + 2 * s.clusters) * kTilePixels<T>);
}

// Sums of a tile: q max(1 - similarity, 0) over clusters and pixels; probs and similarity (K, tile).
template <class T>
double compactness_tile(const T* probs, const T* similarity, std::int64_t clusters) {
    Vector<T> sum = {};
    for (std::int64_t at = 0; at < clusters * kTilePixels<T>; at += lanes<T>) {
        const Vector<T> distance = 1 - load(similarity + at);
        sum += load(probs + at) * (distance < 0 ? Vector<T>{} : distance);
    }
    return sum_lanes<T>(sum);
}

// -log of the labels' clamped probabilities, summed. `labels` is null-free here; a label that is no cluster gives NaN.
template <class T>
double surprise_tile(const T* probs, const std::int64_t* labels, const std::uint8_t* valid, std::int64_t clusters,
                     std::int64_t count) {
    T likelihood[kTilePixels<T>];
    for (std::int64_t i = 0; i < kTilePixels<T>; ++i) {
        likelihood[i] = 1;
        if (i >= count || (valid != nullptr && !valid[i])) continue;
        const bool known = labels[i] >= 0 && labels[i] < clusters;
        const T q = known ? probs[labels[i] * kTilePixels<T> + i] : static_cast<T>(__builtin_nan(""));
        likelihood[i] = q < static_cast<T>(kProbEpsilon) ? static_cast<T>(kProbEpsilon) : q;
    }
    double sum = 0;
    for (int u = 0; u < kTile; ++u) {
        const Vector<T> q = load(likelihood + u * lanes<T>), log = logarithm<Lanes<T>>(q);
        sum -= sum_lanes<T>(q == q ? log : q);
    }
    return sum;
}

template <class T, int Window>
void assign_rows(const ClusteringForward& a, std::int64_t row_begin, std::int64_t row_end, double* sums, T* scratch) {
    constexpr std::int64_t P = kTilePixels<T>;
    const ClusteringInputs& in = a.in;
    const MeanShiftShape& s = in.shape;
    const T* centers = static_cast<const T*>(in.centers);
    const std::int64_t pitch = row_pitch<T>(s), plane = s.height * s.width, line = line_size<T>(s);
    const T exponent = static_cast<T>(-0.5 / (s.bandwidth * s.bandwidth));
    RowRing<T> ring(static_cast<const T*>(in.embeddings), in.stride, s.dim, s, scratch);
    T* moved_row = scratch + RowRing<T>::size(s.dim, s);  // (D, line)
    T* probs_row = moved_row + s.dim * line;              // (K, line), zero where a pixel does not count
    T* z = probs_row + s.clusters * line;
    T* next = z + s.dim * P;
    T* probs = next + s.dim * P;
    T* similarity = probs + s.clusters * P;
    Vector<T> weight_sum[kTile];
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        ring.center_on(row);
        const T* own = ring.at(Window / 2) + Window / 2;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P, flat = row * s.width + x;
            const std::int64_t pixel = row / s.height * s.dim * plane + row % s.height * s.width + x;
            for (std::int64_t d = 0; d < s.dim; ++d) __builtin_memcpy(z + d * P, own + d * pitch + x, sizeof(T) * P);
            for (int iteration = 0; iteration < s.iterations; ++iteration) {
                if (a.previous != nullptr && iteration == s.iterations - 1)
                    for (std::int64_t d = 0; d < s.dim; ++d)
                        store_pixels(static_cast<T*>(a.previous) + pixel + d * plane, z + d * P, count);
                shift_tile<T, Window>(ring, x, pitch, s.dim, exponent, z, next, weight_sum);
            }
            assign_tile(z, centers, s, probs);
            store_interleaved(static_cast<T*>(a.probs) + flat * s.clusters, probs, s.clusters, count);
            const std::uint8_t* valid = in.valid == nullptr ? nullptr : in.valid + flat;
            for (std::int64_t i = 0; i < P; ++i) {
                const bool counts = i < count && (valid == nullptr || valid[i]);
                sums[kPixels] += counts;
                if (counts) continue;
                for (std::int64_t k = 0; k < s.clusters; ++k) probs[k * P + i] = 0;
            }
            project_tile(own + x, pitch, centers, s, similarity);
            sums[kCompactnessSum] += compactness_tile(probs, similarity, s.clusters);
            if (in.labels != nullptr)
                sums[kSurpriseSum] += surprise_tile(probs, in.labels + flat, valid, s.clusters, count);
            for (std::int64_t k = 0; k < s.clusters; ++k)
                __builtin_memcpy(probs_row + k * line + x, probs + k * P, sizeof(T) * P);
            for (std::int64_t d = 0; d < s.dim; ++d) {
                __builtin_memcpy(moved_row + d * line + x, z + d * P, sizeof(T) * P);
                if (a.shifted != nullptr)
                    store_pixels(static_cast<T*>(a.shifted) + pixel + d * plane, z + d * P, count);
            }
        }
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            Vector<T> mass = {};
            for (std::int64_t x = 0; x < line; x += lanes<T>) mass += load(probs_row + k * line + x);
            sums[kMass + k] += sum_lanes<T>(mass);
        }
        if (a.shifted == nullptr)
            add_products(probs_row, line, s.clusters, moved_row, line, s.dim, line, sums + kMass + s.clusters);
    }
}

template <class T>
void assign(const ClusteringForward& a, std::int64_t begin, std::int64_t end, double* sums, void* scratch) {
    dispatch_window(a.in.shape.window, [&](auto window) {
        assign_rows<T, decltype(window)::value>(a, begin, end, sums, static_cast<T*>(scratch));
    });
}

template <class T>
std::size_t compare_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>(2 * s.clusters * kTilePixels<T>);
}

template <class T>
void compare(const ClusteringForward& a, std::int64_t row_begin, std::int64_t row_end, double* divergence_rows,
             std::int64_t* pairs_rows, void* scratch) {
    using V = Vector<T>;
    constexpr std::int64_t P = kTilePixels<T>;
    const MeanShiftShape& s = a.in.shape;
    const T* probs = static_cast<const T*>(a.probs);
    T* own = static_cast<T*>(scratch);
    T* read = own + s.clusters * P;
    const T epsilon = static_cast<T>(kProbEpsilon);
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        double divergence = 0;
        std::int64_t pairs = 0;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P;
            load_interleaved(probs + (row * s.width + x) * s.clusters, s.clusters, count, own);
            pairs += read_pairs(a.in, probs, row, x, count, own, read);
            V sum = {};
            for (std::int64_t at = 0; at < s.clusters * P; at += lanes<T>) {
                const V p = load(own + at) + epsilon, q = load(read + at) + epsilon;
                sum += (p - q) * logarithm<Lanes<T>>(p / q);
            }
            divergence += 0.5 * sum_lanes<T>(sum);
        }
        divergence_rows[row] = divergence;
        pairs_rows[row] = pairs;
    }
}

template <class T>
void memory_order(const ClusteringForward& a, std::int64_t row_begin, std::int64_t row_end, double* sums) {
    const MeanShiftShape& s = a.in.shape;
    for (std::int64_t pixel = row_begin * s.width; pixel < row_end * s.width; ++pixel) {
        if (a.in.valid != nullptr && !a.in.valid[pixel]) continue;
        const T* probs = static_cast<const T*>(a.probs) + pixel * s.clusters;
        const T* moved = static_cast<const T*>(a.shifted) + pixel * s.dim;
        for (std::int64_t k = 0; k < s.clusters; ++k)
            for (std::int64_t d = 0; d < s.dim; ++d)
                sums[k * s.dim + d] += static_cast<double>(probs[k]) * static_cast<double>(moved[d]);
    }
}

}  // namespace

extern const ClusteringForwardKernels clustering_objective_forward_kernels[2] = {
    {assign_scratch<float>, assign<float>, compare_scratch<float>, compare<float>, memory_order<float>},
    {assign_scratch<double>, assign<double>, compare_scratch<double>, compare<double>, memory_order<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
