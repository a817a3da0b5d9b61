// A pool of components from what crosses the boundary: B, N, d and the addresses of concentration, gates and raw
// values.
#pragma once

#include "../common/gated_mixture.h"
#include "bindings.h"

namespace spectrafuse {

inline MixturePool mixture_pool(const std::array<std::int64_t, 3>& sizes, bool non_negative, int norm,
                                const std::array<Address, 3>& inputs) {
    return {sizes[0], sizes[1],           sizes[2],           non_negative,
            norm,     pointer(inputs[0]), pointer(inputs[1]), pointer(inputs[2])};
}

}  // namespace spectrafuse
