// Arguments of gate, shared by the bindings, the launchers and the kernels of host and device.
#pragma once

#include <cstdint>

#include "gate_math.h"
#include "isa.h"

namespace spectrafuse {

struct Gate {
    std::int64_t batch, components;
    double shift, tau, hard_threshold, used_threshold;  // hard_threshold below 0: soft gates
    const void* energy;                                 // (B, N, 2)
    const void* gumbel;                                 // (B, N), (B, N, 2) or null
    bool gumbel_of_both;                                // gumbel is (B, N, 2)
    const void* langevin;                               // (B, N, 2) or null
    void* select_prob;                                  // (B, N)
    void* select_energy;                                // (B, N, 2)
    void* sum[3];                                       // energies, their squares, gates
    bool* used;                                         // (N)
};

struct GateBackward {
    std::int64_t batch, components;
    double tau;
    bool hard;
    const void* select_prob;    // (B, N)
    const void* select_energy;  // (B, N, 2)
    const void* grad_prob;      // (B, N) or null
    const void* grad_energy;    // (B, N, 2) or null
    const void* grad_sum[3];    // each () or null
    void* grad;                 // (B, N, 2), of the energies
};

template <class T>
SPECTRAFUSE_SHARED GateOptions<T> gate_options(double shift, double tau) {
    return {static_cast<T>(shift), static_cast<T>(1 / tau)};
}

// Components are taken in blocks; sums are formed in a block and then over blocks, so that they do not depend on how
// blocks are spread over threads.
constexpr std::int64_t kGateBlock = 256;

struct GateKernels {
    // Components of one block; writes its three sums to `sums`.
    void (*run)(const Gate&, std::int64_t block, double* sums);
    void (*backward)(const GateBackward&, std::int64_t block);
};

SPECTRAFUSE_DECLARE(GateKernels gate_kernels[2])

void gate_forward(const Gate& arguments, int dtype, int threads);
void gate_backward(const GateBackward& arguments, int dtype, int threads);

}  // namespace spectrafuse
