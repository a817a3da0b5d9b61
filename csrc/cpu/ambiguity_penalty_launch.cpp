// Chooses the instruction set and runs the steps of the penalty.
#include "../common/ambiguity_penalty.h"
#include "isa.h"
#include "parallel.h"
#include "tournament.h"

namespace spectrafuse {

namespace {

const AmbiguityPenaltyKernels& kernels_for(int dtype) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    if (selected_isa() == Isa::avx512) return avx512::ambiguity_penalty_kernels[dtype];
    if (selected_isa() == Isa::avx2) return avx2::ambiguity_penalty_kernels[dtype];
#endif
    return baseline::ambiguity_penalty_kernels[dtype];
}

}  // namespace

std::size_t ambiguity_workspace(const AmbiguityPenalty& a, int dtype) { return kernels_for(dtype).workspace(a); }

double ambiguity_penalty(const AmbiguityPenalty& a, int dtype, int threads) {
    const AmbiguityPenaltyKernels& kernels = kernels_for(dtype);
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
