// Mean shift and assignment on the CPU, one image row at a time.
//
// The embeddings of the rows in the window are copied once into zero-padded buffers (a ring of `window` rows), then a
// tile of pixels runs all iterations in the first-level cache: for each window row, squared distances of the tile to
// `window` shifted copies, their weights, and the weighted sums. Nothing of size window^2 is stored.
//
// Reads D floats and writes 2 D + K + 1 per pixel; computes about 3 window^2 D multiply-adds per pixel and iteration,
// 240 operations a byte at the paper's sizes: bound by arithmetic and by first-level cache reads.
#include "../common/mean_shift_assign.h"

#include "mean_shift_tile.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

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
    T* probs = next + s.dim * P;
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
            assign_tile(z, static_cast<const T*>(a.centers), s, probs);
            if (a.shifted != nullptr)
                for (std::int64_t d = 0; d < s.dim; ++d)
                    store_pixels(static_cast<T*>(a.shifted) + pixel + d * plane, z + d * P, count);
            const std::int64_t flat = row * s.width + x;
            if (a.weight_sum != nullptr)
                for (std::int64_t i = 0; i < count; ++i)
                    static_cast<T*>(a.weight_sum)[flat + i] = sum[i / lanes<T>][i % lanes<T>];
            if (a.probs != nullptr)
                store_interleaved(static_cast<T*>(a.probs) + flat * s.clusters, probs, s.clusters, count);
            if (a.labels != nullptr)
                for (std::int64_t i = 0; i < count; ++i) {
                    std::int64_t best = 0;
                    for (std::int64_t k = 1; k < s.clusters; ++k)
                        if (probs[k * P + i] > probs[best * P + i]) best = k;
                    a.labels[flat + i] = best;
                }
        }
    }
}

template <class T>
void forward(const MeanShiftForward& a, std::int64_t begin, std::int64_t end, void* scratch) {
    dispatch_window(a.shape.window, [&](auto window) {
        forward_rows<T, decltype(window)::value>(a, begin, end, static_cast<T*>(scratch));
    });
}

}  // namespace

extern const MeanShiftForwardKernels mean_shift_assign_forward_kernels[2] = {
    {forward_scratch<float>, forward<float>},
    {forward_scratch<double>, forward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
