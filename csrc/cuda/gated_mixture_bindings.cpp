#include "mixture_bindings.h"

namespace spectrafuse {

namespace {

void bound_forward(const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                   const std::array<Address, 3>& inputs, Address mixture, const std::array<Address, 3>& workspace,
                   Address stream) {
    const GatedMixture arguments{mixture_pool(sizes, non_negative, norm, inputs), pointer(mixture)};
    const py::gil_scoped_release release;
    gated_mixture_forward_cuda(arguments, mixture_workspace(workspace), pointer(stream));
}

void bound_backward(const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                    const std::array<Address, 3>& inputs, Address grad, const std::array<Address, 3>& grads,
                    const std::array<Address, 3>& workspace, Address stream) {
    const GatedMixtureBackward arguments{mixture_pool(sizes, non_negative, norm, inputs), pointer(grad),
                                         pointer(grads[0]), pointer(grads[1]), pointer(grads[2])};
    const py::gil_scoped_release release;
    gated_mixture_backward_cuda(arguments, mixture_workspace(workspace), pointer(stream));
}

}  // namespace

void bind_gated_mixture(py::module_& m) {
    m.def("mixture_parts", &mixture_parts);
    m.def("gated_mixture_forward", &bound_forward);
    m.def("gated_mixture_backward", &bound_backward);
}

}  // namespace spectrafuse
