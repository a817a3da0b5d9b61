// Spreads blocks of components over threads; partial mixtures are added in the order of the blocks.
#include "../common/gated_mixture.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Multiplications that pay for opening a parallel region.
constexpr std::int64_t kWorthThreads = 1 << 17;

int threads_worth(const MixturePool& p, int threads) {
    return p.batch * p.components * p.bands < kWorthThreads ? 1 : threads;
}

}  // namespace

void gated_mixture_forward(const GatedMixture& a, int dtype, int threads) {
    const GatedMixtureKernels& kernels = SPECTRAFUSE_SELECT(gated_mixture_kernels[dtype]);
    const std::int64_t components = a.pool.components, rows = mixture_block_rows(components);
    const std::int64_t blocks = components == 0 ? 0 : (components + rows - 1) / rows;
    threads = threads_worth(a.pool, threads);
    const std::size_t part = kernels.partial_size(a.pool);
    const ThreadScratch partials(part * static_cast<std::size_t>(blocks), 1);
    const ThreadScratch scratch(kernels.scratch(a.pool), threads);
    char* memory = static_cast<char*>(partials.of(0));
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t last = (i + 1) * rows < components ? (i + 1) * rows : components;
            kernels.run(a, i * rows, last, memory + static_cast<std::size_t>(i) * part, scratch.of(thread));
        }
    });
    parallel_shares(a.pool.batch, threads, [&](std::int64_t begin, std::int64_t end, int) {
        kernels.add(a.pool, memory, blocks, begin, end, a.mixture);
    });
}

void gated_mixture_backward(const GatedMixtureBackward& a, int dtype, int threads) {
    const GatedMixtureKernels& kernels = SPECTRAFUSE_SELECT(gated_mixture_kernels[dtype]);
    const std::int64_t components = a.pool.components, groups = (components + kMixtureRows - 1) / kMixtureRows;
    threads = threads_worth(a.pool, threads);
    const ThreadScratch packed(kernels.partial_size(a.pool), 1);
    const ThreadScratch scratch(kernels.scratch(a.pool), threads);
    kernels.pack(a.pool, a.grad, packed.of(0));
    parallel_shares(groups, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        const std::int64_t last = end * kMixtureRows < components ? end * kMixtureRows : components;
        kernels.backward(a, begin * kMixtureRows, last, packed.of(0), scratch.of(thread));
    });
}

}  // namespace spectrafuse
