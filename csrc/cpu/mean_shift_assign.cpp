// Mean shift and assignment on the CPU, one image row at a time.
//
// The embeddings of the rows in the window are copied once into zero-padded buffers (a ring of `window` rows), then a
// tile of pixels runs all iterations in the first-level cache: for each window row, squared distances of the tile to
// `window` shifted copies, their weights, and the weighted sums. Nothing of size window^2 is stored.
//
// Reads D floats and writes 2 D + K + 1 per pixel; computes about 3 window^2 D multiply-adds per pixel and iteration,
// 240 operations a byte at the paper's sizes: bound by arithmetic and by first-level cache reads.
#include "../common/mean_shift_assign.h"

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

// logits (K, tile) = (z / |z|) C^T / temperature, turned into probabilities in place.
template <class T>
void assign_tile(const T* z, const T* centers, const MeanShiftShape& s, T* logits) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (int u = 0; u < kTile; ++u) {
        V norm = {};
        for (std::int64_t d = 0; d < s.dim; ++d) {
            const V v = load(z + d * kTilePixels<T> + u * L);
            norm += v * v;
        }
        norm = larger<T>(square_root(norm), broadcast<T>(static_cast<T>(kNormEpsilon)));
        const V scale = static_cast<T>(1 / s.temperature) / norm;
        V largest = {};
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            V similarity = {};
            for (std::int64_t d = 0; d < s.dim; ++d)
                similarity += centers[k * s.dim + d] * load(z + d * kTilePixels<T> + u * L);
            similarity *= scale;
            largest = k == 0 ? similarity : larger<T>(largest, similarity);
            store(logits + k * kTilePixels<T> + u * L, similarity);
        }
        V total = {};
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            T* at = logits + k * kTilePixels<T> + u * L;
            const V q = exp_nonpositive(load(at) - largest);
            total += q;
            store(at, q);
        }
        const V inverse = 1 / total;
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            T* at = logits + k * kTilePixels<T> + u * L;
            store(at, load(at) * inverse);
        }
    }
}

template <class T>
std::size_t forward_scratch(const MeanShiftShape& s) {
    return sizeof(T) * static_cast<std::size_t>(RowRing<T>::size(s.dim, s) + (2 * s.dim + s.clusters) * kTilePixels<T>);
}

template <class T, int Window>
void forward_rows(const MeanShiftForward& a, std::int64_t row_begin, std::int64_t row_end, T* scratch) {
    const MeanShiftShape& s = a.shape;
    constexpr std::int64_t P = kTilePixels<T>;
    RowRing<T> ring(static_cast<const T*>(a.embeddings), a.stride, s.dim, s, scratch);
    T* z = scratch + RowRing<T>::size(s.dim, s);
    T* next = z + s.dim * P;
    T* logits = next + s.dim * P;
    const std::int64_t pitch = row_pitch<T>(s), plane = s.height * s.width;
    const T exponent = static_cast<T>(-0.5 / (s.bandwidth * s.bandwidth));
    Vector<T> sum[kTile];
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        ring.center_on(row);
        const T* own = ring.at(Window / 2) + Window / 2;
        const std::int64_t sample = row / s.height, y = row % s.height;
        for (std::int64_t x = 0; x < s.width; x += P) {
            const std::int64_t count = s.width - x < P ? s.width - x : P;
            const std::int64_t pixel = sample * s.dim * plane + y * s.width + x;
            for (std::int64_t d = 0; d < s.dim; ++d) __builtin_memcpy(z + d * P, own + d * pitch + x, sizeof(T) * P);
            for (int iteration = 0; iteration < s.iterations; ++iteration) {
                if (a.previous != nullptr && iteration == s.iterations - 1)
                    for (std::int64_t d = 0; d < s.dim; ++d)
                        store_pixels(static_cast<T*>(a.previous) + pixel + d * plane, z + d * P, count);
                shift_tile<T, Window>(ring, x, pitch, s.dim, exponent, z, next, sum);
            }
            assign_tile(z, static_cast<const T*>(a.centers), s, logits);
            if (a.shifted != nullptr)
                for (std::int64_t d = 0; d < s.dim; ++d)
                    store_pixels(static_cast<T*>(a.shifted) + pixel + d * plane, z + d * P, count);
            const std::int64_t flat = row * s.width + x;
            if (a.weight_sum != nullptr)
                for (std::int64_t i = 0; i < count; ++i)
                    static_cast<T*>(a.weight_sum)[flat + i] = sum[i / lanes<T>][i % lanes<T>];
            if (a.probs != nullptr)
                for (std::int64_t i = 0; i < count; ++i)
                    for (std::int64_t k = 0; k < s.clusters; ++k)
                        static_cast<T*>(a.probs)[(flat + i) * s.clusters + k] = logits[k * P + i];
            if (a.labels != nullptr)
                for (std::int64_t i = 0; i < count; ++i) {
                    std::int64_t best = 0;
                    for (std::int64_t k = 1; k < s.clusters; ++k)
                        if (logits[k * P + i] > logits[best * P + i]) best = k;
                    a.labels[flat + i] = best;
                }
        }
    }
}

template <class T>
void forward(const MeanShiftForward& a, std::int64_t begin, std::int64_t end, void* scratch) {
    T* memory = static_cast<T*>(scratch);
    switch (a.shape.window) {
        case 1: return forward_rows<T, 1>(a, begin, end, memory);
        case 3: return forward_rows<T, 3>(a, begin, end, memory);
        case 5: return forward_rows<T, 5>(a, begin, end, memory);
        case 7: return forward_rows<T, 7>(a, begin, end, memory);
        case 9: return forward_rows<T, 9>(a, begin, end, memory);
        case 11: return forward_rows<T, 11>(a, begin, end, memory);
    }
}

}  // namespace

extern const MeanShiftForwardKernels mean_shift_forward_kernels[2] = {
    {forward_scratch<float>, forward<float>},
    {forward_scratch<double>, forward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
