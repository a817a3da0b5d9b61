// Spreads tiles of pixels over threads.
#include <algorithm>
#include <cstdlib>

#include "../common/scene_spectra.h"
#include "isa.h"
#include "parallel.h"

namespace spectrafuse {

void scene_spectra(SceneSpectra a, int type, int threads) {
    a.along_rows = std::llabs(a.stride[1]) < std::llabs(a.stride[2]);
    const SceneSpectraKernel kernel = SPECTRAFUSE_SELECT(scene_spectra_kernels[type]);
    const std::int64_t tiles = (a.length() + kSpectraTile - 1) / kSpectraTile;
    parallel_shares(a.lines() * tiles, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t tile = begin; tile < end; ++tile) {
            const std::int64_t first = tile % tiles * kSpectraTile;
            kernel(a, tile / tiles, first, std::min(kSpectraTile, a.length() - first));
        }
    });
}

}  // namespace spectrafuse
