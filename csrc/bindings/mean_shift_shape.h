// What every kernel that shifts pixels in windows takes: sizes B, D, H, W, K and options.
#pragma once

#include <stdexcept>

#include "../common/mean_shift_assign.h"
#include "bindings.h"

namespace spectrafuse {

inline MeanShiftShape mean_shift_shape(const Sizes<5>& sizes, int iterations, int window, double bandwidth,
                                       double temperature) {
    if (window < 1 || window > 11 || window % 2 == 0) throw std::invalid_argument("window must be 1, 3, .. 11");
    return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], iterations, window, bandwidth, temperature};
}

}  // namespace spectrafuse
