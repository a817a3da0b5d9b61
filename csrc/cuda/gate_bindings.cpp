#include "bindings.h"
#include "gate.h"

namespace spectrafuse {

namespace {

void bound_forward(const std::array<std::int64_t, 2>& sizes, double shift, double tau, double hard_threshold,
                   double used_threshold, Address energy, Address gumbel, bool gumbel_of_both, Address langevin,
                   Address select_prob, Address select_energy, const std::array<Address, 3>& sums, Address used,
                   Address block_sums, Address stream) {
    const Gate arguments{sizes[0],
                         sizes[1],
                         shift,
                         tau,
                         hard_threshold,
                         used_threshold,
                         pointer(energy),
                         pointer(gumbel),
                         gumbel_of_both,
                         pointer(langevin),
                         pointer(select_prob),
                         pointer(select_energy),
                         {pointer(sums[0]), pointer(sums[1]), pointer(sums[2])},
                         pointer<bool>(used)};
    const py::gil_scoped_release release;
    gate_forward_cuda(arguments, pointer<double>(block_sums), pointer(stream));
}

void bound_backward(const std::array<std::int64_t, 2>& sizes, double tau, bool hard, Address select_prob,
                    Address select_energy, Address grad_prob, Address grad_energy,
                    const std::array<Address, 3>& grad_sums, Address grad, Address stream) {
    const GateBackward arguments{sizes[0],
                                 sizes[1],
                                 tau,
                                 hard,
                                 pointer(select_prob),
                                 pointer(select_energy),
                                 pointer(grad_prob),
                                 pointer(grad_energy),
                                 {pointer(grad_sums[0]), pointer(grad_sums[1]), pointer(grad_sums[2])},
                                 pointer(grad)};
    const py::gil_scoped_release release;
    gate_backward_cuda(arguments, pointer(stream));
}

}  // namespace

void bind_gate(py::module_& m) {
    m.def("gate_blocks", &gate_blocks);
    m.def("gate_forward", &bound_forward);
    m.def("gate_backward", &bound_backward);
}

}  // namespace spectrafuse
