// Spreads blocks of components over threads; partial mixtures and sums are added in the order of the blocks.
#include <algorithm>
#include <vector>

#include "../common/isa.h"
#include "../common/sparse_gated_mixture.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

void store(void* to, double value, int dtype) {
    if (dtype == 0)
        *static_cast<float*>(to) = static_cast<float>(value);
    else
        *static_cast<double*>(to) = value;
}

}  // namespace

void sparse_gated_mixture_forward(const SparseGatedMixture& a, int dtype, int threads) {
    const SparseGatedMixtureKernels& kernels = SPECTRAFUSE_SELECT(sparse_gated_mixture_kernels[dtype]);
    const GatedMixtureKernels& mixture = SPECTRAFUSE_SELECT(gated_mixture_kernels[dtype]);
    const std::int64_t components = a.pool.components, rows = mixture_block_rows(components);
    const std::int64_t blocks = components == 0 ? 0 : (components + rows - 1) / rows;
    const std::size_t part = mixture.partial_size(a.pool);
    const ThreadScratch partials(part * static_cast<std::size_t>(blocks), 1);
    const ThreadScratch scratch(kernels.scratch(a.pool), threads);
    std::vector<double> sums(static_cast<std::size_t>(2 * blocks));
    char* memory = static_cast<char*>(partials.of(0));
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.run(a, i * rows, std::min(components, (i + 1) * rows), memory + static_cast<std::size_t>(i) * part,
                        sums.data() + 2 * i, scratch.of(thread));
    });
    mixture.add(a.pool, memory, blocks, 0, a.pool.batch, a.mixture);
    double total[2] = {};
    for (std::int64_t i = 0; i < 2 * blocks; ++i) total[i % 2] += sums[static_cast<std::size_t>(i)];
    store(a.energy_sum, total[0], dtype);
    store(a.energy_square_sum, total[1], dtype);
}

void sparse_gated_mixture_backward(const SparseGatedMixtureBackward& a, int dtype, int threads) {
    const SparseGatedMixtureKernels& kernels = SPECTRAFUSE_SELECT(sparse_gated_mixture_kernels[dtype]);
    const GatedMixtureKernels& mixture = SPECTRAFUSE_SELECT(gated_mixture_kernels[dtype]);
    const ThreadScratch packed(mixture.partial_size(a.pool), 1);
    const ThreadScratch scratch(kernels.scratch(a.pool), threads);
    mixture.pack(a.pool, a.grad, packed.of(0));
    parallel_shares(a.pool.components, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.backward(a, begin, end, packed.of(0), scratch.of(thread));
    });
}

}  // namespace spectrafuse
