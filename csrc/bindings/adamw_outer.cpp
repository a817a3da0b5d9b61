#include "../common/adamw_outer.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

void bound_step(int dtype, std::int64_t batch, std::int64_t rows, std::int64_t columns, Address x, Address grad_y,
                Address weight, Address exp_avg, Address exp_avg_sq, double lr, double beta1, double beta2, double eps,
                double weight_decay, std::int64_t step, int threads) {
    const AdamwOuter arguments{batch,
                               rows,
                               columns,
                               pointer(x),
                               pointer(grad_y),
                               pointer(weight),
                               pointer(exp_avg),
                               pointer(exp_avg_sq),
                               {lr, beta1, beta2, eps, weight_decay},
                               step};
    const py::gil_scoped_release release;
    adamw_outer(arguments, dtype, threads);
}

}  // namespace

void bind_adamw_outer(py::module_& m) { m.def("adamw_outer", &bound_step); }

}  // namespace spectrafuse
