// What both mixtures take, from what crosses: sizes B, N, d, options and addresses.
#pragma once

#include "../common/sparse_gated_mixture.h"
#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/mixture.h"
#endif

namespace spectrafuse {

// Addresses: concentration, gates, raw components.
inline MixturePool mixture_pool(const Sizes<3>& sizes, bool non_negative, int norm, const Addresses<3>& inputs) {
    return {sizes[0], sizes[1], sizes[2], non_negative, norm, inputs[0], inputs[1], inputs[2]};
}

#if defined(SPECTRAFUSE_FOR_CUDA)
template <>
struct Crossed<const MixtureWorkspace&> {
    using type = Addresses<4>;
};
#endif

}  // namespace spectrafuse
