#include "mixtures.h"

namespace spectrafuse::sparse_gated_mixture_binding {

// Addresses: energy, rng, gumbel, langevin. Options: shift, noise, tau.
static SparsityGates gates(const Addresses<4>& tensors, bool gumbel_of_both, const std::array<double, 3>& options) {
    return {tensors[0], tensors[1], tensors[2], gumbel_of_both, tensors[3], options[0], options[1], options[2]};
}

static SparseGatedMixture forward_arguments(const Sizes<3>& sizes, bool non_negative, int norm,
                                            const Addresses<3>& inputs, const Addresses<4>& gate_tensors,
                                            bool gumbel_of_both, const std::array<double, 3>& options, Address mixture,
                                            Address energy_sum, Address energy_square_sum) {
    return {mixture_pool(sizes, non_negative, norm, inputs), gates(gate_tensors, gumbel_of_both, options), mixture,
            energy_sum, energy_square_sum};
}

// Gradients in: mixture, energy sum, energy square sum. Out: concentration, gates, raw components, energies.
static SparseGatedMixtureBackward backward_arguments(const Sizes<3>& sizes, bool non_negative, int norm,
                                                     const Addresses<3>& inputs, const Addresses<4>& gate_tensors,
                                                     bool gumbel_of_both, const std::array<double, 3>& options,
                                                     const Addresses<3>& upstream, const Addresses<4>& grads) {
    return {mixture_pool(sizes, non_negative, norm, inputs),
            gates(gate_tensors, gumbel_of_both, options),
            upstream[0],
            upstream[1],
            upstream[2],
            grads[0],
            grads[1],
            grads[2],
            grads[3]};
}

SPECTRAFUSE_BIND(sparse_gated_mixture) {
#if defined(SPECTRAFUSE_FOR_CUDA)
    m.def("sparse_blocks", &sparse_blocks);
    m.def("sparse_gated_mixture_forward", on_cuda(forward_arguments, sparse_gated_mixture_forward_cuda));
    m.def("sparse_gated_mixture_backward", on_cuda(backward_arguments, sparse_gated_mixture_backward_cuda));
#else
    m.def("sparse_gated_mixture_forward", on_cpu(forward_arguments, sparse_gated_mixture_forward));
    m.def("sparse_gated_mixture_backward", on_cpu(backward_arguments, sparse_gated_mixture_backward));
#endif
}

}  // namespace spectrafuse::sparse_gated_mixture_binding
