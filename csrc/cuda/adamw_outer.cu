// AdamW with the weight gradient formed in registers, float32.
//
// One launch steps many tensors: the blocks of one follow those of the other, and each block looks its tensor up in a
// table among the kernel's arguments. A block takes kRows rows by kThreads * Width columns; a thread sums Width columns
// of all rows. Reads and writes weight and moments once (24 bytes a parameter); x comes from the caches, grad_y of the
// rows from shared memory. Computes 2 B + 12 operations a parameter: bound by memory.
#include <cmath>

#include "adamw_outer.h"
#include "launch.h"

namespace spectrafuse {

namespace {

constexpr int kRows = 8, kThreads = 256, kSamples = 64, kLayerThreads = 128;
constexpr int kTensors = 40;  // in a launch, whose arguments have at most 4096 bytes

struct Tensors {
    AdamwOuter all[kTensors];
    std::uint32_t end[kTensors];  // of each one's blocks
    bool wide[kTensors];          // reads four numbers at once
};
static_assert(sizeof(Tensors) <= 4000, "beside the other arguments");

// A step whose number is on the device: 1 - beta^step comes from logarithms made on the host, in float, as a GPU for
// graphics takes 64 times as long for a double.
struct DeviceStep {
    const float* number;  // or null: the constants are those of the step
    float lr, log_beta1, log_beta2;
};

__device__ AdamwConstants<float> at_step(AdamwConstants<float> c, const DeviceStep& step) {
    if (step.number == nullptr) return c;
    c.step_size = step.lr / -expm1f(step.log_beta1 * *step.number);
    c.inverse_root = 1 / sqrtf(-expm1f(step.log_beta2 * *step.number));
    return c;
}

// One step of the parameters from `at` on.
template <int Width>
__device__ void take_step(const AdamwOuter& a, const AdamwConstants<float>& c, std::int64_t at,
                          const float (&gradient)[Width]) {
    float* tensors[3] = {static_cast<float*>(a.weight) + at, static_cast<float*>(a.exp_avg) + at,
                         static_cast<float*>(a.exp_avg_sq) + at};
    float values[3][Width];
#pragma unroll
    for (int t = 0; t < 3; ++t) load(tensors[t], values[t]);
#pragma unroll
    for (int w = 0; w < Width; ++w) {
        adamw_moments(c, gradient[w], values[1][w], values[2][w]);
        values[0][w] = adamw_weight(c, values[0][w], values[1][w], sqrtf(values[2][w]));
    }
#pragma unroll
    for (int t = 0; t < 3; ++t) store(values[t], tensors[t]);
}

template <int Width>
__device__ void take_block(const AdamwOuter& a, std::int64_t block, AdamwConstants<float> constants, DeviceStep step,
                           float (*factors)[kRows]) {
    const std::int64_t across = (a.columns + kThreads * Width - 1) / (kThreads * Width), row = block / across * kRows;
    const std::int64_t column = (block % across * kThreads + threadIdx.x) * Width;
    const int rows = a.rows - row < kRows ? static_cast<int>(a.rows - row) : kRows;
    const float* x = static_cast<const float*>(a.x);
    const float* grad_y = static_cast<const float*>(a.grad_y);
    float gradient[kRows][Width] = {};
    for (std::int64_t first = 0; first < a.batch; first += kSamples) {
        const int samples = a.batch - first < kSamples ? static_cast<int>(a.batch - first) : kSamples;
        __syncthreads();
        for (int i = threadIdx.x; i < samples * kRows; i += kThreads) {
            const int sample = i / kRows, r = i % kRows;
            factors[sample][r] = r < rows ? grad_y[(first + sample) * a.rows + row + r] : 0.0f;
        }
        __syncthreads();
        if (column >= a.columns) continue;
        for (int sample = 0; sample < samples; ++sample) {
            float values[Width];
            load(x + (first + sample) * a.columns + column, values);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
                for (int w = 0; w < Width; ++w) gradient[r][w] += factors[sample][r] * values[w];
        }
    }
    if (column >= a.columns) return;
    const AdamwConstants<float> c = at_step(constants, step);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
        if (r < rows) take_step(a, c, (row + r) * a.columns + column, gradient[r]);
}

__global__ void __launch_bounds__(kThreads, 3)
    adamw_outer_kernel(Tensors tensors, AdamwConstants<float> constants, DeviceStep step) {
    __shared__ float factors[kSamples][kRows];
    int i = 0;
    while (blockIdx.x >= tensors.end[i]) ++i;
    const std::int64_t block = blockIdx.x - (i == 0 ? 0 : tensors.end[i - 1]);
    if (tensors.wide[i])
        take_block<4>(tensors.all[i], block, constants, step, factors);
    else
        take_block<1>(tensors.all[i], block, constants, step, factors);
}

// The weight of a layer, and the gradient of its input by the weight before the step: what both need is read once. A
// thread owns a column of a part of the rows.
template <int Samples>
__global__ void __launch_bounds__(kLayerThreads, 4)
    layer_kernel(AdamwOuter a, AdamwConstants<float> constants, DeviceStep step, float* parts) {
    __shared__ float factors[Samples][kRows], inputs[Samples][kLayerThreads];  // each thread reads its own of these
    const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kLayerThreads + threadIdx.x;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * kLinearPart;
    const std::int64_t end = begin + kLinearPart < a.rows ? begin + kLinearPart : a.rows;
    const float *x = static_cast<const float*>(a.x), *grad_y = static_cast<const float*>(a.grad_y);
    const float* weight = static_cast<const float*>(a.weight);
    const AdamwConstants<float> c = at_step(constants, step);
    for (int sample = 0; sample < Samples; ++sample)
        inputs[sample][threadIdx.x] = sample < a.batch && column < a.columns ? x[sample * a.columns + column] : 0.0f;
    float sums[Samples] = {};
    for (std::int64_t row = begin; row < end; row += kRows) {
        const int rows = end - row < kRows ? static_cast<int>(end - row) : kRows;
        __syncthreads();
        for (int i = threadIdx.x; i < Samples * kRows; i += kLayerThreads) {
            const int sample = i / kRows, r = i % kRows;
            factors[sample][r] = sample < a.batch && r < rows ? grad_y[sample * a.rows + row + r] : 0.0f;
        }
        __syncthreads();
        if (column >= a.columns) continue;
        float before[kRows], gradient[kRows][1] = {};
#pragma unroll
        for (int r = 0; r < kRows; ++r) before[r] = r < rows ? weight[(row + r) * a.columns + column] : 0.0f;
#pragma unroll
        for (int sample = 0; sample < Samples; ++sample) {
            const float value = inputs[sample][threadIdx.x];
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                gradient[r][0] += factors[sample][r] * value;
                sums[sample] += factors[sample][r] * before[r];
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r)
            if (r < rows) take_step(a, c, (row + r) * a.columns + column, gradient[r]);
    }
    if (column >= a.columns) return;
#pragma unroll
    for (int sample = 0; sample < Samples; ++sample)
        if (sample < a.batch) parts[(blockIdx.y * a.batch + sample) * a.columns + column] = sums[sample];
}

AdamwConstants<float> constants_of(const AdamwOptions& options, std::int64_t step) {
    const double steps = static_cast<double>(step);
    return adamw_constants<float>(options, std::pow(options.beta1, steps),
                                  std::sqrt(1 - std::pow(options.beta2, steps)));
}

DeviceStep device_step_of(const AdamwOptions& options, const float* number) {
    return {number, static_cast<float>(options.lr), static_cast<float>(std::log(options.beta1)),
            static_cast<float>(std::log(options.beta2))};
}

}  // namespace

void adamw_layer_cuda(const AdamwOuter& a, const AdamwOptions& options, std::int64_t step, const float* device_step,
                      const LayerInput& input, float* grad_x, float* parts, void* stream) {
    if (a.batch > 64) throw std::runtime_error("a layer's step takes up to 64 rows");
    const dim3 grid(blocks_of(a.columns, kLayerThreads), blocks_of(a.rows, kLinearPart));
    launch("adamw_outer, layer", a.batch > 16 ? layer_kernel<64> : layer_kernel<16>, grid, kLayerThreads, stream, a,
           constants_of(options, step), device_step_of(options, device_step), parts);
    add_linear_parts_cuda(a.batch, a.columns, a.rows, input, parts, grad_x, stream);
}

void adamw_outer_cuda(const AdamwOuter* parameters, std::int64_t count, const AdamwOptions& options, std::int64_t step,
                      const float* device_step, void* stream) {
    const AdamwConstants<float> constants = constants_of(options, step);
    const DeviceStep on_device = device_step_of(options, device_step);
    for (std::int64_t first = 0; first < count; first += kTensors) {
        Tensors tensors{};
        std::uint32_t blocks = 0;
        for (int i = 0; i < kTensors && first + i < count; ++i) {
            const AdamwOuter& a = parameters[first + i];
            const bool wide =
                a.columns % 4 == 0 && aligned(a.x) && aligned(a.weight) && aligned(a.exp_avg) && aligned(a.exp_avg_sq);
            blocks += blocks_of(a.columns, kThreads * (wide ? 4 : 1)) * blocks_of(a.rows, kRows);
            tensors.all[i] = a;
            tensors.end[i] = blocks;
            tensors.wide[i] = wide;
        }
        launch("adamw_outer", adamw_outer_kernel, blocks, kThreads, stream, tensors, constants, on_device);
    }
}

}  // namespace spectrafuse
