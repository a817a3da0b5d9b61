#include "mixtures.h"

namespace spectrafuse::gated_mixture_binding {

static GatedMixture forward_arguments(const Sizes<3>& sizes, bool non_negative, int norm, const Addresses<3>& inputs,
                                      Address mixture) {
    return {mixture_pool(sizes, non_negative, norm, inputs), mixture};
}

static GatedMixtureBackward backward_arguments(const Sizes<3>& sizes, bool non_negative, int norm,
                                               const Addresses<3>& inputs, Address grad, const Addresses<3>& grads) {
    return {mixture_pool(sizes, non_negative, norm, inputs), grad, grads[0], grads[1], grads[2]};
}

SPECTRAFUSE_BIND(gated_mixture) {
#if defined(SPECTRAFUSE_FOR_CUDA)
    m.def("mixture_parts", &mixture_parts);
    m.def("gated_mixture_forward", on_cuda(forward_arguments, gated_mixture_forward_cuda));
    m.def("gated_mixture_backward", on_cuda(backward_arguments, gated_mixture_backward_cuda));
#else
    m.def("gated_mixture_forward", on_cpu(forward_arguments, gated_mixture_forward));
    m.def("gated_mixture_backward", on_cpu(backward_arguments, gated_mixture_backward));
#endif
}

}  // namespace spectrafuse::gated_mixture_binding
