// What every launch shares: whole blocks over some elements, and an exception where a launch failed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace spectrafuse {

inline unsigned blocks_of(std::int64_t elements, std::int64_t block) {
    return static_cast<unsigned>((elements + block - 1) / block);
}

inline void check_launch(const char* kernel) {
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(status));
}

}  // namespace spectrafuse
