#include "../common/skinny_linear.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

void bound_forward(int dtype, std::int64_t batch, std::int64_t inputs, std::int64_t outputs, int activation, Address x,
                   Address weight, Address bias, Address y, Address before, int threads) {
    const SkinnyLinear arguments{batch,          inputs,          outputs,       static_cast<Activation>(activation),
                                 pointer(x),     pointer(weight), pointer(bias), pointer(y),
                                 pointer(before)};
    const py::gil_scoped_release release;
    skinny_linear_forward(arguments, dtype, threads);
}

void bound_backward(int dtype, std::int64_t batch, std::int64_t inputs, std::int64_t outputs, Address weight,
                    Address grad_y, Address grad_x, int threads) {
    const SkinnyLinearBackward arguments{batch, inputs, outputs, pointer(weight), pointer(grad_y), pointer(grad_x)};
    const py::gil_scoped_release release;
    skinny_linear_backward(arguments, dtype, threads);
}

}  // namespace

void bind_skinny_linear(py::module_& m) {
    m.def("skinny_linear_forward", &bound_forward);
    m.def("skinny_linear_backward", &bound_backward);
}

}  // namespace spectrafuse
