#include "../common/gate.h"

#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/gate.h"
#endif

namespace spectrafuse::gate_binding {

static Gate forward_arguments(const Sizes<2>& sizes, double shift, double tau, double hard_threshold,
                              double used_threshold, Address energy, Address gumbel, bool gumbel_of_both,
                              Address langevin, Address select_prob, Address select_energy, const Addresses<3>& sums,
                              Address used) {
    return {sizes[0],
            sizes[1],
            shift,
            tau,
            hard_threshold,
            used_threshold,
            energy,
            gumbel,
            gumbel_of_both,
            langevin,
            select_prob,
            select_energy,
            {sums[0], sums[1], sums[2]},
            used};
}

static GateBackward backward_arguments(const Sizes<2>& sizes, double tau, bool hard, Address select_prob,
                                       Address select_energy, Address grad_prob, Address grad_energy,
                                       const Addresses<3>& grad_sums, Address grad) {
    return {sizes[0],  sizes[1],    tau,
            hard,      select_prob, select_energy,
            grad_prob, grad_energy, {grad_sums[0], grad_sums[1], grad_sums[2]},
            grad};
}

SPECTRAFUSE_BIND(gate) {
#if defined(SPECTRAFUSE_FOR_CUDA)
    m.def("gate_blocks", &gate_blocks);
    m.def("gate_forward", on_cuda(forward_arguments, gate_forward_cuda));
    m.def("gate_backward", on_cuda(backward_arguments, gate_backward_cuda));
#else
    m.def("gate_forward", on_cpu(forward_arguments, gate_forward));
    m.def("gate_backward", on_cpu(backward_arguments, gate_backward));
#endif
}

}  // namespace spectrafuse::gate_binding
