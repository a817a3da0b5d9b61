#include "../common/component_penalty.h"

#include "../common/pair_names.h"
#include "mixtures.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/component_penalty.h"
#endif

namespace spectrafuse {

static ComponentPenalty arguments_of(const Sizes<2>& sizes, const std::string& kind, int power, double offset,
                                     double scale, double quadratic, bool non_negative, int norm, Address raw,
                                     Address used, double weight, Address grad_raw) {
    return {mixture_pool({0, sizes[0], sizes[1]}, non_negative, norm, {Address{0}, Address{0}, raw}), used,
            pair_kernel_of(kind, power, offset, scale, quadratic), weight, grad_raw};
}

#if defined(SPECTRAFUSE_FOR_CUDA)
template <>
struct Crossed<const ComponentPenaltyWorkspace&> {
    using type = Addresses<5>;
};
#endif

SPECTRAFUSE_BIND(component_penalty) {
#if defined(SPECTRAFUSE_FOR_CUDA)
    m.def("component_penalty", on_cuda(arguments_of, component_penalty_cuda));
#else
    m.def("component_penalty", on_cpu(arguments_of, component_penalty));
#endif
}

}  // namespace spectrafuse
