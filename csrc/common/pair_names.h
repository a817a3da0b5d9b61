// The similarity kernel that Python names.
#pragma once

#include <stdexcept>
#include <string>

#include "pair_kernels.h"

namespace spectrafuse {

inline PairKernel pair_kernel_of(const std::string& kind, int power, double offset, double scale, double quadratic) {
    static constexpr const char* names[] = {"poly",       "laplacian",  "rbf",       "matern 0.5",
                                            "matern 1.5", "matern 2.5", "matern 3.5"};
    int which = 0;
    while (which < 7 && kind != names[which]) ++which;
    if (which == 7) throw std::invalid_argument("no such kernel: " + kind);
    return {static_cast<PairKind>(which), power, offset, scale, quadratic};
}

}  // namespace spectrafuse
