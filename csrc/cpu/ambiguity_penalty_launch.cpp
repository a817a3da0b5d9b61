// Chooses the instruction set and runs the steps of the penalty.
#include "../common/ambiguity_penalty.h"
#include "../common/isa.h"
#include "parallel.h"
#include "tournament.h"

namespace spectrafuse {

std::size_t ambiguity_penalty_workspace(const AmbiguityPenalty& a, int dtype) {
    return SPECTRAFUSE_SELECT(ambiguity_penalty_kernels[dtype]).workspace(a);
}

double ambiguity_penalty(const AmbiguityPenalty& a, int dtype, int threads) {
    const AmbiguityPenaltyKernels& kernels = SPECTRAFUSE_SELECT(ambiguity_penalty_kernels[dtype]);
    const std::int64_t blocks = (a.count + kernels.block - 1) / kernels.block;
    const ThreadScratch scratch(kernels.scratch, threads);
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) kernels.prepare(a, i);
    });
    const double total =
        sum_over_pairs(1, blocks, threads, [&](std::int64_t, std::int64_t one, std::int64_t other, int thread) {
            return kernels.pair(a, one, other, scratch.of(thread));
        });
    if (a.gradient != nullptr)
        parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int) {
            for (std::int64_t i = begin; i < end; ++i) kernels.finish(a, i);
        });
    return total / (static_cast<double>(a.count) * static_cast<double>(a.count - 1) / 2);
}

}  // namespace spectrafuse
