#pragma once

#include "../common/adamw_outer.h"

namespace spectrafuse {

// One step of a float32 parameter. `step` counts from 1; where `device_step` is not null it holds the number instead,
// so that a captured graph can be replayed for step after step.
void adamw_outer_cuda(const AdamwOuter& parameter, const AdamwOptions& options, std::int64_t step,
                      const float* device_step, void* stream);

}  // namespace spectrafuse
