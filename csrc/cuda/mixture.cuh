// What both mixtures share on a GPU: weights of all components, and the sum of partial mixtures.
#pragma once

#include "launch.h"
#include "mixture.h"

namespace spectrafuse {

constexpr int kMixtureThreads = 128;
// Samples whose sums a thread keeps in registers together.
constexpr int kTileSamples = 16;
constexpr std::int64_t kPartRows = 32;

__device__ inline float spectrum_at(const MixturePool& p, std::int64_t at) {
    const float raw = static_cast<const float*>(p.raw)[at];
    return p.non_negative ? fabsf(raw) : raw;
}

// A block finds the length of its component and the weights (N, B) of all samples in it.
static __global__ void mixture_weights_kernel(MixturePool p, float* lengths, float* weights) {
    __shared__ float shared[32];
    const std::int64_t n = blockIdx.x;
    float sum = 0;
    for (std::int64_t j = threadIdx.x; j < p.bands; j += blockDim.x) {
        const float raw = static_cast<const float*>(p.raw)[n * p.bands + j];
        sum += p.norm == 2 ? raw * raw : p.norm == 1 ? fabsf(raw) : 0.0f;
    }
    const float total = block_sum(sum, shared);
    const float length = total == 0 ? 1.0f : p.norm == 2 ? sqrtf(total) : total;
    if (threadIdx.x == 0) lengths[n] = length;
    for (std::int64_t b = threadIdx.x; b < p.batch; b += blockDim.x) {
        const std::int64_t at = b * p.components + n;
        weights[n * p.batch + b] = mixing_weight(static_cast<const float*>(p.concentration)[at],
                                                 static_cast<const float*>(p.select_prob)[at], length);
    }
}

inline void mixture_weights(const MixturePool& p, const MixtureWorkspace& w, void* stream) {
    launch("mixture weights", mixture_weights_kernel, static_cast<unsigned>(p.components), kMixtureThreads, stream, p,
           w.lengths, w.weights);
}

static __global__ void add_parts_kernel(const float* partials, std::int64_t parts, std::int64_t size, float* mixture) {
    const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (at >= size) return;
    float sum = 0;
    for (std::int64_t i = 0; i < parts; ++i) sum += partials[i * size + at];
    mixture[at] = sum;
}

inline void add_parts(const MixturePool& p, const MixtureWorkspace& w, void* mixture, void* stream) {
    const std::int64_t size = p.batch * p.bands;
    launch("sum of partial mixtures", add_parts_kernel, blocks_of(size, 256), 256, stream, w.partials,
           mixture_parts(p.components), size, static_cast<float*>(mixture));
}

// Gradients of component n's concentrations and gates for samples from `first` on, from the sums in a block of what its
// threads have of those of weight times length. Returns this thread's part of the gradient of the length.
template <int count>
__device__ float store_weight_gradients(const MixturePool& p, const MixtureWorkspace& w, std::int64_t first,
                                        std::int64_t n, float (&products)[count], float* shared,
                                        void* grad_concentration, void* grad_select_prob) {
    const float along_weight = block_sums(products, shared);
    const std::int64_t b = first + threadIdx.x, at = b * p.components + n;
    if (threadIdx.x >= count || b >= p.batch) return 0;
    const float c = static_cast<const float*>(p.concentration)[at], s = static_cast<const float*>(p.select_prob)[at];
    const float along = along_weight / w.lengths[n], before = w.before == nullptr ? 1 : w.before[at];
    static_cast<float*>(grad_concentration)[at] = before == 0 ? 0 : copysignf(1, before) * (along * s * s);
    static_cast<float*>(grad_select_prob)[at] = 2 * along * c * s;
    return -w.weights[n * p.batch + b] * along_weight;
}

}  // namespace spectrafuse
