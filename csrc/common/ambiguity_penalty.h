// Arguments of ambiguity_penalty, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"
#include "pair_kernels.h"

namespace spectrafuse {

struct AmbiguityPenalty {
    std::int64_t count, dim;
    PairKernel kernel;
    const void* components;  // (n, d)
    void* gradient;          // (n, d), or null: the value only
    void* workspace;         // as many bytes as ambiguity_penalty_workspace() returns
};

// Kernels of one instruction set and floating-point type; a block is 64 components.
struct AmbiguityPenaltyKernels {
    std::int64_t block;
    std::size_t (*workspace)(const AmbiguityPenalty&);
    std::size_t scratch;  // bytes a thread needs, aligned to 64
    void (*prepare)(const AmbiguityPenalty&, std::int64_t block);
    // The sum of the similarities of the pairs of two blocks, of equal ones once; adds to the blocks' gradients.
    double (*pair)(const AmbiguityPenalty&, std::int64_t one, std::int64_t other, void* scratch);
    // Writes the block's part of the gradient of the mean over pairs.
    void (*finish)(const AmbiguityPenalty&, std::int64_t block);
};

SPECTRAFUSE_DECLARE(AmbiguityPenaltyKernels ambiguity_penalty_kernels[2])

std::size_t ambiguity_penalty_workspace(const AmbiguityPenalty& arguments, int dtype);
// Writes `gradient` and returns the mean similarity; at least two components.
double ambiguity_penalty(const AmbiguityPenalty& arguments, int dtype, int threads);

}  // namespace spectrafuse
