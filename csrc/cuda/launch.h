// What every kernel shares: whole blocks over some elements, the launch, an exception where it failed, and sums in a
// block. Only files for the CUDA compiler include it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace spectrafuse {

inline unsigned blocks_of(std::int64_t elements, std::int64_t block) {
    return static_cast<unsigned>((elements + block - 1) / block);
}

// Every launch of this package: no shared memory beside what the kernel declares; an empty grid has nothing to do.
template <class... Parameters, class... Arguments>
cudaError_t try_launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, void* stream,
                       const Arguments&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
    return cudaGetLastError();
}

// The same, with an exception that says what was launched where it failed.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads, void* stream,
            const Arguments&... arguments) {
    const cudaError_t status = try_launch(kernel, grid, threads, stream, arguments...);
    if (status != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

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

template <int half, int distance, int count>
__device__ void fold_lanes(float (&values)[count]) {
    if constexpr (half > 0) {
        const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const float given = upper ? values[i] : values[i + half], kept = upper ? values[i + half] : values[i];
            values[i] = kept + __shfl_xor_sync(0xFFFFFFFFu, given, distance);
        }
    } else {
        values[0] += __shfl_xor_sync(0xFFFFFFFFu, values[0], distance);
    }
    if constexpr (distance > 1) fold_lanes<half / 2, distance / 2>(values);
}

// The sums over a warp of `count` numbers of each lane, a power of two: lane i gets that of number i / (32 / count).
// Every exchange halves what a lane still holds: 31 of them for 32 numbers, instead of 160.
template <int count>
__device__ float warp_sums(float (&values)[count]) {
    fold_lanes<count / 2, 16>(values);
    return values[0];
}

// The same over a block of up to 1024 threads, in a fixed order: thread i < count gets that of number i; `shared` holds
// `count` numbers for each warp.
template <int count>
__device__ float block_sums(float (&values)[count], float* shared) {
    constexpr int each = 32 / count;
    const float sum = warp_sums(values);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    __syncthreads();
    if (lane % each == 0) shared[warp * count + lane / each] = sum;
    __syncthreads();
    float total = 0;
    if (threadIdx.x < count)
        for (int i = 0; i < warps; ++i) total += shared[i * count + threadIdx.x];
    return total;
}

// One float or four at once; null gives zeros.
__device__ inline void load(const float* from, float (&to)[1]) { to[0] = from == nullptr ? 0.0f : *from; }
__device__ inline void load(const float* from, float (&to)[4]) {
    const float4 read = from == nullptr ? make_float4(0, 0, 0, 0) : *reinterpret_cast<const float4*>(from);
    to[0] = read.x, to[1] = read.y, to[2] = read.z, to[3] = read.w;
}
__device__ inline void store(const float (&from)[1], float* to) { *to = from[0]; }
__device__ inline void store(const float (&from)[4], float* to) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

// Whether four floats can be read at once from here.
inline bool aligned(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % (4 * sizeof(float)) == 0;
}

// A long sum: few numbers in float, which is exact enough for as many, these sums in double, of which a GPU for
// graphics adds 1 where it adds 64 floats.
class FewSums {
   public:
    __device__ void add(float x) {
        few_ += x;
        if (++count_ % 8 == 0) flush();
    }
    __device__ double total() {
        flush();
        return total_;
    }

   private:
    __device__ void flush() {
        total_ += static_cast<double>(few_);
        few_ = 0;
    }
    double total_ = 0;
    float few_ = 0;
    int count_ = 0;
};

// The sum of every `width`-th number from the first one on, `count` of them, by a block that calls it as a whole.
__device__ inline double strided_sum(const double* numbers, std::int64_t count, int width, double* shared) {
    double sum = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += numbers[width * i];
    return block_sum(sum, shared);
}

// A scalar that may be missing, read on the device.
__device__ inline float value_of(const void* scalar) {
    return scalar == nullptr ? 0.0f : *static_cast<const float*>(scalar);
}

}  // namespace spectrafuse
