// Rows and tiles of pixels as the mean-shift kernels read and write them.
#pragma once

#include "../common/mean_shift_assign.h"
#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr double kWeightEpsilon = 1e-6;
constexpr double kNormEpsilon = 1e-12;
constexpr int kTile = SPECTRAFUSE_TILE_VECTORS;
template <class T>
constexpr int kTilePixels = kTile * lanes<T>;

// Elements from one band of a buffered row to the next: an odd number of cache lines, so that the bands of one pixel
// spread over all sets of the cache.
template <class T>
std::int64_t row_pitch(const MeanShiftShape& s) {
    const std::int64_t line = 64 / sizeof(T), tile = kTilePixels<T>;
    const std::int64_t needed = (s.width + tile - 1) / tile * tile + s.window - 1;
    return ((needed + line - 1) / line | 1) * line;
}

template <class T>
void fill_zero(T* to, std::int64_t count) {
    __builtin_memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

// The window's rows of a (B, channels, H, W) tensor around one row, zero outside the image.
template <class T>
class RowRing {
   public:
    RowRing(const T* source, const std::int64_t* stride, std::int64_t channels, const MeanShiftShape& s, T* memory)
        : source_(source), stride_(stride), channels_(channels), shape_(s), memory_(memory), pitch_(row_pitch<T>(s)) {
        fill_zero(memory_, size(channels, s));
    }

    static std::int64_t size(std::int64_t channels, const MeanShiftShape& s) {
        return s.window * channels * row_pitch<T>(s);
    }

    // Makes the window rows of `row` available; consecutive calls load one new row.
    void center_on(std::int64_t row) {
        const std::int64_t half = shape_.window / 2, sample = row / shape_.height, y = row % shape_.height;
        const bool consecutive = row == last_row_ + 1 && y != 0;
        for (std::int64_t dy = consecutive ? shape_.window - 1 : 0; dy < shape_.window; ++dy)
            fill_slot(sample, y + dy - half);
        center_ = y;
        last_row_ = row;
    }

    // Row dy of the window; band c of pixel x (in the image) is at [c * pitch + x + window / 2].
    const T* at(int dy) const { return memory_ + slot(center_ + dy - shape_.window / 2) * channels_ * pitch_; }

   private:
    std::int64_t slot(std::int64_t y) const { return (y + shape_.window) % shape_.window; }

    void fill_slot(std::int64_t sample, std::int64_t y) {
        T* to = memory_ + slot(y) * channels_ * pitch_;
        if (y < 0 || y >= shape_.height) return fill_zero(to, channels_ * pitch_);
        const T* from = source_ + sample * stride_[0] + y * stride_[2];
        for (std::int64_t c = 0; c < channels_; ++c) {
            T* line = to + c * pitch_ + shape_.window / 2;
            const T* band = from + c * stride_[1];
            if (stride_[3] == 1)
                __builtin_memcpy(line, band, static_cast<std::size_t>(shape_.width) * sizeof(T));
            else
                for (std::int64_t x = 0; x < shape_.width; ++x) line[x] = band[x * stride_[3]];
        }
    }

    const T* source_;
    const std::int64_t* stride_;
    std::int64_t channels_;
    const MeanShiftShape& shape_;
    T* memory_;
    std::int64_t pitch_;
    std::int64_t last_row_ = -2;
    std::int64_t center_ = 0;
};

// Calls body(WindowSize<window>{}) for a window of 1, 3, .. 11.
template <int N>
struct WindowSize {
    static constexpr int value = N;
};
template <class Body>
void dispatch_window(int window, const Body& body) {
    switch (window) {
        case 1: return body(WindowSize<1>{});
        case 3: return body(WindowSize<3>{});
        case 5: return body(WindowSize<5>{});
        case 7: return body(WindowSize<7>{});
        case 9: return body(WindowSize<9>{});
        case 11: return body(WindowSize<11>{});
    }
}

// Pixels of a row, rounded up to whole tiles.
template <class T>
std::int64_t line_size(const MeanShiftShape& s) {
    return (s.width + kTilePixels<T> - 1) / kTilePixels<T> * kTilePixels<T>;
}

// Loads `count` pixels of a plane-separated tensor as (channels, tile), zero behind them.
template <class T>
void load_planes(const T* from, std::int64_t plane, std::int64_t channels, std::int64_t count, T* tile) {
    for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t i = 0; i < kTilePixels<T>; ++i)
            tile[c * kTilePixels<T> + i] = i < count ? from[c * plane + i] : T(0);
}

// Loads `count` pixels whose channels lie together as (channels, tile), zero behind them.
template <class T>
void load_interleaved(const T* from, std::int64_t channels, std::int64_t count, T* tile) {
    if (count < kTilePixels<T>) fill_zero(tile, channels * kTilePixels<T>);
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t c = 0; c < channels; ++c) tile[c * kTilePixels<T> + i] = from[i * channels + c];
}

template <class T>
void store_interleaved(T* to, const T* tile, std::int64_t channels, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t c = 0; c < channels; ++c) to[i * channels + c] = tile[c * kTilePixels<T> + i];
}

// Adds sum_x a[i, x] b[j, x] over a whole row to sums[i, j], for a (n, a_pitch) and b (m, b_pitch).
template <class T>
void add_products(const T* a, std::int64_t a_pitch, std::int64_t n, const T* b, std::int64_t b_pitch, std::int64_t m,
                  std::int64_t line, double* sums) {
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < m; ++j) {
            Vector<T> sum = {};
            for (std::int64_t x = 0; x < line; x += lanes<T>)
                sum += load(a + i * a_pitch + x) * load(b + j * b_pitch + x);
            sums[i * m + j] += sum_lanes<T>(sum);
        }
}

// Writes the first `count` pixels of a tile.
template <class T>
void store_pixels(T* to, const T* tile, std::int64_t count) {
    if (count == kTilePixels<T>)
        __builtin_memcpy(to, tile, sizeof(T) * kTilePixels<T>);
    else
        for (std::int64_t i = 0; i < count; ++i) to[i] = tile[i];
}

}  // namespace
}  // namespace spectrafuse::SPECTRAFUSE_ISA
