#include "../common/adamw_outer.h"

#include <tuple>
#include <vector>

#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/adamw_outer.h"
#endif

namespace spectrafuse::adamw_outer_binding {

// Batch, rows, columns, and the addresses of x, grad_y, the weight and its two moments.
using Parameter = std::tuple<std::int64_t, std::int64_t, std::int64_t, Address, Address, Address, Address, Address>;

static std::vector<AdamwOuter> arguments_of(const std::vector<Parameter>& parameters) {
    std::vector<AdamwOuter> all;
    for (const Parameter& parameter : parameters)
        all.push_back(std::apply([](auto... fields) { return AdamwOuter{fields...}; }, parameter));
    return all;
}

#if defined(SPECTRAFUSE_FOR_CUDA)

static void step(const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                 double weight_decay, std::int64_t step, Address device_step, Address stream) {
    const std::vector<AdamwOuter> all = arguments_of(parameters);
    adamw_outer_cuda(all.data(), static_cast<std::int64_t>(all.size()), {lr, beta1, beta2, eps, weight_decay}, step,
                     device_step, stream);
}

static void layer_step(const Parameter& parameter, double lr, double beta1, double beta2, double eps,
                       double weight_decay, std::int64_t step, Address device_step, Address values, int activation,
                       Address grad_x, Address parts, Address stream) {
    adamw_layer_cuda(arguments_of({parameter}).front(), {lr, beta1, beta2, eps, weight_decay}, step, device_step,
                     {values, static_cast<Activation>(activation)}, grad_x, parts, stream);
}

SPECTRAFUSE_BIND(adamw_outer) {
    m.def("adamw_outer", &step);
    m.def("adamw_layer", &layer_step);
}

#else

static void step(int dtype, const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                 double weight_decay, std::int64_t step, int threads) {
    const std::vector<AdamwOuter> all = arguments_of(parameters);
    adamw_outer(all.data(), static_cast<std::int64_t>(all.size()), {lr, beta1, beta2, eps, weight_decay}, step, dtype,
                threads);
}

SPECTRAFUSE_BIND(adamw_outer) { m.def("adamw_outer", &step); }

#endif

}  // namespace spectrafuse::adamw_outer_binding
