// Arguments of component_penalty: the ambiguity penalty of a pool's used components, from their raw values to the
// gradient of these. Shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstdint>

#include "gated_mixture.h"
#include "isa.h"
#include "pair_kernels.h"

namespace spectrafuse {

struct ComponentPenalty {
    MixturePool pool;  // the raw values and their form; without samples
    const bool* used;  // (N)
    PairKernel kernel;
    double weight;   // of the penalty in the loss
    void* grad_raw;  // (N, d): the penalty's part is added; null: the value only
};

struct ComponentPenaltyKernels {
    // Component `id` as it is mixed, into `to` (d), and what its values were divided by into `length`.
    void (*form)(const ComponentPenalty&, std::int64_t id, void* to, void* length);
    // Adds to the gradient of the raw values of component `id`, from that of its spectrum.
    void (*add)(const ComponentPenalty&, std::int64_t id, const void* spectrum, const void* grad, const void* length);
};

SPECTRAFUSE_DECLARE(ComponentPenaltyKernels component_penalty_kernels[2])

// The mean similarity; 0 for fewer than two used components.
double component_penalty(const ComponentPenalty& arguments, int dtype, int threads);

}  // namespace spectrafuse
