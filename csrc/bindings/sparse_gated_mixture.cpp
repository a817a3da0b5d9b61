#include "mixture_pool.h"

namespace spectrafuse {

namespace {

void bound_forward(int dtype, const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                   const std::array<Address, 3>& inputs, const std::array<Address, 4>& gate_tensors,
                   bool gumbel_of_both, const std::array<double, 3>& options, Address mixture, Address energy_sum,
                   Address energy_square_sum, int threads) {
    const SparseGatedMixture arguments{mixture_pool(sizes, non_negative, norm, inputs),
                                       sparsity_gates(gate_tensors, gumbel_of_both, options), pointer(mixture),
                                       pointer(energy_sum), pointer(energy_square_sum)};
    const py::gil_scoped_release release;
    sparse_gated_mixture_forward(arguments, dtype, threads);
}

void bound_backward(int dtype, const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                    const std::array<Address, 3>& inputs, const std::array<Address, 4>& gate_tensors,
                    bool gumbel_of_both, const std::array<double, 3>& options, const std::array<Address, 3>& upstream,
                    const std::array<Address, 4>& grads, int threads) {
    const SparseGatedMixtureBackward arguments =
        sparse_backward(mixture_pool(sizes, non_negative, norm, inputs),
                        sparsity_gates(gate_tensors, gumbel_of_both, options), upstream, grads);
    const py::gil_scoped_release release;
    sparse_gated_mixture_backward(arguments, dtype, threads);
}

}  // namespace

void bind_sparse_gated_mixture(py::module_& m) {
    m.def("sparse_gated_mixture_forward", &bound_forward);
    m.def("sparse_gated_mixture_backward", &bound_backward);
}

}  // namespace spectrafuse
