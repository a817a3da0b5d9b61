// A linear layer for few rows, float32, and its input gradient.
//
// Forward: a warp streams kOutputs rows of the weights, its lanes side by side, against kSamples rows of x from the
// caches, and adds its lanes up at the end. Backward: a thread owns columns; it streams a part of the outputs against
// grad_y in shared memory, and a second kernel adds the parts in order. Both read every weight once for each kSamples
// rows (4 bytes a parameter, 2 B operations), four at once where rows begin at multiples of 16 bytes: bound by memory
// up to 64 rows. No atomics: the same bits every time.
#include "launch.h"
#include "skinny_linear.h"

namespace spectrafuse {

namespace {

constexpr int kWarp = 32, kWarps = 4, kThreads = kWarp * kWarps, kOutputs = 4, kSamples = 16, kShared = 32;
constexpr int kColumnThreads = 64;
static_assert(kOutputs * kSamples == 2 * kWarp, "a lane ends with the sums of two outputs");

__device__ float activated(float y, Activation activation) {
    const float magnitude = fabsf(y);
    if (activation == Activation::relu) return y < 0.0f ? 0.0f : y;  // keeps NaN
    if (activation == Activation::abs) return magnitude;
    if (activation == Activation::none) return y;
    if (magnitude < kSmallTanh) return small_tanh(y, 0.0f);
    const float e = expf(-2.0f * magnitude);
    return copysignf((1.0f - e) / (1.0f + e), y);
}

// A gradient before the activation, from the one behind it and the activation's value.
__device__ float before_activation(float gradient, float value, Activation activation) {
    if (activation == Activation::tanh) return gradient * (1.0f - value * value);
    if (activation == Activation::relu) return value <= 0.0f ? 0.0f : gradient;
    return gradient;
}

template <int Width>
__global__ void __launch_bounds__(kThreads, 4) forward_kernel(SkinnyLinear a) {
    const int lane = threadIdx.x % kWarp;
    const std::int64_t output = (static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * kOutputs;
    const std::int64_t sample = static_cast<std::int64_t>(blockIdx.y) * kSamples;
    if (output >= a.outputs) return;
    const int outputs = a.outputs - output < kOutputs ? static_cast<int>(a.outputs - output) : kOutputs;
    const int samples = a.batch - sample < kSamples ? static_cast<int>(a.batch - sample) : kSamples;
    const float* weight = static_cast<const float*>(a.weight) + output * a.inputs;
    const float* x = static_cast<const float*>(a.x) + sample * a.inputs;
    float sums[2][kWarp] = {};  // the number of an output and a sample is kSamples output + sample
    for (std::int64_t i = lane * Width; i < a.inputs; i += kWarp * Width) {
        float w[kOutputs][Width];
#pragma unroll
        for (int r = 0; r < kOutputs; ++r) load(r < outputs ? weight + r * a.inputs + i : nullptr, w[r]);
#pragma unroll
        for (int b = 0; b < kSamples; ++b) {
            float value[Width];
            load(b < samples ? x + b * a.inputs + i : nullptr, value);
#pragma unroll
            for (int r = 0; r < kOutputs; ++r)
#pragma unroll
                for (int k = 0; k < Width; ++k)
                    sums[r * kSamples / kWarp][(r * kSamples + b) % kWarp] += w[r][k] * value[k];
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = warp_sums(sums[half]);
        const int number = half * kWarp + lane, r = number / kSamples, b = number % kSamples;
        if (r >= outputs || b >= samples) continue;
        if (a.bias != nullptr) sum += static_cast<const float*>(a.bias)[output + r];
        const std::int64_t at = (sample + b) * a.outputs + output + r;
        static_cast<float*>(a.y)[at] = activated(sum, a.activation);
        if (a.before != nullptr) static_cast<float*>(a.before)[at] = sum;
    }
}

template <int Width>
__global__ void __launch_bounds__(kColumnThreads) backward_kernel(SkinnyLinearBackward a, float* parts) {
    __shared__ float factors[kShared][kSamples];
    const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x) * Width;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * kLinearPart;
    const std::int64_t end = begin + kLinearPart < a.outputs ? begin + kLinearPart : a.outputs;
    const std::int64_t sample = static_cast<std::int64_t>(blockIdx.z) * kSamples;
    const int samples = a.batch - sample < kSamples ? static_cast<int>(a.batch - sample) : kSamples;
    const float* grad_y = static_cast<const float*>(a.grad_y) + sample * a.outputs;
    const float* weight = static_cast<const float*>(a.weight);
    float sums[kSamples][Width] = {};
    for (std::int64_t first = begin; first < end; first += kShared) {
        const int count = end - first < kShared ? static_cast<int>(end - first) : kShared;
        __syncthreads();
        for (int i = threadIdx.x; i < kShared * kSamples; i += kColumnThreads) {
            const int b = i / kShared, o = i % kShared;
            factors[o][b] = b < samples && o < count ? grad_y[b * a.outputs + first + o] : 0.0f;
        }
        __syncthreads();
        if (column >= a.inputs) continue;
#pragma unroll 4
        for (int o = 0; o < count; ++o) {
            float w[Width];
            load(weight + (first + o) * a.inputs + column, w);
#pragma unroll
            for (int b = 0; b < kSamples; ++b)
#pragma unroll
                for (int k = 0; k < Width; ++k) sums[b][k] += factors[o][b] * w[k];
        }
    }
    if (column >= a.inputs) return;
    float* part = parts + (blockIdx.y * a.batch + sample) * a.inputs + column;
#pragma unroll
    for (int b = 0; b < kSamples; ++b)
        if (b < samples) store(sums[b], part + b * a.inputs);
}

__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const float* parts, float* out, std::int64_t count, std::int64_t number, LayerInput input) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= count) return;
    float sum = 0.0f;
    for (std::int64_t part = 0; part < number; ++part) sum += parts[part * count + i];
    out[i] = input.values == nullptr ? sum : before_activation(sum, input.values[i], input.activation);
}

}  // namespace

void skinny_linear_forward_cuda(const SkinnyLinear& a, void* stream) {
    const dim3 grid(blocks_of(a.outputs, kWarps * kOutputs), blocks_of(a.batch, kSamples));
    const bool wide = a.inputs % 4 == 0 && aligned(a.x) && aligned(a.weight);
    launch("skinny_linear", wide ? forward_kernel<4> : forward_kernel<1>, grid, kThreads, stream, a);
}

void add_linear_parts_cuda(std::int64_t batch, std::int64_t inputs, std::int64_t outputs, const LayerInput& input,
                           const float* parts, float* grad_x, void* stream) {
    const std::int64_t number = (outputs + kLinearPart - 1) / kLinearPart, count = batch * inputs;
    launch("skinny_linear, sum of the input gradient's parts", add_parts_kernel, blocks_of(count, kThreads), kThreads,
           stream, parts, grad_x, count, number, input);
}

void skinny_linear_backward_cuda(const SkinnyLinearBackward& a, const LayerInput& input, float* parts, void* stream) {
    const bool wide = a.inputs % 4 == 0 && aligned(a.weight) && aligned(parts);
    const dim3 grid(blocks_of(a.inputs, kColumnThreads * (wide ? 4 : 1)), blocks_of(a.outputs, kLinearPart),
                    blocks_of(a.batch, kSamples));
    launch("skinny_linear, input gradient", wide ? backward_kernel<4> : backward_kernel<1>, grid, kColumnThreads,
           stream, a, parts);
    add_linear_parts_cuda(a.batch, a.inputs, a.outputs, input, parts, static_cast<float*>(a.grad_x), stream);
}

}  // namespace spectrafuse
