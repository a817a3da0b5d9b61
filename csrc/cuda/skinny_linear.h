#pragma once

#include "../common/skinny_linear.h"

namespace spectrafuse {

// Outputs whose share of the input gradient is summed by itself: the workspace holds one (B, I) for each such part.
constexpr std::int64_t kLinearPart = 256;

void skinny_linear_forward_cuda(const SkinnyLinear& arguments, void* stream);
// `parts` (ceil(O / kLinearPart), B, I) is overwritten.
void skinny_linear_backward_cuda(const SkinnyLinearBackward& arguments, float* parts, void* stream);

}  // namespace spectrafuse
