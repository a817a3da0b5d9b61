#pragma once

#include <cstdint>

namespace spectrafuse {

// The loss of a batch: mean squared error, and weighed sums of gates, of energies' squares and of the penalty.
struct UnmixingLoss {
    std::int64_t batch, bands;
    double energy_weight, penalty_weight, gates, energies;  // the last two are how many gates and energies are summed
    const float* mixture;                                   // (B, d), as is x
    const float* x;
    const float* sparsity_weight;  // ()
    const float* sum[3];           // () each: energies, their squares, gates
    const float* sparse_sum;       // (): energies of the sparse form's gates, or null
    const float* penalty;          // () or null
    float* grad_mixture;           // (B, d)
    float* slopes;                 // (2): of the loss by the sums of squares and of gates
    float* result;                 // (2): loss and mean energy
};

std::int64_t unmixing_loss_blocks(std::int64_t batch, std::int64_t bands);
// Writes `grad_mixture`, `slopes` and, to `block_sums`, a sum for each of unmixing_loss_blocks(batch, bands) blocks.
void unmixing_loss_gradient_cuda(const UnmixingLoss& arguments, double* block_sums, void* stream);
// Writes `result` from these and all sums.
void unmixing_loss_cuda(const UnmixingLoss& arguments, const double* block_sums, void* stream);

}  // namespace spectrafuse
