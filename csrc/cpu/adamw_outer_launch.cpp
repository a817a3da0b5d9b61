// Chooses the instruction set and spreads tiles of the weight over threads.
#include <algorithm>
#include <cmath>

#include "../common/adamw_outer.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Opening a parallel region costs more than it saves on fewer elements than these.
constexpr std::int64_t kSmallest = 1 << 15;

std::int64_t tiles_of(const AdamwOuter& a) {
    return ((a.rows + kAdamwTileRows - 1) / kAdamwTileRows) * ((a.columns + kAdamwTileColumns - 1) / kAdamwTileColumns);
}

}  // namespace

void adamw_outer(const AdamwOuter* parameters, std::int64_t count, const AdamwOptions& options, std::int64_t step,
                 int dtype, int threads) {
    const AdamwOuterKernels& kernels = SPECTRAFUSE_SELECT(adamw_outer_kernels[dtype]);
    const double steps = static_cast<double>(step);
    const AdamwConstants<double> constants =
        adamw_constants<double>(options, std::pow(options.beta1, steps), std::sqrt(1 - std::pow(options.beta2, steps)));
    std::int64_t elements = 0;
    std::size_t bytes = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        elements += parameters[i].rows * parameters[i].columns;
        bytes = std::max(bytes, kernels.scratch(parameters[i]));
    }
    const ThreadScratch scratch(bytes, threads);
    // Each thread takes the same share of every parameter, about the rows whose outputs it also computes in
    // `skinny_linear`: threads may have no cache in common. Forwards and backwards in turns, so that what one step left
    // in the cache is what the next one begins with.
    const bool backwards = step % 2 == 0;
    parallel_shares(
        elements, elements < kSmallest ? 1 : threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t i = 0; i < count; ++i) {
                const AdamwOuter& a = parameters[backwards ? count - 1 - i : i];
                const std::int64_t tiles = tiles_of(a);
                const auto tile_at = [&](std::int64_t element) { return (tiles * element + elements - 1) / elements; };
                if (tile_at(begin) < tile_at(end))
                    kernels.run(a, constants, tile_at(begin), tile_at(end), backwards, scratch.of(thread));
            }
        });
}

}  // namespace spectrafuse
