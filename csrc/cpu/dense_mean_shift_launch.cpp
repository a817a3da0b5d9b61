// Chooses the instruction set and runs the steps of an iteration.
#include "../common/dense_mean_shift.h"
#include "../common/isa.h"
#include "parallel.h"
#include "tournament.h"

namespace spectrafuse {

std::size_t dense_mean_shift_workspace(const DenseIteration& a, int dtype) {
    return SPECTRAFUSE_SELECT(dense_mean_shift_kernels[dtype][a.grad != nullptr]).workspace(a);
}

double dense_mean_shift_iteration(const DenseIteration& a, int dtype, int threads) {
    const DenseMeanShiftKernels& kernels = SPECTRAFUSE_SELECT(dense_mean_shift_kernels[dtype][a.grad != nullptr]);
    const std::int64_t blocks = (a.pixels + kDenseBlock - 1) / kDenseBlock;
    const ThreadScratch scratch(kernels.scratch, threads);
    for (std::int64_t image = 0; image < a.batch; ++image) kernels.origin(a, image);
    parallel_shares(a.batch * blocks, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) kernels.prepare(a, i / blocks, i % blocks);
    });
    const double along_bandwidth = sum_over_pairs(
        a.batch, blocks, threads, [&](std::int64_t image, std::int64_t one, std::int64_t other, int thread) {
            return kernels.pair(a, image, one, other, scratch.of(thread));
        });
    parallel_shares(a.batch * blocks, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) kernels.finish(a, i / blocks, i % blocks);
    });
    return -2 * a.bandwidth * along_bandwidth;
}

}  // namespace spectrafuse
