#pragma once

#include "../common/random_fill.h"

namespace spectrafuse {

// Launches on `stream`; index 0 is float32, 1 is float64.
void random_fill_cuda(const RandomFill& arguments, int dtype, void* stream);

}  // namespace spectrafuse
