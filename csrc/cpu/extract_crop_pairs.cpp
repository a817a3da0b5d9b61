// Two warped crops of every cube: one view and 16 bands at a time.
//
// The bilinear places of a view are the same for all its bands, so they are found once. The window of 16 bands is
// turned so that the bands of a pixel lie side by side (270 kB for 64 x 64 pixels in float32: the second-level cache);
// each output pixel is then four loads and one store of whole vectors, whatever the layouts of scene and output. Reads
// and writes one value per output value in memory, and four (of which most are met again in the first-level cache) in
// the cache. Bound by bytes.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../bindings/bindings.h"
#include "../common/isa.h"
#include "../common/vector.h"
#include "parallel.h"
#include "transpose.h"

#if defined(SPECTRAFUSE_COUNT)
#include "counted.h"
#endif

namespace spectrafuse {

struct ExtractCropPairs {
    std::int64_t batch, bands, scene_height, scene_width, height, width;
    const void* cubes;       // (B, C, H, W), any strides
    std::int64_t stride[4];  // of cubes, in elements
    const double* geometry;  // (B, 2, 9): corner y x, affine matrix (2, 3) by rows, band shift
    void* out;               // (B, 2, C, h, w), any strides
    std::int64_t out_stride[5];
};

// Bands that are warped together; a share of the work begins at a multiple of it.
constexpr std::int64_t kCropBands = 16;

struct ExtractCropPairsKernels {
    std::size_t (*scratch)(const ExtractCropPairs&);
    // Writes bands [band_begin, band_end) of the output of one view (0 .. 2 B - 1).
    void (*run)(const ExtractCropPairs&, std::int64_t view, std::int64_t band_begin, std::int64_t band_end,
                void* scratch);
};
SPECTRAFUSE_DECLARE(ExtractCropPairsKernels extract_crop_pairs_kernels[2])

namespace SPECTRAFUSE_ISA {
namespace {

// Upper left neighbour (pixel of the window) of every output pixel, and the weights of the right and lower ones.
template <class T>
struct Places {
    std::int32_t* corner;
    T *right, *down;
};

// The window is held with its last row and column once more, so that the four neighbours of a place are always at
// the same distances from each other.
inline std::int64_t window_size(const ExtractCropPairs& a) { return (a.height + 1) * (a.width + 1) * kCropBands; }

template <class T>
std::size_t scratch_size(const ExtractCropPairs& a) {
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
void find_places(const ExtractCropPairs& a, const double* geometry, const Places<T>& places) {
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
void copy_band(const ExtractCropPairs& a, const T* band, std::int64_t top, std::int64_t left, T* to) {
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
void turn_window(const ExtractCropPairs& a, const T* bands, std::int64_t count, T* window) {
    const std::int64_t row_size = (a.width + 1) * kCropBands, size = sizeof(T);
    for (std::int64_t i = 0; i < a.height; ++i) {
        T* to = window + i * row_size;
        transpose<T>(reinterpret_cast<const char*>(bands + i * a.width), a.height * a.width * size, count, a.width, to,
                     kCropBands);
        __builtin_memcpy(to + a.width * kCropBands, to + (a.width - 1) * kCropBands, kCropBands * sizeof(T));
    }
    __builtin_memcpy(window + a.height * row_size, window + (a.height - 1) * row_size,
                     static_cast<std::size_t>(row_size) * sizeof(T));
}

template <class T>
void interpolate_row(const ExtractCropPairs& a, const Places<T>& places, std::int64_t row, const T* __restrict window,
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
void write_row(const ExtractCropPairs& a, const T* row, std::int64_t count, T* out) {
    const std::int64_t band = a.out_stride[2], pixel = a.out_stride[4], size = sizeof(T);
    if (pixel == 1) {
        transpose<T>(reinterpret_cast<const char*>(row), kCropBands * size, a.width, count, out, band);
        return;
    }
    for (std::int64_t j = 0; j < a.width; ++j, out += pixel, row += kCropBands)
        if (band == 1)
            __builtin_memcpy(out, row, static_cast<std::size_t>(count) * sizeof(T));
        else
            for (std::int64_t b = 0; b < count; ++b) out[b * band] = row[b];
}

template <class T>
void run(const ExtractCropPairs& a, std::int64_t view, std::int64_t band_begin, std::int64_t band_end, void* scratch) {
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

extern const ExtractCropPairsKernels extract_crop_pairs_kernels[2] = {
    {scratch_size<float>, run<float>},
    {scratch_size<double>, run<double>},
};

}  // namespace SPECTRAFUSE_ISA

#if defined(SPECTRAFUSE_LAUNCHER)

static void check_geometry(const ExtractCropPairs& a) {
    const std::int64_t last_y = std::max(a.scene_height, a.height) - a.height;
    const std::int64_t last_x = std::max(a.scene_width, a.width) - a.width;
    for (std::int64_t view = 0; view < 2 * a.batch; ++view) {
        const double* g = a.geometry + 9 * view;
        for (int i = 0; i < 9; ++i)
            if (!std::isfinite(g[i]))
                throw std::invalid_argument("`geometry` must be finite; got " + std::to_string(g[i]));
        if (g[0] < 0 || g[0] > last_y || g[1] < 0 || g[1] > last_x)
            throw std::invalid_argument("`geometry` must have corners inside the scene, at most (" +
                                        std::to_string(last_y) + ", " + std::to_string(last_x) + "); got (" +
                                        std::to_string(g[0]) + ", " + std::to_string(g[1]) + ").");
    }
}

// Throws std::invalid_argument if a crop lies outside its scene.
void extract_crop_pairs(int dtype, const Sizes<6>& sizes, const Sizes<4>& stride, const Sizes<5>& out_stride,
                        Address cubes, Address geometry, Address out, int threads) {
    const ExtractCropPairs a{sizes[0],
                             sizes[1],
                             sizes[2],
                             sizes[3],
                             sizes[4],
                             sizes[5],
                             cubes,
                             {stride[0], stride[1], stride[2], stride[3]},
                             geometry,
                             out,
                             {out_stride[0], out_stride[1], out_stride[2], out_stride[3], out_stride[4]}};
    check_geometry(a);
    const ExtractCropPairsKernels& kernels = SPECTRAFUSE_SELECT(extract_crop_pairs_kernels[dtype]);
    const ThreadScratch scratch(kernels.scratch(a), threads);
    const std::int64_t blocks = (a.bands + kCropBands - 1) / kCropBands;
    parallel_shares(2 * a.batch * blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        while (begin < end) {
            const std::int64_t view = begin / blocks, stop = std::min(end, (view + 1) * blocks);
            kernels.run(a, view, begin % blocks * kCropBands, std::min(a.bands, (stop - view * blocks) * kCropBands),
                        scratch.of(thread));
            begin = stop;
        }
    });
}

SPECTRAFUSE_BIND(extract_crop_pairs) { m.def("extract_crop_pairs", &extract_crop_pairs); }

#if defined(SPECTRAFUSE_COUNT)
// Two pairs of crops of 16 x 16 pixels from 32 x 32, 40 bands, written with a pixel's bands side by side.
SPECTRAFUSE_COUNTED(extract_crop_pairs, forward) {
    constexpr std::int64_t batch = 2, bands = 40, scene = 32, side = 16, area = scene * scene, crop = side * side;
    double* const geometry = numbers<double>(2 * batch * 9);
    for (std::int64_t i = 0; i < 2 * batch * 9; ++i) {
        constexpr double row[9] = {8, 8, 0.9, 0.1, 0, -0.1, 0.9, 0, 1};
        geometry[i] = row[i % 9];
    }
    const Address cubes = address(floats(batch * bands * area)), out = address(floats(2 * batch * bands * crop));
    return [=] {
        extract_crop_pairs(0, {batch, bands, scene, scene, side, side}, {bands * area, area, scene, 1},
                           {2 * bands * crop, bands * crop, 1, side * bands, bands}, cubes, address(geometry), out, 1);
    };
}
#endif

#endif

}  // namespace spectrafuse
