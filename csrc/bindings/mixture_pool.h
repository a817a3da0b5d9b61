// What both mixtures take, from what crosses the boundary: sizes B, N, d, options and addresses.
#pragma once

#include "../common/sparse_gated_mixture.h"
#include "bindings.h"

namespace spectrafuse {

// Addresses: concentration, gates, raw components.
inline MixturePool mixture_pool(const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                                const std::array<Address, 3>& inputs) {
    return {sizes[0], sizes[1],           sizes[2],           non_negative,
            norm,     pointer(inputs[0]), pointer(inputs[1]), pointer(inputs[2])};
}

// Addresses: energy, rng, gumbel, langevin. Options: shift, noise, tau.
inline SparsityGates sparsity_gates(const std::array<Address, 4>& tensors, bool gumbel_of_both,
                                    const std::array<double, 3>& options) {
    return {pointer(tensors[0]), pointer<const std::int64_t>(tensors[1]),
            pointer(tensors[2]), gumbel_of_both,
            pointer(tensors[3]), options[0],
            options[1],          options[2]};
}

// Gradients in: mixture, energy sum, energy square sum. Out: concentration, gates, raw components, energies.
inline SparseGatedMixtureBackward sparse_backward(const MixturePool& pool, const SparsityGates& gates,
                                                  const std::array<Address, 3>& upstream,
                                                  const std::array<Address, 4>& grads) {
    return {pool,
            gates,
            pointer(upstream[0]),
            pointer(upstream[1]),
            pointer(upstream[2]),
            pointer(grads[0]),
            pointer(grads[1]),
            pointer(grads[2]),
            pointer(grads[3])};
}

}  // namespace spectrafuse
