// Spreads views and blocks of bands over threads.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../common/crop_pairs.h"
#include "isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

const CropPairsKernels& kernels_of(int dtype) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    if (selected_isa() == Isa::avx512) return avx512::crop_pairs_kernels[dtype];
    if (selected_isa() == Isa::avx2) return avx2::crop_pairs_kernels[dtype];
#endif
    return baseline::crop_pairs_kernels[dtype];
}

void check_geometry(const CropPairs& a) {
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

}  // namespace

void extract_crop_pairs(const CropPairs& a, int dtype, int threads) {
    check_geometry(a);
    const CropPairsKernels& kernels = kernels_of(dtype);
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

}  // namespace spectrafuse
