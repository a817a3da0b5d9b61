// Chooses the instruction set and spreads tiles of the weight over threads.
#include "../common/adamw_outer.h"
#include "isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

const AdamwOuterKernels& kernels_of(int dtype) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    if (selected_isa() == Isa::avx512) return avx512::adamw_outer_kernels[dtype];
    if (selected_isa() == Isa::avx2) return avx2::adamw_outer_kernels[dtype];
#endif
    return baseline::adamw_outer_kernels[dtype];
}

// Opening a parallel region costs more than it saves on fewer elements than these.
constexpr std::int64_t kSmallest = 1 << 15;

}  // namespace

void adamw_outer(const AdamwOuter& a, int dtype, int threads) {
    const std::int64_t down = (a.rows + kAdamwTileRows - 1) / kAdamwTileRows;
    const std::int64_t tiles = down * ((a.columns + kAdamwTileColumns - 1) / kAdamwTileColumns);
    if (a.rows * a.columns < kSmallest) threads = 1;
    const AdamwOuterKernels& kernels = kernels_of(dtype);
    const ThreadScratch scratch(kernels.scratch(a), threads);
    parallel_shares(tiles, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.run(a, begin, end, scratch.of(thread));
    });
}

}  // namespace spectrafuse
