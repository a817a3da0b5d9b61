#pragma once

#include "../common/adamw_outer.h"
#include "skinny_linear.h"

namespace spectrafuse {

// One step of `count` float32 parameters, in one launch unless they are very many. `step` counts from 1; where
// `device_step` is not null it holds the number instead, so that a captured graph can be replayed for step after step.
void adamw_outer_cuda(const AdamwOuter* parameters, std::int64_t count, const AdamwOptions& options, std::int64_t step,
                      const float* device_step, void* stream);
// The same of one layer's weight with up to 64 rows, and the input gradient by the weight before the step (B, I), as
// skinny_linear_backward_cuda makes it: the weight is read once for both.
void adamw_layer_cuda(const AdamwOuter& parameter, const AdamwOptions& options, std::int64_t step,
                      const float* device_step, const LayerInput& input, float* grad_x, float* parts, void* stream);

}  // namespace spectrafuse
