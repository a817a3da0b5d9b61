#include "../common/skinny_linear.h"

#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/skinny_linear.h"
#endif

namespace spectrafuse::skinny_linear_binding {

static SkinnyLinear forward_arguments(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, int activation,
                                      Address x, Address weight, Address bias, Address y, Address before) {
    return {batch, inputs, outputs, static_cast<Activation>(activation), x, weight, bias, y, before};
}

static SkinnyLinearBackward backward_arguments(std::int64_t batch, std::int64_t inputs, std::int64_t outputs,
                                               Address weight, Address grad_y, Address grad_x) {
    return {batch, inputs, outputs, weight, grad_y, grad_x};
}

#if defined(SPECTRAFUSE_FOR_CUDA)
static void backward(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, Address weight, Address grad_y,
                     Address grad_x, Address values, int activation, Address parts, Address stream) {
    skinny_linear_backward_cuda(backward_arguments(batch, inputs, outputs, weight, grad_y, grad_x),
                                {values, static_cast<Activation>(activation)}, parts, stream);
}
#endif

SPECTRAFUSE_BIND(skinny_linear) {
#if defined(SPECTRAFUSE_FOR_CUDA)
    m.python.attr("linear_part") = kLinearPart;
    m.def("skinny_linear_forward", on_cuda(forward_arguments, skinny_linear_forward_cuda));
    m.def("skinny_linear_backward", &backward);
#else
    m.def("skinny_linear_forward", on_cpu(forward_arguments, skinny_linear_forward));
    m.def("skinny_linear_backward", on_cpu(backward_arguments, skinny_linear_backward));
#endif
}

}  // namespace spectrafuse::skinny_linear_binding
