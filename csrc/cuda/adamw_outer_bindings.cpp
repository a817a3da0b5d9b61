#include "adamw_outer.h"
#include "bindings.h"

namespace spectrafuse {

namespace {

// A parameter: batch, rows, columns, and the addresses of x, grad_y, the weight and its two moments.
using Parameter = std::array<std::int64_t, 8>;

template <class T>
T* tensor(std::int64_t address) {
    return reinterpret_cast<T*>(address);
}

void bound_step(const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                double weight_decay, std::int64_t step, Address device_step, Address stream) {
    const py::gil_scoped_release release;
    for (const Parameter& p : parameters)
        adamw_outer_cuda({p[0], p[1], p[2], tensor<const void>(p[3]), tensor<const void>(p[4]), tensor<void>(p[5]),
                          tensor<void>(p[6]), tensor<void>(p[7])},
                         {lr, beta1, beta2, eps, weight_decay}, step, pointer<const float>(device_step),
                         pointer<void>(stream));
}

}  // namespace

void bind_adamw_outer(py::module_& m) { m.def("adamw_outer", &bound_step); }

}  // namespace spectrafuse
