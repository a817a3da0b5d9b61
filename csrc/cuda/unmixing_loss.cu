// The loss of a training step and its gradients on a GPU, so that a step needs no operation on single numbers.
//
// Reads 8 and writes 4 bytes a number of the spectra: bound by memory, and small beside the step.
#include "launch.h"
#include "unmixing_loss.h"

namespace spectrafuse {

namespace {

constexpr int kThreads = 128, kEach = 4;

__device__ double gate_slope(const UnmixingLoss& a) { return static_cast<double>(*a.sparsity_weight) / a.gates; }

__global__ void residual_kernel(UnmixingLoss a, double* block_sums) {
    __shared__ float shared[32];
    const std::int64_t size = a.batch * a.bands, first = std::int64_t{blockIdx.x} * kThreads * kEach + threadIdx.x;
    const float scale = 2.0f / static_cast<float>(size);
    float squares = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const std::int64_t i = first + e * kThreads;
        if (i >= size) continue;
        const float residual = a.mixture[i] - a.x[i];
        squares += residual * residual;
        a.grad_mixture[i] = residual * scale;
    }
    squares = block_sum(squares, shared);
    if (threadIdx.x != 0) return;
    block_sums[blockIdx.x] = static_cast<double>(squares);
    if (blockIdx.x != 0) return;
    a.slopes[0] = static_cast<float>(a.energy_weight);
    a.slopes[1] = static_cast<float>(gate_slope(a));
}

__global__ void loss_kernel(UnmixingLoss a, const double* block_sums, std::int64_t blocks) {
    __shared__ double shared[32];
    const double squares = strided_sum(block_sums, blocks, 1, shared);
    if (threadIdx.x != 0) return;
    const double size = static_cast<double>(a.batch) * static_cast<double>(a.bands);
    const double weighed = a.energy_weight * static_cast<double>(*a.sum[1]) +
                           gate_slope(a) * static_cast<double>(*a.sum[2]) +
                           a.penalty_weight * static_cast<double>(value_of(a.penalty));
    a.result[0] = static_cast<float>(squares / size + weighed);
    a.result[1] =
        static_cast<float>((static_cast<double>(*a.sum[0]) + static_cast<double>(value_of(a.sparse_sum))) / a.energies);
}

}  // namespace

std::int64_t unmixing_loss_blocks(std::int64_t batch, std::int64_t bands) {
    return blocks_of(batch * bands, kThreads * kEach);
}

void unmixing_loss_gradient_cuda(const UnmixingLoss& a, double* block_sums, void* stream) {
    launch("unmixing_loss, gradient", residual_kernel, blocks_of(a.batch * a.bands, kThreads * kEach), kThreads, stream,
           a, block_sums);
}

void unmixing_loss_cuda(const UnmixingLoss& a, const double* block_sums, void* stream) {
    launch("unmixing_loss", loss_kernel, 1, kThreads, stream, a, block_sums, unmixing_loss_blocks(a.batch, a.bands));
}

}  // namespace spectrafuse
