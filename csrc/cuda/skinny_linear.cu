// A linear layer for few rows, float32, and its input gradient.
//
// Forward: a warp streams kOutputs rows of the weights, its lanes side by side, against kSamples rows of x from the
// caches, and adds its lanes up at the end. Backward: a thread owns a column; it streams a part of the outputs against
// grad_y in shared memory, and a second kernel adds the parts in order. Both read every weight once for each kSamples
// rows (4 bytes a parameter, 2 B operations): bound by memory up to 64 rows. No atomics: the same bits every time.
#include "launch.h"
#include "skinny_linear.h"

namespace spectrafuse {

namespace {

constexpr int kWarp = 32, kWarps = 4, kThreads = kWarp * kWarps, kOutputs = 2, kSamples = 16, kShared = 32;

__device__ float activated(float y, Activation activation) {
    const float magnitude = fabsf(y);
    if (activation == Activation::relu) return y < 0.0f ? 0.0f : y;  // keeps NaN
    if (activation == Activation::abs) return magnitude;
    if (activation == Activation::none) return y;
    if (magnitude < kSmallTanh) return small_tanh(y, 0.0f);
    const float e = expf(-2.0f * magnitude);
    return copysignf((1.0f - e) / (1.0f + e), y);
}

__global__ void __launch_bounds__(kThreads) forward_kernel(SkinnyLinear a) {
    const int lane = threadIdx.x % kWarp;
    const std::int64_t output = (static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * kOutputs;
    const std::int64_t sample = static_cast<std::int64_t>(blockIdx.y) * kSamples;
    if (output >= a.outputs) return;
    const int outputs = a.outputs - output < kOutputs ? static_cast<int>(a.outputs - output) : kOutputs;
    const int samples = a.batch - sample < kSamples ? static_cast<int>(a.batch - sample) : kSamples;
    const float* weight = static_cast<const float*>(a.weight) + output * a.inputs;
    const float* x = static_cast<const float*>(a.x) + sample * a.inputs;
    float sums[kOutputs][kSamples] = {};
    for (std::int64_t i = lane; i < a.inputs; i += kWarp) {
        float w[kOutputs];
#pragma unroll
        for (int r = 0; r < kOutputs; ++r) w[r] = r < outputs ? weight[r * a.inputs + i] : 0.0f;
#pragma unroll
        for (int b = 0; b < kSamples; ++b) {
            const float value = b < samples ? x[b * a.inputs + i] : 0.0f;
#pragma unroll
            for (int r = 0; r < kOutputs; ++r) sums[r][b] += w[r] * value;
        }
    }
#pragma unroll
    for (int r = 0; r < kOutputs; ++r)
#pragma unroll
        for (int b = 0; b < kSamples; ++b) {
            float sum = sums[r][b];
#pragma unroll
            for (int distance = kWarp / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
            if (lane != b || r >= outputs || b >= samples) continue;
            if (a.bias != nullptr) sum += static_cast<const float*>(a.bias)[output + r];
            const std::int64_t at = (sample + b) * a.outputs + output + r;
            static_cast<float*>(a.y)[at] = activated(sum, a.activation);
            if (a.before != nullptr) static_cast<float*>(a.before)[at] = sum;
        }
}

__global__ void __launch_bounds__(kThreads) backward_kernel(SkinnyLinearBackward a, float* parts) {
    __shared__ float factors[kShared][kSamples];
    const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * kLinearPart;
    const std::int64_t end = begin + kLinearPart < a.outputs ? begin + kLinearPart : a.outputs;
    const std::int64_t sample = static_cast<std::int64_t>(blockIdx.z) * kSamples;
    const int samples = a.batch - sample < kSamples ? static_cast<int>(a.batch - sample) : kSamples;
    const float* grad_y = static_cast<const float*>(a.grad_y) + sample * a.outputs;
    const float* weight = static_cast<const float*>(a.weight);
    float sums[kSamples] = {};
    for (std::int64_t first = begin; first < end; first += kShared) {
        const int count = end - first < kShared ? static_cast<int>(end - first) : kShared;
        __syncthreads();
        for (int i = threadIdx.x; i < kShared * kSamples; i += kThreads) {
            const int b = i / kShared, o = i % kShared;
            factors[o][b] = b < samples && o < count ? grad_y[b * a.outputs + first + o] : 0.0f;
        }
        __syncthreads();
        if (column >= a.inputs) continue;
        for (int o = 0; o < count; ++o) {
            const float w = weight[(first + o) * a.inputs + column];
#pragma unroll
            for (int b = 0; b < kSamples; ++b) sums[b] += factors[o][b] * w;
        }
    }
    if (column >= a.inputs) return;
    float* part = parts + (blockIdx.y * a.batch + sample) * a.inputs + column;
#pragma unroll
    for (int b = 0; b < kSamples; ++b)
        if (b < samples) part[b * a.inputs] = sums[b];
}

__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const float* parts, float* out, std::int64_t count, std::int64_t number) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= count) return;
    float sum = 0.0f;
    for (std::int64_t part = 0; part < number; ++part) sum += parts[part * count + i];
    out[i] = sum;
}

}  // namespace

void skinny_linear_forward_cuda(const SkinnyLinear& a, void* stream) {
    const dim3 grid(blocks_of(a.outputs, kWarps * kOutputs), blocks_of(a.batch, kSamples));
    launch("skinny_linear", forward_kernel, grid, kThreads, stream, a);
}

void skinny_linear_backward_cuda(const SkinnyLinearBackward& a, float* parts, void* stream) {
    const std::int64_t number = (a.outputs + kLinearPart - 1) / kLinearPart, count = a.batch * a.inputs;
    const dim3 grid(blocks_of(a.inputs, kThreads), static_cast<unsigned>(number), blocks_of(a.batch, kSamples));
    launch("skinny_linear, input gradient", backward_kernel, grid, kThreads, stream, a, parts);
    launch("skinny_linear, sum of the input gradient's parts", add_parts_kernel, blocks_of(count, kThreads), kThreads,
           stream, parts, static_cast<float*>(a.grad_x), count, number);
}

}  // namespace spectrafuse
