#include "mixture_pool.h"

namespace spectrafuse {

namespace {

void bound_forward(int dtype, const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                   const std::array<Address, 3>& inputs, Address mixture, int threads) {
    const GatedMixture arguments{mixture_pool(sizes, non_negative, norm, inputs), pointer(mixture)};
    const py::gil_scoped_release release;
    gated_mixture_forward(arguments, dtype, threads);
}

void bound_backward(int dtype, const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                    const std::array<Address, 3>& inputs, Address grad, const std::array<Address, 3>& grads,
                    int threads) {
    const GatedMixtureBackward arguments{mixture_pool(sizes, non_negative, norm, inputs), pointer(grad),
                                         pointer(grads[0]), pointer(grads[1]), pointer(grads[2])};
    const py::gil_scoped_release release;
    gated_mixture_backward(arguments, dtype, threads);
}

}  // namespace

void bind_gated_mixture(py::module_& m) {
    m.def("gated_mixture_forward", &bound_forward);
    m.def("gated_mixture_backward", &bound_backward);
}

}  // namespace spectrafuse
