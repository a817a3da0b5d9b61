#pragma once

#include "../common/address.h"
#include "../common/skinny_linear.h"

namespace spectrafuse {

// Outputs whose share of the input gradient is summed by itself: the workspace holds one (B, I) for each such part.
constexpr std::int64_t kLinearPart = 128;

// What a layer's input is the value of: the gradient then is that before this activation. Null: the input itself.
struct LayerInput {
    const float* values;  // (B, I) or null
    Activation activation;
};

void skinny_linear_forward_cuda(const SkinnyLinear& arguments, void* stream);
// `parts` (ceil(O / kLinearPart), B, I) is overwritten.
void skinny_linear_backward_cuda(const SkinnyLinearBackward& arguments, const LayerInput& input, float* parts,
                                 void* stream);
// The sum of what parts of `outputs` have given, in their order.
void add_linear_parts_cuda(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, const LayerInput& input,
                           const float* parts, float* grad_x, void* stream);

}  // namespace spectrafuse
