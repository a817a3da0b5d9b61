#pragma once

#include "../common/gate.h"

namespace spectrafuse {

// Launches on `stream` in float32. `block_sums`: workspace of 3 numbers for each of gate_blocks(components) blocks.
std::int64_t gate_blocks(std::int64_t components);
void gate_forward_cuda(const Gate& arguments, double* block_sums, void* stream);
void gate_backward_cuda(const GateBackward& arguments, void* stream);

}  // namespace spectrafuse
