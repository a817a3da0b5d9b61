// Two warped crops of every cube: one view and 16 bands at a time.
//
// The bilinear places of a view are the same for all its bands, so they are found once. The window of 16 bands is
// turned so that the bands of a pixel lie side by side (270 kB for 64 x 64 pixels in float32: the second-level cache);
// each output pixel is then four loads and one store of whole vectors, whatever the layouts of scene and output. Reads
// and writes one value per output value in memory, and four (of which most are met again in the first-level cache) in
// the cache. Bound by bytes.
#include "../common/crop_pairs.h"

#include "../common/vector.h"
#include "turn.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// Upper left neighbour (pixel of the window) of every output pixel, and the weights of the right and lower ones.
template <class T>
struct Places {
    std::int32_t* corner;
    T *right, *down;
};

// The window is held with its last row and column once more, so that the four neighbours of a place are always at
// the same distances from each other.
inline std::int64_t window_size(const CropPairs& a) { return (a.height + 1) * (a.width + 1) * kCropBands; }

template <class T>
std::size_t scratch_size(const CropPairs& a) {
    const std::int64_t pixels = a.height * a.width;
    return static_cast<std::size_t>(window_size(a) + a.width * kCropBands + (2 + kCropBands) * pixels) * sizeof(T) +
           static_cast<std::size_t>(pixels) * sizeof(std::int32_t);
}

// A coordinate reflected about -0.5 and n - 0.5 and kept on the pixels' centers.
inline double reflect(double x, std::int64_t n) {
    const double from_border = __builtin_fabs(x + 0.5);
    const double turns = __builtin_floor(from_border / n);
    const double rest = from_border - turns * n;
    const bool mirrored = turns - 2 * __builtin_floor(turns / 2) != 0;
    const double inside = (mirrored ? n - rest : rest) - 0.5;
    return inside < 0 ? 0.0 : inside > n - 1 ? static_cast<double>(n - 1) : inside;
}

template <class T>
void find_places(const CropPairs& a, const double* geometry, const Places<T>& places) {
    const double* theta = geometry + 2;
    for (std::int64_t i = 0; i < a.height; ++i)
        for (std::int64_t j = 0; j < a.width; ++j) {
            const double x = (2.0 * j + 1) / a.width - 1, y = (2.0 * i + 1) / a.height - 1;
            const double column = reflect(((theta[0] * x + theta[1] * y + theta[2] + 1) * a.width - 1) / 2, a.width);
            const double row = reflect(((theta[3] * x + theta[4] * y + theta[5] + 1) * a.height - 1) / 2, a.height);
            const std::int64_t left = static_cast<std::int64_t>(column), upper = static_cast<std::int64_t>(row);
            const std::int64_t at = i * a.width + j;
            places.corner[at] = static_cast<std::int32_t>(upper * (a.width + 1) + left);
            places.right[at] = static_cast<T>(column - left);
            places.down[at] = static_cast<T>(row - upper);
        }
}

// Position in a scene of n pixels that is continued by reflection about its last pixel.
inline std::int64_t inside_scene(std::int64_t position, std::int64_t n) {
    return position < n ? position : 2 * (n - 1) - position;
}

// A band's window, row by row. Bands come one after the other: the processor foresees rows at equal distances.
template <class T>
void copy_band(const CropPairs& a, const T* band, std::int64_t top, std::int64_t left, T* to) {
    const bool direct = a.stride[3] == 1 && left + a.width <= a.scene_width;
    for (std::int64_t i = 0; i < a.height; ++i, to += a.width) {
        const T* row = band + inside_scene(top + i, a.scene_height) * a.stride[2];
        if (direct)
            __builtin_memcpy(to, row + left, static_cast<std::size_t>(a.width) * sizeof(T));
        else
            for (std::int64_t j = 0; j < a.width; ++j) to[j] = row[inside_scene(left + j, a.scene_width) * a.stride[3]];
    }
}

// The windows of `count` bands with the bands of a pixel side by side.
template <class T>
void turn_window(const CropPairs& a, const T* bands, std::int64_t count, T* window) {
    const std::int64_t row_size = (a.width + 1) * kCropBands, size = sizeof(T);
    for (std::int64_t i = 0; i < a.height; ++i) {
        T* to = window + i * row_size;
        turn<T>(reinterpret_cast<const char*>(bands + i * a.width), a.height * a.width * size, count, a.width, to,
                kCropBands);
        __builtin_memcpy(to + a.width * kCropBands, to + (a.width - 1) * kCropBands, kCropBands * sizeof(T));
    }
    __builtin_memcpy(window + a.height * row_size, window + (a.height - 1) * row_size,
                     static_cast<std::size_t>(row_size) * sizeof(T));
}

template <class T>
void interpolate_row(const CropPairs& a, const Places<T>& places, std::int64_t row, const T* __restrict window,
                     T* __restrict out) {
    const std::int64_t lower_row = (a.width + 1) * kCropBands;
    for (std::int64_t j = 0; j < a.width; ++j) {
        const std::int64_t at = row * a.width + j;
        const T* upper = window + places.corner[at] * kCropBands;
        const T* lower = upper + lower_row;
        const T right = places.right[at], down = places.down[at];
        T* to = out + j * kCropBands;
        for (int b = 0; b < kCropBands; ++b) {
            const T above = upper[b] + right * (upper[b + kCropBands] - upper[b]);
            const T below = lower[b] + right * (lower[b + kCropBands] - lower[b]);
            to[b] = above + down * (below - above);
        }
    }
}

// Writes a row of pixels in the layout of the output.
template <class T>
void write_row(const CropPairs& a, const T* row, std::int64_t count, T* out) {
    const std::int64_t band = a.out_stride[2], pixel = a.out_stride[4], size = sizeof(T);
    if (pixel == 1) {
        turn<T>(reinterpret_cast<const char*>(row), kCropBands * size, a.width, count, out, band);
        return;
    }
    for (std::int64_t j = 0; j < a.width; ++j, out += pixel, row += kCropBands)
        if (band == 1)
            __builtin_memcpy(out, row, static_cast<std::size_t>(count) * sizeof(T));
        else
            for (std::int64_t b = 0; b < count; ++b) out[b * band] = row[b];
}

template <class T>
void run(const CropPairs& a, std::int64_t view, std::int64_t band_begin, std::int64_t band_end, void* scratch) {
    Places<T> places;
    T* window = static_cast<T*>(scratch);
    T* row = window + window_size(a);
    places.right = row + a.width * kCropBands;
    places.down = places.right + a.height * a.width;
    T* bands = places.down + a.height * a.width;
    places.corner = reinterpret_cast<std::int32_t*>(bands + a.height * a.width * kCropBands);
    const double* geometry = a.geometry + 9 * view;
    find_places(a, geometry, places);
    const std::int64_t top = static_cast<std::int64_t>(geometry[0]), left = static_cast<std::int64_t>(geometry[1]);
    const std::int64_t shift = static_cast<std::int64_t>(geometry[8]) % a.bands;
    const T* cube = static_cast<const T*>(a.cubes) + view / 2 * a.stride[0];
    T* out = static_cast<T*>(a.out) + view / 2 * a.out_stride[0] + view % 2 * a.out_stride[1];
    for (std::int64_t band = band_begin; band < band_end; band += kCropBands) {
        const std::int64_t count = band_end - band < kCropBands ? band_end - band : kCropBands;
        for (std::int64_t b = 0; b < count; ++b) {
            const std::int64_t source = ((band + b - shift) % a.bands + a.bands) % a.bands;
            copy_band(a, cube + source * a.stride[1], top, left, bands + b * a.height * a.width);
        }
        turn_window(a, bands, count, window);
        for (std::int64_t i = 0; i < a.height; ++i) {
            interpolate_row(a, places, i, window, row);
            write_row(a, row, count, out + band * a.out_stride[2] + i * a.out_stride[3]);
        }
    }
}

}  // namespace

extern const CropPairsKernels crop_pairs_kernels[2] = {
    {scratch_size<float>, run<float>},
    {scratch_size<double>, run<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
