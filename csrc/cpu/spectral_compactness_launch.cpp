// Chooses the instruction set, spreads tiles over threads, and sums blocks of tiles in a fixed order.
#include <algorithm>
#include <limits>
#include <vector>

#include "../common/isa.h"
#include "../common/spectral_compactness.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Sums are kept by blocks of tiles, then added: the same for any number of threads. A block's sums take (C, K) doubles,
// so large ones are few.
constexpr std::int64_t kMostBlocks = 64, kLeastBlocks = 8, kSums = std::int64_t{1} << 20;

std::int64_t tiles_of(const SpectralCompactness& a, const SpectralCompactnessKernels& kernels) {
    return a.batch * ((a.pixels + kernels.tile - 1) / kernels.tile);
}

double count_of(const SpectralCompactness& a) {
    const std::int64_t pixels = a.batch * a.pixels;
    const std::int64_t count = a.valid == nullptr ? pixels : pixels - std::count(a.valid, a.valid + pixels, 0);
    return static_cast<double>(std::max<std::int64_t>(count, 1)) * static_cast<double>(a.bands);
}

void set_means(const SpectralCompactness& a, int dtype, const std::vector<double>& means) {
    if (dtype == 0)
        std::transform(means.begin(), means.end(), static_cast<float*>(a.means),
                       [](double x) { return static_cast<float>(x); });
    else
        std::copy(means.begin(), means.end(), static_cast<double*>(a.means));
}

}  // namespace

double spectral_compactness_forward(const SpectralCompactness& a, int dtype, int threads) {
    const SpectralCompactnessKernels& kernels = SPECTRAFUSE_SELECT(spectral_compactness_kernels[dtype]);
    const std::int64_t tiles = tiles_of(a, kernels), products = a.bands * a.clusters;
    const std::int64_t blocks =
        std::min(tiles, std::clamp(kSums / std::max<std::int64_t>(products, 1), kLeastBlocks, kMostBlocks));
    const std::int64_t size = products + a.clusters + 1;
    std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(blocks, 1) * size), 0.0);
    kernels.origin(a);
    const ThreadScratch scratch(kernels.scratch(a), threads);
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
            double* own = sums.data() + i * size;
            kernels.forward(a, tiles * i / blocks, tiles * (i + 1) / blocks,
                            {own, own + products, own + products + a.clusters}, scratch.of(thread));
        }
    });
    for (std::int64_t i = 1; i < blocks; ++i)
        for (std::int64_t j = 0; j < size; ++j) sums[j] += sums[i * size + j];

    double within = sums[size - 1];
    for (std::int64_t c = 0; c < a.bands; ++c)
        for (std::int64_t k = 0; k < a.clusters; ++k) {
            double& product = sums[c * a.clusters + k];
            const double mean = product / std::max(sums[products + k], std::numeric_limits<double>::min());
            within -= product * mean;
            product = mean;
        }
    sums.resize(static_cast<std::size_t>(products));
    set_means(a, dtype, sums);
    // Rounding alone can push the difference of the two sides below zero.
    return (within < 0 ? 0 : within) / count_of(a);
}

void spectral_compactness_backward(SpectralCompactness a, int dtype, int threads) {
    const SpectralCompactnessKernels& kernels = SPECTRAFUSE_SELECT(spectral_compactness_kernels[dtype]);
    a.scale /= count_of(a);
    const ThreadScratch scratch(kernels.scratch(a), threads);
    parallel_shares(tiles_of(a, kernels), threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.backward(a, begin, end, scratch.of(thread));
    });
}

}  // namespace spectrafuse
