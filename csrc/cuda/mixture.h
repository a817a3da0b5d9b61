// Launchers of both mixtures, in float32.
#pragma once

#include "../common/address.h"
#include "../common/sparse_gated_mixture.h"

namespace spectrafuse {

// Lengths (N), weights (N, B) and, forward only, partial mixtures (mixture_parts(N), B, d). Backward, `before` (B, N)
// may be what concentrations are the absolute values of: their gradient is then this one's.
struct MixtureWorkspace {
    MixtureWorkspace(const Addresses<4>& all) : lengths(all[0]), weights(all[1]), partials(all[2]), before(all[3]) {}
    float* lengths;
    float* weights;
    float* partials;
    const float* before;
};

// Parts that a mixture is summed in: they depend on the number of components alone.
std::int64_t mixture_parts(std::int64_t components);
void gated_mixture_forward_cuda(const GatedMixture& arguments, const MixtureWorkspace& workspace, void* stream);
void gated_mixture_backward_cuda(const GatedMixtureBackward& arguments, const MixtureWorkspace& workspace,
                                 void* stream);

// `part_sums`: workspace of 2 numbers for each of sparse_blocks(batch, components, bands) blocks.
std::int64_t sparse_blocks(std::int64_t batch, std::int64_t components, std::int64_t bands);
void sparse_gated_mixture_forward_cuda(const SparseGatedMixture& arguments, const MixtureWorkspace& workspace,
                                       double* part_sums, void* stream);
void sparse_gated_mixture_backward_cuda(const SparseGatedMixtureBackward& arguments, const MixtureWorkspace& workspace,
                                        void* stream);

}  // namespace spectrafuse
