#include "bindings.h"
#include "skinny_linear.h"

namespace spectrafuse {

namespace {

void bound_forward(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, int activation, Address x,
                   Address weight, Address bias, Address y, Address before, Address stream) {
    const SkinnyLinear arguments{batch,
                                 inputs,
                                 outputs,
                                 static_cast<Activation>(activation),
                                 pointer<void>(x),
                                 pointer<void>(weight),
                                 pointer<void>(bias),
                                 pointer<void>(y),
                                 pointer<void>(before)};
    const py::gil_scoped_release release;
    skinny_linear_forward_cuda(arguments, pointer<void>(stream));
}

void bound_backward(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, Address weight, Address grad_y,
                    Address grad_x, Address parts, Address stream) {
    const SkinnyLinearBackward arguments{
        batch, inputs, outputs, pointer<void>(weight), pointer<void>(grad_y), pointer<void>(grad_x)};
    const py::gil_scoped_release release;
    skinny_linear_backward_cuda(arguments, pointer<float>(parts), pointer<void>(stream));
}

}  // namespace

void bind_skinny_linear(py::module_& m) {
    m.attr("linear_part") = kLinearPart;
    m.def("skinny_linear_forward", &bound_forward);
    m.def("skinny_linear_backward", &bound_backward);
}

}  // namespace spectrafuse
