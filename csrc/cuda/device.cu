#include "device.h"
#include "launch.h"

namespace spectrafuse {

namespace {

// Reads and writes one int per thread; it exists to show that this build has code the device accepts.
__global__ void self_test_kernel(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x) + 1; }

std::string self_test(int device) {
    constexpr int count = 32;
    int before = 0, *memory = nullptr, host[count] = {};
    cudaError_t status = cudaGetDevice(&before);
    if (status == cudaSuccess) status = cudaSetDevice(device);
    if (status == cudaSuccess) status = cudaMalloc(&memory, sizeof host);
    if (status == cudaSuccess) status = try_launch(self_test_kernel, 1, count, nullptr, memory);
    if (status == cudaSuccess) status = cudaMemcpy(host, memory, sizeof host, cudaMemcpyDeviceToHost);
    cudaFree(memory);
    cudaSetDevice(before);
    if (status != cudaSuccess) return cudaGetErrorString(status);
    for (int i = 0; i < count; ++i)
        if (host[i] != i + 1) return "the self-test kernel gave a wrong result";
    return "";
}

}  // namespace

CudaReport cuda_report() {
    CudaReport report;
    cudaRuntimeGetVersion(&report.runtime_version);
    cudaDriverGetVersion(&report.driver_version);
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        report.problem = cudaGetErrorString(status);
        return report;
    }
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties;
        if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
        report.devices.push_back({properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                                  static_cast<double>(properties.totalGlobalMem) / (1024.0 * 1024.0 * 1024.0),
                                  self_test(i)});
    }
    if (report.devices.empty()) report.problem = "no CUDA device found";
    return report;
}

}  // namespace spectrafuse
