// AdamW with the weight gradient formed in registers, float32.
//
// A block takes kRows rows by kThreads * Width columns; a thread sums Width columns of all rows. Reads and writes
// weight and moments once (24 bytes a parameter); x comes from the caches, grad_y of the rows from shared memory.
// Computes 2 B + 12 operations a parameter: bound by memory.
#include <cmath>

#include "adamw_outer.h"
#include "launch.h"

namespace spectrafuse {

namespace {

constexpr int kRows = 8, kThreads = 256, kSamples = 64;

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

template <int Width>
__global__ void __launch_bounds__(kThreads)
    adamw_outer_kernel(AdamwOuter a, AdamwConstants<float> constants, DeviceStep step) {
    __shared__ float factors[kSamples][kRows];
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kRows;
    const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * Width;
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
            const float* from = x + (first + sample) * a.columns + column;
            if constexpr (Width == 4)
                *reinterpret_cast<float4*>(values) = *reinterpret_cast<const float4*>(from);
            else
                values[0] = *from;
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
                for (int w = 0; w < Width; ++w) gradient[r][w] += factors[sample][r] * values[w];
        }
    }
    if (column >= a.columns) return;
    const AdamwConstants<float> c = at_step(constants, step);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        if (r >= rows) break;
        const std::int64_t at = (row + r) * a.columns + column;
        float* tensors[3] = {static_cast<float*>(a.weight) + at, static_cast<float*>(a.exp_avg) + at,
                             static_cast<float*>(a.exp_avg_sq) + at};
        float values[3][Width];
#pragma unroll
        for (int t = 0; t < 3; ++t) {
            if constexpr (Width == 4)
                *reinterpret_cast<float4*>(values[t]) = *reinterpret_cast<const float4*>(tensors[t]);
            else
                values[t][0] = *tensors[t];
        }
#pragma unroll
        for (int w = 0; w < Width; ++w) {
            adamw_moments(c, gradient[r][w], values[1][w], values[2][w]);
            values[0][w] = adamw_weight(c, values[0][w], values[1][w], sqrtf(values[2][w]));
        }
#pragma unroll
        for (int t = 0; t < 3; ++t) {
            if constexpr (Width == 4)
                *reinterpret_cast<float4*>(tensors[t]) = *reinterpret_cast<const float4*>(values[t]);
            else
                *tensors[t] = values[t][0];
        }
    }
}

bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % sizeof(float4) == 0; }

}  // namespace

void adamw_outer_cuda(const AdamwOuter& a, const AdamwOptions& options, std::int64_t step, const float* device_step,
                      void* stream) {
    if (a.rows == 0 || a.columns == 0) return;
    const bool wide =
        a.columns % 4 == 0 && aligned(a.x) && aligned(a.weight) && aligned(a.exp_avg) && aligned(a.exp_avg_sq);
    const dim3 grid(blocks_of(a.columns, kThreads * (wide ? 4 : 1)), blocks_of(a.rows, kRows));
    // A grid is at most 65535 blocks high: half a million rows, 16 times the widest layer that fits into memory.
    if (grid.y > 65535) throw std::runtime_error("adamw_outer: weights of more than 524280 rows are not supported");
    const double steps = static_cast<double>(step);
    const AdamwConstants<float> constants =
        adamw_constants<float>(options, std::pow(options.beta1, steps), std::sqrt(1 - std::pow(options.beta2, steps)));
    const DeviceStep on_device{device_step, static_cast<float>(options.lr), static_cast<float>(std::log(options.beta1)),
                               static_cast<float>(std::log(options.beta2))};
    launch("adamw_outer", wide ? adamw_outer_kernel<4> : adamw_outer_kernel<1>, grid, kThreads, stream, a, constants,
           on_device);
}

}  // namespace spectrafuse
