// Stands in for <cuda_runtime.h> in tests: the CUDA execution model on one host thread.
//
// Every CUDA thread is a fiber. A fiber runs until it waits at __syncthreads() or a warp exchange, or ends; which one
// runs next is chosen in order, backwards or at random. Blocks run one after the other, in the same kind of order.
// `translate.py` rewrites `kernel<<<...>>>(...)` to `emulated::launcher(kernel, ...)(...)` and `__shared__` to memory
// of the block.
//
// What it cannot show: coalescing, bank conflicts, occupancy, the scheduling of warps, nvcc's device mathematics,
// streams and graphs.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulated {
// What a GPU refuses: several numbers at once from an address that is no multiple of their size.
void check_address(std::uintptr_t address, std::size_t bytes);

template <class Numbers>
struct Checked {
    Checked() = default;
    Checked(const Checked& other) { *this = other; }
    Checked& operator=(const Checked& other) {
        check_address(reinterpret_cast<std::uintptr_t>(&other), sizeof(Numbers));
        check_address(reinterpret_cast<std::uintptr_t>(this), sizeof(Numbers));
        return *this;
    }
};
}  // namespace emulated

struct alignas(8) float2 : emulated::Checked<float[2]> {
    float x, y;
    float2() = default;
    float2(float x_, float y_) : x(x_), y(y_) {}
};
struct alignas(16) float4 : emulated::Checked<float[4]> {
    float x, y, z, w;
    float4() = default;
    float4(float x_, float y_, float z_, float w_) : x(x_), y(y_), z(z_), w(w_) {}
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaStream_t = struct EmulatedStream*;
struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount;
    std::size_t totalGlobalMem;
};
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t emulated_malloc(void**, std::size_t);
template <class T>
cudaError_t cudaMalloc(T** to, std::size_t bytes) {
    return emulated_malloc(reinterpret_cast<void**>(to), bytes);
}
cudaError_t cudaFree(void*);
cudaError_t cudaMemcpy(void*, const void*, std::size_t, cudaMemcpyKind);

namespace emulated {

struct Place {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern const Place* place;  // of the fiber that runs

// "forwards", "backwards", or "random:" and a seed.
void set_order(const std::string& order);
// Launches so far.
long launches();
// Threads pass this barrier, "file:line", as if it were not there: a planted bug.
void remove_barrier(const std::string& place);

void run(dim3 grid, dim3 block, std::size_t dynamic_shared, const std::function<void()>& body);
void barrier(const char* file, int line);
std::uint64_t exchange(unsigned mask, std::uint64_t bits, int source_xor);
// The block's variable that `key` stands for.
void* shared_memory(const void* key, std::size_t bytes, std::size_t alignment);

template <class T>
T& shared(const void* key) {
    return *static_cast<T*>(shared_memory(key, sizeof(T), alignof(T)));
}

template <class... Parameters>
struct Launcher {
    void (*kernel)(Parameters...);
    dim3 grid, block;
    std::size_t dynamic_shared;
    void operator()(Parameters... arguments) const {
        run(grid, block, dynamic_shared, [&] { kernel(arguments...); });
    }
};

template <class... Parameters>
Launcher<Parameters...> launcher(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared = 0,
                                 cudaStream_t = nullptr) {
    return {kernel, grid, block, dynamic_shared};
}

}  // namespace emulated

#define threadIdx (::emulated::place->thread)
#define blockIdx (::emulated::place->block)
#define blockDim (::emulated::place->block_size)
#define gridDim (::emulated::place->grid_size)
#define __syncthreads() ::emulated::barrier(__FILE__, __LINE__)

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = ::emulated::exchange(mask, bits, lanes);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
