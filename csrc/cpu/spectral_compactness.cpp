// Spectral compactness on the CPU, a tile of pixels at a time.
//
// With mu_k the clusters' mean spectra, everything around one origin, the value is sum_ik q_ik |x_i|^2 - sum_k |S_k|^2
// / m_k with S = X^T Q, and the gradient of q_ik is |x_i|^2 + |mu_k|^2 - 2 x_i mu_k. A tile is a matrix of rows of
// lanes: bands by pixels where the pixels of a band are neighbours in memory, pixels by bands where a pixel's bands
// are. Either way one of the two products sums over lanes and the other over rows, so two kernels serve both layouts
// and directions. A tile of any other layout, or with pixels that take no part, is copied first.
//
// Reads C + K floats a pixel and writes 1 forward, K backward; computes K + 1 multiply-adds a float: bound by memory up
// to about 16 clusters.
#include "../common/spectral_compactness.h"

#include "spectral_products.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr std::int64_t kTilePixels = 512;
constexpr std::int64_t kOriginPixels = 64;

constexpr std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

template <class T>
void fill_zero(T* to, std::int64_t count) {
    __builtin_memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
constexpr std::int64_t padded_bands(std::int64_t bands) {
    return round_up(bands, lanes<T>);
}

// One tile with everything the kernels need; the memory comes from the thread's scratch.
template <class T, bool PixelLanes>
class Tile {
   public:
    Tile(const SpectralCompactness& a, T* scratch)
        : a_(a), clusters_(round_up(a.clusters, kClusters)), bands_(padded_bands<T>(a.bands)) {
        const std::int64_t widest = bands_ > kTilePixels ? bands_ : kTilePixels;
        copy_ = scratch;
        by_lanes_ = copy_ + bands_ * kTilePixels;
        by_rows_ = by_lanes_ + clusters_ * widest;
        origin_ = by_rows_ + clusters_ * widest;
        norm_ = origin_ + bands_;
        mean_norm_ = norm_ + kTilePixels;
    }

    static std::size_t scratch(const SpectralCompactness& a) {
        const std::int64_t clusters = round_up(a.clusters, kClusters), bands = padded_bands<T>(a.bands);
        const std::int64_t widest = bands > kTilePixels ? bands : kTilePixels;
        return sizeof(T) *
               static_cast<std::size_t>(bands * (kTilePixels + 1) + clusters * (2 * widest + 1) + kTilePixels);
    }

    void forward(std::int64_t tile, const SpectralSums& sums) {
        set(tile);
        set_origin();
        // Weights and products change places with the layout.
        T* weight = PixelLanes ? by_lanes_ : by_rows_;
        T* product = PixelLanes ? by_rows_ : by_lanes_;
        fill_zero(norm_, kTilePixels);
        if (PixelLanes) {
            for (std::int64_t slot = 0; slot < m_.slots(); ++slot) {
                const std::int64_t i = m_.lane(slot);
                const bool counts = i < count_ && !m_.repeated(slot) && takes_part(i);
                for (std::int64_t k = 0; k < clusters_; ++k)
                    weight[k * m_.slots() + slot] = counts && k < a_.clusters ? probs(i)[k] : T(0);
            }
            Products<T, true>::over_lanes(m_, origin_, weight, clusters_, product, norm_);
        } else {
            for (std::int64_t i = 0; i < count_; ++i)
                for (std::int64_t k = 0; k < clusters_; ++k)
                    weight[i * clusters_ + k] = takes_part(i) && k < a_.clusters ? probs(i)[k] : T(0);
            fill_zero(product, clusters_ * m_.slots());
            Products<T, false>::over_rows(m_, origin_, weight, clusters_, product, norm_);
        }
        for (std::int64_t c = 0; c < a_.bands; ++c)
            for (std::int64_t k = 0; k < a_.clusters; ++k)
                sums.products[c * a_.clusters + k] +=
                    PixelLanes ? product[c * clusters_ + k] : product[k * m_.slots() + slot_of(c)];
        T* squared_norm = static_cast<T*>(a_.squared_norm) + first_;
        for (std::int64_t i = 0; i < count_; ++i) {
            const bool counts = takes_part(i);
            squared_norm[i] = counts ? norm_[PixelLanes ? slot_of(i) : i] : T(0);
            if (!counts) continue;
            double weight_sum = 0;
            for (std::int64_t k = 0; k < a_.clusters; ++k) {
                sums.mass[k] += probs(i)[k];
                weight_sum += probs(i)[k];
            }
            *sums.total += weight_sum * squared_norm[i];
        }
    }

    void backward(std::int64_t tile) {
        set(tile);
        set_origin();
        const T* means = static_cast<const T*>(a_.means);
        T* weight = PixelLanes ? by_rows_ : by_lanes_;
        T* product = PixelLanes ? by_lanes_ : by_rows_;
        fill_zero(mean_norm_, clusters_);
        for (std::int64_t c = 0; c < a_.bands; ++c)
            for (std::int64_t k = 0; k < a_.clusters; ++k)
                mean_norm_[k] += means[c * a_.clusters + k] * means[c * a_.clusters + k];
        if (PixelLanes) {
            for (std::int64_t c = 0; c < a_.bands; ++c)
                for (std::int64_t k = 0; k < clusters_; ++k)
                    weight[c * clusters_ + k] = k < a_.clusters ? means[c * a_.clusters + k] : T(0);
            fill_zero(product, clusters_ * m_.slots());
            Products<T, true>::over_rows(m_, origin_, weight, clusters_, product, nullptr);
        } else {
            for (std::int64_t slot = 0; slot < m_.slots(); ++slot) {
                const std::int64_t c = m_.lane(slot);
                const bool counts = c < a_.bands && !m_.repeated(slot);
                for (std::int64_t k = 0; k < clusters_; ++k)
                    weight[k * m_.slots() + slot] = counts && k < a_.clusters ? means[c * a_.clusters + k] : T(0);
            }
            Products<T, false>::over_lanes(m_, origin_, weight, clusters_, product, nullptr);
        }
        const T* squared_norm = static_cast<const T*>(a_.squared_norm) + first_;
        T* gradient = static_cast<T*>(a_.grad_probs) + first_ * a_.clusters;
        const T scale = static_cast<T>(a_.scale);
        for (std::int64_t i = 0; i < count_; ++i)
            for (std::int64_t k = 0; k < a_.clusters; ++k) {
                const T dot = PixelLanes ? product[k * m_.slots() + slot_of(i)] : product[i * clusters_ + k];
                const T distance = squared_norm[i] + mean_norm_[k] - 2 * dot;
                gradient[i * a_.clusters + k] = !takes_part(i) || distance < 0 ? T(0) : scale * distance;
            }
    }

   private:
    bool takes_part(std::int64_t i) const { return a_.valid == nullptr || a_.valid[first_ + i] != 0; }
    const T* probs(std::int64_t i) const { return static_cast<const T*>(a_.probs) + (first_ + i) * a_.clusters; }

    // The slot that counts of a lane.
    std::int64_t slot_of(std::int64_t lane) const {
        const std::int64_t v = lane / lanes<T>;
        return v * lanes<T> + lane - m_.begin(v);
    }

    // Finds the tile in memory, or copies it.
    void set(std::int64_t tile) {
        const std::int64_t tiles = (a_.pixels + kTilePixels - 1) / kTilePixels, sample = tile / tiles;
        const std::int64_t pixel = tile % tiles * kTilePixels;
        count_ = a_.pixels - pixel < kTilePixels ? a_.pixels - pixel : kTilePixels;
        first_ = sample * a_.pixels + pixel;
        const T* from = static_cast<const T*>(a_.spectra) + sample * a_.stride[0] + pixel * a_.stride[2];
        const std::int64_t width = PixelLanes ? count_ : a_.bands, rows = PixelLanes ? a_.bands : count_;
        const std::int64_t row_stride = PixelLanes ? a_.stride[1] : a_.stride[2];
        const std::int64_t lane_stride = PixelLanes ? a_.stride[2] : a_.stride[1];
        bool all = true;
        for (std::int64_t i = 0; i < count_; ++i) all = all && takes_part(i);
        m_ = Matrix<T>(from, row_stride, rows, width > lanes<T> ? width : lanes<T>);
        if (all && lane_stride == 1 && width >= lanes<T>) return;
        const T* origin = static_cast<const T*>(a_.origin);
        m_ = Matrix<T>(copy_, round_up(width, lanes<T>), rows, round_up(width, lanes<T>));
        for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t l = 0; l < m_.width; ++l) {
                const std::int64_t c = PixelLanes ? r : l, i = PixelLanes ? l : r;
                T x = c < a_.bands ? origin[c] : T(0);
                if (l < width && takes_part(i)) x = from[r * row_stride + l * lane_stride];
                copy_[r * m_.row_stride + l] = x;
            }
    }

    void set_origin() {
        const T* origin = static_cast<const T*>(a_.origin);
        if (PixelLanes) {
            for (std::int64_t c = 0; c < a_.bands; ++c) origin_[c] = origin[c];
            return;
        }
        for (std::int64_t slot = 0; slot < m_.slots(); ++slot)
            origin_[slot] = m_.lane(slot) < a_.bands ? origin[m_.lane(slot)] : T(0);
    }

    const SpectralCompactness& a_;
    std::int64_t clusters_, bands_, count_ = 0, first_ = 0;
    Matrix<T> m_{nullptr, 0, 0, lanes<T>};
    T *copy_, *by_lanes_, *by_rows_, *origin_, *norm_, *mean_norm_;
};

// Around any point near the spectra nothing cancels: the mean of a few pixels that take part, evenly spread.
template <class T>
void set_origin(const SpectralCompactness& a) {
    T* origin = static_cast<T*>(a.origin);
    fill_zero(origin, a.bands);
    const std::int64_t all = a.batch * a.pixels, step = all / kOriginPixels + 1;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < all; i += step) count += a.valid == nullptr || a.valid[i] != 0;
    for (std::int64_t i = 0; i < all; i += step) {
        if (a.valid != nullptr && a.valid[i] == 0) continue;
        const T* x = static_cast<const T*>(a.spectra) + i / a.pixels * a.stride[0] + i % a.pixels * a.stride[2];
        for (std::int64_t c = 0; c < a.bands; ++c) origin[c] += x[c * a.stride[1]] / count;
    }
}

// A tile's lanes are the dimension whose neighbours are neighbours in memory.
inline bool pixel_lanes(const SpectralCompactness& a) { return a.stride[2] == 1 || a.stride[1] != 1; }

template <class T, bool PixelLanes>
void forward_tiles(const SpectralCompactness& a, std::int64_t begin, std::int64_t end, const SpectralSums& sums,
                   void* scratch) {
    Tile<T, PixelLanes> work(a, static_cast<T*>(scratch));
    for (std::int64_t tile = begin; tile < end; ++tile) work.forward(tile, sums);
}

template <class T, bool PixelLanes>
void backward_tiles(const SpectralCompactness& a, std::int64_t begin, std::int64_t end, void* scratch) {
    Tile<T, PixelLanes> work(a, static_cast<T*>(scratch));
    for (std::int64_t tile = begin; tile < end; ++tile) work.backward(tile);
}

template <class T>
void forward(const SpectralCompactness& a, std::int64_t begin, std::int64_t end, const SpectralSums& sums,
             void* scratch) {
    return pixel_lanes(a) ? forward_tiles<T, true>(a, begin, end, sums, scratch)
                          : forward_tiles<T, false>(a, begin, end, sums, scratch);
}

template <class T>
void backward(const SpectralCompactness& a, std::int64_t begin, std::int64_t end, void* scratch) {
    return pixel_lanes(a) ? backward_tiles<T, true>(a, begin, end, scratch)
                          : backward_tiles<T, false>(a, begin, end, scratch);
}

}  // namespace

extern const SpectralCompactnessKernels spectral_compactness_kernels[2] = {
    {kTilePixels, set_origin<float>, Tile<float, true>::scratch, forward<float>, backward<float>},
    {kTilePixels, set_origin<double>, Tile<double, true>::scratch, forward<double>, backward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
