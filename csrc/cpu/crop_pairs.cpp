// Two warped crops of every cube: one view and a block of bands at a time.
//
// The bilinear places of a view are the same for all its bands, so they are found once; then every band's window is
// copied into the first-level cache and read from there. Reads and writes about one value per output value; the places
// (12 bytes a pixel) stay in the second-level cache. Bound by bytes, and in practice by loads from the first-level
// cache.
#include "../common/crop_pairs.h"

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

// The window is held with its last row and column once more, so that the four neighbours of a place are always at
// the same distances from each other.
template <class T>
std::int64_t window_size(const CropPairs& a) {
    return (a.height + 1) * (a.width + 1);
}

template <class T>
std::size_t scratch_size(const CropPairs& a) {
    return static_cast<std::size_t>(window_size<T>(a) + 2 * a.height * a.width) * sizeof(T) +
           static_cast<std::size_t>(a.height * a.width) * sizeof(std::int32_t);
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

// Upper left neighbour (index into the window) of every output pixel, and the weights of the right and lower ones.
template <class T>
void find_places(const CropPairs& a, const double* geometry, std::int32_t* corner, T* right, T* down) {
    const double* theta = geometry + 2;
    for (std::int64_t i = 0; i < a.height; ++i)
        for (std::int64_t j = 0; j < a.width; ++j) {
            const double x = (2.0 * j + 1) / a.width - 1, y = (2.0 * i + 1) / a.height - 1;
            const double column = reflect(((theta[0] * x + theta[1] * y + theta[2] + 1) * a.width - 1) / 2, a.width);
            const double row = reflect(((theta[3] * x + theta[4] * y + theta[5] + 1) * a.height - 1) / 2, a.height);
            const std::int64_t left = static_cast<std::int64_t>(column), upper = static_cast<std::int64_t>(row);
            const std::int64_t at = i * a.width + j;
            corner[at] = static_cast<std::int32_t>(upper * (a.width + 1) + left);
            right[at] = static_cast<T>(column - left);
            down[at] = static_cast<T>(row - upper);
        }
}

// Position in a scene of n pixels that is continued by reflection about its last pixel.
inline std::int64_t inside_scene(std::int64_t position, std::int64_t n) {
    return position < n ? position : 2 * (n - 1) - position;
}

template <class T>
void copy_window(const CropPairs& a, const T* band, std::int64_t top, std::int64_t left, T* window) {
    const bool direct = a.stride[3] == 1 && left + a.width <= a.scene_width;
    const std::int64_t pitch = a.width + 1;
    for (std::int64_t i = 0; i < a.height; ++i) {
        const T* row = band + inside_scene(top + i, a.scene_height) * a.stride[2];
        T* to = window + i * pitch;
        if (direct)
            __builtin_memcpy(to, row + left, static_cast<std::size_t>(a.width) * sizeof(T));
        else
            for (std::int64_t j = 0; j < a.width; ++j) to[j] = row[inside_scene(left + j, a.scene_width) * a.stride[3]];
        to[a.width] = to[a.width - 1];
    }
    __builtin_memcpy(window + a.height * pitch, window + (a.height - 1) * pitch,
                     static_cast<std::size_t>(pitch) * sizeof(T));
}

template <class T>
void run(const CropPairs& a, std::int64_t view, std::int64_t band_begin, std::int64_t band_end, void* scratch) {
    const std::int64_t pixels = a.height * a.width, pitch = a.width + 1;
    T* window = static_cast<T*>(scratch);
    T* right = window + window_size<T>(a);
    T* down = right + pixels;
    std::int32_t* corner = reinterpret_cast<std::int32_t*>(down + pixels);
    const double* geometry = a.geometry + 9 * view;
    find_places(a, geometry, corner, right, down);
    const std::int64_t top = static_cast<std::int64_t>(geometry[0]), left = static_cast<std::int64_t>(geometry[1]);
    const std::int64_t shift = static_cast<std::int64_t>(geometry[8]) % a.bands;
    for (std::int64_t band = band_begin; band < band_end; ++band) {
        const std::int64_t source = ((band - shift) % a.bands + a.bands) % a.bands;
        const T* cube = static_cast<const T*>(a.cubes) + view / 2 * a.stride[0] + source * a.stride[1];
        copy_window(a, cube, top, left, window);
        T* to = static_cast<T*>(a.out) + (view * a.bands + band) * pixels;
        for (std::int64_t i = 0; i < pixels; ++i) {
            const T* at = window + corner[i];
            const T upper = at[0] + right[i] * (at[1] - at[0]);
            const T lower = at[pitch] + right[i] * (at[pitch + 1] - at[pitch]);
            to[i] = upper + down[i] * (lower - upper);
        }
    }
}

}  // namespace

extern const CropPairsKernels crop_pairs_kernels[2] = {
    {scratch_size<float>, run<float>},
    {scratch_size<double>, run<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
