// Arguments of extract_crop_pairs, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spectrafuse {

struct CropPairs {
    std::int64_t batch, bands, scene_height, scene_width, height, width;
    const void* cubes;       // (B, C, H, W), any strides
    std::int64_t stride[4];  // of cubes, in elements
    const double* geometry;  // (B, 2, 9): corner y x, affine matrix (2, 3) by rows, band shift
    void* out;               // (B, 2, C, h, w), any strides
    std::int64_t out_stride[5];
};

// Bands that are warped together; a share of the work begins at a multiple of it.
constexpr std::int64_t kCropBands = 16;

struct CropPairsKernels {
    std::size_t (*scratch)(const CropPairs&);
    // Writes bands [band_begin, band_end) of the output of one view (0 .. 2 B - 1).
    void (*run)(const CropPairs&, std::int64_t view, std::int64_t band_begin, std::int64_t band_end, void* scratch);
};

// Index 0 is float32, 1 is float64.
namespace baseline {
extern const CropPairsKernels crop_pairs_kernels[2];
}
namespace avx2 {
extern const CropPairsKernels crop_pairs_kernels[2];
}
namespace avx512 {
extern const CropPairsKernels crop_pairs_kernels[2];
}

// Throws std::invalid_argument if a crop lies outside its scene.
void extract_crop_pairs(const CropPairs& arguments, int dtype, int threads);

}  // namespace spectrafuse
