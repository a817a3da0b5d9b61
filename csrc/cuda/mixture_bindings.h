#pragma once

#include "../bindings/mixture_pool.h"
#include "mixture.h"

namespace spectrafuse {

// Addresses: lengths, weights and, forward only, partial mixtures.
inline MixtureWorkspace mixture_workspace(const std::array<Address, 3>& tensors) {
    return {pointer<float>(tensors[0]), pointer<float>(tensors[1]), pointer<float>(tensors[2])};
}

}  // namespace spectrafuse
