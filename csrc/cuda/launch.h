// What every launch shares: whole blocks over some elements, an exception where a launch failed, and sums in a block.
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

#ifdef __CUDACC__
// The sum over a block of up to 1024 threads, in a fixed order, for every thread; `shared` holds 32 numbers.
template <class T>
__device__ T block_sum(T value, T* shared) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    __syncthreads();
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    T total = 0;
    for (int i = 0; i < warps; ++i) total += shared[i];
    return total;
}

// A scalar that may be missing, read on the device.
__device__ inline float value_of(const void* scalar) {
    return scalar == nullptr ? 0.0f : *static_cast<const float*>(scalar);
}
#endif

}  // namespace spectrafuse
